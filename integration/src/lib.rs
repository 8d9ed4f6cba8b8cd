//! Harness of the tests on real containerds: private daemons, images made on the spot, `ctr`
//! with deadlines, terminals, events, shims driven by hand, and the comparison of the host
//! before and after.
//!
//! Everything a test makes carries its tag, eight hexadecimal digits that occur nowhere else on
//! the machine; what is left behind is found by it, whatever else is running.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a harness of tests a panic is how a test fails"
)]

pub mod agent;
pub mod claim;
pub mod command;
pub mod container;
pub mod containerd;
pub mod cri;
#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod documents;
pub mod events;
pub mod host;
pub mod image;
#[cfg(target_arch = "x86_64")]
pub mod inject;
pub mod nerdctl;
pub mod process;
pub mod pty;
pub mod rootless;
pub mod runner;
pub mod shim;
pub mod spec;
pub mod test;
#[cfg(test)]
mod unsafe_code;
pub mod wait;

pub use container::Container;
pub use containerd::{Daemon, Endpoint, Version};
pub use test::Test;
