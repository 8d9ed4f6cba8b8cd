//! Containers in units of systemd: what systemd knows of them, and what is left when they go.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use containerd_shim_protos::shim::oci::Options;
use myshim_integration::claim::{Claim, Needs};
use myshim_integration::command;
use myshim_integration::process::{Process, cgroup_dir};
use myshim_integration::shim::{Bundle, Dialect, Ends, EventSink, Invocation, Shim, Stdio3};
use myshim_integration::spec::Spec;
use myshim_integration::test::kill_hard;
use myshim_integration::{Container, Test, claims, wait};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_scope_has_the_limits_that_systemd_says.needs(Needs::Systemd),
    a_reload_changes_no_limit.needs(Needs::Systemd).once(),
    device_rules_outlive_a_reload.needs(Needs::Systemd).once(),
    an_exec_is_in_the_scope.needs(Needs::Systemd),
    slices_of_a_pod_are_made_above_the_scope.needs(Needs::Systemd).once(),
    a_slice_may_hold_a_container.needs(Needs::Systemd).once(),
    a_limit_of_one_process_holds_from_the_start.needs(Needs::Systemd).once(),
    annotations_are_properties.needs(Needs::Systemd).once(),
    a_wrong_annotation_is_refused_by_its_name.needs(Needs::Systemd).once(),
    an_update_is_known_to_systemd.needs(Needs::Systemd).once(),
    memory_shrinks_below_its_use_without_a_kill.needs(Needs::CgroupV2).once(),
    memory_that_cannot_shrink_is_refused_with_figures.needs(Needs::CgroupV2).once(),
    a_failed_create_leaves_no_unit.needs(Needs::Systemd),
    a_unit_of_somebody_else_is_not_touched.needs(Needs::Systemd).once(),
    a_main_killed_half_way_leaves_no_unit.needs(Needs::Systemd).once(),
    a_daemon_killed_leaves_no_unit_after_delete.needs(Needs::Systemd).once(),
    a_bus_that_does_not_answer_is_an_error_in_time.needs(Needs::Systemd).once().alone().within(180),
    without_a_bus_systemds_own_socket_does.needs(Needs::Systemd).once().alone(),
    the_option_takes_no_path_of_another_form.needs(Needs::Systemd).once(),
    without_systemd_a_unit_is_refused.needs(Needs::NoSystemd),
    without_systemd_the_option_is_refused.needs(Needs::NoSystemd).once(),
];

/// In a unit, whatever the other containers of the run are in.
fn scope_of(t: &Test, name: &str) -> (String, String) {
    let id = t.id(name);
    (format!("system.slice:t:{id}"), format!("t-{id}.scope"))
}

/// A container that sleeps in a scope, and the scope's name.
fn sleeping<'a>(
    t: &'a Test,
    name: &str,
    edit: impl FnOnce(Spec) -> Spec,
) -> (Container<'a>, String) {
    let (path, unit) = scope_of(t, name);
    let id = t.id(name);
    let spec = t.spec(&id).args(&["sleep", "3600"]).with("/linux/cgroupsPath", json!(path));
    t.ctr(t.spec_args(&id, &edit(spec), &["--detach"])).ok();
    (t.container(name), unit)
}

fn systemctl(args: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    command.args(args);
    command::run(command, command::LIMIT).ok()
}

/// What systemd says of a unit.
fn show(unit: &str, properties: &[&str]) -> BTreeMap<String, String> {
    let text = systemctl(&["show", unit, "--property", &properties.join(",")]);
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[track_caller]
fn says(unit: &str, wanted: &[(&str, &str)]) {
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    let shown = show(unit, &names);
    for (name, value) in wanted {
        assert_eq!(shown.get(*name).map(String::as_str), Some(*value), "{name}: {shown:?}");
    }
}

#[track_caller]
fn is_gone(unit: &str) {
    says(unit, &[("LoadState", "not-found"), ("ActiveState", "inactive")]);
}

/// Waits until systemd has forgotten a unit whose processes have ended.
#[track_caller]
fn goes(unit: &str) {
    wait::until_true("the unit is gone", || show(unit, &["LoadState"])["LoadState"] == "not-found");
}

/// The files of a cgroup that hold limits.
fn limits(directory: &Path) -> BTreeMap<String, String> {
    // systemd before 253 cannot be told of memory.oom.group, and resets it.
    let moving = [
        "oom.group",
        "stat",
        "current",
        "events",
        "pressure",
        "peak",
        "numa",
        "local",
        "effective",
    ];
    let mut limits = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_limit = !name.starts_with("cgroup.") && !moving.iter().any(|m| name.contains(m));
        if is_limit && let Ok(text) = fs::read_to_string(entry.path()) {
            limits.insert(name, text.trim().to_owned());
        }
    }
    limits
}

