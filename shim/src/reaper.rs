//! The daemon's children: an exit is learned by pidfd, and orphans are swept without touching it.
//!
//! Three kinds of processes are children of the daemon:
//! - those of the process chain (spawner, main, intermediate, init and tenants) and loggers. Each
//!   comes with a pidfd, is adopted here, and is reaped when its pidfd polls readable;
//! - orphans of containers that share the daemon's pid namespace, and of hooks: the daemon is a
//!   child subreaper. Nobody asks for their status.
//!
//! Orphans announce themselves by SIGCHLD only, so on SIGCHLD [`Reaper::sweep`] asks for any dead
//! child. It must not steal a status. It does not, because:
//! - the spawner is cloned with exit signal 0, which all of the chain inherit by CLONE_PARENT.
//!   Without `__WALL` wait does not see such a process. So a process that the daemon has not heard
//!   of yet is invisible to the sweep;
//! - execve sets the exit signal to SIGCHLD, and from then on the sweep sees the process. But
//!   init and tenants execute only after the daemon has told them to start, with their pidfd in
//!   its hands: they are adopted by then. Loggers are adopted in the same step that spawns them;
//! - the sweep looks first (`WNOWAIT`): a dead process that is adopted is reaped in its owner's
//!   name, and any other one silently. The number cannot be another process's: it is taken until
//!   the daemon itself reaps it, and then leaves the table in the same step.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use runtime::{Call, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::warn;

use crate::bridge::Child;
use crate::cell::Cell;
use crate::readiness;

/// `__WALL` of linux/wait.h: children of any exit signal.
const WALL: WaitIdOptions = WaitIdOptions::from_bits_retain(0x4000_0000);

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code, or 128 + the number of the signal that killed it.
    pub(crate) status: u32,
    /// When the daemon learned of it.
    pub(crate) at: SystemTime,
}

/// An adopted child.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// Positive.
    pid: i32,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Its pid in the daemon's pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Its pidfd.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        self.pidfd.get_ref()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// pidfd_send_signal(2); ESRCH: it has ended.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        runtime::sys::child::pidfd_send_signal(self.pidfd.get_ref().as_fd(), signal)
            .call(|| format!("pidfd_send_signal(pidfd of {}, {signal})", self.pid))
    }

    /// Whether it has ended, be it reaped or not.
    pub(crate) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1))
    }

    /// Waits for its end. May be asked any number of times.
    pub(crate) async fn exited(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The table gives an entry up only with a status, except at the daemon's own end.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

#[derive(Debug)]
struct Tracked {
    pidfd: Arc<AsyncFd<OwnedFd>>,
    exit: watch::Sender<Option<Exit>>,
}

/// The table of adopted children.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    tracked: Cell<HashMap<i32, Tracked>>,
}

impl Reaper {
    /// Takes a child over: from here it is reaped here and nowhere else.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub(crate) fn adopt(self: &Arc<Reaper>, child: Child) -> Result<Process> {
        let pid = child.pid;
        let pidfd = Arc::new(readiness::register(child.pidfd, Interest::READABLE)?);
        let (sender, exit) = watch::channel(None);
        self.tracked.lock().insert(pid, Tracked { pidfd: pidfd.clone(), exit: sender });
        tokio::spawn(Arc::clone(self).await_exit(pid, pidfd.clone()));
        Ok(Process { pid, pidfd, exit })
    }

    /// Whether a child is adopted, and not reaped yet.
    pub(crate) fn has(&self, pid: i32) -> bool {
        self.tracked.lock().contains_key(&pid)
    }

    async fn await_exit(self: Arc<Reaper>, pid: i32, pidfd: Arc<AsyncFd<OwnedFd>>) {
        loop {
            let Ok(mut ready) = pidfd.readable().await else { return };
            if self.reap(pid, &pidfd) {
                return;
            }
            // Dead, but for now its tracer's: the kernel notifies again when that lets go.
            ready.clear_ready();
        }
    }

    /// Reaps an adopted child if it is dead. True when there is nothing left to wait for.
    fn reap(&self, pid: i32, pidfd: &Arc<AsyncFd<OwnedFd>>) -> bool {
        let mut tracked = self.tracked.lock();
        // Swept already; the number may be another process's by now.
        if !tracked.get(&pid).is_some_and(|entry| Arc::ptr_eq(&entry.pidfd, pidfd)) {
            return true;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WALL;
        let status = match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Ok(Some(status)) => code(&status),
            Ok(None) => return false,
            Err(errno) => {
                // Cannot be: the child is ours and nobody else waits. 255 is what containerd's
                // client takes for an unknown status.
                warn!(pid, %errno, "waitid failed: the exit status is lost");
                255
            }
        };
        if let Some(entry) = tracked.remove(&pid) {
            entry.exit.send_replace(Some(Exit { status, at: SystemTime::now() }));
        }
        true
    }

    /// Reaps every dead child that a SIGCHLD may have told of.
    pub(crate) fn sweep(&self) {
        loop {
            let pid = match runtime::sys::child::peek_zombie() {
                Ok(Some(pid)) => pid,
                Ok(None) => return,
                Err(errno) => {
                    return warn!(%errno, "waitid(P_ALL) failed: orphans may stay zombies");
                }
            };
            let tracked = self.tracked.lock().get(&pid).map(|entry| entry.pidfd.clone());
            let reaped = match tracked {
                Some(pidfd) => self.reap(pid, &pidfd),
                None => reap_orphan(pid),
            };
            if !reaped {
                return;
            }
        }
    }

    /// Sweeps on every SIGCHLD, for ever.
    ///
    /// # Errors
    /// sigaction(2).
    pub(crate) async fn sweep_on_sigchld(self: Arc<Reaper>) -> Result<()> {
        let mut sigchld = signal(SignalKind::child()).call(|| "sigaction(SIGCHLD)".into())?;
        // What died before the handler was there.
        self.sweep();
        while sigchld.recv().await.is_some() {
            self.sweep();
        }
        Ok(())
    }
}

fn reap_orphan(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let reaped = Pid::from_raw(pid).map(|pid| rustix::process::waitid(WaitId::Pid(pid), options));
    matches!(reaped, Some(Ok(Some(_))))
}

fn code(status: &WaitIdStatus) -> u32 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        // waitid was asked for WEXITED only.
        (None, None) => 255,
    };
    u32::try_from(code).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn sh(script: &str) -> Child {
        let c = |text: &str| CString::new(text).unwrap();
        let args = [c("sh"), c("-c"), c(script)];
        let env: [CString; 0] = [];
        runtime::sys::child::spawn(&c("/bin/sh"), &args, &env, &[]).unwrap()
    }

    #[tokio::test]
    async fn an_exit_is_learned_by_pidfd_with_its_code_or_signal() {
        let reaper = Arc::new(Reaper::default());
        for (script, status) in [("exit 7", 7), ("kill -9 $$", 137), ("kill -40 $$", 168)] {
            let mut process = reaper.adopt(sh(script)).unwrap();
            assert_eq!(process.exited().await.status, status, "{script}");
            assert_eq!(process.exited().await.status, status, "asked again");
            assert_eq!(process.signal(0).unwrap_err().errno(), Some(nix::errno::Errno::ESRCH));
        }
        assert!(reaper.tracked.lock().is_empty());
    }
}
