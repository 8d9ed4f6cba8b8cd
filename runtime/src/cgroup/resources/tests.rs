use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::{Access, CgroupPlan, Driver, Hierarchy};
use super::*;

fn hierarchy(controllers: &str) -> Hierarchy {
    Hierarchy {
        controllers: controllers.split(' ').map(str::to_owned).collect(),
        name: None,
        mount_point: PathBuf::from("/sys/fs/cgroup"),
        root: PathBuf::from("/"),
        access: Access::ReadWrite,
    }
}

fn v2() -> Layout {
    let all = "cpuset cpu io memory hugetlb pids rdma misc";
    Layout { v1: Vec::new(), v2: Some(hierarchy(all)) }
}

fn v1() -> Layout {
    let all = ["cpu cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "net_cls net_prio"];
    Layout { v1: all.iter().map(|one| hierarchy(one)).collect(), v2: None }
}

fn hybrid() -> Layout {
    let mut layout = v1();
    layout.v1.retain(|hierarchy| hierarchy.controllers != ["hugetlb"]);
    Layout { v2: Some(hierarchy("hugetlb")), ..layout }
}

fn plan(layout: &Layout, resources: &str) -> Result<CgroupPlan> {
    let resources: LinuxResources = serde_json::from_str(resources).unwrap();
    CgroupPlan::new(Driver::Cgroupfs, None, "web", Some(&resources), &BTreeMap::new(), layout)
}

/// `FILE=VALUE` of each write, alternatives with `|`, and `?` where the file may be missing.
fn writes(layout: &Layout, resources: &str) -> Vec<String> {
    let render = |write: &Write| {
        let choices = write.choices.iter().map(|c| format!("{}={}", c.file, c.value));
        let missing = if write.missing == Missing::Ignore { "?" } else { "" };
        choices.collect::<Vec<_>>().join("|") + missing
    };
    plan(layout, resources).unwrap().writes.iter().map(render).collect()
}

fn error(layout: &Layout, resources: &str) -> String {
    plan(layout, resources).unwrap_err().to_string()
}

#[test]
fn memory_in_the_words_of_both_versions() {
    let resources = r#"{"memory":{"limit":1000,"swap":1500,"reservation":500}}"#;
    assert_eq!(
        writes(&v1(), resources),
        [
            "memory.limit_in_bytes=1000",
            "memory.memsw.limit_in_bytes=1500",
            "memory.soft_limit_in_bytes=500"
        ]
    );
    assert_eq!(
        writes(&v2(), resources),
        ["memory.max=1000", "memory.swap.max=500", "memory.low=500"]
    );
}

#[test]
fn no_limit_on_memory_is_none_on_swap_either() {
    let resources = r#"{"memory":{"limit":-1}}"#;
    assert_eq!(
        writes(&v1(), resources),
        ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1?"]
    );
    assert_eq!(writes(&v2(), resources), ["memory.max=max", "memory.swap.max=max?"]);
    let with_swap = r#"{"memory":{"limit":-1,"swap":700}}"#;
    assert_eq!(writes(&v2(), with_swap), ["memory.max=max", "memory.swap.max=700"]);
}

#[test]
fn swap_equal_to_the_limit_is_no_swap() {
    let resources = r#"{"memory":{"limit":1000,"swap":1000}}"#;
    assert_eq!(writes(&v2(), resources), ["memory.max=1000", "memory.swap.max=0?"]);
}

#[test]
fn swap_below_or_without_a_limit_is_refused() {
    for (layout, resources) in [
        (v1(), r#"{"memory":{"limit":1000,"swap":999}}"#),
        (v2(), r#"{"memory":{"limit":1000,"swap":999}}"#),
        (v2(), r#"{"memory":{"swap":999}}"#),
    ] {
        let error = error(&layout, resources);
        assert!(error.starts_with("linux.resources.memory.swap: is memory+swap: "), "{error}");
    }
}

#[test]
fn what_v2_does_not_know_is_a_warning() {
    let resources = r#"{"memory":{"swappiness":60,"kernelTCP":5000,"disableOOMKiller":true}}"#;
    let on_v2 = plan(&v2(), resources).unwrap();
    assert!(on_v2.writes.is_empty());
    assert_eq!(on_v2.warnings.len(), 3);
    assert_eq!(
        writes(&v1(), resources),
        ["memory.swappiness=60", "memory.kmem.tcp.limit_in_bytes=5000", "memory.oom_control=1"]
    );
}

#[test]
fn cpu_in_the_words_of_both_versions() {
    let resources = r#"{"cpu":{"shares":2048,"quota":50000,"period":25000,"burst":1000,
        "cpus":"0-1","mems":"0"}}"#;
    assert_eq!(
        writes(&v1(), resources),
        [
            "cpu.shares=2048",
            "cpu.cfs_period_us=25000",
            "cpu.cfs_quota_us=50000",
            "cpu.cfs_burst_us=1000",
            "cpuset.cpus=0-1",
            "cpuset.mems=0"
        ]
    );
    assert_eq!(
        writes(&v2(), resources),
        [
            "cpu.weight=174",
            "cpu.max=50000 25000",
            "cpu.max.burst=1000",
            "cpuset.cpus=0-1",
            "cpuset.mems=0"
        ]
    );
}

#[test]
fn a_quota_or_a_period_alone_goes_with_the_default_of_the_other() {
    assert_eq!(writes(&v2(), r#"{"cpu":{"quota":50000}}"#), ["cpu.max=50000 100000"]);
    assert_eq!(writes(&v2(), r#"{"cpu":{"period":50000}}"#), ["cpu.max=max 50000"]);
    assert_eq!(writes(&v2(), r#"{"cpu":{"quota":-1}}"#), ["cpu.max=max 100000"]);
    assert_eq!(writes(&v1(), r#"{"cpu":{"quota":-1}}"#), ["cpu.cfs_quota_us=-1"]);
}

#[test]
fn zero_is_not_given_but_for_pids() {
    let resources = r#"{"memory":{"limit":0,"swap":0,"reservation":0,"kernelTCP":0},
        "cpu":{"shares":0,"quota":0,"period":0,"realtimePeriod":0,"realtimeRuntime":0,"cpus":""},
        "blockIO":{"weight":0,"leafWeight":0}}"#;
    assert!(writes(&v1(), resources).is_empty());
    assert!(writes(&v2(), resources).is_empty());
    assert_eq!(writes(&v2(), r#"{"pids":{"limit":0}}"#), ["pids.max=1"]);
    assert_eq!(writes(&v1(), r#"{"pids":{"limit":0}}"#), ["pids.max=1"]);
    assert_eq!(writes(&v1(), r#"{"pids":{"limit":-1}}"#), ["pids.max=max"]);
}

#[test]
fn block_io_in_the_words_of_both_versions() {
    let resources = r#"{"blockIO":{"weight":500,
        "weightDevice":[{"major":8,"minor":0,"weight":1000}],
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1048576}],
        "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":0}],
        "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":10}],
        "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":20}]}}"#;
    assert_eq!(
        writes(&v1(), resources),
        [
            "blkio.bfq.weight=500|blkio.weight=500",
            "blkio.bfq.weight_device=8:0 1000|blkio.weight_device=8:0 1000",
            "blkio.throttle.read_bps_device=8:0 1048576",
            "blkio.throttle.write_bps_device=8:0 0",
            "blkio.throttle.read_iops_device=8:0 10",
            "blkio.throttle.write_iops_device=8:0 20"
        ]
    );
    assert_eq!(
        writes(&v2(), resources),
        [
            "io.bfq.weight=500|io.weight=4950",
            "io.bfq.weight=8:0 1000|io.weight=8:0 10000",
            "io.max=8:0 rbps=1048576",
            "io.max=8:0 wbps=max",
            "io.max=8:0 riops=10",
            "io.max=8:0 wiops=20"
        ]
    );
}

#[test]
fn a_limit_goes_to_the_hierarchy_that_has_its_controller() {
    let resources = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
        "pids":{"limit":5}}"#;
    assert_eq!(
        writes(&v1(), resources)[1..],
        ["hugetlb.2MB.limit_in_bytes=4194304", "hugetlb.2MB.rsvd.limit_in_bytes=4194304?"]
    );
    let on_hybrid = plan(&hybrid(), resources).unwrap().writes;
    let versions: Vec<Version> = on_hybrid.iter().map(|write| write.version).collect();
    assert_eq!(versions, [Version::V1, Version::V2, Version::V2]);
    assert_eq!(on_hybrid[1].choices[0].file, "hugetlb.2MB.max");
}

#[test]
fn rdma_and_network() {
    let rdma = r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},"a":{"hcaObjects":1}}}"#;
    assert_eq!(
        writes(&v2(), rdma),
        ["rdma.max=a hca_object=1", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"]
    );
    let network = r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#;
    assert_eq!(writes(&v1(), network), ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]);
    assert_eq!(
        error(&v2(), network),
        "linux.resources.network.classID: needs the cgroup v1 controller net_cls, \
         which is not mounted"
    );
}

#[test]
fn unified_is_written_as_it_is_line_by_line() {
    let resources = r#"{"unified":{"memory.high":"100","cgroup.max.depth":"3","cpu.pressure":"1",
        "io.max":"8:0 rbps=1\n8:16 rbps=2"}}"#;
    assert_eq!(
        writes(&v2(), resources),
        [
            "cgroup.max.depth=3",
            "cpu.pressure=1",
            "io.max=8:0 rbps=1",
            "io.max=8:16 rbps=2",
            "memory.high=100"
        ]
    );
}

