//! Real mounts, each test in a process and a mount namespace of its own.
//!
//! A test runs twice: in the test runner it makes a temporary directory and starts the test binary
//! again for this one test; there, alone, it stands for main and then for init. What that process
//! calls the host is a mount namespace whose mounts are all shared, as systemd has it, and
//! a witness that stays there tells what became of it.

mod cgroups;
mod destinations;
mod devices;
mod masks;
mod mounts;
mod namespaces;
mod overlays;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::mount::{MountPropagationFlags, mount_change};

use super::{
    Attached, EmptyMountNamespace, OldTree, PreparedRootfs, Root, Surroundings, build,
    detach_from_host, prepare,
};
use crate::Result;
use crate::cgroup::CgroupPaths;
use crate::plan::{
    Device, DeviceKind, Mount, MountKind, Namespace, Namespaces, Propagation, Rootfs, RootfsSource,
};
use crate::sys::procfs::Procfs;
use crate::sys::testing::{forked, join};

const SCENE: &str = "MYSHIM_TEST_SCENE";

/// Runs `body` alone. `module` is `module_path!()`, `test` the name of the test function.
pub(crate) fn alone(module: &str, test: &str, body: impl FnOnce(&Scene)) {
    if let Some(directory) = std::env::var_os(SCENE) {
        return join(forked(|| body(&Scene::open(PathBuf::from(directory)))));
    }
    let directory = std::env::temp_dir().join(format!("myshim-{}-{}", std::process::id(), test));
    std::fs::create_dir_all(&directory).unwrap();
    let (_, module) = module.split_once("::").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("{module}::{test}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(SCENE, &directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Where a test plays.
pub(crate) struct Scene {
    pub(crate) directory: PathBuf,
    /// Stays on the host.
    witness: Pid,
    /// The machine's /proc.
    procfs: Procfs,
    pub(crate) namespaces: Namespaces,
    pub(crate) cgroups: CgroupPaths,
}

impl Drop for Scene {
    fn drop(&mut self) {
        nix::sys::signal::kill(self.witness, Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(self.witness, None).unwrap();
    }
}

impl Scene {
    fn open(directory: PathBuf) -> Scene {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
        let witness = forked(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
            loop {
                nix::unistd::pause();
            }
        });
        let scene = Scene {
            directory,
            witness,
            procfs: Procfs::open().unwrap(),
            namespaces: namespaces(),
            cgroups: CgroupPaths::default(),
        };
        for path in ["image/proc", "image/sys", "image/dev", "image/etc", "image/tmp", "site"] {
            scene.make_directory(path);
        }
        scene
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.join(below)
    }

    pub(crate) fn make_directory(&self, below: &str) {
        std::fs::create_dir_all(self.path(below)).unwrap();
    }

    pub(crate) fn write(&self, below: &str, content: &str) {
        std::fs::write(self.path(below), content).unwrap();
    }

    pub(crate) fn link(&self, target: &str, below: &str) {
        std::os::unix::fs::symlink(target, self.path(below)).unwrap();
    }

    /// What the host's mount table is.
    pub(crate) fn host_mounts(&self) -> String {
        let path = format!("{}/mountinfo", self.witness);
        String::from_utf8(self.procfs.read(path).unwrap()).unwrap()
    }

    /// What init's mount table is.
    pub(crate) fn mounts(&self) -> String {
        String::from_utf8(self.procfs.read("self/mountinfo").unwrap()).unwrap()
    }

    /// The line of init's mount table for this mount point; the last one covers the others.
    pub(crate) fn mount_at(&self, path: &str) -> String {
        let mounts = self.mounts();
        let line = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(path));
        line.unwrap_or_else(|| panic!("nothing at {path}:\n{mounts}")).to_owned()
    }

    /// A root made of the image, with these mounts.
    pub(crate) fn rootfs(&self, mounts: Vec<Mount>) -> Rootfs {
        Rootfs {
            source: RootfsSource::Directory(self.path("image")),
            readonly: false,
            propagation: Propagation::Slave,
            pivot: true,
            mounts,
            devices: Vec::new(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            mount_label: None,
            in_new_user_namespace: false,
        }
    }

    pub(crate) fn prepare(&self, rootfs: &Rootfs) -> Result<PreparedRootfs> {
        prepare(rootfs, &self.path("site"), &mut |_| unreachable!("no id maps here"))
    }

    /// Becomes init, as far as namespaces are concerned (pid namespaces take a fork).
    pub(crate) fn become_init(&self) {
        let flags = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET;
        nix::sched::unshare(flags).unwrap();
    }

    pub(crate) fn build_prepared(&self, rootfs: &Rootfs, prepared: PreparedRootfs) -> Result<Root> {
        let around = Surroundings {
            namespaces: &self.namespaces,
            cgroups: &self.cgroups,
            cgroup_path: Path::new("/test"),
            old_tree: OldTree::Host { site: &self.path("site") },
        };
        build(rootfs, prepared, &around)
    }

    /// Prepares as main, and builds as init.
    pub(crate) fn build(&self, rootfs: &Rootfs) -> Result<Root> {
        let prepared = self.prepare(rootfs)?;
        self.become_init();
        self.build_prepared(rootfs, prepared)
    }

    /// The whole way.
    pub(crate) fn enter(&self, rootfs: &Rootfs) -> Root {
        let root = self.build(rootfs).unwrap();
        root.enter(rootfs).unwrap();
        root.seal(rootfs).unwrap();
        root.hide(rootfs).unwrap();
        root
    }
}

pub(crate) fn namespaces() -> Namespaces {
    Namespaces {
        user: Namespace::Host,
        mount: Namespace::New,
        pid: Namespace::New,
        net: Namespace::New,
        ipc: Namespace::New,
        uts: Namespace::New,
        cgroup: Namespace::Host,
        time: Namespace::Host,
        time_offsets: Vec::new(),
    }
}

pub(crate) fn mount(destination: &str, kind: MountKind) -> Mount {
    Mount {
        field: "mounts[0]".to_owned(),
        destination: PathBuf::from(destination),
        kind,
        attr_set: 0,
        attr_clear: 0,
        attr_clear_unlocked: 0,
        rec_attr_set: 0,
        rec_attr_clear: 0,
        propagation: None,
        idmap: None,
        tmpcopyup: false,
    }
}

pub(crate) fn filesystem(destination: &str, fstype: &str, data: &[(&str, &str)]) -> Mount {
    let data = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (!value.is_empty()).then(|| (*value).to_owned())));
    mount(
        destination,
        MountKind::Filesystem {
            fstype: fstype.to_owned(),
            source: fstype.to_owned(),
            flags: Vec::new(),
            data: data.collect(),
        },
    )
}

