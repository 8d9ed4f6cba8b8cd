//! Any config.json, process.json and mount.

use std::cell::LazyCell;
use std::path::PathBuf;

use super::host::Privilege;
use super::{ExecTemplate, Host, Mount, Plan, ProcessPlan, mounts};
use crate::cgroup::{Access, Hierarchy, Manager};
use crate::error::{Error, Kind, Result};
use crate::fuzz::refusal::names_a_field;
use crate::fuzz::{survives, written};
use crate::process::{CreateOptions, CreateRequest};
use crate::spec::{CONFIG_JSON, Spec};

/// A config.json is refused by its field, or planned: the same twice, and the plan survives JSON.
pub fn spec(input: &[u8]) {
    let refused = |error: &Error| names_a_field(error, input, "", CONFIG_JSON);
    let mut spec = match Spec::from_json(input) {
        Ok(spec) => spec,
        Err(error) => return refused(&error),
    };
    for (host, systemd) in hosts() {
        match same_twice(|| Plan::new(&request(systemd), &spec, &host)) {
            Ok(plan) => assert_eq!(survives::<Plan>(&written(&plan)), Some(plan)),
            Err(error) => refused(&error),
        }
        // Compiling takes longer than all the rest, and is the same for every host.
        spec.linux.as_mut().map(|linux| linux.set_seccomp(None));
    }
}

/// The same for the process.json of a tenant.
pub fn process(input: &[u8]) {
    thread_local! {
        static CONTAINER: LazyCell<ExecTemplate> = const { LazyCell::new(container) };
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let plan = CONTAINER
        .with(|container| same_twice(|| ProcessPlan::new(text, container, &Host::example())));
    match plan {
        Ok(plan) => assert_eq!(survives::<ProcessPlan>(&written(&plan)), Some(plan)),
        Err(error) => names_a_field(&error, input, "process", "process"),
    }
}

/// A mount that the root is made of: lines of type, source, target and options.
pub fn mount_options(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (fstype, source, target) = (next(), next(), next());
    let options: Vec<String> = lines.map(str::to_owned).collect();
    match same_twice(|| mounts::rootfs_mount(fstype, source, target, &options)) {
        Ok(mount) => {
            let atime = libc::MOUNT_ATTR__ATIME;
            assert_eq!(mount.attr_set & mount.attr_clear & !atime, 0, "set and cleared");
            assert_eq!(mount.rec_attr_set & mount.rec_attr_clear & !atime, 0, "set and cleared");
            assert_eq!(survives::<Mount>(&written(&mount)), Some(mount));
        }
        Err(error) => match error.kind() {
            Kind::Field { path, .. } => assert!(path.starts_with("rootfs"), "{error}"),
            other => panic!("refused without a field: {other:?}"),
        },
    }
}

fn same_twice<T: PartialEq + std::fmt::Debug>(plan: impl Fn() -> Result<T>) -> Result<T> {
    let planned = plan();
    assert_eq!(planned, plan(), "planned twice");
    planned
}

/// Hosts that plans differ on, and whether the client asks for systemd there.
fn hosts() -> [(Host, bool); 3] {
    let plain = Host::example();
    let systemd = Some(Manager::System { root: "/".into() });
    let mut v1 = plain.clone();
    let hierarchy = |controllers: &str| Hierarchy {
        controllers: controllers.split(',').map(str::to_owned).collect(),
        name: None,
        mount_point: format!("/sys/fs/cgroup/{controllers}").into(),
        root: PathBuf::from("/"),
        access: Access::ReadWrite,
    };
    let names = [
        "cpuset",
        "cpu,cpuacct",
        "blkio",
        "memory",
        "devices",
        "freezer",
        "net_cls",
        "perf_event",
        "net_prio",
        "hugetlb",
        "pids",
        "rdma",
    ];
    v1.cgroups.v1 = names.map(hierarchy).to_vec();
    v1.cgroups.v2 = None;
    v1.privilege = Privilege::RootOfNamespace;
    [(plain.clone(), false), (Host { systemd, ..plain }, true), (v1, false)]
}

fn request(systemd_cgroup: bool) -> CreateRequest {
    CreateRequest {
        id: "c1".to_owned(),
        bundle: PathBuf::from("/bundle"),
        state_dir: PathBuf::from("/state"),
        rootfs: Vec::new(),
        options: CreateOptions { systemd_cgroup, ..CreateOptions::default() },
        pid_file: None,
    }
}

fn container() -> ExecTemplate {
    let text = br#"{"ociVersion":"1.3.0","root":{"path":"/r"},
        "process":{"cwd":"/","args":["a"],"oomScoreAdj":7},
        "linux":{"namespaces":[{"type":"mount"},{"type":"user"}],
        "uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],
        "gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]}}"#;
    let plan =
        Spec::from_json(text).and_then(|spec| Plan::new(&request(false), &spec, &Host::example()));
    match plan {
        Ok(plan) => ExecTemplate::of(&plan),
        Err(error) => panic!("{error}"),
    }
}