fn directory(c: &Container<'_>) -> PathBuf {
    cgroup_dir(c.pid(), "memory").unwrap()
}

const RESOURCES: &str = r#"{
    "memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432},
    "cpu": {"shares": 512, "quota": 20000, "period": 50000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 77},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
    "unified": {"memory.high": "62914560", "memory.oom.group": "1", "cpu.max.burst": "1000"}
}"#;

fn limited(spec: Spec) -> Spec {
    let resources: Value = serde_json::from_str(RESOURCES).unwrap();
    let resources = resources.as_object().unwrap();
    resources.iter().fold(spec, |spec, (key, value)| {
        spec.with(&format!("/linux/resources/{key}"), value.clone())
    })
}

fn a_scope_has_the_limits_that_systemd_says(t: &Test) {
    let (c, unit) = sleeping(t, "web", limited);
    let path = format!("/system.slice/{unit}");
    assert!(directory(&c).ends_with(path.trim_start_matches('/')));
    says(
        &unit,
        &[
            ("ControlGroup", &path),
            ("ActiveState", "active"),
            ("Slice", "system.slice"),
            ("Delegate", "yes"),
            ("MemoryMax", "67108864"),
            ("MemorySwapMax", "67108864"),
            ("MemoryLow", "33554432"),
            ("MemoryHigh", "62914560"),
            ("CPUWeight", "59"),
            ("CPUQuotaPerSecUSec", "400ms"),
            ("CPUQuotaPeriodUSec", "50ms"),
            ("AllowedCPUs", "0"),
            ("AllowedMemoryNodes", "0"),
            ("TasksMax", "77"),
        ],
    );
    let files = limits(&directory(&c));
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.high", "62914560"),
        ("cpu.weight", "59"),
        ("cpu.max", "20000 50000"),
        ("cpu.max.burst", "1000"),
        ("cpuset.cpus", "0"),
        ("pids.max", "77"),
        ("hugetlb.2MB.max", "4194304"),
    ] {
        assert_eq!(files.get(file).map(String::as_str), Some(value), "{file}");
    }
    c.remove();
    is_gone(&unit);
}

fn a_reload_changes_no_limit(t: &Test) {
    let (c, unit) = sleeping(t, "web", limited);
    let before = limits(&directory(&c));
    systemctl(&["daemon-reload"]);
    // Setting a property makes systemd write all that it knows of that controller.
    for property in ["MemoryMin=4096", "CPUWeight=59", "TasksMax=77", "AllowedCPUs=0"] {
        systemctl(&["set-property", "--runtime", &unit, property]);
    }
    let mut after = limits(&directory(&c));
    assert_eq!(after.insert("memory.min".into(), "0".into()).as_deref(), Some("4096"));
    assert_eq!(after, before);
    c.remove();
    is_gone(&unit);
}

fn device_rules_outlive_a_reload(t: &Test) {
    let (c, _) = sleeping(t, "web", |spec| spec.capabilities(&["CAP_MKNOD"]));
    let script = "rm -f d; mknod d b 259 0; head -c 1 d 2>&1; head -c 0 /dev/null && echo fine";
    let tried = || c.exec(&["sh", "-c", script]).out();
    let denied = tried();
    assert!(denied.contains("Operation not permitted") && denied.contains("fine"), "{denied}");
    systemctl(&["daemon-reload"]);
    assert_eq!(tried(), denied);
    c.remove();
}

