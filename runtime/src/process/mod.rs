//! The process chain: spawner, main, intermediate, init and tenant, and the channels between them.
//!
//! ```text
//!  daemon ──fork──▶ spawner ──clone3──▶ main ──clone3──▶ [intermediate ──clone3──▶] init | tenant
//!     ▲                │                 │                     │                       │
//!     └────────────────┴──── parent of them all (CLONE_PARENT), with a pidfd of each ──┘
//! ```
//!
//! Each of them has one thread, blocks freely, and changes nothing but itself and what its
//! operation is about. None of them logs: an error goes up the channel, as data.

mod channel;
mod create;
mod death;
mod exec;
mod fork;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gate;
#[cfg(feature = "hold")]
mod hold;
mod hooks;
mod init;
mod intermediate;
mod main;
mod operation;
mod pid_file;
mod placeholder;
mod protocol;
mod rendezvous;
mod request;
mod spawner;
mod target;
mod undo;
mod upkeep;

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::Call;
use crate::sys::phases;

pub use death::{Death, describe_status};
pub use gate::{start_container, status};
#[cfg(feature = "hold")]
pub use hold::hold;
pub use operation::{Operation, StartChannel, StartOutcome, WaitingMain};
pub use request::*;
pub use spawner::{Ordered, Spawner};
pub use upkeep::delete_container;

/// CLONE_PARENT of linux/sched.h: the caller's parent becomes the child's.
const CLONE_PARENT: u64 = 0x8000;

/// Names the process as ps(1) shows it: who it is, and after a colon the step it is at, which a
/// zombie still tells, and [phases] as well. 15 bytes at most. Fails only for a bad pointer.
fn set_name(name: &CStr) {
    rustix::thread::set_name(name).unwrap_or_default();
    phases::mark(name);
}

/// The same descriptor under a number that is not below `lowest`.
fn fd_above(fd: impl AsFd, lowest: u32) -> crate::Result<OwnedFd> {
    let number = i32::try_from(lowest).unwrap_or(i32::MAX);
    rustix::io::fcntl_dupfd_cloexec(fd, number)
        .call(|| format!("fcntl(fd, F_DUPFD_CLOEXEC, {lowest})"))
}

/// A descriptor under a number of its own choice, for a process that closes all others.
fn move_fd(fd: OwnedFd, number: u32) -> crate::Result<OwnedFd> {
    crate::sys::fd::move_to(fd, number)
        .map_err(|errno| crate::Error::call(format!("dup3(fd, {number}, O_CLOEXEC)"), errno))
}
