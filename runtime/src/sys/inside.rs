//! Paths inside a root that may be hostile.
//!
//! A path is resolved by the kernel below the root's descriptor (openat2(2), RESOLVE_IN_ROOT), or
//! by [`make`] one component at a time on descriptors: a link swapped in by somebody else leads
//! nowhere but to another place inside (CVE-2021-30465, CVE-2024-45310).

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::{Call, Error, Result};

/// What symlinks on the way do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// They resolve inside the root; magic links of /proc are ELOOP.
    Follow,
    /// They are ELOOP.
    Refuse,
}

/// What [`make`] makes at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A directory with mode 0755.
    Directory,
    /// An empty file with mode 0644.
    File,
}

/// Symlinks followed on one way before it is ELOOP, as in the kernel (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// How often a resolution is tried again that a rename(2) elsewhere disturbed (EAGAIN).
const MAX_RETRIES: u32 = 128;

/// The path below the root, normalised lexically: no root, no `.`, and `..` takes back the name
/// before it. Empty for the root itself.
pub fn normalise(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

/// Opens a path inside the root.
///
/// # Errors
/// ENOENT, ENOTDIR; ELOOP as `links` has it.
pub fn open(root: BorrowedFd<'_>, path: &Path, links: Links, flags: OFlags) -> Result<OwnedFd> {
    let resolve = match links {
        Links::Follow => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        Links::Refuse => ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    };
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let mut retries = 0;
    loop {
        match rustix::fs::openat2(root, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(rustix::io::Errno::AGAIN) if retries < MAX_RETRIES => retries += 1,
            result => {
                return result.call(|| {
                    format!("openat2([{}]<root>, {relative:?}, {links:?})", root.as_raw_fd())
                });
            }
        }
    }
}

/// Opens a path inside the root as O_PATH.
///
/// # Errors
/// Those of [`open`].
pub fn locate(root: BorrowedFd<'_>, path: &Path, links: Links) -> Result<OwnedFd> {
    open(root, path, links, OFlags::PATH)
}

/// Opens a path inside the root as O_PATH and makes what is missing of it, also behind links
/// whose target is missing (/etc/resolv.conf of many images is one).
///
/// # Errors
/// ENOTDIR; ELOOP; those of mkdirat(2) and mknodat(2).
pub fn make(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> Result<OwnedFd> {
    let mut walk = Walk { root, below: Vec::new(), ahead: VecDeque::new(), links: 0 };
    walk.queue(path);
    while let Some(name) = walk.ahead.pop_front() {
        if name == ".." {
            walk.below.pop();
        } else if walk.ahead.is_empty() && missing == Missing::File {
            if let Some(file) = walk.file(&name)? {
                return Ok(file);
            }
        } else {
            walk.directory(&name)?;
        }
    }
    match walk.below.pop() {
        Some(directory) => Ok(directory),
        None => rustix::io::fcntl_dupfd_cloexec(root, 0)
            .call(|| format!("fcntl([{}]<root>, F_DUPFD_CLOEXEC)", root.as_raw_fd())),
    }
}

/// The directory that holds the path's last component, made as by [`make`], and that component.
///
/// # Errors
/// Those of [`make`]; an argument error for the root itself.
pub fn make_parent(root: BorrowedFd<'_>, path: &Path) -> Result<(OwnedFd, CString)> {
    let normal = normalise(path);
    let (Some(parent), Some(name)) = (normal.parent(), normal.file_name()) else {
        return Err(Error::argument("path", format!("{path:?} is the root itself")));
    };
    let directory = match open(root, parent, Links::Follow, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => {
            make(root, parent, Missing::Directory)?
        }
        result => result?,
    };
    Ok((directory, c_string(name)?))
}

/// A name for the kernel.
///
/// # Errors
/// An argument error when it has a NUL in it.
pub fn c_string(name: &OsStr) -> Result<CString> {
    CString::new(name.as_bytes())
        .map_err(|_| Error::argument("path", format!("{name:?} contains a NUL byte")))
}

struct Walk<'r> {
    root: BorrowedFd<'r>,
    /// The directories entered below the root: `..` never asks the kernel.
    below: Vec<OwnedFd>,
    ahead: VecDeque<OsString>,
    links: u32,
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.below.last().map_or(self.root, OwnedFd::as_fd)
    }

    /// Puts a path in front of what is ahead.
    fn queue(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.ahead.push_front(name.to_owned()),
                Component::ParentDir => self.ahead.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn directory(&mut self, name: &OsStr) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut opened = rustix::fs::openat(self.here(), name, flags, Mode::empty());
        if let Err(rustix::io::Errno::NOENT) = opened {
            match rustix::fs::mkdirat(self.here(), name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(errno).call(|| self.describe("mkdirat", name)),
            }
            opened = rustix::fs::openat(self.here(), name, flags, Mode::empty());
        }
        match opened {
            Ok(directory) => self.below.push(directory),
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => self.follow(name)?,
            Err(errno) => return Err(errno).call(|| self.describe("openat", name)),
        }
        Ok(())
    }

    /// The last component, when a file is wanted: None when it was a link, which is now ahead.
    fn file(&mut self, name: &OsStr) -> Result<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        match rustix::fs::mknodat(self.here(), name, FileType::RegularFile, mode, 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno).call(|| self.describe("mknodat", name)),
        }
        let file = rustix::fs::openat(self.here(), name, flags, Mode::empty())
            .call(|| self.describe("openat", name))?;
        let stat = rustix::fs::fstat(&file).call(|| self.describe("fstat", name))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            self.follow(name)?;
            return Ok(None);
        }
        Ok(Some(file))
    }

    fn follow(&mut self, name: &OsStr) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::ELOOP).call(|| self.describe("readlinkat", name));
        }
        match rustix::fs::readlinkat(self.here(), name, Vec::new()) {
            Ok(target) => {
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    self.below.clear();
                }
                self.queue(&target);
                Ok(())
            }
            // readlinkat(2) says EINVAL for what is no link: then it is no directory either.
            Err(rustix::io::Errno::INVAL) => {
                Err(Errno::ENOTDIR).call(|| self.describe("openat", name))
            }
            Err(errno) => Err(errno).call(|| self.describe("readlinkat", name)),
        }
    }

    fn describe(&self, call: &str, name: &OsStr) -> String {
        format!("{call}([{}], {name:?})", self.here().as_raw_fd())
    }
}
