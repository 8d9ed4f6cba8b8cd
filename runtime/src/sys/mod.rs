//! The border to the kernel: the only module with unsafe code and with raw descriptors.
//!
//! Its premises are values: [`process::SingleThreaded`] for what may be done only by a process
//! with one thread, owned and borrowed fds for everything that is open.

#![allow(
    clippy::as_conversions,
    clippy::disallowed_types,
    reason = "the kernel speaks in integers of its own widths"
)]

pub mod bpf;
pub mod child;
#[cfg(feature = "counting")]
pub mod counting;
pub mod fd;
mod inherited;
pub mod inside;
pub mod keyring;
pub mod loopback;
pub mod mount;
pub mod netlink;
pub mod nsfs;
pub mod phases;
pub mod prefault;
pub mod process;
pub mod procfs;
pub mod rlimit;
pub mod sched;
pub mod seccomp;
pub mod shared_pid;
pub mod socket;
#[cfg(test)]
pub(crate) mod testing;
pub mod unix_socket;

pub use inherited::close_on_exec_from;
