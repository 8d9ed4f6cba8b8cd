//! Files that stand for namespaces, ioctl_ns(2).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// NS_GET_NSTYPE of linux/nsfs.h: `_IO(0xb7, 3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// The CLONE_NEW* flag of the namespace that `file` stands for.
///
/// # Errors
/// ENOTTY when it is no nsfs file.
pub fn namespace_type(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    // SAFETY: NS_GET_NSTYPE takes no argument and writes nothing.
    let flag = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    Errno::result(flag).map(|flag| flag as u64)
}
