//! What a process of the chain died of, told by main, which is not its parent: from the zombie
//! in /proc, which stays there until the daemon has main's answer.

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
        let killed_for_memory = self.oom_kills.as_ref().and_then(OomKills::explain);
        // Field 52 is in the form of wait(2).
        let cause = describe(stat_field(&stat, 52)?, killed_for_memory);
        Some(match step(&stat) {
            Some(step) => format!("{cause}, at step {step:?}"),
            None => cause,
        })
    }
}

fn describe(status: i32, killed_for_memory: Option<&str>) -> String {
    let (signal, code) = (status & 0x7f, (status >> 8) & 0xff);
    match (nix::sys::signal::Signal::try_from(signal), killed_for_memory) {
        (Ok(nix::sys::signal::Signal::SIGKILL), Some(words)) => format!("out of memory: {words}"),
        (Ok(signal), _) => format!("killed by {signal}"),
        (Err(_), _) => format!("exit status {code}"),
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
        assert_eq!(describe(9, None), "killed by SIGKILL");
        assert_eq!(describe(3 << 8, None), "exit status 3");
        assert_eq!(
            describe(9, Some("killed by the kernel")),
            "out of memory: killed by the kernel"
        );
        assert_eq!(describe(15, Some("killed by the kernel")), "killed by SIGTERM");
    }

    #[test]
    fn the_step_is_in_the_name() {
        assert_eq!(step("42 (init:rootfs) Z 1 42"), Some("rootfs"));
        assert_eq!(step("42 (sh) Z 1 42"), None);
    }
}
