//! What the last operations of this daemon spent their time on.
//!
//! It is always kept: a few hundred bytes for each of the last operations. One that fails is told
//! in the log at once, beside the error that its client gets; all of them are on SIGUSR2.

use std::collections::VecDeque;
use std::time::Duration;

use tracing::info;

use crate::cell::Cell;

/// How many operations are kept.
const KEPT: usize = 32;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Journal(Cell<VecDeque<String>>);

impl Journal {
    /// Keeps how an operation went: how long it took in all, as the daemon sees it, and its
    /// phases in µs.
    pub(crate) fn note(&self, title: &str, took: Duration, phases: &str, failed: bool) {
        let outcome = if failed { " and failed" } else { "" };
        let separator = if phases.is_empty() { "" } else { ": " };
        let line = format!("{title} took {} µs{outcome}{separator}{phases}", took.as_micros());
        if failed {
            info!("{line}");
        }
        let mut kept = self.0.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
    }

    /// Tells the log all that is kept, the oldest first.
    pub(crate) fn tell(&self) {
        for line in self.0.lock().iter() {
            info!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_operations_are_kept() {
        let journal = Journal::default();
        for number in 0..=KEPT {
            let us = Duration::from_micros(7);
            journal.note(&format!("create c{number}"), us, "plan 3, cgroup 4", false);
        }
        let kept = journal.0.lock();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept.front().map(String::as_str), Some("create c1 took 7 µs: plan 3, cgroup 4"));
    }
}
