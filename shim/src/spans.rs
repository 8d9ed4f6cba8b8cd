//! Spans: who asked for what that a line of the log is about, and how long it took.
//!
//! They are there at the level `debug`; at any other one tracing finds out once for each place in
//! the program that nobody wants them, and a span costs the look at that.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cell::Cell;

/// The spans of the daemon, which has one thread.
#[derive(Debug, Default)]
pub(crate) struct Spans(Cell<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    open: HashMap<u64, Open>,
    /// Those that the thread is in, the outermost first.
    entered: Vec<u64>,
}

#[derive(Debug)]
struct Open {
    name: &'static str,
    /// ` key=value` each.
    fields: String,
    since: Instant,
    /// Handles to it.
    handles: usize,
}

/// A span that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) name: &'static str,
    pub(crate) fields: String,
    pub(crate) took: Duration,
}

impl Spans {
    /// A new one; the number is never 0, and never used again.
    pub(crate) fn open(&self, name: &'static str, fields: String) -> u64 {
        let mut inner = self.0.lock();
        inner.last += 1;
        let number = inner.last;
        inner.open.insert(number, Open { name, fields, since: Instant::now(), handles: 1 });
        number
    }

    /// More is known about it.
    pub(crate) fn add(&self, number: u64, fields: &str) {
        if let Some(open) = self.0.lock().open.get_mut(&number) {
            open.fields.push_str(fields);
        }
    }

    pub(crate) fn enter(&self, number: u64) {
        self.0.lock().entered.push(number);
    }

    pub(crate) fn exit(&self, number: u64) {
        let mut inner = self.0.lock();
        if let Some(place) = inner.entered.iter().rposition(|entered| *entered == number) {
            inner.entered.remove(place);
        }
    }

    /// Another handle to it.
    pub(crate) fn hold(&self, number: u64) {
        if let Some(open) = self.0.lock().open.get_mut(&number) {
            open.handles += 1;
        }
    }

    /// A handle is gone. With the last one the span is over.
    pub(crate) fn release(&self, number: u64) -> Option<Closed> {
        let mut inner = self.0.lock();
        let open = inner.open.get_mut(&number)?;
        open.handles -= 1;
        if open.handles > 0 {
            return None;
        }
        let Open { name, fields, since, .. } = inner.open.remove(&number)?;
        Some(Closed { name, fields, took: since.elapsed() })
    }

    /// The fields of all that the thread is in.
    pub(crate) fn fields(&self) -> String {
        let inner = self.0.lock();
        let entered = inner.entered.iter().filter_map(|number| inner.open.get(number));
        entered.map(|open| open.fields.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_fields_of_the_spans_it_is_in() {
        let spans = Spans::default();
        let outer = spans.open("rpc", " rpc=Start".into());
        let inner = spans.open("operation", " container=web".into());
        assert_eq!(spans.fields(), "");
        spans.enter(outer);
        spans.enter(inner);
        spans.add(inner, " exec=e");
        assert_eq!(spans.fields(), " rpc=Start container=web exec=e");
        spans.exit(outer);
        assert_eq!(spans.fields(), " container=web exec=e");
    }

    #[test]
    fn a_span_is_over_with_its_last_handle() {
        let spans = Spans::default();
        let span = spans.open("rpc", " rpc=Kill".into());
        spans.hold(span);
        assert_eq!(spans.release(span), None);
        let closed = spans.release(span).unwrap();
        assert_eq!((closed.name, closed.fields.as_str()), ("rpc", " rpc=Kill"));
        assert_eq!(spans.release(span), None);
        assert!(spans.0.lock().open.is_empty());
    }
}
