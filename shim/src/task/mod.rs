//! Containers: one actor each.
//!
//! ```text
//!  handler ──Command──▶ mailbox ─▶ actor { Machine } ──Effect──▶ bridge, io, events
//!                          ▲                                       │
//!                          └──────────────── Report ───────────────┘
//! ```
//!
//! The actor never waits for anything but its mailbox, so every question is answered at once,
//! whatever is being done to the container. What takes time runs as a task of its own and reports
//! back. A handler only waits for a reply; that a client hangs up stops nothing.

mod actor;
mod create;
mod exec;
mod machine;
mod model;
mod publish;
mod registry;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use runtime::cgroup::Cgroup;

pub(crate) use create::Creation;
pub(crate) use model::{Command, NewExec, Reply, Status, Whom};
pub(crate) use registry::{Client, Daemon, Shutdown};

use crate::io::Owner;

/// What does not change about a container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its id.
    pub(crate) id: String,
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// Where its state is.
    pub(crate) state_dir: PathBuf,
    /// Its init's pid.
    pub(crate) pid: u32,
    /// Its cgroup.
    pub(crate) cgroup: Cgroup,
    /// Who owns its streams.
    pub(crate) owner: Owner,
    /// There are hooks to be run after the start.
    pub(crate) has_poststart: bool,
}
