//! Descriptors by number, for processes that lay out what a program inherits.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::process::SingleThreaded;

/// Moves a descriptor to `number` (close-on-exec), closing what was open there.
///
/// Only for a fork that never looks at the values it inherited: what was open at `number` may be
/// owned by one of them.
///
/// # Errors
/// The errno of dup3(2).
pub fn move_to(fd: OwnedFd, number: u32) -> Result<OwnedFd, Errno> {
    let number = number as libc::c_int;
    if fd.as_raw_fd() == number {
        return Ok(fd);
    }
    // SAFETY: dup3 touches no memory; see above for who owned `number`.
    Errno::result(unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just opened `number` for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes the descriptors `first`, `first` + 1, … in their order, open over execve(2), and closes
/// what was there. Each of them is above that range.
///
/// # Errors
/// The errno of dup2(2).
pub fn lay_out(_single: &SingleThreaded, fds: &[OwnedFd], first: u32) -> Result<(), Errno> {
    for (number, fd) in (first as libc::c_int..).zip(fds) {
        // SAFETY: the caller is about to execve and uses no descriptor that it has not put above
        // the range.
        Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    }
    Ok(())
}

/// Closes a descriptor that a fork inherited but does not use. Its owner is a value that belongs
/// to the code the fork never returns to, and is never dropped here.
pub fn close_inherited(_single: &SingleThreaded, fd: BorrowedFd<'_>) {
    // SAFETY: the owner is never used nor dropped in this process, which ends by _exit or execve.
    unsafe { libc::close(fd.as_raw_fd()) };
}