fn an_exec_is_in_the_scope(t: &Test) {
    let (c, unit) = sleeping(t, "web", |spec| spec.host_namespace("cgroup"));
    let own = c.exec(&["cat", "/proc/self/cgroup"]).ok();
    assert_eq!(own, format!("0::/system.slice/{unit}\n"));
    c.remove();
}

fn slices_of_a_pod_are_made_above_the_scope(t: &Test) {
    let id = t.id("web");
    let pod = format!("kubepods-burstable-pod{}.slice", t.tag);
    let path = format!("{pod}:cri-containerd:{id}");
    let spec = t.spec(&id).args(&["sleep", "3600"]).with("/linux/cgroupsPath", json!(path));
    t.ctr(t.spec_args(&id, &spec, &["--detach"])).ok();
    let c = t.container("web");
    let unit = format!("cri-containerd-{id}.scope");
    says(&unit, &[("Slice", &pod), ("ActiveState", "active")]);
    let wanted = format!("kubepods.slice/kubepods-burstable.slice/{pod}/{unit}");
    assert!(directory(&c).ends_with(wanted));
    c.remove();
    is_gone(&unit);
    // A slice stays for the other containers of its pod; the kubelet removes it.
    systemctl(&["stop", &pod, "kubepods.slice"]);
}

/// As its path says when its third part is a slice: there is no scope.
fn a_slice_may_hold_a_container(t: &Test) {
    let (id, slice) = (t.id("web"), format!("t{}.slice", t.tag));
    let path = format!("-.slice:t:{slice}");
    let spec =
        limited(t.spec(&id)).args(&["sleep", "3600"]).with("/linux/cgroupsPath", json!(path));
    t.ctr(t.spec_args(&id, &spec, &["--detach"])).ok();
    let c = t.container("web");
    assert_eq!(directory(&c), Path::new("/sys/fs/cgroup").join(&slice));
    says(&slice, &[("ActiveState", "active"), ("MemoryMax", "67108864"), ("TasksMax", "77")]);
    assert_eq!(limits(&directory(&c)).get("pids.max").map(String::as_str), Some("77"));
    assert_eq!(c.exec(&["sh", "-c", "exit 3"]).code(), Some(3));
    let directory = directory(&c);
    c.remove();
    // systemd knows any slice that is asked for.
    says(&slice, &[("ActiveState", "inactive"), ("FragmentPath", "")]);
    assert!(!directory.exists());
}

fn a_limit_of_one_process_holds_from_the_start(t: &Test) {
    let (c, unit) =
        sleeping(t, "web", |spec| spec.with("/linux/resources/pids", json!({"limit": 1})));
    assert_eq!(limits(&directory(&c)).get("pids.max").map(String::as_str), Some("1"));
    says(&unit, &[("TasksMax", "1"), ("TasksCurrent", "1")]);
    assert!(c.exec(&["true"]).fails(&["EAGAIN"]).contains("clone3"));
    c.remove();
}

fn annotations_are_properties(t: &Test) {
    let (c, unit) = sleeping(t, "web", |spec| {
        spec.annotation("org.systemd.property.TimeoutStopSec", "uint64 7")
            .annotation("org.systemd.property.After", "['basic.target']")
            .annotation("org.systemd.property.MemoryHigh", "uint64 50331648")
    });
    says(&unit, &[("TimeoutStopUSec", "7s"), ("MemoryHigh", "50331648")]);
    assert!(show(&unit, &["After"])["After"].contains("basic.target"));
    assert_eq!(limits(&directory(&c)).get("memory.high").map(String::as_str), Some("50331648"));
    c.remove();
}

