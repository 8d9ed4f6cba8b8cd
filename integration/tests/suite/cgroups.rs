//! Limits of the spec, read back from the cgroup's files on the host.

use std::path::PathBuf;

use myshim_integration::claim::{Claim, Needs};
use myshim_integration::process::cgroup_dir;
use myshim_integration::{Container, Test, claims};
use serde_json::{Value, json};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    every_controller_has_the_containers_cgroup,
    cpu_limits_are_written.needs(Needs::CgroupV1),
    cpuset_is_written.needs(Needs::CgroupV1),
    memory_limits_are_written.needs(Needs::CgroupV1),
    a_pids_limit_holds,
    blkio_weights_and_throttles_are_written.needs(Needs::CgroupV1),
    devices_are_denied_but_for_the_list,
    unlimited_is_minus_one.needs(Needs::CgroupV1),
    cpu_limits_are_written_on_v2.needs(Needs::CgroupV2),
    memory_limits_are_written_on_v2.needs(Needs::CgroupV2),
    unified_keys_are_written_on_v2.needs(Needs::CgroupV2),
    a_nested_cgroup_path_is_made_and_removed,
    cgroups_below_the_containers_are_removed_with_it,
    the_init_never_runs_outside_its_cgroup,
];

fn limited<'a>(t: &'a Test, resources: &Value) -> Container<'a> {
    t.detached_spec("web", |spec| {
        let spec = spec.args(&["sleep", "3600"]);
        resources.as_object().unwrap().iter().fold(spec, |spec, (key, value)| {
            spec.with(&format!("/linux/resources/{key}"), value.clone())
        })
    })
}

#[track_caller]
fn reads(c: &Container<'_>, controller: &str, files: &[(&str, &str)]) {
    let dir = cgroup_dir(c.pid(), controller).unwrap();
    for (file, wanted) in files {
        assert_eq!(facts::first_of(&dir, &[file]), *wanted, "{file}");
    }
}

fn every_controller_has_the_containers_cgroup(t: &Test) {
    let c = t.sleeper("web", &[]);
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    for line in text.lines() {
        assert!(line.ends_with(&t.cgroup_path_of(&c.id)), "{text}");
    }
    c.remove();
}

fn cpu_limits_are_written(t: &Test) {
    let cpu = json!({"shares": 512, "quota": 20_000, "period": 50_000});
    let c = limited(t, &json!({"cpu": cpu}));
    let files =
        [("cpu.shares", "512"), ("cpu.cfs_quota_us", "20000"), ("cpu.cfs_period_us", "50000")];
    reads(&c, "cpu", &files);
    c.remove();
}

fn cpuset_is_written(t: &Test) {
    let c = limited(t, &json!({"cpu": {"cpus": "0", "mems": "0"}}));
    reads(&c, "cpuset", &[("cpuset.cpus", "0"), ("cpuset.mems", "0")]);
    let allowed = myshim_integration::process::status(c.pid(), "Cpus_allowed_list");
    assert_eq!(allowed.as_deref(), Some("0"));
    c.remove();
}

