//! On this machine.

use super::super::testing::TestCgroup;
use super::*;

fn v1(stats: Stats) -> Option<StatsV1> {
    match stats {
        Stats::V1(stats) => Some(*stats),
        Stats::V2(_) => None,
    }
}

#[test]
fn what_a_container_uses_is_counted() {
    let mut group = TestCgroup::new(r#"{"memory":{"limit":67108864},"pids":{"limit":9}}"#);
    assert_eq!(group.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"), 0);
    group.spawn("exec sleep 60");
    let Some(stats) = v1(Stats::read(group.cgroup.paths()).unwrap()) else { return };
    assert_eq!(stats.pids, Some(PidsStats { current: 1, limit: 9 }));
    assert!(stats.cpu.total > 1_000_000);
    assert_eq!(stats.cpu.per_cpu.iter().sum::<u64>(), stats.cpu.total);
    let memory = stats.memory.unwrap();
    assert_eq!(memory.usage.limit, 67_108_864);
    assert_eq!(memory.stat.hierarchical_memory_limit, 67_108_864);
    assert!(memory.usage.max > 0 && memory.usage.max >= memory.usage.usage);
    assert_eq!(stats.oom_control, Some(OomControl::default()));
}

#[test]
fn no_limit_on_pids_is_zero_on_v1() {
    let group = TestCgroup::new("{}");
    let Some(stats) = v1(Stats::read(group.cgroup.paths()).unwrap()) else { return };
    assert_eq!(stats.pids, Some(PidsStats::default()));
    assert!(!stats.hugetlb.is_empty() || group.cgroup.paths().v2().is_none());
}

#[test]
fn a_missing_hierarchy_loses_its_figures_only() {
    let group = TestCgroup::new(r#"{"pids":{"limit":9}}"#);
    let mut paths = group.cgroup.paths().clone();
    paths.directories.retain(|d| !d.controllers.iter().any(|c| c == "memory"));
    let Some(stats) = v1(Stats::read(&paths).unwrap()) else { return };
    assert_eq!(stats.memory, None);
    assert_eq!(stats.pids, Some(PidsStats { current: 0, limit: 9 }));
}

#[test]
fn a_cgroup_that_is_gone_is_not_found() {
    let group = TestCgroup::new("{}");
    group.cgroup.remove().unwrap();
    let error = Stats::read(group.cgroup.paths()).unwrap_err();
    assert!(matches!(error.kind(), Kind::NotFound(_)), "{error}");
}
