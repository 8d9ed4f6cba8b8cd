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

/// Takes over mains that nobody tells of, after a spawner has died or could not tell: they end by
/// themselves. What has been told of is adopted, or in the hands of whoever calls this.
pub(crate) fn adopt_mains(reaper: &Arc<Reaper>) {
    let own = std::process::id().to_string();
    for (pid, stat) in children_of(&own).filter(|(pid, _)| !reaper.has(*pid)) {
        if is_unnamed(&stat)
            && let Err(error) = open(pid).and_then(|child| reaper.adopt(child))
        {
            warn!(pid, %error, "a lost main stays a zombie");
        }
    }
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
    let silent = children_of(&own).filter(|(_, stat)| is_silent_zombie(stat));
    silent.map(|(pid, _)| pid).filter(|pid| !reaper.has(*pid)).collect()
}

/// All processes of this parent, each with its /proc/pid/stat (proc(5)).
fn children_of(parent: &str) -> impl Iterator<Item = (i32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all =
        pids.filter_map(|pid| Some((pid, fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)));
    all.filter(move |(_, stat)| field(stat, 4) == Some(parent))
}

/// By its number in proc(5), from the third on: the second is the name, and may have anything in
/// it.
fn field(stat: &str, number: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// A main that waits, or a spawner: until it gives itself a name, a process of the chain has main's,
/// and a main the spawner's.
fn is_unnamed(stat: &str) -> bool {
    let (name, _) = stat.rsplit_once(')').unwrap_or_default();
    name.ends_with("(myshim:waits") || name.ends_with("(myshim:spawner")
}

fn is_silent_zombie(stat: &str) -> bool {
    !is_unnamed(stat) && field(stat, 3) == Some("Z") && field(stat, 38) == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zombie_without_an_exit_signal_is_told_from_others() {
        let stat = |state: char, parent: u32, signal: u32| {
            format!("9 (a) b) {state} {parent}{} {signal} 0 0", " 1".repeat(33))
        };
        assert!(is_silent_zombie(&stat('Z', 7, 0)));
        assert!(!is_silent_zombie(&stat('S', 7, 0)));
        assert!(!is_silent_zombie(&stat('Z', 7, 17)));
        assert!(!is_silent_zombie(&stat('Z', 7, 0).replace("a) b", "myshim:waits")));
        assert!(is_unnamed(&stat('Z', 7, 0).replace("a) b", "myshim:waits")));
        assert!(!is_silent_zombie(""));
        assert_eq!(field(&stat('Z', 7, 0), 4), Some("7"));
    }

    #[tokio::test]
    async fn nothing_is_lost_where_nothing_was_forked() {
        assert!(adopt(&Arc::new(Reaper::default())).await.is_empty());
    }
}