fn memory_limits_are_written(t: &Test) {
    let memory = json!({"limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728, "swappiness": 7});
    let c = limited(t, &json!({"memory": memory}));
    reads(
        &c,
        "memory",
        &[
            ("memory.limit_in_bytes", "67108864"),
            ("memory.soft_limit_in_bytes", "33554432"),
            ("memory.memsw.limit_in_bytes", "134217728"),
            ("memory.swappiness", "7"),
        ],
    );
    c.remove();
}

fn a_pids_limit_holds(t: &Test) {
    let out = t.run_spec(|spec| {
        spec.with("/linux/resources/pids", json!({"limit": 5}))
            .shell("for i in 1 2 3 4 5 6 7 8; do sleep 0.1 & done; wait")
    });
    assert!(out.err().contains("can't fork") || out.err().contains("Resource"), "{out}");
    let c = limited(t, &json!({"pids": {"limit": 5}}));
    reads(&c, "pids", &[("pids.max", "5")]);
    c.remove();
}

fn blkio_weights_and_throttles_are_written(t: &Test) {
    let Some((major, minor)) = disk() else { panic!("no disk in /sys/block to throttle") };
    let rule = json!([{"major": major, "minor": minor, "rate": 1_048_576}]);
    let c = limited(t, &json!({"blockIO": {"throttleReadBpsDevice": rule}}));
    let dir = cgroup_dir(c.pid(), "blkio").unwrap();
    let text = facts::first_of(&dir, &["blkio.throttle.read_bps_device"]);
    assert!(text.contains(&format!("{major}:{minor} 1048576")), "{text}");
    c.remove();
}

/// The number of any disk.
fn disk() -> Option<(u32, u32)> {
    let mut disks: Vec<PathBuf> =
        std::fs::read_dir("/sys/block").ok()?.filter_map(|e| Some(e.ok()?.path())).collect();
    disks.sort();
    let number = disks.iter().rev().find_map(|disk| {
        let size: u64 = std::fs::read_to_string(disk.join("size")).ok()?.trim().parse().ok()?;
        (size > 0).then(|| std::fs::read_to_string(disk.join("dev")).ok())?
    })?;
    let (major, minor) = number.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn devices_are_denied_but_for_the_list(t: &Test) {
    // The container may make any node; using one is another matter. 1:3 is /dev/null, 1:5
    // /dev/zero, 1:1 is memory.
    let script = "mknod /n c 1 3 && echo x >/n && echo null; mknod /m c 1 1; cat /m";
    let out = t.run_spec(|spec| {
        spec.shell(script)
            .push("/process/capabilities/effective", json!("CAP_MKNOD"))
            .push("/process/capabilities/permitted", json!("CAP_MKNOD"))
            .push("/process/capabilities/bounding", json!("CAP_MKNOD"))
    });
    assert!(out.out().contains("null") && out.err().contains("Operation not permitted"), "{out}");
}

fn unlimited_is_minus_one(t: &Test) {
    let c =
        limited(t, &json!({"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}));
    reads(&c, "pids", &[("pids.max", "max")]);
    reads(&c, "cpu", &[("cpu.cfs_quota_us", "-1")]);
    c.remove();
}

fn cpu_limits_are_written_on_v2(t: &Test) {
    let c = limited(t, &json!({"cpu": {"shares": 1024, "quota": 20_000, "period": 50_000}}));
    reads(&c, "cpu", &[("cpu.max", "20000 50000"), ("cpu.weight", "100")]);
    c.remove();
}

fn memory_limits_are_written_on_v2(t: &Test) {
    let memory = json!({"limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728});
    let c = limited(t, &json!({"memory": memory}));
    reads(
        &c,
        "memory",
        &[("memory.max", "67108864"), ("memory.low", "33554432"), ("memory.swap.max", "67108864")],
    );
    c.remove();
}

fn unified_keys_are_written_on_v2(t: &Test) {
    let c = limited(t, &json!({"unified": {"memory.high": "50331648"}}));
    reads(&c, "memory", &[("memory.high", "50331648")]);
    c.remove();
}

fn a_nested_cgroup_path_is_made_and_removed(t: &Test) {
    let path = format!("/{}/{}/a/b", t.endpoint.namespace, t.id("deep"));
    let out = t.run_spec(|spec| {
        spec.with("/linux/cgroupsPath", json!(path))
            .args(&["cat", "/proc/self/cgroup"])
            .host_namespace("cgroup")
    });
    assert!(out.ok().lines().all(|line| line.ends_with(&path)), "{out}");
    // The runtime removes the container's; what was made on the way to it is the caller's.
    for root in myshim_integration::host::cgroup_roots() {
        let dir = root.join(path.trim_start_matches('/'));
        assert!(!dir.exists(), "{}", dir.display());
        let top = dir.parent().and_then(std::path::Path::parent).unwrap();
        myshim_integration::host::remove_tree(top);
    }
}

fn cgroups_below_the_containers_are_removed_with_it(t: &Test) {
    let c = t.sleeper("web", &[]);
    let dir = cgroup_dir(c.pid(), "pids").unwrap();
    std::fs::create_dir_all(dir.join("x/y")).unwrap();
    c.remove();
    wait_gone(&dir);
}

fn wait_gone(dir: &std::path::Path) {
    myshim_integration::wait::until_true("the cgroup is gone", || !dir.exists());
}

fn the_init_never_runs_outside_its_cgroup(t: &Test) {
    // A limit of one task is met by the init alone: nothing of the runtime may be in there.
    let out = t.run_spec(|spec| {
        spec.with("/linux/resources/pids", json!({"limit": 1})).args(&["cat", "/proc/self/cgroup"])
    });
    assert!(out.ok().contains(&t.tag), "{out}");
}
