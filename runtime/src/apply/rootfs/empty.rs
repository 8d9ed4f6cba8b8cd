//! A mount namespace with nothing in it, for containers to start in.
//!
//! A new mount namespace is a copy of the maker's: of every mount the host has, which then have to
//! be cut off from the host, and unmounted again behind a grace period of RCU. All of that is for
//! nothing where init needs no path of the host any more. So main is in an empty namespace while
//! it clones init: the copy is one mount, and the container's root goes on top of it.
//!
//! The outcome is the same to the byte as with pivot_root(2), which leaves the container's root on
//! top of the very same mount: the kernel's own rootfs, that every mount namespace begins with.

use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use crate::plan::{Namespace, Plan};
use crate::sys::mount::{self, Change, Depth};
use crate::{At, Call, Error, Kind, Result};

/// Such a namespace. It lasts as long as this value, or somebody in it.
#[derive(Debug)]
pub struct EmptyMountNamespace(OwnedFd);

/// The way back from where it is made.
#[derive(Debug)]
struct Visit {
    namespace: OwnedFd,
    root: OwnedFd,
    cwd: OwnedFd,
}

impl EmptyMountNamespace {
    /// Makes one. The calling process has one thread, and is back in its own mount namespace and
    /// directory when this returns.
    ///
    /// # Errors
    /// Where it cannot be had, containers have to start from a copy. EINVAL: the host's root is the
    /// kernel's rootfs itself (an initramfs), which cannot go. Unsupported: the caller is in a user
    /// namespace, see [`EmptyMountNamespace::suits`].
    pub fn make() -> Result<EmptyMountNamespace> {
        check_user_namespace()?;
        let visit = Visit::begin()?;
        nix::sched::unshare(CloneFlags::CLONE_NEWNS)
            .call(|| "unshare(CLONE_NEWNS)".to_owned())
            .at("empty mount namespace")?;
        let emptied = empty_this();
        visit.end()?;
        emptied.at("empty mount namespace")
    }

    /// Whether a container can start here: not when a hook looks for the host's files in the
    /// container's mount namespace; and not in a user namespace, where the kernel lets nobody
    /// mount a proc or a sysfs who does not see one already.
    pub fn suits(plan: &Plan) -> bool {
        plan.namespaces.mount == Namespace::New
            && plan.namespaces.user == Namespace::Host
            && plan.hooks.create_container.is_empty()
    }

    /// Moves the calling process in; it has one thread, and a [`Base`](crate::apply::base::Base) to
    /// go back to.
    ///
    /// # Errors
    /// Those of setns(2).
    pub fn enter(&self) -> Result<()> {
        nix::sched::setns(&self.0, CloneFlags::CLONE_NEWNS)
            .call(|| "setns(<empty mount namespace>)".to_owned())
    }
}

impl Visit {
    fn begin() -> Result<Visit> {
        let open = |path, flags| {
            rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
                .call(|| format!("openat({path:?})"))
        };
        Ok(Visit {
            namespace: open("/proc/self/ns/mnt", OFlags::RDONLY)?,
            root: open("/", OFlags::PATH | OFlags::DIRECTORY)?,
            cwd: open(".", OFlags::PATH | OFlags::DIRECTORY)?,
        })
    }

    fn end(self) -> Result<()> {
        nix::sched::setns(&self.namespace, CloneFlags::CLONE_NEWNS)
            .call(|| "setns(<mount namespace of before>)".to_owned())?;
        // setns(2) makes the namespace's own root the process's.
        rustix::process::fchdir(&self.root).call(|| "fchdir(<root of before>)".to_owned())?;
        rustix::process::chroot(c".").call(|| "chroot(<root of before>)".to_owned())?;
        rustix::process::fchdir(&self.cwd).call(|| "fchdir(<directory of before>)".to_owned())
    }
}

/// PROC_USER_INIT_INO of linux/proc_ns.h: the initial user namespace's inode.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

fn check_user_namespace() -> Result<()> {
    let path = "/proc/self/ns/user";
    let stat = rustix::fs::stat(path).call(|| format!("stat({path:?})"))?;
    if stat.st_ino == INITIAL_USER_NAMESPACE {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported("not in the initial user namespace".to_owned())))
}

fn empty_this() -> Result<EmptyMountNamespace> {
    let cut_off = Change::propagation(MountPropagationFlags::PRIVATE);
    mount::change_path(c"/", &cut_off, Depth::Tree)?;
    let path = "/proc/self/ns/mnt";
    let namespace = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat({path:?})"))?;
    rustix::mount::unmount(c"/", UnmountFlags::DETACH)
        .call(|| "umount2(\"/\", MNT_DETACH)".to_owned())?;
    // The process's root was that of the namespace only if nothing is left but the kernel's
    // rootfs, which is locked: EINVAL.
    for _ in 0..MAX_ROOTS {
        nix::sched::setns(&namespace, CloneFlags::CLONE_NEWNS)
            .call(|| "setns(<empty mount namespace>)".to_owned())?;
        match rustix::mount::unmount(c"/", UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => return Ok(EmptyMountNamespace(namespace)),
            Err(errno) => {
                return Err(errno).call(|| "umount2(\"/\", MNT_DETACH)".to_owned());
            }
        }
    }
    Err(Error::new(Kind::Unsupported(format!("more than {MAX_ROOTS} mounts lie on the rootfs"))))
}

/// Mounts on top of each other over the rootfs; there is one, or two after an initramfs.
const MAX_ROOTS: u32 = 16;
