//! Hands the listener of a seccomp filter to the agent that decides (runtime-spec,
//! config-linux.md, "seccomp": `listenerPath`).
//!
//! One connection, one document with one descriptor, no answer. On return the agent has read it:
//! what is only in its queue would be lost with it, and every system call that the filter asks
//! about would fail with ENOSYS in a container that was reported as created.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sockopt,
};
use serde::Serialize;

use super::oci_state::{OciState, to_json};
use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::SeccompListener;
use crate::sys::unix_socket::unread_by_peer;

/// The first look whether the agent has read; each later one comes after twice the time.
const FIRST_LOOK: Duration = Duration::from_micros(50);
/// The longest time between two looks.
const SLOWEST_LOOK: Duration = Duration::from_millis(20);

/// ContainerProcessState of the runtime spec.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a OciState<'a>,
}

/// Gives `notify`, the listener of the filter of the process `pid` (as the runtime sees it), to the
/// agent, and waits until it has read it, all within `timeout`.
///
/// # Errors
/// The call that failed ([`Kind::Call`]: ENOENT or ECONNREFUSED without an agent, EPIPE or
/// ECONNRESET from one that closes), or [`Kind::Deadline`] with what it did not do in time.
pub fn hand_over(
    listener: &SeccompListener,
    notify: BorrowedFd<'_>,
    pid: i32,
    state: &OciState<'_>,
    timeout: Duration,
) -> Result<()> {
    let document = to_json(&ContainerProcessState {
        oci_version: state.oci_version,
        fds: ["seccompFd"],
        pid,
        metadata: &listener.metadata,
        state,
    })?;
    let agent = Agent { path: &listener.path, all: timeout, end: Instant::now() + timeout };
    let step = || format!("seccomp agent at {:?}", listener.path);
    let socket = agent.connect().at_with(step)?;
    agent.send(&socket, &document, notify).at_with(step)?;
    agent.wait_until_read(&socket).at_with(step)
}

/// Where it is, and how much time it has.
struct Agent<'a> {
    path: &'a Path,
    all: Duration,
    end: Instant,
}

impl Agent<'_> {
    /// Nobody is told when there is room in a listener's backlog: only a blocking connect waits
    /// for that, as long as SO_SNDTIMEO says (unix(7)).
    fn connect(&self) -> Result<OwnedFd> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .call(|| "socket(AF_UNIX, SOCK_STREAM)".into())?;
        // Kept open until connect has followed the address to it.
        let (address, _anchor) = self.address()?;
        loop {
            self.limit_sends(&socket, "connection to be accepted")?;
            match rustix::net::connect(&socket, &address) {
                Ok(()) => return Ok(socket),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno).call(|| format!("connect({:?})", self.path)),
            }
        }
    }

    /// A path longer than sun_path's 107 bytes is reached through /proc/self/fd.
    fn address(&self) -> Result<(SocketAddrUnix, Option<OwnedFd>)> {
        match SocketAddrUnix::new(self.path) {
            Err(Errno::NAMETOOLONG) => {
                let file = openat(CWD, self.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                    .call(|| format!("openat(AT_FDCWD, {:?}, O_PATH)", self.path))?;
                let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                let address = SocketAddrUnix::new(&link).call(|| format!("sockaddr_un {link}"))?;
                Ok((address, Some(file)))
            }
            other => Ok((other.call(|| format!("sockaddr_un {:?}", self.path))?, None)),
        }
    }

    /// The descriptor goes with the first byte, as the spec demands where there are several sends.
    fn send(&self, socket: &OwnedFd, document: &[u8], notify: BorrowedFd<'_>) -> Result<()> {
        let fds = [notify];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Error::call("SCM_RIGHTS with one descriptor", Errno::NOBUFS));
        }
        let mut rest = document;
        while !rest.is_empty() {
            self.limit_sends(socket, "room for the container's state")?;
            let data = [IoSlice::new(rest)];
            match rustix::net::sendmsg(socket, &data, &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    ancillary.clear();
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno).call(|| "sendmsg(<agent>, state)".into()),
            }
        }
        Ok(())
    }

    /// The kernel tells a sender nothing when its peer reads, so that it has to be asked: often at
    /// first (an agent mostly needs some ten microseconds), then ever more seldom. Only the end of
    /// the connection wakes us.
    fn wait_until_read(&self, socket: &OwnedFd) -> Result<()> {
        let mut pause = FIRST_LOOK;
        loop {
            let unread =
                unread_by_peer(socket.as_fd()).call(|| "ioctl(<agent>, SIOCOUTQ)".to_owned())?;
            // After the look: a peer that closes leaves the error before it drops what it has.
            check_open(socket)?;
            if unread == 0 {
                return Ok(());
            }
            let left = self.left("reading of the container's state")?;
            let timeout = Timespec::try_from(left.min(pause)).ok();
            let mut fds = [PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP)];
            rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))
                .call(|| "poll(<agent>)".into())?;
            pause = (pause * 2).min(SLOWEST_LOOK);
        }
    }

    fn limit_sends(&self, socket: &OwnedFd, awaited: &str) -> Result<()> {
        let left = self.left(awaited)?;
        sockopt::set_socket_timeout(socket, sockopt::Timeout::Send, Some(left))
            .call(|| format!("setsockopt(<agent>, SO_SNDTIMEO, {left:?})"))
    }

    fn left(&self, awaited: &str) -> Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let after_ms = u64::try_from(self.all.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::new(Kind::Deadline { awaited: awaited.into(), after_ms }));
        }
        Ok(left)
    }
}

/// ECONNRESET when the peer has closed without reading all; its orderly end is fine.
fn check_open(socket: &OwnedFd) -> Result<()> {
    let mut byte = [0_u8; 1];
    match rustix::net::recv(socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(errno) => Err(errno).call(|| "recv(<agent>), before it had read the state".into()),
    }
}

#[cfg(test)]
mod tests;
