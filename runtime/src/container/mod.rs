//! What outlives the chain: the state of a container on disk.

mod state;

pub use state::{ProcessId, State, StateDir};
pub(crate) use state::{START, STARTED, stat_field};
