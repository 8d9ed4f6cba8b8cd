//! What may be left of a container when its daemon is gone: processes and cgroups.
//!
//! Known from the state that the runtime keeps in the bundle. A process is killed by a pidfd that
//! was verified after it was opened: against the start time of init, or against the cgroup's list
//! of members. So a number that was used again hits nobody.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::{Error, Kind, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Deserialize;

/// The runtime's state.
const STATE: &str = "state.json";

/// For all that is waited for here together. containerd allows `delete` 5 s, of which 2 s may go
/// into waiting for the lock on the sockets' folder.
pub(crate) const DEADLINE: Duration = Duration::from_millis(2500);

/// Between two looks at a cgroup that empties.
const PAUSE: Duration = Duration::from_millis(1);

/// What may be left of a container: the part of the runtime's state that this needs. Not the
/// runtime's own type, so that the `delete` of a new version, after an upgrade, understands what
/// an old one has left.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Remains {
    /// Its init; absent when it never had one.
    #[serde(default)]
    init: Option<Init>,
    /// Its cgroups.
    #[serde(default)]
    cgroup: Cgroups,
}

#[derive(Debug, Default, Deserialize)]
struct Cgroups {
    directories: Vec<Directory>,
}

/// One per hierarchy.
#[derive(Debug, Deserialize)]
struct Directory {
    path: PathBuf,
}

/// A process that cannot be mistaken for another one.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Init {
    pid: i32,
    /// Clock ticks after boot (field 22 of proc_pid_stat(5)).
    start_time: u64,
}

impl Remains {
    /// None: the container was never made, or is gone.
    ///
    /// # Errors
    /// When the state cannot be read or understood.
    pub(crate) fn load(state_dir: &Path) -> Result<Option<Remains>> {
        let path = state_dir.join(STATE);
        match fs::read(&path) {
            Ok(state) => serde_json::from_slice(&state)
                .map(Some)
                .map_err(|error| Error::new(Kind::Corrupt(format!("{}: {error}", path.display())))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::call(format!("read({path:?})"), error)),
        }
    }

    /// The pid that init has, or had.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.init.and_then(|init| u32::try_from(init.pid).ok())
    }

    /// Kills all processes, and waits for their end.
    ///
    /// # Errors
    /// When some are left at the deadline, or a cgroup cannot be read.
    pub(crate) fn kill(&self, deadline: Instant) -> Result<()> {
        let init = self.init.map(Init::open).transpose()?.flatten();
        if let Some(init) = &init {
            kill(init)?;
        }
        for directory in self.directories() {
            kill_all(directory, deadline)?;
        }
        init.map_or(Ok(()), |init| wait_for_end(&init, deadline))
    }

    /// Removes the cgroups with all below them.
    ///
    /// # Errors
    /// When one is still in use at the deadline.
    pub(crate) fn remove_cgroups(&self, deadline: Instant) -> Result<()> {
        self.directories().try_for_each(|directory| remove(directory, deadline))
    }

    /// Never a hierarchy's root, whatever the state says: all processes of the host are below it.
    fn directories(&self) -> impl Iterator<Item = &Path> {
        let directories = self.cgroup.directories.iter().map(|directory| &*directory.path);
        directories
            .filter(|path| path.parent().is_some_and(|parent| parent.join("cgroup.procs").exists()))
    }
}

impl Init {
    /// None: it has ended.
    fn open(self) -> Result<Option<OwnedFd>> {
        let Some(pidfd) = open(self.pid)? else { return Ok(None) };
        // After the pidfd is open: from here on the number can only be that process's.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        Ok((start_time(&stat) == Some(self.start_time)).then_some(pidfd))
    }
}

/// Field 22; field 2, the name, is in parentheses and may have anything in it.
fn start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn open(pid: i32) -> Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(pid).filter(|pid| *pid != rustix::process::getpid()) else {
        return Ok(None);
    };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // EINVAL: no process, but still the number of a session or process group.
        Err(Errno::SRCH | Errno::INVAL) => Ok(None),
        Err(errno) => Err(Error::call(format!("pidfd_open({pid})"), errno)),
    }
}

fn kill(process: &OwnedFd) -> Result<()> {
    match rustix::process::pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::call("pidfd_send_signal([process], SIGKILL)", errno)),
    }
}

fn wait_for_end(process: &OwnedFd, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = rustix::event::Timespec::try_from(left).unwrap_or_default();
        let mut polled = [PollFd::new(process, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(0) => return Err(too_late("end of the container's init")),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call("poll([init])", errno)),
        }
    }
}