pub(crate) fn bind(source: &Path, destination: &str) -> Mount {
    mount(destination, MountKind::Bind { source: source.to_path_buf(), recursive: false })
}

pub(crate) fn rbind(source: &Path, destination: &str) -> Mount {
    mount(destination, MountKind::Bind { source: source.to_path_buf(), recursive: true })
}

pub(crate) fn char_device(path: &str, major: u32, minor: u32) -> Device {
    Device {
        path: PathBuf::from(path),
        kind: DeviceKind::Char { major, minor },
        mode: 0o666,
        uid: 0,
        gid: 0,
    }
}

/// What containerd asks for by default.
pub(crate) fn default_mounts() -> Vec<Mount> {
    const NOSUID: u64 = 0x2;
    const NODEV: u64 = 0x4;
    const NOEXEC: u64 = 0x8;
    const STRICTATIME: u64 = 0x20;
    let all = NOSUID | NODEV | NOEXEC;
    let with = |mount: Mount, attr_set| Mount { attr_set, ..mount };
    let pts = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    vec![
        with(filesystem("/proc", "proc", &[]), all),
        with(
            filesystem("/dev", "tmpfs", &[("mode", "755"), ("size", "65536k")]),
            NOSUID | STRICTATIME,
        ),
        with(filesystem("/dev/pts", "devpts", &pts), NOSUID | NOEXEC),
        with(filesystem("/dev/shm", "tmpfs", &[("mode", "1777"), ("size", "65536k")]), all),
        with(filesystem("/dev/mqueue", "mqueue", &[]), all),
        with(filesystem("/sys", "sysfs", &[]), all | 0x1),
        with(filesystem("/run", "tmpfs", &[("mode", "755"), ("size", "65536k")]), NOSUID),
    ]
}

pub(crate) fn default_devices() -> Vec<Device> {
    let devices =
        [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)].into_iter();
    let mut devices: Vec<_> =
        devices.map(|(name, minor)| char_device(&format!("/dev/{name}"), 1, minor)).collect();
    devices.push(char_device("/dev/tty", 5, 0));
    devices
}

/// The names in a directory, sorted.
pub(crate) fn names(path: &str) -> Vec<OsString> {
    let mut names: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}
