//! The mount API by file descriptor: fsopen(2), open_tree(2), move_mount(2), mount_setattr(2).
//!
//! A mount made here belongs to no mount namespace until [`Tree::attach`]: dropping it undoes it,
//! and nobody else has seen it. A [`Tree`] stays good as a directory descriptor of its own root
//! after it was attached.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};

use crate::{Call, Error, Result};

/// One mount, or all mounts below it as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the mount itself.
    Mount,
    /// The whole tree of mounts (AT_RECURSIVE).
    Tree,
}

impl Depth {
    fn at_flags(self) -> u32 {
        match self {
            Depth::Mount => 0,
            Depth::Tree => OpenTreeFlags::AT_RECURSIVE.bits(),
        }
    }
}

/// A change of mount attributes, struct mount_attr of mount_setattr(2).
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// MOUNT_ATTR_* to set.
    pub set: u64,
    /// MOUNT_ATTR_* to clear. Wins over nothing: a flag in both is EINVAL, except for
    /// MOUNT_ATTR__ATIME, which has to be cleared for an access time mode to be set.
    pub clear: u64,
    /// The propagation type; empty leaves it.
    pub propagation: MountPropagationFlags,
    /// The user namespace whose maps the mount gets (MOUNT_ATTR_IDMAP); detached mounts only.
    pub idmap: Option<BorrowedFd<'a>>,
}

impl Default for Change<'_> {
    fn default() -> Self {
        Change { set: 0, clear: 0, propagation: MountPropagationFlags::empty(), idmap: None }
    }
}

impl Change<'_> {
    /// Only a propagation type.
    pub fn propagation(propagation: MountPropagationFlags) -> Self {
        Change { propagation, ..Change::default() }
    }

    /// Only attributes to set.
    pub fn set(set: u64) -> Self {
        Change { set, ..Change::default() }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation.is_empty() && self.idmap.is_none()
    }
}

/// A file system being configured, fsopen(2).
#[derive(Debug)]
pub struct FsContext<'a> {
    fd: OwnedFd,
    fstype: &'a str,
}

impl<'a> FsContext<'a> {
    /// Starts to configure a file system of this type.
    ///
    /// # Errors
    /// ENODEV: the kernel has no such file system. EPERM: no CAP_SYS_ADMIN over the mount namespace.
    pub fn open(fstype: &'a str) -> Result<FsContext<'a>> {
        let fd = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
            .call(|| format!("fsopen({fstype:?})"))?;
        Ok(FsContext { fd, fstype })
    }

    /// Sets a parameter without a value.
    ///
    /// # Errors
    /// EINVAL: unknown; the kernel's own words are in the call.
    pub fn flag(&self, key: &str) -> Result<()> {
        rustix::mount::fsconfig_set_flag(&self.fd, key)
            .map_err(|errno| self.explain(&format!("SET_FLAG, {key:?}"), errno))
    }

    /// Sets a parameter. The kernel takes at most [`FsContext::MAX_VALUE`] bytes.
    ///
    /// # Errors
    /// EINVAL: unknown, malformed or too long; the kernel's own words are in the call.
    pub fn string(&self, key: &str, value: impl AsRef<Path>) -> Result<()> {
        let value = value.as_ref();
        rustix::mount::fsconfig_set_string(&self.fd, key, value)
            .map_err(|errno| self.explain(&format!("SET_STRING, {key:?}, {value:?}"), errno))
    }

    /// Sets a parameter to an open file.
    ///
    /// # Errors
    /// EINVAL: this parameter takes no descriptor (overlay layers: Linux 6.13).
    pub fn fd(&self, key: &str, value: BorrowedFd<'_>) -> Result<()> {
        rustix::mount::fsconfig_set_fd(&self.fd, key, value).map_err(|errno| {
            self.explain(&format!("SET_FD, {key:?}, [{}]", value.as_raw_fd()), errno)
        })
    }

    /// The longest value of [`FsContext::string`], in bytes (fs/fsopen.c, strndup_user of 256).
    pub const MAX_VALUE: usize = 255;

    /// Makes the super block (or finds it), and a detached mount of it with these MOUNT_ATTR_*.
    ///
    /// # Errors
    /// Whatever the file system says; its own words are in the call.
    pub fn mount(self, attributes: u64) -> Result<Tree> {
        rustix::mount::fsconfig_create(&self.fd)
            .map_err(|errno| self.explain("CMD_CREATE", errno))?;
        let flags = MountAttrFlags::from_bits_retain(u32::try_from(attributes).map_err(|_| {
            Error::argument("attributes", format!("{attributes:#x} are not MOUNT_ATTR_* bits"))
        })?);
        let fd = rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(
            |errno| {
                let log = self.log();
                Error::call(
                    format!(
                        "fsmount([{}]<{}>, {attributes:#x}){log}",
                        self.fd.as_raw_fd(),
                        self.fstype
                    ),
                    errno,
                )
            },
        )?;
        Ok(Tree(fd))
    }

    fn explain(&self, arguments: &str, errno: rustix::io::Errno) -> Error {
        let log = self.log();
        Error::call(
            format!("fsconfig([{}]<{}>, {arguments}){log}", self.fd.as_raw_fd(), self.fstype),
            errno,
        )
    }

    /// What the kernel wrote into the context's log: one message per read(2), then ENODATA.
    fn log(&self) -> String {
        let mut log = String::new();
        let mut message = [0_u8; 512];
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut message) {
            log.push_str(if log.is_empty() { " [" } else { "; " });
            log.push_str(String::from_utf8_lossy(&message[..length]).trim_end());
        }
        if !log.is_empty() {
            log.push(']');
        }
        log
    }
}

