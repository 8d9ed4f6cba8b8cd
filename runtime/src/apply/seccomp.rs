//! The system call filter, which main has compiled: here it is only loaded.

use std::os::fd::OwnedFd;

use crate::error::{Call, Result};
use crate::plan::Seccomp;
use crate::sys::seccomp::{self, NEW_LISTENER};

/// Loads the filter. A filter with a listener returns its notify fd.
///
/// # Errors
/// seccomp(2).
pub fn load(filter: &Seccomp) -> Result<Option<OwnedFd>> {
    let flags = match filter.listener {
        Some(_) => filter.flags | NEW_LISTENER,
        None => filter.flags,
    };
    let instructions = filter.bpf.len() / 8;
    seccomp::load(&filter.bpf, flags).call(|| {
        format!("seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {instructions} instructions)")
    })
}
