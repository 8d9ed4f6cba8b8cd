//! The host before and after a test: processes, mounts, cgroups, sockets, files, net devices.
//!
//! Other tests run at the same time, so only what carries the test's tag is looked at (net
//! devices have no room for one: there only new ones count).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::containerd::Endpoint;
use crate::process::Process;
use crate::wait;

/// How long after a test its traces may take to go.
const SETTLE: Duration = Duration::from_secs(15);

/// Traces of one test, each as one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSnapshot {
    lines: BTreeSet<String>,
}

/// What to look for.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    /// The containerd used.
    pub endpoint: &'a Endpoint,
    /// The tag of the test.
    pub tag: &'a str,
    /// Its containers and sandboxes, for the names of their sockets.
    pub ids: &'a [String],
}

impl HostSnapshot {
    /// Takes one.
    #[must_use]
    pub fn take(scope: &Scope<'_>) -> Self {
        let tag = scope.tag;
        let mut lines = BTreeSet::new();
        // The containerd of a test that has one of its own has another pid after a restart.
        let config = scope.endpoint.dir.join("config.toml").to_string_lossy().into_owned();
        for process in Process::tagged(tag).values().filter(|p| !p.line.ends_with(&config)) {
            lines.insert(format!(
                "process {} {} {} {}",
                process.pid, process.state, process.comm, process.line
            ));
        }
        lines
            .extend(mounts().into_iter().filter(|m| m.contains(tag)).map(|m| format!("mount {m}")));
        for root in cgroup_roots() {
            for dir in named(&root, tag, 6) {
                lines.insert(format!("cgroup {}", dir.display()));
            }
        }
        let (state, root) = (scope.endpoint.dir.join("state"), scope.endpoint.dir.join("root"));
        for (root, depth) in [
            (state.as_path(), 5),
            (&root.join("io.containerd.runtime.v2.task"), 3),
            (Path::new("/run"), 5),
            (Path::new("/dev/shm"), 2),
            (Path::new("/dev/mqueue"), 1),
        ] {
            lines.extend(named(root, tag, depth).iter().map(|p| format!("file {}", p.display())));
        }
        for id in scope.ids {
            let socket = scope.endpoint.shim_socket(id);
            if socket.symlink_metadata().is_ok() {
                lines.insert(format!("socket of {id}: {}", socket.display()));
            }
        }
        lines.extend(net_devices().into_iter().map(|name| format!("net device {name}")));
        Self { lines }
    }

    /// What is there now and was not there then, once it stops shrinking or nothing is left.
    fn left(&self, scope: &Scope<'_>) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        wait::within(SETTLE, || {
            let now = Self::take(scope);
            left = now.lines.difference(&self.lines).cloned().collect();
            left.is_empty().then_some(())
        });
        left
    }

    /// Waits until the host is as it was.
    ///
    /// # Panics
    /// When something is left, or something that was there is gone.
    #[track_caller]
    pub fn assert_same(&self, scope: &Scope<'_>) {
        let left = self.left(scope);
        let list: Vec<_> = left.into_iter().collect();
        assert!(list.is_empty(), "left behind on the host:\n  {}", list.join("\n  "));
        let now = Self::take(scope);
        let gone: Vec<_> = self.lines.difference(&now.lines).cloned().collect();
        let gone: Vec<_> =
            gone.into_iter().filter(|line| !line.starts_with("net device")).collect();
        assert!(gone.is_empty(), "gone from the host:\n  {}", gone.join("\n  "));
    }
}

/// The mount points of the caller's mount namespace, each with its type.
#[must_use]
pub fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| Some(format!("{} {}", field(line, 4)?, kind(line)?))).collect()
}

fn field(line: &str, n: usize) -> Option<&str> {
    line.split(' ').nth(n)
}

fn kind(line: &str) -> Option<&str> {
    line.split_once(" - ")?.1.split(' ').next()
}

/// Where cgroup hierarchies are mounted.
#[must_use]
pub fn cgroup_roots() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_cgroup = |line: &&str| kind(line).is_some_and(|k| k.starts_with("cgroup"));
    text.lines().filter(is_cgroup).filter_map(|line| field(line, 4)).map(PathBuf::from).collect()
}

/// Whether cgroup v2 is the only hierarchy.
#[must_use]
pub fn is_pure_cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Whether AppArmor is the LSM that labels processes.
#[must_use]
pub fn has_apparmor() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.starts_with('Y'))
}

/// The kernel's version.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Whether there is a user of this id.
#[must_use]
pub fn has_user(id: u32) -> bool {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().any(|line| line.split(':').nth(2) == Some(&id.to_string()))
}

/// Whether SELinux is the LSM that labels processes.
#[must_use]
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Whether systemd is PID 1, as sd_booted(3) finds out.
#[must_use]
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Paths below `root`, at most `depth` levels down, whose last part has `tag` in it. What is
/// below a hit is not looked at.
fn named(root: &Path, tag: &str, depth: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().contains(tag) {
            found.push(entry.path());
        } else if depth > 1 && entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(named(&entry.path(), tag, depth - 1));
        }
    }
    found
}

fn net_devices() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    entries.filter_map(Result::ok).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Removes what a failed test left: kills its processes, unmounts, removes its cgroups.
pub fn sweep(tag: &str) {
    for _ in 0..50 {
        let left = Process::tagged(tag);
        if left.values().all(|process| process.state == 'Z') {
            break;
        }
        for pid in left.keys() {
            let pid = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw);
            pid.and_then(|p| rustix::process::kill_process(p, rustix::process::Signal::KILL).ok());
        }
        thaw(tag);
        std::thread::sleep(Duration::from_millis(20));
    }
    let points = mounts().into_iter().filter(|mount| mount.contains(tag)).rev();
    for point in points.filter_map(|mount| Some(mount.split(' ').next()?.to_owned())) {
        let mut umount = std::process::Command::new("umount");
        umount.arg("-l").arg(point);
        umount.stderr(std::process::Stdio::null()).status().ok();
    }
    for root in cgroup_roots() {
        named(&root, tag, 6).iter().for_each(|dir| remove_tree(dir));
    }
}

/// A frozen process does not die: thaws the cgroups with `tag` in their name.
fn thaw(tag: &str) {
    for root in cgroup_roots() {
        for dir in named(&root, tag, 6) {
            fs::write(dir.join("freezer.state"), "THAWED").ok();
            fs::write(dir.join("cgroup.freeze"), "0").ok();
        }
    }
}

/// Removes a cgroup and those below it.
pub fn remove_tree(dir: &Path) {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.filter_map(Result::ok) {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove_tree(&entry.path());
            }
        }
    }
    fs::remove_dir(dir).ok();
}