/// A mount held by a descriptor.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Tree {
    /// A detached copy of the mount at a path of the caller's own (a bind mount not yet attached).
    /// Symlinks are followed.
    ///
    /// The copy of a shared mount is its peer: what is mounted in one appears in the other, until
    /// [`Tree::change`] ends that.
    ///
    /// # Errors
    /// ENOENT and what else open(2) has; EINVAL: the mount is unbindable, or in another namespace.
    pub fn copy_path(path: &Path, depth: Depth) -> Result<Tree> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::from_bits_retain(depth.at_flags());
        rustix::mount::open_tree(CWD, path, flags)
            .map(Tree)
            .call(|| format!("open_tree({path:?}, OPEN_TREE_CLONE, {depth:?})"))
    }

    /// A detached copy of what the descriptor stands for.
    ///
    /// # Errors
    /// EINVAL: a detached mount cannot be copied before Linux 6.15, one of another mount
    /// namespace never.
    pub fn copy_fd(source: BorrowedFd<'_>, depth: Depth) -> Result<Tree> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::from_bits_retain(depth.at_flags());
        rustix::mount::open_tree(source, c"", flags)
            .map(Tree)
            .call(|| format!("open_tree([{}], OPEN_TREE_CLONE, {depth:?})", source.as_raw_fd()))
    }

    /// Changes attributes, propagation and id map. See [`change`].
    ///
    /// # Errors
    /// Those of [`change`].
    pub fn change(&self, change_: &Change<'_>, depth: Depth) -> Result<()> {
        change(self.as_fd(), change_, depth)
    }

    /// Attaches the mount on top of what `target` stands for.
    ///
    /// # Errors
    /// EINVAL: a directory on something else or the reverse, or `target` is in another mount
    /// namespace, or the mount is attached already with a shared parent.
    pub fn attach(&self, target: BorrowedFd<'_>) -> Result<()> {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&self.0, c"", target, c"", flags).call(|| {
            format!("move_mount([{}]<tree>, [{}])", self.0.as_raw_fd(), target.as_raw_fd())
        })
    }

    /// Attaches the mount on a directory's entry. A single name, and symlinks are not followed:
    /// nothing outside the directory is reached, whatever somebody swaps in there.
    ///
    /// # Errors
    /// ENOENT; otherwise as [`Tree::attach`] (EINVAL for a symlink).
    pub fn attach_at(&self, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&self.0, c"", directory, name, flags).call(|| {
            format!(
                "move_mount([{}]<tree>, [{}], {name:?})",
                self.0.as_raw_fd(),
                directory.as_raw_fd()
            )
        })
    }

    /// Attaches the mount at a path that only the caller's own side can change. Symlinks are
    /// followed.
    ///
    /// # Errors
    /// Those of path resolution, otherwise as [`Tree::attach`].
    pub fn attach_path(&self, path: &Path) -> Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        rustix::mount::move_mount(&self.0, c"", CWD, path, flags)
            .call(|| format!("move_mount([{}]<tree>, {path:?})", self.0.as_raw_fd()))
    }
}

/// struct mount_attr of linux/mount.h, MOUNT_ATTR_SIZE_VER0.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// MOUNT_ATTR_IDMAP of linux/mount.h.
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Changes attributes of the mount whose root `mount` stands for, mount_setattr(2), Linux 5.12.
/// Attributes that the change does not name stay as they are, also the locked ones.
///
/// # Errors
/// EPERM: an attribute is locked (mount_namespaces(7)). EINVAL: `mount` is not the root of a
/// mount, or the change contradicts itself, or the file system has no idmapped mounts.
pub fn change(mount: BorrowedFd<'_>, change: &Change<'_>, depth: Depth) -> Result<()> {
    setattr(mount, c"", rustix::fs::AtFlags::EMPTY_PATH, change, depth)
}

/// As [`change`], for a mount point by its path.
///
/// # Errors
/// Those of [`change`], and of path resolution.
pub fn change_path(path: &CStr, change: &Change<'_>, depth: Depth) -> Result<()> {
    setattr(CWD, path, AtFlags::empty(), change, depth)
}

#[allow(clippy::as_conversions, reason = "a descriptor crosses the border as a C integer")]
fn setattr(
    dir: BorrowedFd<'_>,
    path: &CStr,
    at: AtFlags,
    change: &Change<'_>,
    depth: Depth,
) -> Result<()> {
    let attr = MountAttr {
        attr_set: change.set | change.idmap.map_or(0, |_| MOUNT_ATTR_IDMAP),
        attr_clr: change.clear,
        propagation: u64::from(change.propagation.bits()),
        userns_fd: change.idmap.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: `path` is a C string and `attr` a struct mount_attr of the size given; both live
    // over the call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            at.bits() | depth.at_flags(),
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let errno = nix::errno::Errno::last();
    Err(Error::call(
        format!(
            "mount_setattr([{}], {path:?}, set {:#x}, clear {:#x}, propagation {:#x}, {depth:?})",
            dir.as_raw_fd(),
            attr.attr_set,
            attr.attr_clr,
            attr.propagation
        ),
        errno,
    ))
}

impl From<Tree> for OwnedFd {
    fn from(tree: Tree) -> OwnedFd {
        tree.0
    }
}

impl From<OwnedFd> for Tree {
    /// The caller vouches that the descriptor is the root of a mount.
    fn from(fd: OwnedFd) -> Tree {
        Tree(fd)
    }
}
