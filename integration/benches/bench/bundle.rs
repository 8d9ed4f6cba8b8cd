//! What everybody runs: the same root, the same config.json.

use std::fs;
use std::path::{Path, PathBuf};

use myshim_integration::image::Image;
use myshim_integration::spec::Spec;
use serde_json::{Value, json};

/// The file systems of containerd's default spec, as mount(2) takes them.
pub(crate) const MOUNTS: [(&str, &str, &[&str], &str); 7] = [
    ("proc", "/proc", &["nosuid", "noexec", "nodev"], ""),
    ("tmpfs", "/dev", &["nosuid", "strictatime"], "mode=755,size=65536k"),
    ("devpts", "/dev/pts", &["nosuid", "noexec"], "newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev"], "mode=1777,size=65536k"),
    ("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"], ""),
    ("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"], ""),
    ("tmpfs", "/run", &["nosuid", "strictatime"], "mode=755,size=65536k"),
];

/// Paths of containerd's default spec that a container must not read.
pub(crate) const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];

/// Paths of containerd's default spec that a container must not write to.
pub(crate) const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Device rules beyond those for the default devices.
const DEVICES: [(&str, i64, i64); 6] =
    [("c", 1, 3), ("c", 1, 8), ("c", 1, 7), ("c", 5, 0), ("c", 1, 5), ("c", 1, 9)];

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Whose network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// The host's.
    Host,
    /// The container's own.
    New,
}

/// The layers of a root: what a snapshotter hands over.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    /// Read-only layers, the topmost first.
    pub(crate) lower: Vec<PathBuf>,
    /// Takes the changes.
    pub(crate) upper: PathBuf,
    /// Overlayfs's own.
    pub(crate) work: PathBuf,
}

impl Layers {
    /// A root of busybox below `dir`, with `count` layers.
    pub(crate) fn make(dir: &Path, count: usize) -> Self {
        let base = dir.join("base");
        if !base.exists() {
            Image::busybox().unpack(&base);
        }
        let lower = (1..count).map(|n| dir.join(format!("l{n}"))).chain([base]).collect();
        let layers = Self { lower, upper: dir.join("upper"), work: dir.join("work") };
        for path in layers.lower.iter().chain([&layers.upper, &layers.work]) {
            fs::create_dir_all(path).unwrap();
        }
        layers
    }

    /// Layers with an upper one of their own, beside the others.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        let dir = self.base().with_file_name(format!("of-{name}"));
        let layers = Self { lower: self.lower.clone(), upper: dir.join("u"), work: dir.join("w") };
        fs::create_dir_all(&layers.upper).unwrap();
        fs::create_dir_all(&layers.work).unwrap();
        layers
    }

    /// The plain root, without an overlay.
    pub(crate) fn base(&self) -> &Path {
        self.lower.last().unwrap()
    }

    /// Options of the overlay, in the form of containerd's snapshotter.
    pub(crate) fn options(&self) -> Vec<String> {
        let lower: Vec<&str> = self.lower.iter().map(|path| path.to_str().unwrap()).collect();
        vec![
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={}", self.upper.display()),
            format!("workdir={}", self.work.display()),
        ]
    }
}

/// config.json of a container that runs `args`.
pub(crate) fn spec(cgroup: &str, network: Network, args: &[&str]) -> Spec {
    let mounts: Vec<Value> = MOUNTS
        .iter()
        .map(|(kind, destination, flags, data)| {
            let data = data.split(',').filter(|option| !option.is_empty());
            let options: Vec<&str> = flags.iter().copied().chain(data).collect();
            json!({"type": kind, "source": kind, "destination": destination, "options": options})
        })
        .collect();
    let mut kinds = vec!["pid", "ipc", "uts", "mount"];
    if network == Network::New {
        kinds.push("network");
    }
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    let allowed = DEVICES.iter().map(|(kind, major, minor)| {
        json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm"})
    });
    let devices: Vec<Value> =
        [json!({"allow": false, "access": "rwm"})].into_iter().chain(allowed).collect();
    Spec(json!({
        "ociVersion": "1.1.0",
        "process": process(args),
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "annotations": {},
        "linux": {
            "resources": {"devices": devices},
            "cgroupsPath": cgroup,
            "namespaces": namespaces,
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
        },
    }))
}

/// A process that runs `args` with what containerd gives by default.
pub(crate) fn process(args: &[&str]) -> Value {
    json!({
        "args": args,
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
        "noNewPrivileges": true,
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "capabilities": {
            "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
        },
    })
}

/// Writes a bundle.
pub(crate) fn write(dir: &Path, spec: &Spec) {
    fs::create_dir_all(dir.join("rootfs")).unwrap();
    spec.write(&dir.join("config.json"));
}
