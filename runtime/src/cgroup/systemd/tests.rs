//! Which driver is chosen, and what the unit is told.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::super::{Access, CgroupPlan, Hierarchy};
use super::*;

fn unified() -> Layout {
    let hierarchy = Hierarchy {
        controllers: ["cpu", "memory", "pids"].map(str::to_owned).into(),
        name: None,
        mount_point: PathBuf::from("/sys/fs/cgroup"),
        root: PathBuf::from("/"),
        access: Access::ReadWrite,
    };
    Layout { v1: Vec::new(), v2: Some(hierarchy) }
}

fn hybrid() -> Layout {
    let mut layout = unified();
    layout.v1.extend(layout.v2.clone());
    layout
}

/// What /proc/1/cgroup says.
const SYSTEMD: Option<&str> = Some("0::/init.scope\n");

fn driver(
    option: bool,
    path: Option<&str>,
    layout: &Layout,
    pid_1: Option<&str>,
) -> Result<Driver> {
    let manager = pid_1.map(Manager::system);
    let cgroups_path = path.map(Path::new);
    let wish = Wish { option, cgroups_path, id: "web", state_dir: Path::new("/run/s/web") };
    wish.driver(manager.as_ref(), layout)
}

fn unit(option: bool, path: Option<&str>) -> String {
    match driver(option, path, &unified(), SYSTEMD) {
        Ok(Driver::Cgroupfs) => "cgroupfs".into(),
        Ok(Driver::Systemd(plan)) => format!("{} at {}", plan.unit.name, plan.path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_option_or_the_form_of_the_path_chooses_systemd() {
    let web = "x-web.scope at /system.slice/x-web.scope";
    assert_eq!(unit(true, Some("system.slice:x:web")), web);
    assert_eq!(unit(false, Some("system.slice:x:web")), web);
    assert_eq!(unit(false, Some("/default/web")), "cgroupfs");
    assert_eq!(unit(false, None), "cgroupfs");
}

#[test]
fn the_option_without_a_path_has_a_default() {
    let default = "myshim-web.scope at /system.slice/myshim-web.scope";
    assert_eq!(unit(true, None), default);
    assert_eq!(unit(true, Some("")), default);
}

#[test]
fn the_option_with_another_path_is_refused_with_its_value() {
    assert_eq!(
        unit(true, Some("/default/web")),
        "linux.cgroupsPath: \"/default/web\": the systemd cgroup driver needs the form \
         `slice:prefix:name`, for example `system.slice:myshim:web`"
    );
}

#[test]
fn a_host_without_systemd_or_with_v1_is_refused() {
    for option in [true, false] {
        let path = Some("system.slice:x:web");
        let error = driver(option, path, &unified(), None).unwrap_err().to_string();
        assert_eq!(
            error,
            "linux.cgroupsPath: \"system.slice:x:web\": the systemd cgroup driver needs systemd, \
             which this host does not run (/run/systemd/system)"
        );
        let error = driver(option, path, &hybrid(), SYSTEMD).unwrap_err().to_string();
        assert!(error.ends_with("needs cgroup v2 alone, and this host has v1 hierarchies"));
    }
}

#[test]
fn slices_are_below_the_cgroup_of_the_manager() {
    let root = |cgroup| Manager::system(cgroup).root().unwrap().display().to_string();
    assert_eq!(root("0::/init.scope\n"), "/");
    assert_eq!(root("1:name=systemd:/x\n0::/lxc/7/init.scope\n"), "/lxc/7");
    assert_eq!(root("0::/\n"), "/");
}

fn properties(resources: &str, annotations: &[(&str, &str)]) -> Result<Vec<String>> {
    let driver = driver(true, None, &unified(), SYSTEMD)?;
    let resources: LinuxResources = serde_json::from_str(resources).unwrap();
    let annotations =
        annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let plan = CgroupPlan::new(driver, None, "web", Some(&resources), &annotations, &unified())?;
    let properties = &plan.unit().unwrap().properties;
    Ok(properties
        .iter()
        .map(|property| format!("{} {:?}", property.name, property.value))
        .collect())
}

#[test]
fn a_unit_has_its_limits_and_its_container_in_its_properties() {
    let resources = r#"{"memory":{"limit":67108864},"pids":{"limit":7},"cpu":{"shares":1024}}"#;
    assert_eq!(
        properties(resources, &[]).unwrap(),
        [
            "Description Text(\"myshim container web (/run/s/web)\")",
            "CollectMode Text(\"inactive-or-failed\")",
            "DefaultDependencies Bool(false)",
            "CPUAccounting Bool(true)",
            "MemoryAccounting Bool(true)",
            "IOAccounting Bool(true)",
            "TasksAccounting Bool(true)",
            "Slice Text(\"system.slice\")",
            "Delegate Bool(true)",
            "CPUWeight U64(100)",
            "MemoryMax U64(67108864)",
            "TasksMax U64(7)",
        ]
    );
}

#[test]
fn an_annotation_replaces_a_default_and_not_a_limit() {
    let mode = ("org.systemd.property.CollectMode", "'inactive'");
    let properties_of_mode = properties("{}", &[mode]).unwrap();
    let modes: Vec<_> =
        properties_of_mode.iter().filter(|p| p.starts_with("CollectMode")).collect();
    assert_eq!(modes, ["CollectMode Text(\"inactive\")"]);
    let tasks = |resources| properties(resources, &[]).unwrap().join("; ");
    assert!(tasks("{}").contains(&format!("TasksMax U64({})", u64::MAX)));
    assert!(!tasks(r#"{"pids":{"limit":7}}"#).contains(&u64::MAX.to_string()));
    let limit = ("org.systemd.property.TasksMax", "uint64 5");
    let error = properties(r#"{"pids":{"limit":7}}"#, &[limit]).unwrap_err().to_string();
    assert_eq!(
        error,
        "annotations[\"org.systemd.property.TasksMax\"]: linux.resources says this already"
    );
}
