//! Children of the chain that the daemon was never told of.
//!
//! A main that is killed between the fork of a process and the word about it takes the number
//! along. Such a child has exit signal 0, so that no sweep sees it, and as a zombie it would hold
//! up the end of its pid namespace, and with it the container's, for ever.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use runtime::{Call, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::warn;

use crate::bridge::Child;
use crate::reaper::{Process, Reaper};

/// A child that finds its main gone ends at once; of one whose operation goes well the daemon may be
/// told much later, after hooks.
const ENDS_WITHIN: Duration = Duration::from_millis(300);
/// One whose operation fails is told of soon after its end.
const TOLD_WITHIN: Duration = Duration::from_millis(200);

/// Takes over what nobody tells of, after a main has died.
pub(crate) async fn adopt(reaper: &Arc<Reaper>) -> Vec<Process> {
    tokio::time::sleep(ENDS_WITHIN).await;
    let ended = untold(reaper);
    if ended.is_empty() {
        return Vec::new();
    }
    tokio::time::sleep(TOLD_WITHIN).await;
    let still = untold(reaper);
    let adopted = ended.into_iter().filter(|pid| still.contains(pid)).filter_map(|pid| {
        let adopted = open(pid).and_then(|child| reaper.adopt(child));
        adopted.inspect_err(|error| warn!(pid, %error, "a lost child stays a zombie")).ok()
    });
    adopted.collect()
}

/// The number cannot be another process's: the child is ours, and not reaped.
fn open(pid: i32) -> Result<Child> {
    let pidfd = Pid::from_raw(pid)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .call(|| format!("pidfd_open({pid})"))?;
    Ok(Child { pid, pidfd })
}

/// Zombies with exit signal 0 that are not adopted. A main that has died while it waited for its
/// first request is one as well, and not lost.
fn untold(reaper: &Reaper) -> Vec<i32> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_untold = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        is_silent_zombie(&stat, &own) && !reaper.has(*pid)
    };
    pids.filter(is_untold).collect()
}

/// By fields 3, 4 and 38 of /proc/pid/stat (proc(5)), counted from behind the name.
fn is_silent_zombie(stat: &str, parent: &str) -> bool {
    let (name, rest) = stat.rsplit_once(')').unwrap_or_default();
    // Until it gives itself a name, a process of the chain has main's, and a main the spawner's.
    if name.ends_with("(myshim:waits") || name.ends_with("(myshim:spawner") {
        return false;
    }
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    fields.first() == Some(&"Z") && fields.get(1) == Some(&parent) && fields.get(35) == Some(&"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_without_an_exit_signal_is_told_from_others() {
        let stat = |state: char, parent: u32, signal: u32| {
            format!("9 (a) b) {state} {parent}{} {signal} 0 0", " 1".repeat(33))
        };
        assert!(is_silent_zombie(&stat('Z', 7, 0), "7"));
        assert!(!is_silent_zombie(&stat('S', 7, 0), "7"));
        assert!(!is_silent_zombie(&stat('Z', 8, 0), "7"));
        assert!(!is_silent_zombie(&stat('Z', 7, 17), "7"));
        assert!(!is_silent_zombie(&stat('Z', 7, 0).replace("a) b", "myshim:waits"), "7"));
        assert!(!is_silent_zombie("", "7"));
    }

    #[tokio::test]
    async fn nothing_is_lost_where_nothing_was_forked() {
        assert!(adopt(&Arc::new(Reaper::default())).await.is_empty());
    }
}
