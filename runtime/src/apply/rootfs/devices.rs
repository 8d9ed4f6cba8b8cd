//! Device nodes and the links in /dev.
//!
//! Nodes are made by name in a directory's descriptor: mknodat(2) follows nothing. In /dev of an
//! image something may be there already; it stays only if it is the same device.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{AtFlags, Dev, FileType, Gid, Mode, OFlags, Uid};

use super::filesystem::is;
use super::{Root, split};
use crate::plan::{Device, DeviceKind, Rootfs};
use crate::sys::inside::{self, Links, Missing};
use crate::sys::mount::{Depth, Tree};
use crate::sys::procfs::Procfs;
use crate::{At, Call, Error, Kind, Result};

/// The links every container has in /dev; with /dev/core where there is a /proc/kcore.
const LINKS: [(&CStr, &str); 4] = [
    (c"fd", "/proc/self/fd"),
    (c"stdin", "/proc/self/fd/0"),
    (c"stdout", "/proc/self/fd/1"),
    (c"stderr", "/proc/self/fd/2"),
];

pub(super) fn make(root: &Root, rootfs: &Rootfs) -> Result<()> {
    let mut directories = Directories { root, last: None };
    for device in &rootfs.devices {
        let path = inside::normalise(&device.path);
        // The link below takes its place: the host's ptmx would open the host's devpts.
        if path == Path::new("dev/ptmx") {
            continue;
        }
        let at = || device.path.display().to_string();
        let Some((parent, name)) = split(&path)? else {
            return Err(Error::argument("path", "is the root itself")).at_with(at);
        };
        let (directory, shared) = directories.enter(parent).at_with(at)?;
        let node = Node { directory, shared, name: &name, device };
        if rootfs.in_new_user_namespace { node.bind() } else { node.make() }.at_with(at)?;
    }
    links(root, directories.enter(Path::new("dev")).at("/dev")?.0)
}

/// Who else may change a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shared {
    /// Nobody: it is a new tmpfs.
    Nobody,
    /// Whoever has the image or the volume that it is in.
    Others,
}

/// The directories of the nodes, one open at a time: nearly all are in /dev.
struct Directories<'r> {
    root: &'r Root,
    last: Option<(PathBuf, OwnedFd)>,
}

impl Directories<'_> {
    fn enter(&mut self, path: &Path) -> Result<(BorrowedFd<'_>, Shared)> {
        if let Some(fresh) = self.root.fresh(path) {
            return Ok((fresh, Shared::Nobody));
        }
        let last = match self.last.take() {
            Some(last) if last.0 == path => last,
            _ => (path.to_path_buf(), self.open(path)?),
        };
        Ok((self.last.insert(last).1.as_fd(), Shared::Others))
    }

    fn open(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match inside::open(self.root.as_fd(), path, Links::Follow, flags) {
            Err(error) if is(&error, Errno::ENOENT) => {
                inside::make(self.root.as_fd(), path, Missing::Directory)
            }
            result => result,
        }
    }
}

struct Node<'a> {
    directory: BorrowedFd<'a>,
    shared: Shared,
    name: &'a CStr,
    device: &'a Device,
}

