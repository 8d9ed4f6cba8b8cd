//! Reading and writing the files of a cgroup, with errors that name file and value.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Call, Result};

/// Opens a file of a cgroup. O_CREAT is never given: the kernel answers it with EPERM, which
/// would hide that the file does not exist.
pub(super) fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

/// The whole content of an open file of one record, which is what all files of a cgroup are but
/// the lists of processes: the kernel gives a record whole, so a read that does not fill the
/// buffer was the last.
pub(super) fn read_fd(fd: impl AsFd) -> rustix::io::Result<String> {
    read_until(fd, |read| read < PAGE)
}

/// The same for who only looks at it: what fits into a page, as nearly all of these files do, is
/// not copied to the heap.
pub(super) fn look_at<T>(fd: impl AsFd, look: impl FnOnce(&str) -> T) -> rustix::io::Result<T> {
    let mut page = [0; PAGE];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut page))?;
    let read_part = page.get(..read).unwrap_or_default();
    if read < PAGE {
        return Ok(look(&String::from_utf8_lossy(read_part)));
    }
    let mut content = String::from_utf8_lossy(read_part).into_owned();
    content.push_str(&read_fd(fd)?);
    Ok(look(&content))
}

const PAGE: usize = 4096;

fn read_until(fd: impl AsFd, is_end: impl Fn(usize) -> bool) -> rustix::io::Result<String> {
    let mut content = Vec::new();
    let mut page = [0u8; PAGE];
    loop {
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut page))?;
        content.extend_from_slice(page.get(..read).unwrap_or_default());
        if read == 0 || is_end(read) {
            return Ok(String::from_utf8_lossy(&content).into_owned());
        }
    }
}

/// The whole content of a file of one record, with the bare errno for callers to whom some are
/// answers.
pub(super) fn try_read(path: &Path) -> rustix::io::Result<String> {
    read_fd(open(path, OFlags::RDONLY)?)
}

/// The whole content of a file of one record.
pub(super) fn read(path: &Path) -> Result<String> {
    try_read(path).call(|| format!("read({})", path.display()))
}

/// The whole content of a file of many records: a read gives as many as fit, so it has ended
/// when one gives nothing.
pub(super) fn try_read_list(path: &Path) -> rustix::io::Result<String> {
    read_until(open(path, OFlags::RDONLY)?, |_| false)
}

/// Writes a value with one write(2): that is how the kernel takes it, whole or not at all.
pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    try_write(path, value).call(|| format!("write({}, {value:?})", path.display()))
}

/// The same, with the bare errno.
pub(super) fn try_write(path: &Path, value: &str) -> rustix::io::Result<()> {
    write_fd(open(path, OFlags::WRONLY)?, value)
}

/// One write(2) to an open file.
pub(super) fn write_fd(fd: impl AsFd, value: &str) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes())).map(drop)
}

/// Whether the errno says that the cgroup, or this file of it, is not there: ENODEV is what an
/// open file of a removed cgroup answers.
pub(super) fn is_gone(errno: Errno) -> bool {
    errno == Errno::NOENT || errno == Errno::NODEV
}

/// The value of `key` in a file of lines `key value`.
pub(super) fn flat_value<'a>(content: &'a str, key: &str) -> Option<&'a str> {
    content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// The directories directly below this one. Gone already: none.
pub(super) fn children(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let step = || format!("readdir({})", directory.display());
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).call(step),
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.call(step)?;
        if entry.file_type().call(step)?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}
