//! What outlives the chain: the state of a container on disk.

mod state;

pub use state::{ProcessId, State, StateDir};
