use super::super::testing::{TestCgroup, wait_until};
use super::super::{CgroupDirectory, CgroupPaths};
use super::*;

fn update(cgroup: &Cgroup, resources: &str) -> Result<Vec<String>> {
    cgroup.update(&serde_json::from_str(resources).unwrap(), |_| Ok(()))
}

#[test]
fn an_update_keeps_what_it_does_not_name() {
    let group = TestCgroup::new(
        r#"{"cpu":{"shares":512,"quota":50000,"period":20000},"pids":{"limit":17}}"#,
    );
    let devices = group.read("devices", "devices.list");
    assert!(
        update(&group.cgroup, r#"{"cpu":{"shares":300},"pids":{"limit":18}}"#).unwrap().is_empty()
    );
    assert_eq!(group.read("cpu", "cpu.shares"), "300");
    assert_eq!(group.read("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(group.read("cpu", "cpu.cfs_period_us"), "20000");
    assert_eq!(group.read("pids", "pids.max"), "18");
    assert_eq!(group.read("devices", "devices.list"), devices);
}

#[test]
fn memory_and_swap_grow_and_shrink_together() {
    let group = TestCgroup::new(r#"{"memory":{"limit":67108864,"swap":67108864}}"#);
    for (limit, swap) in [(134_217_728, 268_435_456), (33_554_432, 33_554_432), (-1, -1)] {
        let resources = format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}}}}"#);
        update(&group.cgroup, &resources).unwrap();
        let unlimited = "9223372036854771712".to_owned();
        let expected = if limit < 0 { unlimited } else { limit.to_string() };
        assert_eq!(group.read("memory", "memory.limit_in_bytes"), expected);
    }
}

#[test]
fn quota_period_and_burst_change_in_any_direction() {
    let group = TestCgroup::new(r#"{"cpu":{"quota":50000,"period":100000,"burst":40000}}"#);
    for (quota, period, burst) in
        [(5000, 10_000, 1000), (900_000, 1_000_000, 800_000), (2000, 1000, 0)]
    {
        let cpu = format!(r#"{{"cpu":{{"quota":{quota},"period":{period},"burst":{burst}}}}}"#);
        update(&group.cgroup, &cpu).unwrap();
        assert_eq!(group.read("cpu", "cpu.cfs_quota_us"), quota.to_string());
        assert_eq!(group.read("cpu", "cpu.cfs_burst_us"), burst.to_string());
    }
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_with_figures_and_kills_nobody() {
    let mut group = TestCgroup::new(r#"{"memory":{"limit":67108864,"swap":67108864}}"#);
    // Anonymous memory, which cannot be reclaimed without swap.
    group.spawn("x=$(head -c 10000000 /dev/zero | tr '\\0' x); sleep 60");
    let used = |group: &TestCgroup| -> u64 {
        group.read("memory", "memory.usage_in_bytes").parse().unwrap()
    };
    wait_until(|| used(&group) >= 10_000_000);
    let error =
        update(&group.cgroup, r#"{"memory":{"limit":4194304,"swap":4194304}}"#).unwrap_err();
    assert!(matches!(error.kind(), Kind::State(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("linux.resources.memory.limit: 4194304 bytes are less than"), "{text}");
    assert!(!group.cgroup.pids().unwrap().is_empty());
    assert_eq!(group.read("memory", "memory.limit_in_bytes"), "67108864");
}

#[test]
fn a_bad_value_is_refused_before_anything_is_changed() {
    let group = TestCgroup::new(r#"{"cpu":{"shares":512}}"#);
    let error = update(
        &group.cgroup,
        r#"{"cpu":{"shares":300},"pids":{"limit":9},
        "hugepageLimits":[{"pageSize":"2M","limit":1}]}"#,
    )
    .unwrap_err();
    assert!(error.to_string().starts_with("linux.resources.hugepageLimits[0].pageSize"), "{error}");
    assert_eq!(group.read("cpu", "cpu.shares"), "512");
}

/// v2 files as plain files in a directory, since this machine's memory controller may be v1's.
fn plain_v2(files: &[(&str, &str)]) -> (std::path::PathBuf, Cgroup) {
    let name = std::thread::current().name().unwrap_or_default().replace(':', "-");
    let path = std::env::temp_dir().join(format!("myshim-{}-{name}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    for (file, content) in files {
        std::fs::write(path.join(file), content).unwrap();
    }
    let controllers = ["cpu", "memory"].map(str::to_owned).to_vec();
    let directory = CgroupDirectory { version: Version::V2, controllers, path: path.clone() };
    (path, Cgroup::open(&CgroupPaths { directories: vec![directory], unit: None }))
}

#[test]
fn on_v2_a_limit_below_what_is_in_use_is_refused_with_figures() {
    let (path, cgroup) = plain_v2(&[
        ("memory.current", "5000000\n"),
        ("memory.max", "max\n"),
        ("memory.high", "max"),
    ]);
    let error = update(&cgroup, r#"{"memory":{"limit":4194304}}"#).unwrap_err();
    let max = std::fs::read_to_string(path.join("memory.max")).unwrap();
    let high = std::fs::read_to_string(path.join("memory.high")).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(
        error.to_string(),
        "linux.resources.memory.limit: 4194304 bytes are less than what is in use \
         (5000000 bytes): processes would be killed, so the limit stays as it is"
    );
    assert_eq!(max, "max\n");
    // A file of cgroupfs would have no rest of what was written before.
    assert!(high.starts_with("max"), "{high}");
}

#[test]
fn on_v2_an_update_of_one_value_keeps_the_other_in_the_same_file() {
    let (path, cgroup) = plain_v2(&[
        ("cpu.max", "50000 100000\n"),
        ("memory.current", "5\n"),
        ("memory.max", "1000\n"),
        ("memory.swap.max", "0\n"),
    ]);
    let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
    update(&cgroup, r#"{"cpu":{"period":20000}}"#).unwrap();
    let period_alone = read("cpu.max");
    update(&cgroup, r#"{"memory":{"swap":1800}}"#).unwrap();
    let swap_alone = read("memory.swap.max");
    std::fs::remove_dir_all(&path).unwrap();
    assert!(period_alone.starts_with("50000 20000"));
    assert!(swap_alone.starts_with("800"));
}
