//! Facts about processes, read from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// One process as /proc shows it.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id in the host's pid namespace.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// The kernel's letter: R, S, D, Z, T, …
    pub state: char,
    /// Its name, 15 bytes at most.
    pub comm: String,
    /// Its arguments, joined with spaces; empty for zombies and kernel threads.
    pub line: String,
}

impl Process {
    /// Reads one process; `None` when there is none.
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold spaces and brackets: the last bracket ends it.
        let (head, tail) = stat.rsplit_once(')')?;
        let mut fields = tail.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let comm = head.split_once('(')?.1.to_owned();
        let line = zeroes_to_spaces(fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default());
        Some(Self { pid, parent, state, comm, line })
    }

    /// All processes, by pid.
    ///
    /// # Panics
    /// When /proc cannot be read.
    #[must_use]
    pub fn all() -> BTreeMap<u32, Self> {
        let names = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        names
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, Self::read(pid)?)))
            .collect()
    }

    /// Processes with `tag` in their arguments, environment, cgroup or working directory, and
    /// all their descendants; never the caller.
    #[must_use]
    pub fn tagged(tag: &str) -> BTreeMap<u32, Self> {
        let all = Self::all();
        let own = std::process::id();
        let mut found: BTreeMap<u32, Self> = all
            .iter()
            .filter(|(pid, process)| **pid != own && process.mentions(tag))
            .map(|(pid, process)| (*pid, process.clone()))
            .collect();
        loop {
            let below: Vec<_> = all
                .values()
                .filter(|p| found.contains_key(&p.parent) && !found.contains_key(&p.pid))
                .cloned()
                .collect();
            if below.is_empty() {
                return found;
            }
            found.extend(below.into_iter().map(|p| (p.pid, p)));
        }
    }

    fn mentions(&self, tag: &str) -> bool {
        let text = |name: &str| {
            let bytes = fs::read(format!("/proc/{}/{name}", self.pid)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let cwd = fs::read_link(format!("/proc/{}/cwd", self.pid)).unwrap_or_default();
        self.line.contains(tag)
            || text("cgroup").contains(tag)
            || text("environ").contains(tag)
            || cwd.to_string_lossy().contains(tag)
    }
}

/// What the descriptors of `pid` point to, in order; empty when the process is gone.
#[must_use]
pub fn descriptors(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut links: Vec<String> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    links.sort();
    links
}

/// A line of /proc/PID/status, without its name.
#[must_use]
pub fn status(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The directory of `pid` in the cgroup hierarchy of `controller`, whichever version has it.
#[must_use]
pub fn cgroup_dir(pid: u32, controller: &str) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let lines = || text.lines().filter_map(|line| line.splitn(3, ':').skip(1).collect_pair());
    if let Some((_, path)) = lines().find(|(names, _)| names.split(',').any(|n| n == controller)) {
        let root = PathBuf::from("/sys/fs/cgroup").join(controller);
        return Some(root.join(path.trim_start_matches('/')));
    }
    let (_, path) = lines().find(|(names, _)| names.is_empty())?;
    Some(PathBuf::from("/sys/fs/cgroup").join(path.trim_start_matches('/')))
}

/// Takes exactly two items.
trait CollectPair: Iterator + Sized {
    fn collect_pair(mut self) -> Option<(Self::Item, Self::Item)> {
        Some((self.next()?, self.next()?))
    }
}

impl<I: Iterator> CollectPair for I {}

fn zeroes_to_spaces(bytes: Vec<u8>) -> String {
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim_end().to_owned()
}
