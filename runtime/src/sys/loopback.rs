//! The loopback device of the present network namespace.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Sets `lo` up: netdevice(7), SIOCSIFFLAGS. The kernel gives it 127.0.0.1/8 and ::1/128 then.
///
/// Device ioctls work on every `socket` of the namespace.
///
/// The other flags that SIOCSIFFLAGS writes (promiscuous, debug, …) are off in a new namespace.
///
/// # Errors
/// The errno of ioctl(2): ENODEV without a loopback device, EPERM without
/// CAP_NET_ADMIN in the user namespace that owns the network namespace.
pub fn up(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: all-zero bytes are a valid ifreq, a struct of bytes and integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, whose name ends with NUL and whose flags are set.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    })
    .map(drop)
}
