//! Removing a container's cgroup.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::freezer::{late, wait_for_event};
use super::{Cgroup, Version, files, processes};
use crate::error::{At, Call, Error, Kind, Result};

/// How long processes that were killed may take to leave all the hierarchies. containerd gives
/// a shim's delete 5 s in all.
const DEADLINE: Duration = Duration::from_secs(2);

impl Cgroup {
    /// Removes the directories, and those the container made below them. Its processes have
    /// been killed; those that are still on their way out are waited for. What is gone already
    /// is no error.
    ///
    /// # Errors
    /// `State` with the processes that are still there after 2 s. All the other directories are
    /// removed then.
    pub fn remove(&self) -> Result<()> {
        let begin = Instant::now();
        let mut first_error = None;
        // v2 first: its events tell when the processes have left, for all hierarchies.
        for directory in self.paths.directories.iter().rev() {
            let removed = remove_tree(&directory.path, directory.version, begin);
            if let Err(error) = removed {
                first_error.get_or_insert(error);
            }
        }
        match first_error {
            Some(error) => Err(error).at("remove the cgroup"),
            None => Ok(()),
        }
    }
}

impl Cgroup {
    /// Takes the unit of systemd away that the cgroup belongs to, when there is one: to be called
    /// when the cgroup has been removed. Returns warnings for the log: that systemd does not
    /// answer is no error where the unit ends by itself, as soon as systemd comes to it.
    ///
    /// # Errors
    /// What systemd refuses, or that it does not answer.
    pub fn release_unit(&self) -> Result<Vec<String>> {
        let Some(unit) = &self.paths.unit else { return Ok(Vec::new()) };
        match unit.stop() {
            Ok(()) => Ok(Vec::new()),
            Err(error) if unit.ends_by_itself() => {
                Ok(vec![format!("unit {}: {error}; it ends without us", unit.name)])
            }
            Err(error) => Err(error),
        }
    }
}

fn remove_tree(directory: &Path, version: Version, begin: Instant) -> Result<()> {
    // The usual case is one call.
    match rustix::fs::rmdir(directory) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(errno) => return Err(errno).call(|| format!("rmdir({})", directory.display())),
    }
    for child in files::children(directory)? {
        remove_tree(&child, version, begin)?;
    }
    let mut pause = Duration::from_micros(50);
    loop {
        match rustix::fs::rmdir(directory) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(errno).call(|| format!("rmdir({})", directory.display())),
        }
        let left = DEADLINE.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(still_there(directory));
        }
        if processes::is_populated(directory, version)? {
            wait_until_left(directory, version, left)?;
        } else {
            // Not listed any more, and not gone yet: Linux ≥ 6.19 takes a process out of its
            // cgroup after its last switch, a moment after it has been reaped.
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }
}

/// Waits for the end of the processes, by the kernel's events; the caller looks what is true.
fn wait_until_left(directory: &Path, version: Version, within: Duration) -> Result<()> {
    match version {
        Version::V2 => {
            let path = directory.join("cgroup.events");
            let events = match files::open(&path, OFlags::RDONLY) {
                Ok(events) => events,
                Err(Errno::NOENT) => return Ok(()),
                Err(errno) => return Err(errno).call(|| format!("open({})", path.display())),
            };
            match wait_for_event(&events, &path, "populated", "0", within) {
                Err(error) if matches!(error.kind(), Kind::Deadline { .. }) => Ok(()),
                result => result,
            }
        }
        Version::V1 => wait_for_ends(directory, within),
    }
}

fn wait_for_ends(directory: &Path, within: Duration) -> Result<()> {
    let pids = processes::in_directory(directory)?;
    let fds: Vec<OwnedFd> = pids
        .into_iter()
        .filter_map(Pid::from_raw)
        .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        .collect();
    let timeout = Timespec::try_from(within).ok();
    for fd in &fds {
        let mut poll = [PollFd::new(fd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, timeout.as_ref()))
            .call(|| format!("poll(pidfd of a process in {})", directory.display()))?;
    }
    Ok(())
}

fn still_there(directory: &Path) -> Error {
    let pids = processes::in_directory(directory).unwrap_or_default();
    if pids.is_empty() {
        return late(format!("removal of {}", directory.display()), DEADLINE);
    }
    let names: Vec<String> = pids
        .iter()
        .map(|pid| match files::try_read(Path::new(&format!("/proc/{pid}/comm"))) {
            Ok(name) => format!("{pid} ({})", name.trim()),
            Err(_) => pid.to_string(),
        })
        .collect();
    Error::new(Kind::State(format!(
        "cgroup {} still has processes in it: {}",
        directory.display(),
        names.join(", ")
    )))
}
