//! The life of a cgroup on this machine, as root.

use std::os::fd::AsRawFd;
use std::time::Duration;

use super::testing::{self, TestCgroup, directories, unique_path, wait_until};
use super::*;
use crate::error::Kind;

fn exists_anywhere(path: &Path) -> bool {
    directories(path).iter().any(|directory| directory.exists())
}

#[test]
fn a_cgroup_is_made_in_every_hierarchy_and_removed_from_all() {
    let group = TestCgroup::new("{}");
    assert!(directories(&group.path).iter().all(|directory| directory.exists()));
    group.cgroup.remove().unwrap();
    assert!(!exists_anywhere(&group.path));
    group.cgroup.remove().unwrap();
}

#[test]
fn limits_are_set_before_a_process_is_in() {
    let mut group = TestCgroup::new(
        r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432,"swappiness":10},
            "cpu":{"shares":512,"quota":50000,"period":20000,"cpus":"0"},
            "pids":{"limit":17}}"#,
    );
    assert_eq!(group.read("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(group.read("memory", "memory.memsw.limit_in_bytes"), "134217728");
    assert_eq!(group.read("memory", "memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(group.read("memory", "memory.swappiness"), "10");
    assert_eq!(group.read("cpu", "cpu.shares"), "512");
    assert_eq!(group.read("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(group.read("cpu", "cpu.cfs_period_us"), "20000");
    assert_eq!(group.read("cpuset", "cpuset.cpus"), "0");
    assert_eq!(group.read("pids", "pids.max"), "17");
    assert_eq!(group.run("exit 7"), 7);
}

#[test]
fn a_process_that_enters_is_in_every_hierarchy() {
    let mut group = TestCgroup::new("{}");
    let pid = group.spawn("exec sleep 60");
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = group.path.to_str().unwrap();
    assert!(cgroups.lines().all(|line| line.ends_with(path)), "{cgroups}");
    assert_eq!(group.cgroup.pids().unwrap(), [pid]);
    group.cgroup.kill_all(9).unwrap();
    group.reap();
}

#[test]
fn the_entry_has_the_v2_directory_for_clone_and_the_v1_tasks() {
    let group = TestCgroup::new("{}");
    let entry = group.cgroup.entry().unwrap();
    let v2 = group.cgroup.paths().v2();
    assert_eq!(entry.clone_into.is_some(), v2.is_some());
    if let (Some(fd), Some(v2)) = (&entry.clone_into, v2) {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_eq!(link, v2);
    }
    assert!(entry.tasks.iter().all(|(path, _)| path.ends_with("web/tasks")));
}

#[test]
fn a_cgroup_with_processes_is_not_taken_and_not_touched() {
    let mut group = TestCgroup::new(r#"{"pids":{"limit":17}}"#);
    let pid = group.spawn("exec sleep 60");
    let error = testing::create(&group.path, r#"{"pids":{"limit":5}}"#).unwrap_err();
    assert!(matches!(error.kind(), Kind::AlreadyExists(_)), "{error}");
    assert!(error.to_string().contains(&format!("[{pid}]")), "{error}");
    assert_eq!(group.read("pids", "pids.max"), "17");
}

#[test]
fn an_empty_cgroup_that_is_there_is_used() {
    let group = TestCgroup::new("{}");
    let again = testing::create(&group.path, r#"{"pids":{"limit":5}}"#).unwrap();
    assert_eq!(group.read("pids", "pids.max"), "5");
    again.undo().unwrap();
    assert!(exists_anywhere(&group.path), "undo removes only what was made");
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    let path = unique_path();
    let error = testing::create(&path, r#"{"cpu":{"cpus":"4000"}}"#).unwrap_err().to_string();
    assert!(error.contains("linux.resources.cpu.cpus: write(/"), "{error}");
    assert!(error.contains("cpuset.cpus, \"4000\"): "), "{error}");
    assert!(!exists_anywhere(&path));
    assert!(!exists_anywhere(path.parent().unwrap()));
}

#[test]
fn undo_keeps_a_parent_that_another_container_uses() {
    let path = unique_path();
    let other = path.with_file_name("other");
    let first = testing::create(&path, "{}").unwrap();
    let second = testing::create(&other, "{}").unwrap();
    first.undo().unwrap();
    assert!(!exists_anywhere(&path));
    assert!(exists_anywhere(&other));
    second.cgroup.remove().unwrap();
    testing::remove_all(&path);
}

#[test]
fn creating_and_undoing_beside_each_other_never_fails() {
    let path = unique_path();
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let path = path.with_file_name(name);
            scope.spawn(move || {
                for _ in 0..10 {
                    testing::create(&path, "{}").unwrap().undo().unwrap();
                }
            });
        }
    });
    // The parent may be left: each saw it in use by the other.
    testing::remove_all(&path);
    assert!(!exists_anywhere(path.parent().unwrap()));
}

#[test]
fn a_read_only_hierarchy_is_named() {
    let mut layout = Layout::detect().unwrap();
    layout.v1.iter_mut().for_each(|hierarchy| hierarchy.access = Access::ReadOnly);
    let path = unique_path();
    let error = Cgroup::create(&testing::plan(&path, "{}").unwrap(), &layout, None).unwrap_err();
    let first = &layout.v1[0];
    let expected = format!(
        "make the cgroup in hierarchy {}: {} is mounted read-only",
        first.title(),
        first.mount_point.display()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn removal_takes_the_cgroups_that_the_container_made() {
    let group = TestCgroup::new("{}");
    for directory in directories(&group.path) {
        std::fs::create_dir_all(directory.join("a/b")).unwrap();
    }
    group.cgroup.remove().unwrap();
    assert!(!exists_anywhere(&group.path));
}

#[test]
fn removal_waits_for_processes_on_their_way_out() {
    let mut group = TestCgroup::new("{}");
    group.spawn("exec sleep 0.2");
    group.cgroup.remove().unwrap();
    assert!(!exists_anywhere(&group.path));
    group.reap();
}

#[test]
fn removal_that_fails_says_who_is_still_there() {
    let mut group = TestCgroup::new("{}");
    let pid = group.spawn("exec sleep 60");
    let comm = format!("/proc/{pid}/comm");
    wait_until(|| std::fs::read_to_string(&comm).unwrap() == "sleep\n");
    let error = group.cgroup.remove().unwrap_err();
    assert!(matches!(error.kind(), Kind::State(_)), "{error}");
    assert!(error.to_string().ends_with(&format!("processes in it: {pid} (sleep)")), "{error}");
}

#[test]
fn kill_all_reaches_children_cgroups_and_forks() {
    let mut group = TestCgroup::new("{}");
    group.spawn("sleep 60 & sleep 60 & while :; do sleep 0.001; done");
    let child = directories(&group.path).pop().unwrap().join("child");
    std::fs::create_dir(&child).unwrap();
    let pid = group.spawn("exec sleep 60");
    std::fs::write(child.join("cgroup.procs"), pid.to_string()).unwrap();
    wait_until(|| group.cgroup.pids().unwrap().len() >= 4);
    group.cgroup.kill_all(9).unwrap();
    group.reap();
    group.cgroup.remove().unwrap();
    assert!(!exists_anywhere(&group.path));
}

/// The same cgroup without its v2 directory, as on a host with v1 alone.
fn v1_alone(group: &TestCgroup) -> Cgroup {
    let mut paths = group.cgroup.paths().clone();
    paths.directories.retain(|directory| directory.version == Version::V1);
    Cgroup::open(&paths)
}

#[test]
fn on_v1_kill_all_ends_a_fork_bomb_and_the_frozen() {
    let mut group = TestCgroup::new(r#"{"pids":{"limit":50}}"#);
    group.spawn("while :; do (sleep 60 & sleep 60) & sleep 0.001; done 2>/dev/null");
    std::thread::sleep(Duration::from_millis(100));
    let v1 = v1_alone(&group);
    v1.freeze().unwrap();
    assert_eq!(v1.freezer_state().unwrap(), Some(Freeze::Frozen));
    v1.kill_all(9).unwrap();
    group.reap();
    group.cgroup.remove().unwrap();
    assert!(!exists_anywhere(&group.path));
}

#[test]
fn a_signal_to_all_reaches_all_and_leaves_the_freezer_as_it_was() {
    let mut group = TestCgroup::new("{}");
    group.spawn("trap 'exit 3' TERM; while :; do sleep 0.01; done");
    for cgroup in [v1_alone(&group), group.cgroup.clone()] {
        cgroup.freeze().unwrap();
        cgroup.kill_all(15).unwrap();
        assert_eq!(cgroup.freezer_state().unwrap(), Some(Freeze::Frozen));
        cgroup.thaw().unwrap();
        group.spawn("trap 'exit 3' TERM; while :; do sleep 0.01; done");
    }
    group.cgroup.kill_all(15).unwrap();
    group.reap();
}

#[test]
fn frozen_processes_do_not_run_until_they_are_thawed() {
    let mut group = TestCgroup::new("{}");
    let pid = group.spawn("while :; do :; done");
    let cpu_time = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    for cgroup in [v1_alone(&group), group.cgroup.clone()] {
        cgroup.freeze().unwrap();
        assert_eq!(cgroup.freezer_state().unwrap(), Some(Freeze::Frozen));
        let before = cpu_time();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(cpu_time(), before);
        cgroup.thaw().unwrap();
        assert_eq!(cgroup.freezer_state().unwrap(), Some(Freeze::Thawed));
        wait_until(|| cpu_time() > before);
    }
}

mod v2 {
    //! A host with v2 alone, as far as this machine's v2 hierarchy has controllers.

    use super::*;
    use crate::cgroup::testing::v2_alone;

    #[test]
    fn a_container_lives_and_dies_in_v2_alone() {
        let Some(layout) = v2_alone() else { return };
        let mut group = TestCgroup::with_layout("{}", &layout);
        assert_eq!(group.cgroup.paths().directories.len(), 1);
        let pid = group.spawn("while :; do :; done");
        assert_eq!(group.cgroup.pids().unwrap(), [pid]);
        group.cgroup.freeze().unwrap();
        let Stats::V2(stats) = Stats::read(group.cgroup.paths()).unwrap() else { panic!() };
        assert!(stats.cpu.stat.usage_usec > 0);
        // cgroup.kill ends frozen processes.
        group.cgroup.kill_all(9).unwrap();
        group.reap();
        group.cgroup.remove().unwrap();
        assert!(!exists_anywhere(&group.path));
    }

    #[test]
    fn devices_are_denied_by_default() {
        let Some(layout) = v2_alone() else { return };
        let mut group = TestCgroup::with_layout("{}", &layout);
        assert_eq!(group.run("true </dev/null && ! true 2>/dev/null </dev/kmsg"), 0);
    }

    #[test]
    fn a_controller_is_enabled_down_to_the_container() {
        let Some(layout) = v2_alone() else { return };
        if layout.v2.as_ref().is_none_or(|v2| !v2.controllers.contains(&"hugetlb".to_owned())) {
            return;
        }
        let resources = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
        let group = TestCgroup::with_layout(resources, &layout);
        assert_eq!(group.read("", "hugetlb.2MB.max"), "4194304");
        assert_eq!(group.read("", "hugetlb.2MB.rsvd.max"), "4194304");
        let Stats::V2(stats) = Stats::read(group.cgroup.paths()).unwrap() else { panic!() };
        let limits = stats.hugetlb.iter().find(|h| h.pagesize == "2MB").map(|h| h.max);
        assert_eq!(limits, Some(4_194_304));
        group
            .cgroup
            .update(
                &serde_json::from_str(&resources.replace("4194304", "2097152")).unwrap(),
                |_| Ok(()),
            )
            .unwrap();
        assert_eq!(group.read("", "hugetlb.2MB.max"), "2097152");
    }

    #[test]
    fn a_parent_with_processes_cannot_give_limits_and_the_error_says_so() {
        let Some(layout) = v2_alone() else { return };
        let mut parent = TestCgroup::with_layout("{}", &layout);
        parent.spawn("exec sleep 60");
        let path = parent.path.join("child");
        let resources = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
        let plan = CgroupPlan::new(
            Driver::Cgroupfs,
            Some(&path),
            "web",
            Some(&serde_json::from_str(resources).unwrap()),
            &std::collections::BTreeMap::new(),
            &layout,
        );
        let error = Cgroup::create(&plan.unwrap(), &layout, None).unwrap_err().to_string();
        assert!(error.contains("no internal processes"), "{error}");
        assert!(error.contains("cgroup.subtree_control, \"+hugetlb\"): EBUSY"), "{error}");
        assert!(!exists_anywhere(&path));
    }

    #[test]
    fn a_threaded_parent_is_told() {
        let Some(layout) = v2_alone() else { return };
        let parent = TestCgroup::with_layout("{}", &layout);
        let thread = parent.cgroup.paths().v2().unwrap().join("thread");
        std::fs::create_dir(&thread).unwrap();
        std::fs::write(thread.join("cgroup.type"), "threaded").unwrap();
        let path = parent.path.join("child");
        let plan = CgroupPlan { path: path.clone(), ..CgroupPlan::default() };
        let error = Cgroup::create(&plan, &layout, None).unwrap_err().to_string();
        assert!(error.contains("is domain invalid: a parent is threaded"), "{error}");
        assert!(!exists_anywhere(&path));
    }

    #[test]
    fn a_tenant_enters_where_init_has_gone() {
        let Some(layout) = v2_alone() else { return };
        let mut group = TestCgroup::with_layout("{}", &layout);
        let pid = group.spawn("exec sleep 60");
        let v2 = group.cgroup.paths().v2().unwrap().to_owned();
        let entered = |entry: Entry| {
            let fd = entry.clone_into.unwrap();
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
        };
        assert_eq!(entered(group.cgroup.entry_beside(pid).unwrap()), v2);
        let scope = v2.join("init.scope");
        std::fs::create_dir(&scope).unwrap();
        std::fs::write(scope.join("cgroup.procs"), pid.to_string()).unwrap();
        assert_eq!(entered(group.cgroup.entry_beside(pid).unwrap()), scope);
        assert_eq!(entered(group.cgroup.entry().unwrap()), v2);
        // A process that is not the container's is no guide.
        let stranger = i32::try_from(std::process::id()).unwrap();
        assert_eq!(entered(group.cgroup.entry_beside(stranger).unwrap()), v2);
    }

    #[test]
    fn a_delegated_cgroup_belongs_to_the_container_but_its_limits_do_not() {
        use std::os::unix::fs::MetadataExt;
        let Some(layout) = v2_alone() else { return };
        let group = TestCgroup::with_layout("{}", &layout);
        group.cgroup.delegate(4711).unwrap();
        let v2 = group.cgroup.paths().v2().unwrap();
        let owner = |file: &str| std::fs::metadata(v2.join(file)).unwrap().uid();
        assert_eq!(
            (owner(""), owner("cgroup.procs"), owner("cgroup.subtree_control")),
            (4711, 4711, 4711)
        );
        assert_eq!((owner("cgroup.freeze"), owner("cgroup.max.depth")), (0, 0));
    }

    #[test]
    fn a_hybrid_host_does_without_v2_when_it_is_read_only() {
        let mut layout = Layout::detect().unwrap();
        let Some(v2) = &mut layout.v2 else { return };
        v2.access = Access::ReadOnly;
        let group = TestCgroup::with_layout("{}", &layout);
        assert_eq!(group.cgroup.paths().v2(), None);
        let entry = group.cgroup.entry().unwrap();
        assert!(entry.clone_into.is_none() && !entry.tasks.is_empty());
    }
}
