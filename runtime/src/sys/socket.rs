//! SEQPACKET socket pairs: datagrams in order, with descriptors, and an end of the stream.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// The most descriptors that one datagram carries.
pub const MAX_FDS: usize = 16;

/// Both ends of a new socket pair, close-on-exec, blocking.
///
/// # Errors
/// The errno of socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one datagram with up to [`MAX_FDS`] descriptors. A vanished peer is EPIPE, never SIGPIPE.
///
/// # Errors
/// The errno of sendmsg(2); E2BIG for too many descriptors.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        let data = [IoSlice::new(bytes)];
        match rustix::net::sendmsg(socket, &data, &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Whether a receive waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until there is something.
    Block,
    /// EAGAIN when there is nothing.
    Dont,
}

/// Receives one datagram: its length (0 at the end of the stream) and the descriptors it carried,
/// close-on-exec.
///
/// # Errors
/// The errno of recvmsg(2); EMSGSIZE when the datagram did not fit, EMFILE when there was no number
/// free for a descriptor: all of them are closed then, and the datagram is gone.
pub fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    wait: Wait,
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if wait == Wait::Dont {
        flags |= RecvFlags::DONTWAIT;
    }
    let message = loop {
        let mut data = [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(socket, &mut data, &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for item in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            fds.extend(rights);
        }
    }
    // There is space for as many as a datagram carries.
    if message.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE);
    }
    if message.flags.contains(rustix::net::ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok((message.bytes, fds))
}

/// Waits until `socket` is readable (or its peer is gone), at most `timeout_ms`.
///
/// # Errors
/// The errno of poll(2); ETIMEDOUT when nothing came.
pub fn wait_readable(socket: BorrowedFd<'_>, timeout_ms: u64) -> Result<(), Errno> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let end = std::time::Instant::now() + std::time::Duration::from_millis(timeout_ms);
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
