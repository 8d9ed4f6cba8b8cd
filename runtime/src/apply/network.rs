//! The container's network: its loopback device.

use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::{Call, Result};
use crate::sys::loopback;

/// Sets the loopback device of the present network namespace up. For a new namespace: one that
/// is joined is its maker's.
///
/// # Errors
/// The call that failed; EPERM without CAP_NET_ADMIN over the namespace.
pub fn loopback_up() -> Result<()> {
    // One of AF_UNIX is the cheapest to make.
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .call(|| "socket(AF_UNIX, SOCK_DGRAM|SOCK_CLOEXEC)".into())?;
    loopback::up(socket.as_fd())
        .call(|| "ioctl(<socket>, SIOCSIFFLAGS, {lo, IFF_UP|IFF_RUNNING})".into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::sys::process::unshare;
    use crate::sys::testing::in_fork;

    #[test]
    fn loopback_carries_traffic_in_a_new_network_namespace() {
        in_fork(|single| {
            unshare(single, u64::from(rustix::thread::UnshareFlags::NEWNET.bits())).unwrap();
            TcpStream::connect("127.0.0.1:9").unwrap_err();
            loopback_up().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            TcpListener::bind("[::1]:0").unwrap();
        });
    }
}
