//! Attaching a mount inside the root.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{FileType, Mode};

use super::filesystem::is;
use super::{Root, split};
use crate::sys::inside::{self, Links, Missing};
use crate::sys::mount::Tree;
use crate::sys::procfs::Procfs;
use crate::{Call, Error, Result};

/// Files of /proc over which something else than a procfs may be mounted: what lxcfs emulates.
const EMULATED: [&str; 10] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/loadavg",
    "proc/meminfo",
    "proc/slabinfo",
    "proc/stat",
    "proc/swaps",
    "proc/sys/crypto/fips_enabled",
    "proc/sys/kernel/ns_last_pid",
    "proc/uptime",
];

/// PROC_SUPER_MAGIC of linux/magic.h.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// How a destination was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// It is where its path says.
    Directly,
    /// Somewhere else inside the root.
    ThroughLinks,
}

impl Root {
    /// Attaches `tree` at a normalised path, which is made when it is missing.
    ///
    /// The usual cases cost one or two calls: a name in the root or in a new tmpfs needs no
    /// descriptor of its own, since a single name that is not followed cannot lead elsewhere.
    pub(super) fn attach(&self, tree: &Tree, path: &Path, links: Links) -> Result<Reached> {
        let Some((parent, name)) = split(path)? else {
            return Err(Error::argument("destination", "is the root itself"));
        };
        check_proc(tree, path)?;
        if let Some(directory) = self.fresh(parent) {
            return self.attach_fresh(tree, directory, &name, path, links);
        }
        if parent.as_os_str().is_empty() {
            match tree.attach_at(self.as_fd(), &name) {
                // A link, or a file where a directory is wanted: the long way tells.
                Err(error) if is(&error, Errno::EINVAL) || is(&error, Errno::ENOENT) => {}
                result => return result.map(|()| Reached::Directly),
            }
        }
        self.attach_located(tree, path, links)
    }

    fn attach_fresh(
        &self,
        tree: &Tree,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        links: Links,
    ) -> Result<Reached> {
        let (call, made) = match Missing::for_(tree)? {
            Missing::Directory => {
                ("mkdirat", rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)))
            }
            Missing::File => {
                let (file, mode) = (FileType::RegularFile, Mode::from_raw_mode(0o644));
                ("mknodat", rustix::fs::mknodat(directory, name, file, mode, 0))
            }
        };
        match made {
            Ok(()) => tree.attach_at(directory, name).map(|()| Reached::Directly),
            Err(rustix::io::Errno::EXIST) => self.attach_located(tree, path, links),
            Err(errno) => Err(errno).call(|| format!("{call}(<fresh tmpfs>, {name:?})")),
        }
    }

    fn attach_located(&self, tree: &Tree, path: &Path, links: Links) -> Result<Reached> {
        let (target, reached) = self.locate_or_make(tree, path, links)?;
        if reached == Reached::ThroughLinks {
            check_proc(tree, &self.path_inside(target.as_fd())?)?;
        }
        tree.attach(target.as_fd()).map_err(|error| explain(error, tree, &target))?;
        Ok(reached)
    }

    fn locate_or_make(&self, tree: &Tree, path: &Path, links: Links) -> Result<(OwnedFd, Reached)> {
        match inside::locate(self.as_fd(), path, Links::Refuse) {
            Ok(target) => return Ok((target, Reached::Directly)),
            Err(error) if is(&error, Errno::ELOOP) && links == Links::Follow => {}
            Err(error) if is(&error, Errno::ENOENT) => {
                return self.make(tree, path, links);
            }
            Err(error) => return Err(error),
        }
        match inside::locate(self.as_fd(), path, Links::Follow) {
            Ok(target) => Ok((target, Reached::ThroughLinks)),
            Err(error) if is(&error, Errno::ENOENT) => self.make(tree, path, links),
            Err(error) => Err(error),
        }
    }

    fn make(&self, tree: &Tree, path: &Path, links: Links) -> Result<(OwnedFd, Reached)> {
        let made = inside::make(self.as_fd(), path, Missing::for_(tree)?)?;
        // Whether a link was on the way only matters where links do.
        match inside::locate(self.as_fd(), path, Links::Refuse) {
            Ok(direct) => Ok((direct, Reached::Directly)),
            Err(error) if is(&error, Errno::ELOOP) && links == Links::Follow => {
                Ok((made, Reached::ThroughLinks))
            }
            Err(error) => Err(error),
        }
    }

    /// Where in the root a descriptor is. Only for checks: it may be elsewhere by now.
    fn path_inside(&self, fd: BorrowedFd<'_>) -> Result<PathBuf> {
        let procfs = Procfs::open()?;
        let root = procfs.path_of(self.as_fd())?;
        let path = procfs.path_of(fd)?;
        match path.strip_prefix(&root) {
            Ok(inside) if inside.as_os_str().is_empty() => {
                Err(Error::argument("destination", "leads to the root itself"))
            }
            Ok(inside) => Ok(inside.to_path_buf()),
            Err(_) => Err(Error::argument(
                "destination",
                format!("leads to {}, which is not in the root", path.display()),
            )),
        }
    }
}

impl Missing {
    /// What a mount can be attached to.
    fn for_(tree: &Tree) -> Result<Missing> {
        Ok(if is_directory(tree.as_fd())? { Missing::Directory } else { Missing::File })
    }
}

/// Only a procfs belongs on /proc, and nothing but what lxcfs emulates below it: whoever fakes
/// /proc takes the labels and limits that are set through it (CVE-2019-16884).
fn check_proc(tree: &Tree, path: &Path) -> Result<()> {
    if !path.starts_with("proc") {
        return Ok(());
    }
    if path == Path::new("proc") {
        let file_system = rustix::fs::fstatfs(tree).call(|| "fstatfs(<tree>)".to_owned())?;
        if u64::try_from(file_system.f_type) == Ok(PROC_SUPER_MAGIC) {
            return Ok(());
        }
        return Err(Error::argument("destination", "/proc takes nothing but a procfs"));
    }
    if EMULATED.iter().any(|allowed| path == Path::new(allowed)) {
        return Ok(());
    }
    Err(Error::argument("destination", format!("/{} is inside of /proc", path.display())))
}

fn explain(error: Error, tree: &Tree, target: &OwnedFd) -> Error {
    let differ = match (is_directory(tree.as_fd()), is_directory(target.as_fd())) {
        (Ok(source), Ok(target)) => source != target,
        _ => false,
    };
    if !differ {
        return error;
    }
    Error::call(
        "move_mount of a directory onto a file, or of a file onto a directory",
        Errno::ENOTDIR,
    )
}

pub(super) fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = rustix::fs::fstat(fd).call(|| "fstat(<mount>)".to_owned())?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
