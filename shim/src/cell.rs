//! A value that tasks share.
//!
//! The daemon has one thread and no guard lives across an await, so a lock is never contended; it
//! is there because ttrpc's handlers must be `Send`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Cell<T>(Mutex<T>);

impl<T> Cell<T> {
    /// The value, for the length of a statement or a block without an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        // A panic aborts the daemon: nobody ever sees a poisoned lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
