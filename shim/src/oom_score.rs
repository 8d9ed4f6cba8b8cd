//! The daemon's oom_score_adj (proc_pid_oom_score_adj(5)): one more than containerd's, as Go's
//! shim has it, so that containerd is the last to be killed of the two.
//!
//! It is for the daemon alone. So `start` only finds out which it is, and the daemon sets it
//! after it has forked the spawner: what the spawner forks inherits containerd's, and gets what
//! the spec asks for.

use std::fs;

use runtime::{Call, Error, Result};

const MAX: i32 = 1000;
const OWN: &str = "/proc/self/oom_score_adj";

/// The score for the daemon of a `start` that containerd has started.
///
/// # Errors
/// When containerd's cannot be read: it is gone, say.
pub(crate) fn for_daemon() -> Result<i32> {
    let parent = rustix::process::getppid()
        .ok_or_else(|| Error::argument("parent process", "is outside of this pid namespace"))?;
    let score = read(&format!("/proc/{parent}/oom_score_adj"))?;
    Ok(MAX.min(score.saturating_add(1)))
}

/// This process's score.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn own() -> Result<i32> {
    read(OWN)
}

fn read(path: &str) -> Result<i32> {
    let text = fs::read_to_string(path).call(|| format!("read({path:?})"))?;
    text.trim().parse().map_err(|_| Error::argument(path, "has no number"))
}

/// Sets this process's score. No write where it has it already.
///
/// # Errors
/// EACCES: it is lower than the lowest that a process with CAP_SYS_RESOURCE has set, and this one
/// does not have that capability. To be logged: the daemon then keeps the score it has.
pub(crate) fn set_own(score: i32) -> Result<()> {
    if own().is_ok_and(|own| own == score) {
        return Ok(());
    }
    fs::write(OWN, score.to_string()).call(|| format!("write({OWN:?}, \"{score}\")"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_is_killed_before_containerd() {
        // The test's parent stands in for containerd.
        let parent = format!("/proc/{}/oom_score_adj", rustix::process::getppid().unwrap());
        let containerd: i32 = fs::read_to_string(parent).unwrap().trim().parse().unwrap();
        assert_eq!(for_daemon().unwrap(), (containerd + 1).min(MAX));
    }
}
