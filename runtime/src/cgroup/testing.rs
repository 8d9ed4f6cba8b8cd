//! Cgroups of the machine that the tests run on, removed whatever happens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;

use super::{Cgroup, CgroupPlan, Created, Driver, Layout};

/// A cgroup below a name of its own, with the processes that were started in it.
pub(super) struct TestCgroup {
    pub(super) cgroup: Cgroup,
    pub(super) path: PathBuf,
    children: Vec<Child>,
}

/// Waits until something is so, as long as a busy machine may need.
pub(super) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A path that nobody else uses: `/myshim-test-PID-N/web`.
pub(super) fn unique_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("/myshim-test-{}-{number}/web", std::process::id()))
}

/// Where that path is in every hierarchy of this machine.
pub(super) fn directories(path: &std::path::Path) -> Vec<PathBuf> {
    let layout = Layout::detect().unwrap();
    let path = path.strip_prefix("/").unwrap();
    layout.hierarchies().map(|(_, hierarchy)| hierarchy.mount_point.join(path)).collect()
}

pub(super) fn plan(path: &std::path::Path, resources: &str) -> crate::Result<CgroupPlan> {
    let resources: LinuxResources = serde_json::from_str(resources).unwrap();
    let layout = Layout::detect().unwrap();
    CgroupPlan::new(
        Driver::Cgroupfs,
        Some(path),
        "web",
        Some(&resources),
        &BTreeMap::new(),
        &layout,
    )
}

/// The v2 hierarchy of this machine as if it were alone. `None` where there is none.
pub(super) fn v2_alone() -> Option<Layout> {
    let v2 = Layout::detect().unwrap().v2?;
    Some(Layout { v1: Vec::new(), v2: Some(v2) })
}

pub(super) fn create(path: &std::path::Path, resources: &str) -> crate::Result<Created> {
    Cgroup::create(&plan(path, resources)?, &Layout::detect().unwrap(), None)
}

impl TestCgroup {
    pub(super) fn new(resources: &str) -> TestCgroup {
        TestCgroup::with_layout(resources, &Layout::detect().unwrap())
    }

    pub(super) fn with_layout(resources: &str, layout: &Layout) -> TestCgroup {
        let path = unique_path();
        let resources: LinuxResources = serde_json::from_str(resources).unwrap();
        let plan = CgroupPlan::new(
            Driver::Cgroupfs,
            Some(&path),
            "web",
            Some(&resources),
            &BTreeMap::new(),
            layout,
        );
        let cgroup = Cgroup::create(&plan.unwrap(), layout, None).unwrap().cgroup;
        TestCgroup { cgroup, path, children: Vec::new() }
    }

    /// Runs a shell script in the cgroup, in all hierarchies, and returns its pid.
    ///
    /// A thread of the test moves itself into the v1 cgroups, and what it forks is born there;
    /// the v2 cgroup is entered by the shell itself.
    pub(super) fn spawn(&mut self, script: &str) -> i32 {
        let entry = self.cgroup.entry().unwrap();
        let join_v2 = match self.cgroup.paths().v2() {
            Some(v2) => format!("echo 0 > {}/cgroup.procs; ", v2.display()),
            None => String::new(),
        };
        let mut command = Command::new("/bin/sh");
        command.stderr(Stdio::null()).args(["-c", &format!("{join_v2}{script}")]);
        let (child, thread) = std::thread::spawn(move || {
            entry.join_self().unwrap();
            (command.spawn().unwrap(), rustix::thread::gettid().as_raw_nonzero())
        })
        .join()
        .unwrap();
        // The end of a thread is announced a moment before it has left its cgroup.
        let task = PathBuf::from(format!("/proc/self/task/{thread}"));
        wait_until(|| !task.exists());
        let pid = i32::try_from(child.id()).unwrap();
        self.children.push(child);
        let cgroup = self.cgroup.clone();
        let child = self.children.last_mut().unwrap();
        wait_until(|| cgroup.pids().unwrap().contains(&pid) || child.try_wait().unwrap().is_some());
        pid
    }

    /// Runs a script to its end, and returns its exit status; 128 + signal when killed.
    pub(super) fn run(&mut self, script: &str) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.spawn(script);
        let status = self.children.pop().unwrap().wait().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }

    pub(super) fn read(&self, v1_controller: &str, file: &str) -> String {
        let directory = self.cgroup.paths().v1(v1_controller).or(self.cgroup.paths().v2());
        std::fs::read_to_string(directory.unwrap().join(file)).unwrap().trim().to_owned()
    }

    /// Reaps the children; they have been killed.
    pub(super) fn reap(&mut self) {
        for mut child in self.children.drain(..) {
            child.wait().unwrap();
        }
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let killed = self.cgroup.kill_all(9);
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        let removed = self.cgroup.remove();
        remove_all(&self.path);
        if !std::thread::panicking() {
            killed.unwrap();
            removed.unwrap();
        }
    }
}

/// Removes a test's leaf and its parent from every hierarchy, as far as they are there.
pub(super) fn remove_all(path: &std::path::Path) {
    for directory in directories(path) {
        std::fs::remove_dir(&directory).ok();
        std::fs::remove_dir(directory.parent().unwrap()).ok();
    }
}
