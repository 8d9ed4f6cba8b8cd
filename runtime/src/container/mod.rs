//! What outlives the chain: the state of a container on disk.

mod state;

pub(crate) use state::stat_field;
pub use state::{ProcessId, State, StateDir};
