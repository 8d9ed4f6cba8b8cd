//! The process's standard streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Dev, FileType, OFlags, Uid};

use super::console::Console;
use crate::sys::inside::{self, Links};
use crate::{Call, Error, Kind, Result};

/// The null device's numbers, kernel documentation Documentation/admin-guide/devices.txt.
fn null() -> Dev {
    rustix::fs::makedev(1, 3)
}

/// Puts three descriptors in the place of 0, 1 and 2, where they stay open over execve(2).
///
/// # Errors
/// EMFILE.
pub fn set(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> Result<()> {
    // One of the sources may itself be 0, 1 or 2: copies above them are safe from the others.
    let copies = [lift(stdin)?, lift(stdout)?, lift(stderr)?];
    rustix::stdio::dup2_stdin(&copies[0]).call(|| "dup2(stdin, 0)".to_owned())?;
    rustix::stdio::dup2_stdout(&copies[1]).call(|| "dup2(stdout, 1)".to_owned())?;
    rustix::stdio::dup2_stderr(&copies[2]).call(|| "dup2(stderr, 2)".to_owned())
}

fn lift(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).call(|| "fcntl(F_DUPFD_CLOEXEC, 3)".to_owned())
}

/// Makes a pseudo terminal the three streams and the controlling terminal. The caller is the
/// leader of a session without one (setsid(2)).
///
/// # Errors
/// EPERM: the caller is no session leader.
pub fn set_terminal(console: &Console) -> Result<()> {
    let peer = console.peer.as_fd();
    set(peer, peer, peer)?;
    rustix::process::ioctl_tiocsctty(peer).call(|| "ioctl(TIOCSCTTY)".to_owned())
}

/// Gives the streams to the container's user, so that it can open them again by /dev/stdout.
/// Never /dev/null: it may be the host's.
///
/// # Errors
/// Those of fchown(2), except where the owner cannot or need not be changed: EPERM and EINVAL
/// (not mapped in the user namespace), EROFS.
pub fn give_to(uid: u32) -> Result<()> {
    for stream in streams() {
        let stat = rustix::fs::fstat(stream).call(|| "fstat(<stdio>)".to_owned())?;
        if stat.st_uid == uid || is_null(&stat) {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
            Ok(())
            | Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL | rustix::io::Errno::ROFS) => {
            }
            Err(errno) => return Err(errno).call(|| format!("fchown(<stdio>, {uid})")),
        }
    }
    Ok(())
}

/// Where a stream is the host's /dev/null, makes it the container's: a descriptor of the host's
/// would be a way out of the root's devices.
///
/// # Errors
/// Unsupported: the container's /dev/null is something else.
pub fn reopen_null(root: BorrowedFd<'_>) -> Result<()> {
    let mut own = None;
    for (index, stream) in streams().into_iter().enumerate() {
        let stat = rustix::fs::fstat(stream).call(|| "fstat(<stdio>)".to_owned())?;
        if !is_null(&stat) {
            continue;
        }
        let null = match own.take() {
            Some(null) => null,
            None => open_null(root)?,
        };
        match index {
            0 => rustix::stdio::dup2_stdin(&null),
            1 => rustix::stdio::dup2_stdout(&null),
            _ => rustix::stdio::dup2_stderr(&null),
        }
        .call(|| format!("dup2(</dev/null>, {index})"))?;
        own = Some(null);
    }
    Ok(())
}

fn open_null(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = Path::new("dev/null");
    let not_null =
        || Error::new(Kind::Unsupported("the container's /dev/null is not the null device".into()));
    // Looked at before it is opened: opening a device may do things.
    let place = inside::locate(root, path, Links::Refuse)?;
    let stat = rustix::fs::fstat(&place).call(|| "fstat(</dev/null>)".to_owned())?;
    if !is_null(&stat) {
        return Err(not_null());
    }
    let null = inside::open(root, path, Links::Refuse, OFlags::RDWR | OFlags::NOCTTY)?;
    let stat = rustix::fs::fstat(&null).call(|| "fstat(</dev/null>)".to_owned())?;
    if is_null(&stat) { Ok(null) } else { Err(not_null()) }
}

fn is_null(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == null()
}

fn streams() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}
