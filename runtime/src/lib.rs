//! The OCI runtime of myshim.
//!
//! A synchronous library without threads: `Spec` (what the bundle alleges) becomes a
//! [`plan::Plan`] (what will be done), which the process chain in [`process`] carries out.
//!
//! ```text
//! spec ─▶ plan ─▶ process ─▶ apply, cgroup ─▶ dbus, sys
//! ```

pub mod apply;
pub mod cgroup;
pub mod container;
mod dbus;
pub mod error;
pub mod features;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod plan;
pub mod process;
pub mod spec;
pub mod sys;

pub use error::{At, Call, Error, Kind, Result};
