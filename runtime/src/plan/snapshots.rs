//! Plans of specs as clients write them, as golden files.
//!
//! `UPDATE_GOLDEN=1 cargo test -p myshim-runtime golden` writes them anew; the difference is then
//! to be read before it is committed.

use std::path::{Path, PathBuf};

use super::mounts::rootfs_mount;
use super::{Host, Plan};
use crate::process::{CreateOptions, CreateRequest};
use crate::spec::Spec;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/testdata")
}

fn request(rootfs: &[(&str, &str, &[&str])]) -> CreateRequest {
    let mount = |(fstype, source, options): &(&str, &str, &[&str])| {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        rootfs_mount(fstype, source, "", &options).unwrap()
    };
    CreateRequest {
        id: "c1".to_owned(),
        bundle: PathBuf::from("/run/bundles/c1"),
        state_dir: PathBuf::from("/run/state/c1"),
        rootfs: rootfs.iter().map(mount).collect(),
        options: CreateOptions::default(),
        pid_file: None,
    }
}

fn check(name: &str, request: &CreateRequest) {
    let config = std::fs::read(testdata().join(format!("{name}.config.json"))).unwrap();
    let spec = Spec::from_json(&config).unwrap();
    let mut plan = Plan::new(request, &spec, &Host::example()).unwrap();
    // What a profile compiles to is libseccomp's, and tested elsewhere.
    if let Some(seccomp) = &mut plan.seccomp {
        assert_eq!(seccomp.bpf.len() % 8, 0);
        seccomp.bpf.clear();
    }
    let rendered = serde_json::to_string_pretty(&plan).unwrap() + "\n";
    let golden = testdata().join(format!("{name}.plan.json"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &rendered).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    let differ = || {
        let lines = expected.lines().zip(rendered.lines()).enumerate();
        let differing = lines.filter(|(_, (expected, rendered))| expected != rendered);
        let (line, (expected, rendered)) = differing.into_iter().next()?;
        Some(format!("line {}:\n-{expected}\n+{rendered}", line + 1))
    };
    assert!(expected == rendered, "{} differs: {:#?}", golden.display(), differ());
}

const OVERLAY: (&str, &str, &[&str]) = (
    "overlay",
    "overlay",
    &["index=off", "workdir=/s/2/work", "upperdir=/s/2/fs", "lowerdir=/s/1/fs:/s/0/fs"],
);

#[test]
fn golden_ctr_default() {
    check("ctr", &request(&[OVERLAY]));
}

#[test]
fn golden_kubernetes_pause() {
    check("pause", &request(&[("bind", "/s/3/fs", &["ro", "rbind"])]));
}

#[test]
fn golden_kubernetes_container() {
    check("pod_container", &request(&[OVERLAY]));
}

#[test]
fn golden_docker_default() {
    check("docker", &request(&[]));
}

#[test]
fn a_plan_survives_the_way_through_json() {
    let config = std::fs::read(testdata().join("pod_container.config.json")).unwrap();
    let spec = Spec::from_json(&config).unwrap();
    let plan = Plan::new(&request(&[OVERLAY]), &spec, &Host::example()).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}