fn a_wrong_annotation_is_refused_by_its_name(t: &Test) {
    for (name, value, why) in [
        ("After", "[sshd", "annotations[\\\"org.systemd.property.After\\\"]"),
        ("NoSuchThing", "true", "NoSuchThing"),
        ("TasksMax", "'many'", "StartTransientUnit"),
    ] {
        let (path, unit) = scope_of(t, "run");
        let output = t.run_spec(|spec| {
            spec.args(&["true"])
                .with("/linux/cgroupsPath", json!(path))
                .annotation(&format!("org.systemd.property.{name}"), value)
        });
        let text = output.fails(&[]).replace('"', "\\\"");
        assert!(text.contains(why) || text.contains(&why.replace('\\', "")), "{name}: {text}");
        is_gone(&unit);
    }
}

/// A shim by hand, whose container is in a scope (or where the run's others are).
struct Rig {
    bundle: Bundle,
    shim: Shim,
    _sink: EventSink,
}

impl Rig {
    fn new(t: &Test, edit: impl FnOnce(Spec) -> Spec) -> Self {
        let sink = EventSink::listen(t);
        let bundle = Bundle::new(t, "web", edit);
        let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
        shim.create(&bundle, &Stdio3::default()).unwrap();
        shim.start(&bundle.id, "").unwrap();
        Self { bundle, shim, _sink: sink }
    }

    fn directory(&self) -> PathBuf {
        let pid = self.shim.state(&self.bundle.id, "").unwrap().pid;
        cgroup_dir(pid, "memory").unwrap()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.directory().join(file)).unwrap().trim().to_owned()
    }

    fn update(&self, resources: &Value) -> Result<(), String> {
        self.shim.update(&self.bundle.id, resources).map(drop).map_err(|error| error.message)
    }

    fn end(self) {
        self.shim.kill(&self.bundle.id, "", 9).unwrap();
        self.shim.wait(&self.bundle.id, "").unwrap();
        self.shim.delete(&self.bundle.id, "").unwrap();
        self.shim.shutdown(&self.bundle.id, Ends::Yes);
    }
}

fn an_update_is_known_to_systemd(t: &Test) {
    let (path, unit) = scope_of(t, "web");
    let rig = Rig::new(t, |spec| {
        limited(spec).args(&["sleep", "3600"]).with("/linux/cgroupsPath", json!(path))
    });
    let before = limits(&rig.directory());
    let cpu = json!({"quota": 30_000, "period": 50_000});
    rig.update(&json!({"memory": {"limit": 33_554_432}, "pids": {"limit": 88}, "cpu": cpu}))
        .unwrap();
    says(&unit, &[("MemoryMax", "33554432"), ("TasksMax", "88"), ("CPUQuotaPerSecUSec", "600ms")]);
    let mut wanted = before;
    for (file, value) in
        [("memory.max", "33554432"), ("pids.max", "88"), ("cpu.max", "30000 50000")]
    {
        wanted.insert(file.to_owned(), value.to_owned());
    }
    assert_eq!(limits(&rig.directory()), wanted);
    systemctl(&["daemon-reload"]);
    assert_eq!(limits(&rig.directory()), wanted);
    rig.end();
    is_gone(&unit);
}

const MIB: u64 = 1 << 20;

/// The container writes `mib` MiB to a file on its root's disk, which fills the page cache, and
/// then sleeps.
fn with_page_cache(spec: Spec, mib: u64) -> Spec {
    let script = format!(
        "dd if=/dev/zero of=/data bs=1M count={mib} 2>/dev/null; sync; echo >/ready; sleep 3600"
    );
    spec.shell(&script).with("/linux/resources/memory", json!({"limit": 128 * MIB}))
}

fn memory_shrinks_below_its_use_without_a_kill(t: &Test) {
    let rig = Rig::new(t, |spec| with_page_cache(spec, 48));
    wait::until_true("the data is written", || t.rootfs().join("ready").exists());
    let used: u64 = rig.read("memory.current").parse().unwrap();
    assert!(used > 40 * MIB, "{used}");
    rig.update(&json!({"memory": {"limit": 16 * MIB}})).unwrap();
    assert_eq!(rig.read("memory.max"), (16 * MIB).to_string());
    assert_eq!(rig.read("memory.high"), "max");
    assert!(rig.read("memory.current").parse::<u64>().unwrap() <= 16 * MIB);
    assert!(rig.read("memory.events").contains("oom_kill 0"));
    assert_eq!(rig.shim.status(&rig.bundle.id, ""), "running");
    rig.end();
    fs::remove_file(t.rootfs().join("data")).unwrap();
}

