//! What main changes of itself for its children to inherit.
//!
//! Main is gone after one operation, so it is the place for what takes privileges that a process
//! inside a user namespace has lost: no window between the child's birth and a write from outside.

use crate::apply::rlimits;
use crate::error::{At, Call, Result};
use crate::plan::Process;

/// Raises hard limits and sets the OOM score of the process to come.
///
/// # Errors
/// prlimit(2); EACCES for an OOM score below the present one without CAP_SYS_RESOURCE.
pub fn prepare(process: &Process) -> Result<()> {
    rlimits::raise(&process.rlimits).at("process.rlimits")?;
    match process.oom_score_adj {
        Some(score) => set_oom_score(score).at("process.oomScoreAdj"),
        None => Ok(()),
    }
}

/// Sets this process's oom_score_adj, by the host's own procfs, which no container can have
/// changed.
///
/// # Errors
/// EACCES for one below the present one without CAP_SYS_RESOURCE.
pub fn set_oom_score(score: i32) -> Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
        .call(|| format!("write(/proc/self/oom_score_adj, \"{score}\")"))
}
