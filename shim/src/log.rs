//! The log: lines as containerd writes them itself, into the fifo that it copies to its own log.
//!
//! ```text
//! time="2026-01-02T03:04:05.000000000Z" level=warning msg="seccomp: …" group=web namespace=default error="…"
//! ```
//!
//! A line is one write to standard error, which does not block. When containerd does not read, the
//! fifo fills up, and lines are dropped until it does; the next line says how many. The log never
//! holds up the daemon, and never ends it.
//!
//! The crate tracing-subscriber was weighed: it makes the program 80 KiB larger, and this format
//! and this way of writing would still have to be written.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::serve_args::{LogLevel, ServeArgs};
use crate::spans::Spans;

/// PIPE_BUF: a write of so much to a pipe goes in whole, or not at all (pipe(7)).
const LINE_MAX: usize = 4096;

/// Makes the log the process's, panics included. Once.
pub(crate) fn start(args: &ServeArgs) {
    let mut context = String::new();
    for (key, value) in [("group", &args.group), ("namespace", &args.namespace)] {
        put(&mut context, key, value);
    }
    let level = match args.log_level {
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    let log = Log { level, spans: Spans::default(), context, dropped: AtomicU64::new(0) };
    if tracing::subscriber::set_global_default(log).is_err() {
        tracing::error!("the log was started twice");
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!("panic: {panic}")));
}

struct Log {
    level: Level,
    spans: Spans,
    /// What is at the end of each line.
    context: String,
    dropped: AtomicU64,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Of the libraries only what is wrong: they take a client that hangs up for news.
        let level = if metadata.target().starts_with("containerd_shim_myshim") {
            self.level
        } else {
            Level::WARN
        };
        *metadata.level() <= level
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        text.fields.push_str(&self.spans.fields());
        let level = event.metadata().level();
        self.write(&line(SystemTime::now(), level, &text, &self.context));
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut text = Text::default();
        attributes.record(&mut text);
        span::Id::from_u64(self.spans.open(attributes.metadata().name(), text.fields))
    }

    fn record(&self, id: &span::Id, values: &span::Record<'_>) {
        let mut text = Text::default();
        values.record(&mut text);
        self.spans.add(id.into_u64(), &text.fields);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, id: &span::Id) {
        self.spans.enter(id.into_u64());
    }

    fn exit(&self, id: &span::Id) {
        self.spans.exit(id.into_u64());
    }

    fn clone_span(&self, id: &span::Id) -> span::Id {
        self.spans.hold(id.into_u64());
        id.clone()
    }

    fn try_close(&self, id: span::Id) -> bool {
        let Some(closed) = self.spans.release(id.into_u64()) else { return false };
        let message = format!("{} took {} µs", closed.name, closed.took.as_micros());
        let text = Text { message, fields: closed.fields };
        self.write(&line(SystemTime::now(), &Level::DEBUG, &text, &self.context));
        true
    }
}

impl Log {
    fn write(&self, line: &str) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let message = format!("{dropped} lines of the log were dropped: nobody read them");
            let text = Text { message, fields: String::new() };
            let notice = self::line(SystemTime::now(), &Level::WARN, &text, &self.context);
            if !put_out(&notice) {
                self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
                return;
            }
        }
        if !put_out(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn put_out(line: &str) -> bool {
    rustix::io::write(rustix::stdio::stderr(), line.as_bytes()).is_ok()
}

/// An event, taken apart.
#[derive(Default)]
struct Text {
    message: String,
    /// ` key=value` each.
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            put(&mut self.fields, field.name(), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &value.to_string());
    }
}

fn line(now: SystemTime, level: &Level, text: &Text, context: &str) -> String {
    let level = match *level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut line = format!("time=\"{}\" level={level}", timestamp(now));
    put(&mut line, "msg", &text.message);
    line.push_str(&text.fields);
    line.push_str(context);
    let mut end = line.len().min(LINE_MAX - 1);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line.push('\n');
    line
}

/// ` key=value`, quoted where logrus would.
fn put(line: &mut String, key: &str, value: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    line.push(' ');
    line.push_str(key);
    line.push('=');
    if !value.is_empty() && value.chars().all(plain) {
        line.push_str(value);
        return;
    }
    line.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            // As Go's strconv.Quote: nothing in a line drives a terminal.
            c if c.is_control() => drop(write!(line, "\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
}

/// RFC 3339, nine digits of nanoseconds, UTC.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86400, since.as_secs() % 86400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Of the Gregorian calendar, from the days since 1970. Years begin in March here: so the day
/// that comes every fourth year is their last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    const DAYS_FROM_MARCH_0000_TO_1970: u64 = 719_468;
    let days = days + DAYS_FROM_MARCH_0000_TO_1970;
    let (era, of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March have 31, 30, 31, 30, 31 days, over and over: 153 in five.
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, 5)
    }

    #[test]
    fn a_time_is_written_as_containerd_writes_it() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000005Z"),
            (951_782_400, "2000-02-29T00:00:00.000000005Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000005Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000005Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000005Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000000005Z"),
        ] {
            assert_eq!(timestamp(at(seconds)), expected);
        }
    }

    #[test]
    fn a_line_reads_as_containerds_own() {
        let mut text = Text { message: "no \"room\"\nleft".to_owned(), fields: String::new() };
        put(&mut text.fields, "error", "EACCES: \x1b[31m");
        put(&mut text.fields, "path", "/run/a-b");
        assert_eq!(
            line(at(0), &Level::WARN, &text, " group=web"),
            "time=\"1970-01-01T00:00:00.000000005Z\" level=warning msg=\"no \\\"room\\\"\\nleft\" \
             error=\"EACCES: \\u001b[31m\" path=/run/a-b group=web\n"
        );
    }

    #[test]
    fn a_line_fits_into_one_write_to_a_pipe() {
        let text = Text { message: "é".repeat(5000), fields: String::new() };
        let line = line(at(0), &Level::INFO, &text, "");
        assert!(line.len() <= LINE_MAX && line.ends_with("é\n"));
    }
}
