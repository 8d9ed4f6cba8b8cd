//! `tmpcopyup`: a tmpfs starts with the content of the directory that it covers.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

use super::Root;
use super::filesystem::is;
use crate::sys::inside::{self, Links};
use crate::sys::mount::Tree;
use crate::{At, Call, Error, Kind, Result};

/// Directories within directories; a tree in an image is deeper only by malice.
const MAX_DEPTH: u32 = 128;

/// Copies the directory at `path` inside the root, when there is one, into the root of `tree`.
pub(super) fn copy(root: &Root, path: &Path, tree: &Tree) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let from = match inside::open(root.as_fd(), path, Links::Follow, flags) {
        Err(error) if is(&error, Errno::ENOENT) => return Ok(()),
        result => result?,
    };
    directory(from, tree.as_fd(), MAX_DEPTH)
}

fn directory(from: OwnedFd, to: BorrowedFd<'_>, depth: u32) -> Result<()> {
    if depth == 0 {
        return Err(Error::new(Kind::Unsupported("directories nest too deep".to_owned())));
    }
    let entries = Dir::read_from(&from).call(|| "getdents64(<source>)".to_owned())?;
    for entry in entries {
        let entry = entry.call(|| "getdents64(<source>)".to_owned())?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from.as_fd(), to, name, depth)
                .at_with(|| name.to_string_lossy().into_owned())?;
        }
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)
        .call(|| format!("fstatat({name:?})"))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match kind {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode).call(|| format!("mkdirat({name:?})"))?;
            let source = open(from, name, OFlags::RDONLY | OFlags::DIRECTORY | nofollow)?;
            let target = open(to, name, OFlags::RDONLY | OFlags::DIRECTORY | nofollow)?;
            directory(source, target.as_fd(), depth - 1)?;
        }
        FileType::RegularFile => {
            let source = open(from, name, OFlags::RDONLY | OFlags::NONBLOCK | nofollow)?;
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | nofollow;
            let target = rustix::fs::openat(to, name, create, mode)
                .call(|| format!("openat({name:?}, O_CREAT|O_EXCL)"))?;
            content(&source, &target)?;
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(from, name, Vec::new())
                .call(|| format!("readlinkat({name:?})"))?;
            rustix::fs::symlinkat(link.as_c_str(), to, name)
                .call(|| format!("symlinkat({name:?})"))?;
        }
        _ => rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)
            .call(|| format!("mknodat({name:?})"))?,
    }
    metadata(to, name, &stat, kind)
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::openat(directory, name, flags, Mode::empty()).call(|| format!("openat({name:?})"))
}

fn content(source: &OwnedFd, target: &OwnedFd) -> Result<()> {
    const CHUNK: usize = 1 << 30;
    while rustix::fs::sendfile(target, source, None, CHUNK)
        .call(|| "sendfile(<tmpfs>, <covered>)".to_owned())?
        > 0
    {}
    Ok(())
}

/// The target is a tmpfs that nobody else has: names in it are what was made of them.
fn metadata(to: BorrowedFd<'_>, name: &CStr, stat: &Stat, kind: FileType) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .call(|| format!("fchownat({name:?})"))?;
    if kind != FileType::Symlink {
        // chown(2) takes set-user-ID and set-group-ID away.
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())
            .call(|| format!("fchmodat({name:?})"))?;
    }
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .call(|| format!("utimensat({name:?})"))
}

fn time(seconds: impl TryInto<i64>, nanoseconds: impl TryInto<i64>) -> Timespec {
    Timespec {
        tv_sec: seconds.try_into().unwrap_or_default(),
        tv_nsec: nanoseconds.try_into().unwrap_or_default(),
    }
}
