//! A process that does nothing, for the moment in which a unit of systemd must have one.
//!
//! It is main's own child, not the daemon's, and does not outlive main.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::error::{Call, Result};
use crate::sys::process::{self, Clone, CloseHow, Forked, SingleThreaded};

/// A running placeholder; dropping it ends it.
#[derive(Debug)]
pub(super) struct Placeholder {
    pid: u32,
    /// None when it has been reaped.
    pidfd: Option<OwnedFd>,
}

impl Placeholder {
    pub(super) fn fork(single: &SingleThreaded) -> Result<Placeholder> {
        let main = rustix::process::getpid();
        let clone = Clone { exit_signal: Signal::CHILD.as_raw(), ..Clone::default() };
        let forked = process::clone3(single, &clone);
        match forked.call(|| "clone3(CLONE_PIDFD)".into())? {
            Forked::Parent { pid, pidfd } => {
                Ok(Placeholder { pid: pid.unsigned_abs(), pidfd: Some(pidfd) })
            }
            Forked::Child(single) => wait_for_the_end(main, &single),
        }
    }

    /// Its number in the host's pid namespace, as systemd sees it.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it, and waits until it is gone.
    pub(super) fn end(mut self) -> Result<()> {
        self.kill()
    }

    fn kill(&mut self) -> Result<()> {
        let Some(pidfd) = self.pidfd.take() else { return Ok(()) };
        let pid = self.pid;
        rustix::process::pidfd_send_signal(&pidfd, Signal::KILL)
            .call(|| format!("pidfd_send_signal([{pid}], SIGKILL)"))?;
        rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))
            .call(|| format!("waitid(P_PIDFD, [{pid}], WEXITED)"))
            .map(drop)
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // An operation that has failed says why; a kill of an own child cannot fail.
        self.kill().unwrap_or_default();
    }
}

fn wait_for_the_end(main: Pid, single: &SingleThreaded) -> ! {
    super::set_name(c"myshim:resident");
    // Fails only for a number that is no signal.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap_or_default();
    let orphaned = rustix::process::getppid() != Some(main);
    if orphaned || process::close_from(single, 0, CloseHow::Now).is_err() {
        process::exit(1);
    }
    loop {
        nix::unistd::pause();
    }
}
