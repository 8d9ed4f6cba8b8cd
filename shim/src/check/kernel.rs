//! The kernel's features: docs/kernel-features.md says what each is used for.

use std::ffi::CStr;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use runtime::apply::id_maps::{self, MapWriter};
use runtime::plan::{IdMap, IdMaps};
use runtime::sys::mount::{Change, Depth, FsContext, Tree};
use runtime::sys::process::{self, Clone, Forked};
use runtime::{Call, Error, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{
    PidfdFlags, PidfdGetfdFlags, WaitId, WaitIdOptions, getpid, pidfd_getfd, pidfd_open, waitid,
};

use super::Without::{Nothing, This};
use super::{Bench, Probe};

pub(super) const PROBES: &[Probe] = &[
    Probe { name: "kernel", without: Nothing, look: version },
    Probe { name: "clone3", without: Nothing, look: clone3 },
    Probe { name: "setns(pidfd)", without: Nothing, look: setns },
    Probe { name: "close_range", without: Nothing, look: close_range },
    Probe { name: "openat2", without: Nothing, look: open_inside },
    Probe { name: "fsopen, fsmount", without: Nothing, look: detached_mount },
    Probe { name: "mount_setattr", without: Nothing, look: mount_attributes },
    Probe { name: "namespaces", without: Nothing, look: namespaces },
    Probe {
        name: "user namespaces",
        without: This("pods with hostUsers: false, userns-remap are refused"),
        look: user_namespaces,
    },
    Probe {
        name: "idmapped mounts",
        without: This("mounts with mappings are refused, and with them pods with hostUsers: false"),
        look: idmapped,
    },
    Probe {
        name: "time namespaces",
        without: This("linux.timeOffsets is refused"),
        look: time_namespaces,
    },
    Probe {
        name: "overlay",
        without: This("images are not mounted by the overlayfs snapshotter"),
        look: overlay,
    },
    Probe {
        name: "overlay lowerdir+",
        without: This("images are mounted by mount(2) in a namespace of their own: slower"),
        look: lower_layers,
    },
    Probe { name: "seccomp", without: This("profiles are refused"), look: seccomp },
    Probe {
        name: "seccomp notify",
        without: This("profiles with SCMP_ACT_NOTIFY are refused"),
        look: seccomp_notify,
    },
    Probe {
        name: "pidfd_getfd",
        without: This("profiles with SCMP_ACT_NOTIFY are refused"),
        look: descriptor_of_another,
    },
    Probe {
        name: "session keyrings",
        without: This("containers have none: there are no keys to protect"),
        look: keyrings,
    },
];

fn version(bench: &Bench) -> Result<String> {
    let (major, minor) = bench.host.kernel;
    Ok(format!("{major}.{minor}"))
}

fn clone3(bench: &Bench) -> Result<String> {
    let clone = Clone { flags: process::CLONE_CLEAR_SIGHAND, ..Clone::default() };
    match process::clone3(&bench.single, &clone)
        .call(|| "clone3(CLONE_PIDFD | CLONE_CLEAR_SIGHAND)".to_owned())?
    {
        Forked::Child(_) => process::exit(0),
        Forked::Parent { pidfd, .. } => {
            // Without an exit signal it is waited for by name only.
            let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(ALL);
            rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), options))
                .call(|| "waitid(P_PIDFD)".to_owned())?;
            Ok("CLONE_PIDFD, CLONE_CLEAR_SIGHAND".to_owned())
        }
    }
}

/// `__WALL` of linux/wait.h.
const ALL: u32 = 0x4000_0000;
/// CLONE_NEWUTS of linux/sched.h.
const NEWUTS: u64 = 0x0400_0000;

fn setns(bench: &Bench) -> Result<String> {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).call(|| "pidfd_open(self)".to_owned())?;
    // Its own: nothing changes.
    process::setns(&bench.single, own.as_fd(), NEWUTS)
        .call(|| "setns(pidfd, CLONE_NEWUTS)".to_owned())?;
    Ok("all namespaces of a process in one call".to_owned())
}

fn close_range(bench: &Bench) -> Result<String> {
    let none = u32::MAX - 1;
    process::close_from(&bench.single, none, process::CloseHow::Now)
        .call(|| "close_range".to_owned())?;
    let on_exec = process::close_from(&bench.single, none, process::CloseHow::OnExec);
    Ok(if on_exec.is_ok() { "with CLOSE_RANGE_CLOEXEC" } else { "without CLOSE_RANGE_CLOEXEC" }
        .to_owned())
}

