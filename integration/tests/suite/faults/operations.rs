//! What is done while a fault strikes: each operation with what comes before and after.

use std::fs;

use myshim_integration::shim::{Bundle, Rpc, Shim, Stdio3, Whom, mount, shell};
use myshim_integration::spec::Spec;
use serde_json::{Value, json};

/// An operation on the container of a [`Bundle`].
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// Without a fault.
    pub(super) before: fn(&Target<'_>),
    /// With one. The pid of the process that it has made, or on which it has worked.
    pub(super) act: fn(&Target<'_>) -> Rpc<u32>,
    /// Without one: what it takes to be where `before` began, whether `act` has succeeded or not.
    pub(super) after: fn(&Target<'_>),
    pub(super) spec: fn(Spec) -> Spec,
}

/// What it works on.
pub(super) struct Target<'a> {
    pub(super) shim: &'a Shim,
    pub(super) bundle: &'a Bundle,
}

pub(super) const CREATE: Operation =
    Operation { name: "create", before: |_| (), act: create, after: remove, spec: usual };
pub(super) const CREATE_WITH_EVERYTHING: Operation =
    Operation { name: "create with everything", spec: everything, ..CREATE };
pub(super) const EXEC: Operation =
    Operation { name: "exec", before: exist, act: exec, after: remove_exec, spec: usual };
pub(super) const EXEC_WITH_EVERYTHING: Operation =
    Operation { name: "exec with everything", spec: everything, ..EXEC };
pub(super) const DELETE: Operation = Operation {
    name: "delete",
    before: exited,
    act: |target| target.shim.delete(target.id(), "").map(|_| 0),
    after: remove,
    spec: usual,
};
pub(super) const PAUSE_AND_RESUME: Operation = Operation {
    name: "pause and resume",
    before: exist,
    act: pause_and_resume,
    after: |target| drop(target.shim.resume(target.id())),
    spec: usual,
};
pub(super) const UPDATE: Operation =
    Operation { name: "update", before: exist, act: update, after: |_| (), spec: usual };
pub(super) const KILL_ALL: Operation =
    Operation { name: "kill all", before: exist, act: kill_all, after: |_| (), spec: usual };

impl Target<'_> {
    fn id(&self) -> &str {
        &self.bundle.id
    }

    /// The pid of the container's init; 0 where there is none.
    pub(super) fn init(&self) -> u32 {
        self.shim.state(self.id(), "").map_or(0, |state| state.pid)
    }
}

fn usual(spec: Spec) -> Spec {
    spec.args(&["sleep", "3600"])
        .with("/linux/maskedPaths", json!(["/proc/cmdline", "/sys/kernel"]))
        .with("/linux/readonlyPaths", json!(["/proc/sys", "/proc/irq"]))
        .with("/linux/resources/memory", json!({"limit": 512 << 20}))
        .with("/linux/resources/pids", json!({"limit": 100}))
        .with("/linux/resources/cpu", json!({"shares": 512}))
        .with("/process/oomScoreAdj", json!(100))
        .with("/linux/seccomp", filter())
        .mount("tmpfs", "tmpfs", "/tmp", &["nosuid", "size=1m"])
}

fn filter() -> Value {
    let refused = json!({"names": ["swapoff"], "action": "SCMP_ACT_ERRNO"});
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]})
}

