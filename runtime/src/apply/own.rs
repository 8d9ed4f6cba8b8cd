//! What main changes of itself for its children to inherit.
//!
//! It is the place for what takes privileges that a process inside a user namespace has lost: no
//! window between the child's birth and a write from outside.

use crate::apply::rlimits;
use crate::error::{At, Call, Result};
use crate::plan::Process;

/// The caller's OOM score, in the host's own procfs, which no container can have changed.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// What was changed.
#[derive(Debug)]
pub struct Changed {
    limits: rlimits::Raised,
    /// As it was before, when it was set.
    oom_score: Option<String>,
}

/// Whether a process is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// In all respects.
    Yes,
    /// It has to end.
    No,
}

/// Raises hard limits and sets the OOM score of the process to come.
///
/// # Errors
/// prlimit(2); EACCES for an OOM score below the present one without CAP_SYS_RESOURCE.
pub fn prepare(process: &Process) -> Result<Changed> {
    let limits = rlimits::raise(&process.rlimits).at("process.rlimits")?;
    let change = |score| change_oom_score(score).at("process.oomScoreAdj");
    let oom_score = process.oom_score_adj.map(change).transpose()?;
    Ok(Changed { limits, oom_score })
}

impl Changed {
    /// Changes it back, once the child is there. Hard limits stay: to lower them again is to lower
    /// those of the caller for good where it has no CAP_SYS_RESOURCE.
    pub fn restore(self) -> Restored {
        let restored = self.oom_score.is_none_or(|score| std::fs::write(OOM_SCORE, score).is_ok());
        match self.limits {
            rlimits::Raised::None if restored => Restored::Yes,
            _ => Restored::No,
        }
    }
}

/// Returns the one before.
fn change_oom_score(score: i32) -> Result<String> {
    let before = std::fs::read_to_string(OOM_SCORE).call(|| format!("read({OOM_SCORE})"))?;
    set_oom_score(score).map(|()| before)
}

/// Sets this process's oom_score_adj, by the host's own procfs, which no container can have
/// changed.
///
/// # Errors
/// EACCES for one below the present one without CAP_SYS_RESOURCE.
pub fn set_oom_score(score: i32) -> Result<()> {
    std::fs::write(OOM_SCORE, score.to_string()).call(|| format!("write({OOM_SCORE}, \"{score}\")"))
}
