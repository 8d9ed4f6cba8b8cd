//! The state file: just enough for exec and update, and for a delete after any crash.
//!
//! `<state dir>/state.json`, mode 0600 in a directory of mode 0700, replaced atomically. It is
//! written before the first effect on the host, so that a create that is killed half way leaves
//! nothing that nobody knows of, and again when init is known. The compiled seccomp filter lies
//! beside it as `seccomp.bpf`, because JSON is no form for 10 KiB of program.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::apply::intel_rdt::RdtGroups;
use crate::apply::net_devices::Record;
use crate::cgroup::CgroupPaths;
use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::{ExecTemplate, Hooks, Plan};
use crate::sys::socket;

const STATE: &str = "state.json";
const FILTER: &str = "seccomp.bpf";
/// What is removed with a container's state. The state itself comes last: what a removal that is
/// broken off leaves is found by the next one.
const FILES: [&str; 8] = [
    ".seccomp.bpf",
    FILTER,
    START,
    STARTED,
    ".net-devices.json",
    NET_DEVICES,
    ".state.json",
    STATE,
];
/// Only while a create is under way.
const NET_DEVICES: &str = "net-devices.json";

/// FIFO by which a container without a daemon is started.
pub(crate) const START: &str = "start.fifo";
/// FIFO by which it tells how that went.
pub(crate) const STARTED: &str = "started.fifo";

/// A process that can be told from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid in the runtime's pid namespace.
    pub pid: i32,
    /// Field 22 of /proc/pid/stat: clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The identity of a running process or a zombie; None when there is none of this number.
    ///
    /// # Errors
    /// A /proc that does not read as proc(5) says.
    pub fn of(pid: i32) -> Result<Option<ProcessId>> {
        let path = format!("/proc/{pid}/stat");
        match read_record(&path) {
            Ok(stat) => match stat_field(&stat, 22) {
                Some(start_time) => Ok(Some(ProcessId { pid, start_time })),
                None => Err(Error::new(Kind::Corrupt(format!("{path}: no start time")))),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error).call(|| format!("read({path})")),
        }
    }

    /// Whether this very process is still there (maybe as a zombie).
    ///
    /// # Errors
    /// As for [`ProcessId::of`].
    pub fn exists(&self) -> Result<bool> {
        Ok(ProcessId::of(self.pid)?.as_ref() == Some(self))
    }

    /// This very process, to be signalled or waited for; None when it has ended. A zombie, which
    /// only its parent can tell from a process, is one that has ended.
    ///
    /// # Errors
    /// As for [`ProcessId::of`]; pidfd_open(2).
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // EINVAL: its number is still that of a session or process group, which outlives it.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            other => other.call(|| format!("pidfd_open({})", self.pid))?,
        };
        // Compared after it was opened: until then the number could have become another one's.
        if !self.exists()? || has_ended(&pidfd)? {
            return Ok(None);
        }
        Ok(Some(pidfd))
    }
}

/// A pidfd polls readable from the end of its process's last thread on.
fn has_ended(pidfd: &OwnedFd) -> Result<bool> {
    match socket::wait_readable(pidfd.as_fd(), 0) {
        Ok(()) => Ok(true),
        Err(Errno::TIMEDOUT) => Ok(false),
        Err(errno) => Err(errno).call(|| "poll(pidfd, 0 ms)".into()),
    }
}

/// A file of one record, which the kernel gives whole: one read(2), where a reader that does not
/// know the size takes seven.
fn read_record(path: &str) -> std::io::Result<String> {
    let mut record = [0; 4096];
    let length = File::open(path)?.read(&mut record)?;
    Ok(String::from_utf8_lossy(record.get(..length).unwrap_or_default()).into_owned())
}

/// A numeric field of /proc/pid/stat, numbered as in proc(5); the command in field 2 may hold
/// anything, so fields are counted from its closing parenthesis.
pub(crate) fn stat_field<T: std::str::FromStr>(stat: &str, number: usize) -> Option<T> {
    let rest = stat.get(stat.rfind(')')? + 2..)?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Who it is, and what its tenants need. In the file its seccomp filter has no program: that
    /// is in a file of its own.
    pub container: ExecTemplate,
    /// Its init, once there is one.
    pub init: Option<ProcessId>,
    /// Where its cgroups are, or, without an init, are about to be.
    pub cgroup: CgroupPaths,
    /// Hooks that are still to be run.
    pub hooks: Hooks,
    /// Where the rootfs was mounted on the host, when hooks needed it there.
    pub rootfs_on_host: Option<PathBuf>,
    /// Its Intel RDT groups: tenants join them, delete removes those that were made.
    pub rdt: Option<RdtGroups>,
}

impl State {
    /// The state of a container that is about to be made.
    pub fn planned(plan: &Plan, cgroup: CgroupPaths) -> State {
        State {
            container: ExecTemplate::of(plan),
            init: None,
            cgroup,
            hooks: Hooks {
                poststart: plan.hooks.poststart.clone(),
                poststop: plan.hooks.poststop.clone(),
                ..Hooks::default()
            },
            rootfs_on_host: None,
            rdt: None,
        }
    }
}

