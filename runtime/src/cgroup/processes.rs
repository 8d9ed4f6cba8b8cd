//! The processes of a container: who they are, and signals to all of them.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Cgroup, Freeze, Version, files};
use crate::error::{At, Call, Result};

/// How many times the list is read anew for processes that appear while the others get their
/// signal, when the cgroup cannot be frozen.
const MAX_ROUNDS: usize = 100;

/// A process that does not stop in this time (it waits for a device) delays the signal no
/// longer: the others get it in rounds.
const FREEZE_DEADLINE: Duration = Duration::from_millis(500);

impl Cgroup {
    /// All processes in it and in the cgroups below it. None when it is gone.
    ///
    /// # Errors
    /// `Call` when a list cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        match self.paths.of_processes() {
            Some(directory) => in_directory(&directory.path).at("list the processes of the cgroup"),
            None => Ok(Vec::new()),
        }
    }

    /// Sends a signal to all processes, so that none that is forked meanwhile is left out.
    ///
    /// SIGKILL on v2 is one write to cgroup.kill (Linux ≥ 5.14), which also ends frozen
    /// processes. Otherwise they are frozen while the signal is sent; after SIGKILL, the
    /// cgroup is thawed even when it was frozen before, since a process frozen by v1 cannot
    /// die. Does not wait for anything to end. No processes, or no cgroup: nothing to do.
    ///
    /// # Errors
    /// `Argument` for a number that is no signal; `Call` for what the kernel refuses.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        let signal = Signal::try_from(signal).map_err(|_| {
            crate::error::Error::argument("signal", format!("{signal} is not a signal"))
        })?;
        if signal == Signal::SIGKILL && self.kill_at_once()? {
            return Ok(());
        }
        // A cgroup that cannot be frozen in time still gets its signals, in rounds.
        let was_frozen = self.freezer_state()? == Some(Freeze::Frozen);
        let frozen = was_frozen || self.freeze_within(FREEZE_DEADLINE).is_ok();
        let sent = self.signal_each(signal, if frozen { 1 } else { MAX_ROUNDS });
        if frozen && (!was_frozen || signal == Signal::SIGKILL) {
            self.thaw()?;
        }
        sent.at_with(|| format!("send {signal} to all processes of the cgroup"))
    }

    fn kill_at_once(&self) -> Result<bool> {
        let Some(v2) = self.paths.v2() else { return Ok(false) };
        let file = v2.join("cgroup.kill");
        match files::try_write(&file, "1") {
            Ok(()) => Ok(true),
            // Linux < 5.14, or the cgroup is gone: the list of processes tells.
            Err(errno) if files::is_gone(errno) => Ok(false),
            Err(errno) => Err(errno).call(|| format!("write({}, \"1\")", file.display())),
        }
    }

    fn signal_each(&self, signal: Signal, rounds: usize) -> Result<()> {
        let mut told = HashSet::new();
        for _ in 0..rounds {
            let mut someone_new = false;
            for pid in self.pids()? {
                if !told.insert(pid) {
                    continue;
                }
                someone_new = true;
                match nix::sys::signal::kill(Pid::from_raw(pid), signal) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno).call(|| format!("kill({pid}, {signal})")),
                }
            }
            if !someone_new {
                break;
            }
        }
        Ok(())
    }
}

/// The processes of one directory and those below it, in order. None when it is gone.
pub(super) fn in_directory(directory: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    collect(directory, &mut pids)?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn collect(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let file = directory.join("cgroup.procs");
    match files::try_read_list(&file) {
        // A process outside of our pid namespace is listed as 0, and kill(0) would hit us.
        Ok(list) => {
            pids.extend(list.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|&pid| pid > 0))
        }
        // In a threaded cgroup: its processes are in the list of a cgroup above it.
        Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(errno) if files::is_gone(errno) => return Ok(()),
        Err(errno) => return Err(errno).call(|| format!("read({})", file.display())),
    }
    files::children(directory)?.iter().try_for_each(|child| collect(child, pids))
}

/// Whether the cgroup has a process, in itself or below. v2 knows without a list.
pub(super) fn is_populated(directory: &Path, version: Version) -> Result<bool> {
    if version == Version::V2 {
        let events = directory.join("cgroup.events");
        return match files::try_read(&events) {
            Ok(events) => Ok(files::flat_value(&events, "populated") == Some("1")),
            Err(errno) if files::is_gone(errno) => Ok(false),
            Err(errno) => Err(errno).call(|| format!("read({})", events.display())),
        };
    }
    in_directory(directory).map(|pids| !pids.is_empty())
}