/// All namespaces, hooks, a root from a snapshotter, and mounts of each kind.
fn everything(spec: Spec) -> Spec {
    let ids = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
    let hook = json!({"path": "/bin/true"});
    let spec = ["prestart", "createRuntime", "poststart", "poststop"]
        .iter()
        .fold(usual(spec), |spec, point| spec.push(&format!("/hooks/{point}"), hook.clone()));
    let inside = json!({"path": "/bin/true"});
    spec.push("/linux/namespaces", json!({"type": "time"}))
        .push("/linux/namespaces", json!({"type": "user"}))
        .push("/linux/namespaces", json!({"type": "cgroup"}))
        .with("/linux/timeOffsets", json!({"monotonic": {"secs": 10}}))
        .with("/linux/uidMappings", ids.clone())
        .with("/linux/gidMappings", ids)
        .with("/linux/sysctl", json!({"net.ipv4.ip_forward": "0"}))
        .with("/hostname", json!("web"))
        .push("/hooks/createContainer", inside.clone())
        .push("/hooks/startContainer", inside)
        .mount("tmpfs", "tmpfs", "/etc", &["tmpcopyup", "size=1m"])
        .mount("bind", "/usr/share", "/mnt/share", &["rbind", "ro", "rprivate"])
        .mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid"])
        .with("/root", json!({"path": "rootfs", "readonly": true}))
}

fn create(target: &Target<'_>) -> Rpc<u32> {
    let overlay = |bundle: &Bundle| {
        let text = fs::read_to_string(bundle.dir.join("config.json")).unwrap();
        text.contains(r#""path":"rootfs""#)
    };
    let pid = target
        .shim
        .create_with(target.bundle, &Stdio3::default(), |request| {
            if overlay(target.bundle) {
                request.rootfs.push(root_of(target.bundle));
            }
        })?
        .pid;
    target.shim.start(target.id(), "")?;
    Ok(pid)
}

/// An overlay on the busybox root, which lies beside the folder of the bundles.
fn root_of(bundle: &Bundle) -> containerd_shim_protos::api::Mount {
    let beside = bundle.dir.parent().and_then(|bundles| bundles.parent()).unwrap();
    let folder = |name: &str| {
        let folder = beside.join(name);
        fs::create_dir_all(&folder).unwrap();
        folder.to_string_lossy().into_owned()
    };
    let options = [
        format!("lowerdir={}", folder("rootfs")),
        format!("upperdir={}", folder("upper")),
        format!("workdir={}", folder("work")),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    mount("overlay", "overlay", &options)
}

/// The container runs; made when it does not.
fn exist(target: &Target<'_>) {
    if target.init() == 0 {
        create(target).unwrap();
    }
}

fn exited(target: &Target<'_>) {
    exist(target);
    // One that has exited cannot be killed.
    drop(target.shim.kill(target.id(), "", 9));
    target.shim.wait(target.id(), "").unwrap();
}

/// Ends it, wherever it is.
pub(super) fn remove(target: &Target<'_>) {
    let (shim, id) = (target.shim, target.id());
    if shim.state(id, "").is_ok() {
        // One that never started, or has ended, cannot be killed or need not be.
        drop(shim.kill_as(id, "", 9, Whom::All));
        shim.wait(id, "").unwrap();
        shim.delete(id, "").unwrap();
    }
}

fn remove_exec(target: &Target<'_>) {
    let (shim, id) = (target.shim, target.id());
    if shim.state(id, "e").is_ok() {
        // One that was never started cannot be killed.
        if shim.kill(id, "e", 9).is_ok() {
            shim.wait(id, "e").unwrap();
        }
        shim.delete(id, "e").unwrap();
    }
}

fn exec(target: &Target<'_>) -> Rpc<u32> {
    let (shim, id) = (target.shim, target.id());
    let mut process = shell("");
    process["args"] = json!(["sleep", "1000"]);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}]);
    shim.exec(id, "e", &process, &Stdio3::default())?;
    Ok(shim.start(id, "e")?.pid)
}

fn pause_and_resume(target: &Target<'_>) -> Rpc<u32> {
    target.shim.pause(target.id())?;
    target.shim.resume(target.id())?;
    Ok(target.init())
}

fn update(target: &Target<'_>) -> Rpc<u32> {
    let resources = json!({"memory": {"limit": 256 << 20}, "pids": {"limit": 50}});
    target.shim.update(target.id(), &resources)?;
    Ok(target.init())
}

fn kill_all(target: &Target<'_>) -> Rpc<u32> {
    // A signal that sleep ignores.
    target.shim.kill_as(target.id(), "", 28, Whom::All)?;
    Ok(target.init())
}