fn open_inside(_: &Bench) -> Result<String> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .call(|| "openat2(\"/\", RESOLVE_IN_ROOT)".to_owned())?;
    Ok("RESOLVE_IN_ROOT".to_owned())
}

/// A tmpfs that is mounted nowhere.
fn detached() -> Result<Tree> {
    FsContext::open("tmpfs")?.mount(0)
}

fn detached_mount(_: &Bench) -> Result<String> {
    detached().map(|_| "a detached tmpfs".to_owned())
}

fn mount_attributes(_: &Bench) -> Result<String> {
    /// MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID.
    const ATTRIBUTES: u64 = 0x3;
    let copy = Tree::copy_path(Path::new("/"), Depth::Mount)?;
    copy.change(&Change::set(ATTRIBUTES), Depth::Tree)?;
    Ok("on a detached copy of /".to_owned())
}

fn namespaces(_: &Bench) -> Result<String> {
    let kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup"];
    let has = |kind: &&str| Path::new("/proc/self/ns").join(kind).exists();
    match kinds.iter().find(|kind| !has(kind)) {
        None => Ok(kinds.join(", ")),
        Some(kind) => Err(Error::argument(format!("/proc/self/ns/{kind}"), "is not there")),
    }
}

/// A map of the ids that the caller has in any case.
fn own_map() -> IdMaps {
    let map = IdMap { container: 0, host: 0, size: 1 };
    IdMaps { uids: vec![map], gids: vec![map] }
}

fn user_namespaces(bench: &Bench) -> Result<String> {
    id_maps::namespace_for(&bench.single, &MapWriter::Ourselves, &own_map())?;
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    Ok(format!("up to {}", most.trim()))
}

fn idmapped(bench: &Bench) -> Result<String> {
    let users = id_maps::namespace_for(&bench.single, &MapWriter::Ourselves, &own_map())?;
    let change = || Change { idmap: Some(users.as_fd()), ..Change::default() };
    let mut kinds = Vec::new();
    if detached()?.change(&change(), Depth::Mount).is_ok() {
        kinds.push("tmpfs");
    }
    // The file system that images and volumes are usually on.
    Tree::copy_path(Path::new("/var/lib"), Depth::Mount)?.change(&change(), Depth::Mount)?;
    kinds.push("the file system of /var/lib");
    Ok(kinds.join(", "))
}

fn time_namespaces(_: &Bench) -> Result<String> {
    fs::metadata("/proc/self/ns/time").call(|| "stat(/proc/self/ns/time)".to_owned())?;
    Ok("/proc/self/ns/time".to_owned())
}

fn overlay(_: &Bench) -> Result<String> {
    FsContext::open("overlay").map(|_| "overlayfs".to_owned())
}

fn lower_layers(_: &Bench) -> Result<String> {
    FsContext::open("overlay")?.string("lowerdir+", "/")?;
    Ok("layers one by one".to_owned())
}

/// The actions that a filter may have, from the kernel's own list.
fn actions() -> Result<String> {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    fs::read_to_string(path).map(|text| text.trim().to_owned()).call(|| format!("read({path:?})"))
}

fn seccomp(bench: &Bench) -> Result<String> {
    let (major, minor, patch) = bench.host.libseccomp;
    Ok(format!("{}, libseccomp {major}.{minor}.{patch}", actions()?))
}

fn seccomp_notify(_: &Bench) -> Result<String> {
    if actions()?.split(' ').any(|action| action == "user_notif") {
        return Ok("user_notif".to_owned());
    }
    Err(Error::argument("seccomp", "no action user_notif"))
}

fn descriptor_of_another(_: &Bench) -> Result<String> {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).call(|| "pidfd_open(self)".to_owned())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&own);
    pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).call(|| "pidfd_getfd(self)".to_owned())?;
    Ok("of this process".to_owned())
}

fn keyrings(_: &Bench) -> Result<String> {
    /// KEY_SPEC_SESSION_KEYRING's description is only read.
    const NAME: &CStr = c"myshim-check";
    runtime::sys::keyring::join_session(NAME)
        .call(|| "keyctl(KEYCTL_JOIN_SESSION_KEYRING)".to_owned())?;
    Ok("one for each container".to_owned())
}
