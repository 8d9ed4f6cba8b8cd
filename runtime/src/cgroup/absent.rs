//! A container without a cgroup of its own.
//!
//! Who is not root of the host may make cgroups only where it has been given some. Elsewhere the
//! container stays in those of its runtime, with the limits that these have: it can be signalled
//! through its pid namespace, and cannot be paused, updated or measured.

use super::{Cgroup, CgroupPaths, CgroupPlan, Write};
use crate::error::{Error, Kind, Result};

impl Cgroup {
    /// In place of what could not be made for want of permission: no cgroup at all, and a warning
    /// that says so.
    ///
    /// # Errors
    /// `denied` itself where it has another cause, or where the plan has limits, with the field of
    /// the first one.
    pub fn none(plan: &CgroupPlan, denied: Error) -> Result<(Cgroup, String)> {
        if !is_denied(&denied) {
            return Err(denied);
        }
        if let Some(write) = plan.writes.iter().find(|write| !is_what_any_has(write)) {
            return Err(denied.at(format!("{}: a limit needs a cgroup", write.field)));
        }
        let warning = format!("no cgroup of its own for the container: {denied}");
        Ok((Cgroup { paths: CgroupPaths::default() }, warning))
    }
}

/// The weight that every cgroup begins with: `ctr run` asks for it each time.
fn is_what_any_has(write: &Write) -> bool {
    let first = write.choices.first();
    first.is_some_and(|choice| {
        matches!((&*choice.file, &*choice.value), ("cpu.shares", "1024") | ("cpu.weight", "100"))
    })
}

/// Whether somebody with more rights could have done it.
pub(super) fn is_denied(error: &Error) -> bool {
    use nix::errno::Errno::{EACCES, EPERM, EROFS};
    matches!(error.kind(), Kind::Unsupported(_))
        || matches!(error.errno(), Some(EACCES | EPERM | EROFS))
}