/// Memory of tmpfs cannot be reclaimed without swap.
fn memory_that_cannot_shrink_is_refused_with_figures(t: &Test) {
    let rig = Rig::new(t, |spec| {
        spec.mount("tmpfs", "tmpfs", "/t", &[])
            .shell(
                "dd if=/dev/zero of=/t/data bs=1M count=32 2>/dev/null; echo >/ready; sleep 3600",
            )
            .with("/linux/resources/memory", json!({"limit": 64 * MIB}))
    });
    wait::until_true("the data is written", || t.rootfs().join("ready").exists());
    for check in [false, true] {
        let memory = json!({"limit": 16 * MIB, "checkBeforeUpdate": check});
        let error = rig.update(&json!({"memory": memory})).unwrap_err();
        assert!(error.contains("linux.resources.memory.limit: 16777216 bytes are less"), "{error}");
        assert_eq!(rig.read("memory.max"), (64 * MIB).to_string());
        assert_eq!(rig.read("memory.high"), "max");
        assert!(rig.read("memory.events").contains("oom_kill 0"));
    }
    assert_eq!(rig.shim.status(&rig.bundle.id, ""), "running");
    rig.end();
}

fn a_failed_create_leaves_no_unit(t: &Test) {
    let (path, unit) = scope_of(t, "run");
    let at = |spec: Spec| spec.with("/linux/cgroupsPath", json!(path));
    t.run_spec(|spec| at(spec).args(&["no-such-program"])).fails(&["no-such-program"]);
    is_gone(&unit);
    // After the unit is made: a file that the kernel refuses.
    let unified = json!({"memory.oom.group": "7"});
    t.run_spec(|spec| at(spec).args(&["true"]).with("/linux/resources/unified", unified))
        .fails(&["set limits"]);
    is_gone(&unit);
    let hook = json!({"path": "/bin/false"});
    t.run_spec(|spec| at(spec).args(&["true"]).push("/hooks/createRuntime", hook))
        .fails(&["createRuntime"]);
    is_gone(&unit);
}

fn a_unit_of_somebody_else_is_not_touched(t: &Test) {
    let (path, unit) = scope_of(t, "run");
    let mut foreign = Command::new("systemd-run");
    foreign.args(["--scope", "--quiet", "--unit", &unit, "sleep", "3600"]);
    let foreign = command::Running::start(foreign);
    wait::until_true("the unit is there", || {
        show(&unit, &["ActiveState"])["ActiveState"] == "active"
    });
    let run = || t.run_spec(|spec| spec.args(&["true"]).with("/linux/cgroupsPath", json!(path)));
    run().fails(&[&format!("systemd unit {unit}: already exists")]);
    says(&unit, &[("ActiveState", "active"), ("TasksCurrent", "1")]);
    foreign.signal(Signal::KILL);
    drop(foreign.finish(command::LIMIT));
    goes(&unit);
    run().ok();
}

fn named(t: &Test, name: &str) -> u32 {
    wait::within(wait::SOON, || {
        Process::tagged(&t.tag).values().find(|p| p.comm.starts_with(name)).map(|p| p.pid)
    })
    .unwrap_or_else(|| panic!("no {name:?}: {:#?}", Process::tagged(&t.tag)))
}

fn a_main_killed_half_way_leaves_no_unit(t: &Test) {
    let (path, unit) = scope_of(t, "run");
    let here = t.dir.join("here");
    let script = t.script("gate", &format!("echo >{}; exec sleep 600", here.display()));
    let hook = json!({"path": script, "env": ["PATH=/usr/bin:/bin"]});
    let id = t.id("run");
    let spec = t.spec(&id).args(&["true"]).with("/linux/cgroupsPath", json!(path));
    let spec = spec.push("/hooks/createRuntime", hook);
    let client = t.ctr_start(t.spec_args(&id, &spec, &["--rm"]));
    wait::until_true("the hook runs", || here.exists());
    says(&unit, &[("ActiveState", "active")]);
    kill_hard(named(t, "myshim:main"));
    client.finish(command::LIMIT).fails(&["main ended before it answered"]);
    goes(&unit);
}

