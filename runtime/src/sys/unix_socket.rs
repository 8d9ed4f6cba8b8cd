//! What rustix cannot ask a unix(7) socket.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// How much of what was sent the peer has not read yet, in bytes of the kernel's accounting
/// (SIOCOUTQ): 0 when it has read all, or has gone.
///
/// # Errors
/// The errno of ioctl(2).
pub fn unread_by_peer(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ by another name, writes one int.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}
