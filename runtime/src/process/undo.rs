//! Undo stands beside do: what an operation has made so far, and how it is unmade.

use crate::error::{Error, Result};

type Step<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// Steps to take when the operation fails, the last one first.
#[derive(Default)]
pub(super) struct Undo<'a> {
    steps: Vec<(&'static str, Step<'a>)>,
    afterwards: Vec<(&'static str, Step<'a>)>,
}

impl<'a> Undo<'a> {
    /// Remembers how to unmake what was just made (or is about to be).
    pub(super) fn push(&mut self, name: &'static str, step: impl FnOnce() -> Result<()> + 'a) {
        self.steps.push((name, Box::new(step)));
    }

    /// Remembers what is to be done once everything is unmade.
    pub(super) fn afterwards(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<()> + 'a,
    ) {
        self.afterwards.push((name, Box::new(step)));
    }

    /// Ends the operation: a success keeps everything, a failure undoes everything and carries
    /// what could not be undone. A main that cannot leaves it to the daemon, as one that died.
    pub(super) fn settle<T>(self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            if error.is_death_of_main() {
                return error;
            }
            let steps = self.steps.into_iter().rev().chain(self.afterwards);
            let failed: Vec<Error> =
                steps.filter_map(|(name, step)| step().err().map(|e| e.at(name))).collect();
            error.with_undo(failed)
        })
    }
}