impl Node<'_> {
    fn make(&self) -> Result<()> {
        match self.mknod() {
            // With umask 0 the mode is the device's.
            Ok(()) if self.shared == Shared::Nobody && self.is_roots() => return Ok(()),
            Ok(()) => return self.adjust(),
            // No CAP_MKNOD, or a device cgroup that forbids it.
            Err(rustix::io::Errno::PERM) => {
                return self.bind().at_with(|| format!("{}: EPERM", self.describe("mknodat")));
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno).call(|| self.describe("mknodat")),
        }
        if self.is_same(&self.stat()?) {
            return self.adjust();
        }
        match rustix::fs::unlinkat(self.directory, self.name, AtFlags::empty()) {
            Ok(()) => {}
            // The spec mounted something else here.
            Err(rustix::io::Errno::BUSY) => return Ok(()),
            Err(errno) => return Err(errno).call(|| self.describe("unlinkat")),
        }
        self.mknod().call(|| self.describe("mknodat"))?;
        self.adjust()
    }

    fn mknod(&self) -> rustix::io::Result<()> {
        let (kind, dev) = self.identity();
        let mode = Mode::from_raw_mode(self.device.mode & 0o7777);
        rustix::fs::mknodat(self.directory, self.name, kind, mode, dev)
    }

    /// A new node belongs to init, which is root.
    fn is_roots(&self) -> bool {
        (self.device.uid, self.device.gid) == (0, 0)
    }

    fn identity(&self) -> (FileType, Dev) {
        match self.device.kind {
            DeviceKind::Char { major, minor } => {
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            DeviceKind::Block { major, minor } => {
                (FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
            DeviceKind::Fifo => (FileType::Fifo, 0),
        }
    }

    fn is_same(&self, stat: &rustix::fs::Stat) -> bool {
        let (kind, dev) = self.identity();
        FileType::from_raw_mode(stat.st_mode) == kind
            && (kind == FileType::Fifo || stat.st_rdev == dev)
    }

    fn stat(&self) -> Result<rustix::fs::Stat> {
        rustix::fs::statat(self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW)
            .call(|| self.describe("fstatat"))
    }

    /// Owner and mode by a descriptor that was checked: in a directory that others can write to,
    /// a name may stand for something else by now.
    fn adjust(&self) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::openat(self.directory, self.name, flags, Mode::empty())
            .call(|| self.describe("openat"))?;
        let stat = rustix::fs::fstat(&node).call(|| self.describe("fstat"))?;
        if !self.is_same(&stat) {
            return Err(Error::new(Kind::Unsupported(
                "something else took the place of the device node".to_owned(),
            )));
        }
        let Device { uid, gid, mode, .. } = *self.device;
        let given_away = (stat.st_uid, stat.st_gid) != (uid, gid);
        if given_away {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(&node, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                .call(|| self.describe("fchownat"))?;
        }
        // chown(2) takes set-user-ID and set-group-ID away.
        if stat.st_mode & 0o7777 != mode & 0o7777 || given_away && mode & 0o6000 != 0 {
            // chmod(2) by an O_PATH descriptor takes its link in /proc before Linux 6.6.
            let link = format!("self/fd/{}", node.as_raw_fd());
            let mode = Mode::from_raw_mode(mode & 0o7777);
            rustix::fs::chmodat(Procfs::open()?.as_fd(), link.as_str(), mode, AtFlags::empty())
                .call(|| self.describe("fchmodat"))?;
        }
        Ok(())
    }

    /// The host's node by a bind mount: a user namespace makes no devices.
    fn bind(&self) -> Result<()> {
        let tree = Tree::copy_path(&self.device.path, Depth::Mount)?;
        let stat = rustix::fs::fstat(&tree).call(|| self.describe("fstat"))?;
        if !self.is_same(&stat) {
            return Err(Error::new(Kind::Unsupported(
                "the host has another device node here".to_owned(),
            )));
        }
        let mode = Mode::from_raw_mode(0o644);
        match rustix::fs::mknodat(self.directory, self.name, FileType::RegularFile, mode, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => tree.attach_at(self.directory, self.name),
            Err(errno) => Err(errno).call(|| self.describe("mknodat")),
        }
    }

    fn describe(&self, call: &str) -> String {
        format!("{call}([{}], {:?})", self.directory.as_raw_fd(), self.name)
    }
}

fn links(root: &Root, dev: BorrowedFd<'_>) -> Result<()> {
    for (name, target) in LINKS {
        link(dev, name, target)?;
    }
    // Not every kernel has it; init's `/` may have no /proc.
    match inside::locate(root.as_fd(), Path::new("proc/kcore"), Links::Follow) {
        Ok(_) => link(dev, c"core", "/proc/kcore")?,
        Err(error) if is(&error, Errno::ENOENT) || is(&error, Errno::ENOTDIR) => {}
        Err(error) => return Err(error),
    }
    // The container's own instance of devpts has its own ptmx.
    let target = "pts/ptmx";
    match rustix::fs::symlinkat(target, dev, c"ptmx") {
        Err(rustix::io::Errno::EXIST) => {}
        result => return result.call(|| format!("symlinkat({target:?}, </dev>, \"ptmx\")")),
    }
    match rustix::fs::unlinkat(dev, c"ptmx", AtFlags::empty()) {
        Ok(()) => {}
        // The spec mounted one.
        Err(rustix::io::Errno::BUSY) => return Ok(()),
        Err(errno) => return Err(errno).call(|| "unlinkat(</dev>, \"ptmx\")".to_owned()),
    }
    rustix::fs::symlinkat(target, dev, c"ptmx")
        .call(|| format!("symlinkat({target:?}, </dev>, \"ptmx\")"))
}

/// A link, unless the image has something of that name.
fn link(dev: BorrowedFd<'_>, name: &CStr, target: &str) -> Result<()> {
    match rustix::fs::symlinkat(target, dev, name) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).call(|| format!("symlinkat({target:?}, </dev>, {name:?})")),
    }
}