#[test]
fn unified_that_cannot_be_set_is_refused_with_its_key() {
    for (layout, key, why) in [
        (v2(), "../memory.max", "must be a file name"),
        (v2(), "a/memory.max", "must be a file name"),
        (v2(), "memory", "must be a file name"),
        (v2(), "cgroup.procs", "acts on processes"),
        (v2(), "dmem.max", "cgroup v2 has no controller dmem here"),
        (hybrid(), "memory.max", "cgroup v2 has no controller memory here"),
        (v1(), "memory.max", "needs cgroup v2"),
    ] {
        let error = error(&layout, &format!(r#"{{"unified":{{"{key}":"1"}}}}"#));
        let expected = format!("linux.resources.unified[{key:?}]: {why}");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn a_value_out_of_range_is_refused_with_its_path() {
    for (field, resources) in [
        ("memory.limit", r#"{"memory":{"limit":-2}}"#),
        ("memory.swappiness", r#"{"memory":{"swappiness":101}}"#),
        ("cpu.shares", r#"{"cpu":{"shares":1}}"#),
        ("cpu.quota", r#"{"cpu":{"quota":999}}"#),
        ("cpu.period", r#"{"cpu":{"period":1000001}}"#),
        ("cpu.idle", r#"{"cpu":{"idle":2}}"#),
        ("blockIO.weight", r#"{"blockIO":{"weight":9}}"#),
        (
            "blockIO.weightDevice[0].leafWeight",
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"leafWeight":1001}]}}"#,
        ),
        (
            "blockIO.throttleReadBpsDevice[0]",
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}}"#,
        ),
        ("hugepageLimits[0].pageSize", r#"{"hugepageLimits":[{"pageSize":"2M/","limit":1}]}"#),
        ("hugepageLimits[0].limit", r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-1}]}"#),
        (r#"rdma["a b"]"#, r#"{"rdma":{"a b":{"hcaObjects":1}}}"#),
    ] {
        let error = error(&v1(), resources);
        assert!(error.starts_with(&format!("linux.resources.{field}: ")), "{error}");
    }
}

#[test]
fn a_controller_that_this_host_does_not_have_is_named() {
    assert_eq!(
        error(&Layout { v2: None, ..hybrid() }, r#"{"rdma":{"a":{"hcaObjects":1}}}"#),
        r#"linux.resources.rdma["a"]: there is no cgroup controller rdma for the container"#
    );
    assert_eq!(
        error(&v2(), r#"{"cpu":{"realtimeRuntime":1000}}"#),
        "linux.resources.cpu.realtimeRuntime: cgroup v2 has no realtime bandwidth control"
    );
}

#[test]
fn a_plan_survives_as_json() {
    let plan = plan(&v2(), r#"{"memory":{"limit":1000},"cpu":{"shares":2}}"#).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<CgroupPlan>(&json).unwrap(), plan);
}
