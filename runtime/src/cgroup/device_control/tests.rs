//! Against the kernel: /dev/kmsg (c 1:11) is in no container's default devices.

use super::super::testing::TestCgroup;
use super::super::{CgroupDirectory, Version};
use super::*;

const ALLOW_ALL: &str = r#"[{"allow":true,"access":"rwm"}]"#;
const ALLOW_KMSG: &str = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]"#;

fn policy(rules: &str) -> DevicePolicy {
    DevicePolicy::new(&serde_json::from_str::<Vec<_>>(rules).unwrap()).unwrap()
}

/// A cgroup whose v1 rules allow all, and its v2 directory alone.
fn v2_cgroup() -> (TestCgroup, CgroupPaths) {
    let group = TestCgroup::new(&format!(r#"{{"devices":{ALLOW_ALL}}}"#));
    let is_v2 = |directory: &&CgroupDirectory| directory.version == Version::V2;
    let v2 = group.cgroup.paths().directories.iter().filter(is_v2).cloned().collect();
    (group, CgroupPaths { directories: v2, unit: None })
}

fn can(group: &mut TestCgroup, access: &str) -> bool {
    group.run(&format!("exec 2>/dev/null; {access}")) == 0
}

const READ_KMSG: &str = ": < /dev/kmsg";
const READ_AND_WRITE_KMSG: &str = ": <> /dev/kmsg";
const USE_NULL: &str = ": <> /dev/null";

fn programs(paths: &CgroupPaths) -> usize {
    let cgroup = files::open(paths.v2().unwrap(), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    bpf::own_device_programs(&cgroup).unwrap().len()
}

#[test]
fn on_v2_a_denied_device_cannot_be_opened() {
    let (mut group, v2) = v2_cgroup();
    assert!(can(&mut group, READ_KMSG));
    enforce(&policy("[]"), &v2).unwrap();
    assert!(!can(&mut group, READ_KMSG));
    assert!(can(&mut group, USE_NULL));
}

#[test]
fn on_v2_a_replaced_policy_is_one_program() {
    let (mut group, v2) = v2_cgroup();
    enforce(&policy("[]"), &v2).unwrap();
    replace(&policy(ALLOW_KMSG), &v2).unwrap();
    assert_eq!(programs(&v2), 1);
    assert!(can(&mut group, READ_KMSG));
    assert!(!can(&mut group, READ_AND_WRITE_KMSG));
    replace(&policy(ALLOW_ALL), &v2).unwrap();
    assert_eq!(programs(&v2), 1);
    assert!(can(&mut group, READ_AND_WRITE_KMSG));
}

#[test]
fn the_verifier_says_what_is_wrong_with_a_program() {
    let error = bpf::load_device_program(&[]).unwrap_err().to_string();
    assert!(error.contains("bpf(PROG_LOAD, CGROUP_DEVICE, 0 instructions): "), "{error}");
    let jump_out = bpf::Instruction::new(0x05, 0, 0, 100, 0);
    let error = bpf::load_device_program(&[jump_out]).unwrap_err().to_string();
    assert!(error.starts_with("the kernel's verifier: "), "{error}");
}

#[test]
fn on_v1_a_denied_device_cannot_be_opened() {
    let mut group = TestCgroup::new("{}");
    assert!(!can(&mut group, READ_KMSG));
    assert!(can(&mut group, USE_NULL));
}

#[test]
fn on_v1_a_replaced_policy_is_what_the_kernel_lists() {
    let mut group = TestCgroup::new("{}");
    let Some(v1) = group.cgroup.paths().v1("devices").map(Path::to_owned) else { return };
    let paths = group.cgroup.paths().clone();
    for rules in [ALLOW_KMSG, "[]", ALLOW_ALL, ALLOW_KMSG] {
        let policy = policy(rules);
        replace(&policy, &paths).unwrap();
        let list = files::read(&v1.join("devices.list")).unwrap();
        let mut listed: Vec<_> = list.lines().filter_map(DeviceRule::parse).collect();
        listed.sort_unstable();
        assert_eq!(listed, policy.exceptions);
    }
    assert!(can(&mut group, READ_KMSG));
    assert!(!can(&mut group, READ_AND_WRITE_KMSG));
}