/// Kills all members of a cgroup and of those below, until there are none.
fn kill_all(cgroup: &Path, deadline: Instant) -> Result<()> {
    loop {
        // Linux ≥ 5.14, v2: all at once, also those that are just being forked.
        if write(&cgroup.join("cgroup.kill"), "1").is_err() {
            freeze(cgroup, "FROZEN");
            let killed = kill_members(cgroup);
            // Also without a freeze of ours: a container that was paused cannot die (v1).
            freeze(cgroup, "THAWED");
            killed?;
        }
        if members(cgroup)?.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(too_late(&format!("end of the processes in {}", cgroup.display())));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Where there is a v1 freezer: so that none of them forks faster than it is killed. It helps, and
/// is not needed: no error.
fn freeze(cgroup: &Path, state: &str) {
    drop(write(&cgroup.join("freezer.state"), state));
}

fn write(file: &Path, text: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

fn kill_members(cgroup: &Path) -> Result<()> {
    let mut processes = Vec::new();
    for pid in members(cgroup)? {
        if let Some(process) = open(pid)? {
            processes.push((pid, process));
        }
    }
    // Who is a member still, after his pidfd was opened, is the one who it was opened for.
    let members = members(cgroup)?;
    let still = processes.iter().filter(|(pid, _)| members.contains(pid));
    still.into_iter().try_for_each(|(_, process)| kill(process))
}

/// All members of a cgroup and of those below, but for zombies in v2.
fn members(cgroup: &Path) -> Result<Vec<i32>> {
    let mut members = Vec::new();
    for directory in tree(cgroup)? {
        let procs = directory.join("cgroup.procs");
        match fs::read_to_string(&procs) {
            Ok(pids) => members.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok())),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(Error::call(format!("read({procs:?})"), error)),
        }
    }
    Ok(members)
}

/// A cgroup and all below it, from the top to the bottom.
fn tree(cgroup: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![cgroup.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(Error::call(format!("opendir({directory:?})"), error)),
        };
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
        found.extend(folders.map(|entry| entry.path()));
    }
    Ok(found)
}

fn remove(cgroup: &Path, deadline: Instant) -> Result<()> {
    for directory in tree(cgroup)?.iter().rev() {
        loop {
            match fs::remove_dir(directory) {
                Ok(()) => break,
                Err(error) if is_gone(&error) => break,
                // A process that has ended leaves its cgroup some time after its parent knows.
                Err(error)
                    if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(Error::call(format!("rmdir({directory:?})"), error)),
            }
        }
    }
    Ok(())
}

/// ENODEV: a file of a cgroup that was removed while it was open.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

fn too_late(awaited: &str) -> Error {
    let after_ms = u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX);
    Error::new(Kind::Deadline { awaited: awaited.to_owned(), after_ms })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(3)
    }

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    fn init_of(child: &Child) -> Init {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let start_time = start_time(&stat).unwrap();
        Init { pid: i32::try_from(child.id()).unwrap(), start_time }
    }

    /// A cgroup of this test in the pids hierarchy or, where there is none, the unified one.
    fn cgroup(name: &str) -> PathBuf {
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let root = roots.into_iter().map(Path::new).find(|root| root.join("cgroup.procs").exists());
        let path = root.unwrap().join(format!("myshim-remains-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    fn remains(init: Option<Init>, cgroups: &[&Path]) -> Remains {
        let directories = cgroups.iter().map(|path| Directory { path: path.to_path_buf() });
        Remains { init, cgroup: Cgroups { directories: directories.collect() } }
    }

    #[test]
    fn the_state_of_the_runtime_is_understood() {
        let dir = std::env::temp_dir().join(format!("myshim-remains-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        assert!(Remains::load(&dir).unwrap().is_none());
        let state = r#"{
            "container": {"id": "web"},
            "init": {"pid": 7, "start_time": 8},
            "cgroup": {"directories": [{"version": "V1", "controllers": [], "path": "/c"}]}
        }"#;
        fs::write(dir.join(STATE), state).unwrap();
        let remains = Remains::load(&dir).unwrap().unwrap();
        assert_eq!(remains.pid(), Some(7));
        assert_eq!(remains.cgroup.directories[0].path, Path::new("/c"));
        fs::write(dir.join(STATE), r#"{"init": null, "cgroup": {"directories": []}}"#).unwrap();
        assert_eq!(Remains::load(&dir).unwrap().unwrap().pid(), None);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn init_is_killed() {
        let mut child = sleeper();
        remains(Some(init_of(&child)), &[]).kill(deadline()).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn a_process_that_only_has_its_number_is_not_killed() {
        let mut child = sleeper();
        let mut init = init_of(&child);
        init.start_time -= 1;
        remains(Some(init), &[]).kill(deadline()).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        remains(Some(init), &[]).kill(deadline()).unwrap();
    }

    #[test]
    fn all_in_the_cgroup_and_below_are_killed_and_the_cgroup_removed() {
        let top = cgroup("tree");
        let below = top.join("a/b");
        fs::create_dir_all(&below).unwrap();
        let mut children = [sleeper(), sleeper(), sleeper()];
        for (child, directory) in children.iter().zip([&top, &top, &below]) {
            fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        let remains = remains(None, &[&top]);
        let reaper = std::thread::spawn(move || children.each_mut().map(|child| child.wait()));
        remains.kill(deadline()).unwrap();
        remains.remove_cgroups(deadline()).unwrap();
        assert!(!top.exists());
        for status in reaper.join().unwrap() {
            assert!(!status.unwrap().success());
        }
        remains.kill(deadline()).unwrap();
        remains.remove_cgroups(deadline()).unwrap();
    }

    #[test]
    fn a_cgroup_that_stays_in_use_is_reported_in_time() {
        let top = cgroup("stays");
        let mut child = sleeper();
        fs::write(top.join("cgroup.procs"), child.id().to_string()).unwrap();
        let begin = Instant::now();
        let result = remains(None, &[&top]).remove_cgroups(begin + Duration::from_millis(50));
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert!(result.unwrap_err().to_string().starts_with("rmdir("));
        child.kill().unwrap();
        child.wait().unwrap();
        remove(&top, deadline()).unwrap();
    }

    #[test]
    fn a_hierarchys_root_is_never_touched() {
        for root in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/"] {
            assert_eq!(remains(None, &[Path::new(root)]).directories().count(), 0, "{root}");
        }
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_time(&format!("7 (a) b (c)) {rest}")), Some(4242));
        assert_eq!(start_time(""), None);
    }
}