/// The directory that holds a container's state.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Makes the directory (mode 0700), or takes over one in which no container lives.
    ///
    /// # Errors
    /// [`Kind::AlreadyExists`] when it holds the state of a container.
    pub fn create(path: &Path) -> Result<StateDir> {
        let made = DirBuilder::new().mode(0o700).create(path);
        let dir = StateDir { path: path.to_owned() };
        match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match dir.load()? {
                Some(state) => Err(Error::new(Kind::AlreadyExists(format!(
                    "container {:?}",
                    state.container.id
                )))),
                None => Ok(dir),
            },
            other => other.call(|| format!("mkdir({path:?}, 0700)")).map(|()| dir),
        }
    }

    /// The directory of a container that should exist.
    pub fn open(path: &Path) -> StateDir {
        StateDir { path: path.to_owned() }
    }

    /// The path of one of its files.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the state: what a reader finds is always whole.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn save(&self, state: &State) -> Result<()> {
        if let Some(seccomp) = &state.container.seccomp {
            self.replace(FILTER, &seccomp.bpf)?;
        }
        self.update(state)
    }

    /// Writes the state again after a change to anything but the filter.
    ///
    /// # Errors
    /// As for [`StateDir::save`].
    pub fn update(&self, state: &State) -> Result<()> {
        let mut light = state.clone();
        if let Some(seccomp) = &mut light.container.seccomp {
            seccomp.bpf = Vec::new();
        }
        let json = serde_json::to_vec(&light)
            .map_err(|error| Error::new(Kind::Corrupt(format!("state to save: {error}"))))?;
        self.replace(STATE, &json)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (temporary, target) = (self.path.join(format!(".{name}")), self.path.join(name));
        let write = || -> std::io::Result<()> {
            let mut options = File::options();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)
        };
        write().call(|| format!("write({temporary:?}, {} bytes)", bytes.len()))?;
        std::fs::rename(&temporary, &target)
            .call(|| format!("rename({temporary:?}, {target:?})"))
            .at("save state")
    }

    /// Writes down which devices of the host are about to go into the container.
    ///
    /// # Errors
    /// As for [`StateDir::save`].
    pub fn record_net_devices(&self, devices: &Record) -> Result<()> {
        let json = serde_json::to_vec(devices)
            .map_err(|error| Error::new(Kind::Corrupt(format!("devices to save: {error}"))))?;
        self.replace(NET_DEVICES, &json)
    }

    /// Which devices went into a container whose create has not come to its end.
    ///
    /// # Errors
    /// As for [`StateDir::load`].
    pub fn recorded_net_devices(&self) -> Result<Option<Record>> {
        let Some(json) = self.read(NET_DEVICES)? else { return Ok(None) };
        serde_json::from_slice(&json).map(Some).map_err(|error| {
            Error::new(Kind::Corrupt(format!("{}: {error}", self.join(NET_DEVICES).display())))
        })
    }

    /// From here on the devices are the container's.
    ///
    /// # Errors
    /// The file system's. That there is no record is none.
    pub fn forget_net_devices(&self) -> Result<()> {
        self.unlink(NET_DEVICES)
    }

    fn unlink(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).call(|| format!("unlink({path:?})"))
            }
            _ => Ok(()),
        }
    }

    /// Reads the state; None when there is none.
    ///
    /// # Errors
    /// A file that cannot be read, or does not parse.
    pub fn load(&self) -> Result<Option<State>> {
        let Some(mut state) = self.load_without_filter()? else { return Ok(None) };
        if let Some(seccomp) = &mut state.container.seccomp {
            seccomp.bpf = self.read(FILTER)?.ok_or_else(|| self.not_found(FILTER))?;
        }
        Ok(Some(state))
    }

    /// Reads all but the filter, which only tenants need, and which a removal that was broken off
    /// has removed already.
    ///
    /// # Errors
    /// As for [`StateDir::load`].
    pub fn load_without_filter(&self) -> Result<Option<State>> {
        let Some(json) = self.read(STATE)? else { return Ok(None) };
        serde_json::from_slice(&json).map(Some).map_err(|error| {
            Error::new(Kind::Corrupt(format!("{}: {error}", self.path.join(STATE).display())))
        })
    }

    /// Reads the state of a container that must exist.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it does not, else as for [`StateDir::load`].
    pub fn require(&self) -> Result<State> {
        self.load()?.ok_or_else(|| self.not_found(STATE))
    }

    fn not_found(&self, name: &str) -> Error {
        Error::new(Kind::NotFound(self.path.join(name).display().to_string()))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).call(|| format!("read({path:?})")),
        }
    }

    /// Removes the container's state. The directory goes too when nothing else is in it: the shim
    /// keeps the exit status there.
    ///
    /// # Errors
    /// The file system's. That nothing is there is none.
    pub fn remove(&self) -> Result<()> {
        FILES.into_iter().try_for_each(|name| self.unlink(name))?;
        match std::fs::remove_dir(&self.path) {
            Err(error)
                if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) =>
            {
                Err(error).call(|| format!("rmdir({:?})", self.path))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_stat_is_found_behind_any_command_name() {
        let stat = "42 (a) b) (c) S 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0";
        assert_eq!(stat_field(stat, 4), Some(1));
        assert_eq!(stat_field(stat, 22), Some(777));
    }

    #[test]
    fn a_process_is_itself_and_not_another_one_of_its_number() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = ProcessId::of(pid).unwrap().unwrap();
        assert!(me.exists().unwrap());
        assert!(!ProcessId { start_time: me.start_time + 1, ..me }.exists().unwrap());
        assert_eq!(ProcessId::of(i32::MAX).unwrap(), None);
    }
}
