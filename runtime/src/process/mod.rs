//! The process chain: spawner, main, intermediate, init and tenant, and the channels between them.

mod request;

pub use request::*;

/// The daemon's end of the channel to a process that waits for start.
#[derive(Debug)]
pub struct StartChannel {}
