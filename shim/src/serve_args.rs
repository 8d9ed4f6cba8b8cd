//! What `start` tells the daemon: all that it cannot find out for itself.
//!
//! `start` binds and listens before it starts the daemon, so clients can connect before the
//! daemon has come up. The daemon owns what is in here, and asks neither its command line nor
//! its environment for anything else.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::address::Address;

/// The daemon's orders. `serve::run` takes them.
#[derive(Debug)]
pub(crate) struct ServeArgs {
    /// The id of the container that the daemon is started for; others may join it.
    pub(crate) id: String,
    /// containerd's namespace, the same for all of the daemon's containers.
    pub(crate) namespace: String,
    /// What the daemon's containers have in common: the id of their sandbox, or `id`.
    pub(crate) group: String,
    /// How to reach containerd.
    pub(crate) containerd: Containerd,
    /// Listens already; non-blocking and close-on-exec.
    pub(crate) listener: OwnedFd,
    /// Where `listener` is bound. The daemon removes it at its end, by [`Address::remove_own`],
    /// while it still accepts: a `start` that comes then makes a daemon of its own.
    pub(crate) address: Address,
    /// What goes to the log.
    pub(crate) log_level: LogLevel,
    /// The score that the daemon gives itself, by [`crate::oom_score::set_own`], *after* it has
    /// forked the spawner: what the spawner forks must not inherit it. None: stay as it is.
    pub(crate) oom_score_adj: Option<i32>,
    /// How the running binary is kept from being written to.
    pub(crate) sealed: Sealed,
}

/// How to reach containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Containerd {
    /// Path of its ttrpc socket, for events.
    pub(crate) ttrpc_address: PathBuf,
    /// Its gRPC address as it was given; part of what names the socket.
    pub(crate) grpc_address: String,
    /// Its program: `containerd publish` is the slow way to send an event. Never needed here.
    pub(crate) publish_binary: PathBuf,
}

/// What goes to the log: this and what is more important.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know (`-debug`).
    Debug,
}

/// How the daemon's binary is kept from being written to through /proc/PID/exe (CVE-2019-5736).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// It is executed from a read-only overlay over its folder, and shares the page cache.
    Overlay,
    /// It is executed from a sealed copy in memory, because the overlay could not be had.
    Memfd {
        /// Why the overlay could not be had.
        because: String,
    },
}
