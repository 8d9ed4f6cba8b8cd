//! The loopback device of the present network namespace.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Sets `lo` up: netdevice(7), SIOCSIFFLAGS. The kernel gives it 127.0.0.1/8 and ::1/128 then.
///
/// The other flags that SIOCSIFFLAGS writes (promiscuous, debug, …) are off in a new namespace.
///
/// # Errors
/// The errno of socket(2) or ioctl(2): ENODEV without a loopback device, EPERM without
/// CAP_NET_ADMIN in the user namespace that owns the network namespace.
pub fn up() -> Result<(), Errno> {
    // Device ioctls work on every socket; one of AF_UNIX is the cheapest to make.
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
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