fn a_daemon_killed_leaves_no_unit_after_delete(t: &Test) {
    let (c, unit) = sleeping(t, "web", |spec| spec);
    kill_hard(c.shim().pid);
    goes(&unit);
    c.remove();
}

/// Stops the bus, and lets it go on in any case.
struct StoppedBus(Pid);

impl StoppedBus {
    fn new() -> Self {
        let pid = show("dbus.service", &["MainPID"])["MainPID"].parse().unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for StoppedBus {
    fn drop(&mut self) {
        rustix::process::kill_process(self.0, Signal::CONT).unwrap();
    }
}

fn a_bus_that_does_not_answer_is_an_error_in_time(t: &Test) {
    let (web, unit) = sleeping(t, "web", |spec| spec);
    let (path, other) = scope_of(t, "run");
    let bus = StoppedBus::new();
    let output = t.run_spec(|spec| spec.args(&["true"]).with("/linux/cgroupsPath", json!(path)));
    let text = output.fails(&["create cgroup: systemd: "]);
    assert!(text.contains(&format!("StartTransientUnit({other})")), "{text}");
    assert!(text.contains("within 20000 ms"), "{text}");
    // A scope ends by itself: its container can be deleted without the bus.
    web.remove();
    drop(bus);
    for unit in [unit, other] {
        goes(&unit);
    }
}

/// Takes the bus's socket away, and puts it back in any case.
struct NoBus;

const BUS: &str = "/run/dbus/system_bus_socket";
const AWAY: &str = "/run/dbus/system_bus_socket.away";

impl NoBus {
    fn new() -> Self {
        fs::rename(BUS, AWAY).unwrap();
        Self
    }
}

impl Drop for NoBus {
    fn drop(&mut self) {
        fs::rename(AWAY, BUS).unwrap();
    }
}

fn without_a_bus_systemds_own_socket_does(t: &Test) {
    let away = NoBus::new();
    let (c, unit) = sleeping(t, "web", limited);
    says(&unit, &[("ActiveState", "active"), ("MemoryMax", "67108864")]);
    c.remove();
    is_gone(&unit);
    drop(away);
}

/// Create with the option `SystemdCgroup`, and what it answers.
fn with_option(t: &Test, path: &str) -> String {
    let sink = EventSink::listen(t);
    let bundle =
        Bundle::new(t, "web", |spec| spec.args(&["true"]).with("/linux/cgroupsPath", json!(path)));
    let mut options = Options::new();
    options.systemd_cgroup = true;
    let mut any = Any::new();
    "containerd.runc.v1.Options".clone_into(&mut any.type_url);
    any.value = options.write_to_bytes().unwrap();
    let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
    let created = shim.create_with(&bundle, &Stdio3::default(), |r| r.options = Some(any).into());
    shim.shutdown(&bundle.id, Ends::Yes);
    created.map(drop).unwrap_err().message
}

fn the_option_takes_no_path_of_another_form(t: &Test) {
    let error = with_option(t, "/default/web");
    let wanted = "linux.cgroupsPath: \"/default/web\": the systemd cgroup driver needs the form";
    assert!(error.contains(wanted), "{error}");
}

const NO_SYSTEMD: &str = "the systemd cgroup driver needs systemd, which this host does not run";

fn without_systemd_a_unit_is_refused(t: &Test) {
    let (path, _) = scope_of(t, "run");
    t.run_spec(|spec| spec.args(&["true"]).with("/linux/cgroupsPath", json!(path)))
        .fails(&[&format!("linux.cgroupsPath: \"{path}\": {NO_SYSTEMD}")]);
}

fn without_systemd_the_option_is_refused(t: &Test) {
    let (path, _) = scope_of(t, "web");
    let error = with_option(t, &path);
    assert!(error.contains(NO_SYSTEMD), "{error}");
}
