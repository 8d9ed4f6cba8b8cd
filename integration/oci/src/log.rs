//! Where errors are told: on standard error, and in the log that a client reads.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use runtime::Error;
use serde_json::json;

use crate::args::Args;
use crate::date;

/// Where errors are told.
#[derive(Debug)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    json: bool,
}

impl Log {
    /// As the global arguments have it.
    pub(crate) fn new(globals: Option<&Args>) -> Log {
        let value = |name| globals.and_then(|globals| globals.value(name));
        Log { path: value("log").map(PathBuf::from), json: value("log-format") == Some("json") }
    }

    /// Tells an error. That the log cannot be written is told as well.
    pub(crate) fn error(&self, error: &Error) {
        eprintln!("{error}");
        let Some(path) = &self.path else { return };
        let file = File::options().append(true).create(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{}", self.line(error)));
        if let Err(why) = written {
            eprintln!("write({path:?}): {why}");
        }
    }

    fn line(&self, error: &Error) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let time = date::rfc3339(now.unwrap_or(Duration::ZERO));
        match self.json {
            true => json!({"level": "error", "msg": error.to_string(), "time": time}).to_string(),
            false => format!("time={time:?} level=error msg={:?}", error.to_string()),
        }
    }
}
