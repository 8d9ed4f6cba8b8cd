//! What a process of the chain died of, told by main, which is not its parent: from the zombie
//! in /proc, which stays there until the daemon has main's answer.

use std::os::fd::AsFd;
use std::path::Path;

use super::Child;
use crate::container::stat_field;
use crate::error::{Error, Kind};
use crate::sys::socket;

/// The end of a channel comes a little before the end of the process.
const UNTIL_ZOMBIE_MS: u64 = 5_000;

/// The error for a process whose channel has ended without an answer.
pub(super) fn of(who: &str, child: &Child) -> Error {
    let how = match socket::wait_readable(child.pidfd.as_fd(), UNTIL_ZOMBIE_MS) {
        Ok(()) => exit_code(child.pid).map_or_else(|| "cause unknown".into(), describe),
        Err(_) => "it closed its channel, and lives".into(),
    };
    Error::new(Kind::PeerDied { who: who.into(), how })
}

/// Field 52 of /proc/pid/stat, in the form of wait(2).
fn exit_code(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.ok().and_then(|stat| stat_field(&stat, 52))
}

fn describe(status: i32) -> String {
    let (signal, code) = (status & 0x7f, (status >> 8) & 0xff);
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(signal) => format!("killed by {signal}"),
        Err(_) => format!("exit status {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_told_in_words() {
        assert_eq!(describe(9), "killed by SIGKILL");
        assert_eq!(describe(3 << 8), "exit status 3");
    }
}
