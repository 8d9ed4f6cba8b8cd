//! What a process of the chain died of. Main, which is not its parent, tells it from the zombie
//! in /proc, which stays there until the daemon has main's answer; the daemon, which is, from the
//! status.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::Child;
use crate::cgroup::OomKills;
use crate::container::stat_field;
use crate::error::{Call, Error, Kind, Result};
use crate::sys::socket;

/// The end of a channel comes a little before the end of the process.
const UNTIL_ZOMBIE_MS: u64 = 5_000;

/// What it takes to explain a death later, even after main has joined a container, whose /proc
/// and /sys are not to be believed and name other processes.
#[derive(Debug)]
pub(super) struct Witness {
    proc: OwnedFd,
    oom_kills: Option<OomKills>,
}

impl Witness {
    /// Called by main while it is in the host's mount namespace.
    pub(super) fn new(oom_kills: Option<OomKills>) -> Result<Witness> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(CWD, "/proc", flags, Mode::empty())
            .call(|| "open(\"/proc\", O_PATH|O_DIRECTORY)".into())?;
        Ok(Witness { proc, oom_kills })
    }

    /// How many processes of the container's cgroup the kernel had killed before for want of memory.
    pub(super) fn oom_kills_before(&self) -> u64 {
        self.oom_kills.as_ref().map_or(0, OomKills::before)
    }

    /// The error for a process whose channel has ended without an answer.
    pub(super) fn explain(&self, who: &str, child: &Child) -> Error {
        let how = match socket::wait_readable(child.pidfd.as_fd(), UNTIL_ZOMBIE_MS) {
            Ok(()) => self.last_words(child.pid).unwrap_or_else(|| "cause unknown".into()),
            Err(_) => "it closed its channel, and lives".into(),
        };
        Error::new(Kind::PeerDied { who: who.into(), how })
    }

    /// Of what, and where: a zombie keeps its name, in which it said what it was at.
    fn last_words(&self, pid: i32) -> Option<String> {
        let stat =
            openat(&self.proc, format!("{pid}/stat"), OFlags::CLOEXEC, Mode::empty()).ok()?;
        let stat = std::io::read_to_string(std::fs::File::from(stat)).ok()?;
        // Field 52 is in the form of wait(2).
        let cause = describe(stat_field(&stat, 52)?, killed_for_memory(self.oom_kills.as_ref()));
        Some(match step(&stat) {
            Some(step) => format!("{cause}, at step {step:?}"),
            None => cause,
        })
    }
}

/// A death between the word to start and the execve.
#[derive(Debug)]
pub struct Death {
    /// Init or tenant.
    pub(super) who: String,
    /// What it was at.
    pub(super) step: &'static str,
    /// The kills in its cgroup.
    pub(super) oom_kills: Option<OomKills>,
}

impl Death {
    /// The error, by the status that the parent has reaped, in the form of wait(2). None: the
    /// parent is somebody else.
    pub fn explain(&self, status: Option<i32>) -> Error {
        let cause = status.map_or_else(
            || "of what its parent knows".into(),
            |status| describe(status, killed_for_memory(self.oom_kills.as_ref())),
        );
        let how = format!("{cause}, at step {:?}, before its execve", self.step);
        Error::new(Kind::PeerDied { who: self.who.clone(), how })
    }
}

/// How a process ended, in words; `status` is in the form of wait(2).
pub fn describe_status(status: i32) -> String {
    describe(status, false)
}

fn killed_for_memory(kills: Option<&OomKills>) -> bool {
    kills.is_some_and(|kills| kills.count() > 0)
}

fn describe(status: i32, killed_for_memory: bool) -> String {
    let (signal, code) = (status & 0x7f, (status >> 8) & 0xff);
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(nix::sys::signal::Signal::SIGKILL) if killed_for_memory => {
            "out of memory: killed by the kernel in the container's cgroup".into()
        }
        Ok(signal) => format!("killed by {signal}"),
        Err(_) => format!("exit status {code}"),
    }
}

/// What follows the colon in the process's name (see [`super::set_name`]).
fn step(stat: &str) -> Option<&str> {
    stat.get(stat.find('(')? + 1..stat.rfind(')')?)?.split_once(':').map(|(_, step)| step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_told_in_words() {
        assert_eq!(describe(9, false), "killed by SIGKILL");
        assert_eq!(describe(3 << 8, false), "exit status 3");
        assert_eq!(
            describe(9, true),
            "out of memory: killed by the kernel in the container's cgroup"
        );
        assert_eq!(describe(15, true), "killed by SIGTERM");
    }

    #[test]
    fn a_death_before_the_execve_says_who_of_what_and_where() {
        let death = Death { who: "init".into(), step: "start", oom_kills: None };
        let told = |status| death.explain(status).to_string();
        let begin = "init ended before it answered: ";
        let end = ", at step \"start\", before its execve";
        assert_eq!(told(Some(9)), format!("{begin}killed by SIGKILL{end}"));
        assert_eq!(told(None), format!("{begin}of what its parent knows{end}"));
    }

    #[test]
    fn the_step_is_in_the_name() {
        assert_eq!(step("42 (init:rootfs) Z 1 42"), Some("rootfs"));
        assert_eq!(step("42 (sh) Z 1 42"), None);
    }
}
