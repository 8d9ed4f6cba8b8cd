//! A channel between two processes of the chain: messages as JSON in SEQPACKET datagrams.
//!
//! The peer's [`Error`] is always an answer, the end of the stream always means that the peer is
//! gone, and every wait has a deadline.

use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Call, Error, Kind, Result};
use crate::sys::socket::{self, Wait};

/// A payload up to this size travels in the datagram, a larger one in a memfd beside it: a
/// datagram must fit the socket's buffer (net.core.wmem_default, 208 KiB), and every receive
/// touches this much memory, which costs each new main a page fault per 4 KiB. What is usual
/// (overlay mounts of 100 layers, the environment of a pod) has 1 to 8 KiB.
const INLINE: usize = 8 * 1024;
/// No message is larger: containerd's own limit for a request is 4 MiB.
const LARGEST: u64 = 16 << 20;

const TAG_INLINE: u8 = 0;
const TAG_MEMFD: u8 = 1;

/// The latest moment for something to happen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    end: Instant,
    all: Duration,
}

impl Deadline {
    /// So long from now.
    pub(super) fn after(all: Duration) -> Deadline {
        Deadline { end: Instant::now() + all, all }
    }

    /// Milliseconds left, 0 when it has passed.
    pub(super) fn left_ms(&self) -> u64 {
        let left = self.end.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    /// The error for `awaited` not having happened.
    pub(super) fn missed(&self, awaited: &str) -> Error {
        let after_ms = u64::try_from(self.all.as_millis()).unwrap_or(u64::MAX);
        Error::new(Kind::Deadline { awaited: awaited.into(), after_ms })
    }
}

/// One end of a channel.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
}

/// What a receive finds.
#[derive(Debug)]
pub(super) enum Received<M> {
    /// A message, and the descriptors that came with it.
    Message(M, Vec<OwnedFd>),
    /// Nothing yet (only where the receive does not wait).
    Nothing,
    /// The peer is gone.
    End,
}

impl Channel {
    /// Both ends of a new channel.
    ///
    /// # Errors
    /// socketpair(2).
    pub(super) fn pair() -> Result<(Channel, Channel)> {
        let (a, b) =
            socket::pair().call(|| "socketpair(AF_UNIX, SOCK_SEQPACKET|SOCK_CLOEXEC)".into())?;
        Ok((Channel { socket: a }, Channel { socket: b }))
    }

    /// A channel over a socket that came from another process.
    pub(super) fn from_fd(socket: OwnedFd) -> Channel {
        Channel { socket }
    }

    /// The socket, for another process's channel.
    pub(super) fn socket(self) -> OwnedFd {
        self.socket
    }

    /// The same channel by a descriptor that is not below `lowest`.
    ///
    /// # Errors
    /// fcntl(2).
    pub(super) fn above(&self, lowest: u32) -> Result<Channel> {
        super::fd_above(&self.socket, lowest).map(Channel::from_fd)
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// sendmsg(2), or memfd_create(2) for a large message. EPIPE: the peer is gone.
    pub(super) fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> Result<()> {
        send(self.as_fd(), message, fds)
    }

    /// Waits for a message until the deadline; `awaited` names it in the error.
    ///
    /// # Errors
    /// The deadline has passed, or recvmsg(2).
    pub(super) fn receive<M: DeserializeOwned>(
        &self,
        awaited: &str,
        deadline: &Deadline,
    ) -> Result<Received<M>> {
        match socket::wait_readable(self.socket.as_fd(), deadline.left_ms()) {
            Err(rustix::io::Errno::TIMEDOUT) => return Err(deadline.missed(awaited)),
            other => other.call(|| format!("poll(channel, {} ms)", deadline.left_ms()))?,
        }
        self.receive_now(Wait::Block)
    }

    /// Waits for a message as long as it takes: only for a peer whose end is sure to be noticed.
    ///
    /// # Errors
    /// recvmsg(2).
    pub(super) fn receive_forever<M: DeserializeOwned>(&self) -> Result<Received<M>> {
        self.receive_now(Wait::Block)
    }

    /// Takes a message if one is there.
    ///
    /// # Errors
    /// recvmsg(2).
    pub(super) fn try_receive<M: DeserializeOwned>(&self) -> Result<Received<M>> {
        self.receive_now(Wait::Dont)
    }

    /// Sends a small message by write(2): a process behind its seccomp filter needs no call for
    /// this that its program would not need as well.
    pub(super) fn say<M: Serialize>(&self, message: &M) -> Result<()> {
        let mut bytes = vec![TAG_INLINE];
        serde_json::to_writer(&mut bytes, message)
            .map_err(|error| Error::new(Kind::Corrupt(format!("message to send: {error}"))))?;
        #[cfg(feature = "hold")]
        super::hold::before_sending(&bytes);
        rustix::io::retry_on_intr(|| rustix::io::write(&self.socket, &bytes))
            .call(|| format!("write(channel, {} bytes)", bytes.len()))
            .map(drop)
    }

    /// Waits for a small message by read(2), as long as it takes. None: the peer is gone.
    pub(super) fn await_word<M: DeserializeOwned>(&self) -> Result<Option<M>> {
        let mut bytes = [0; 512];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut bytes))
            .call(|| "read(channel)".into())?;
        match bytes.get(1..length) {
            Some(payload) => parse(payload).map(Some),
            None => Ok(None),
        }
    }

    /// All that was [said](Channel::say) into a stream that does not keep messages apart.
    pub(super) fn words_of<M: DeserializeOwned>(stream: &[u8]) -> Result<Vec<M>> {
        // JSON has no such byte in it.
        let words = stream.split(|byte| *byte == TAG_INLINE).filter(|word| !word.is_empty());
        words.map(parse).collect()
    }

    fn receive_now<M: DeserializeOwned>(&self, wait: Wait) -> Result<Received<M>> {
        receive(self.as_fd(), wait)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends a message with descriptors over a socket that is no [`Channel`] of one operation.
///
/// # Errors
/// As for [`Channel::send`].
pub(super) fn send<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    fds: &[BorrowedFd<'_>],
) -> Result<()> {
    let mut bytes = vec![TAG_INLINE];
    serde_json::to_writer(&mut bytes, message)
        .map_err(|error| Error::new(Kind::Corrupt(format!("message to send: {error}"))))?;
    #[cfg(feature = "hold")]
    super::hold::before_sending(&bytes);
    if bytes.len() <= INLINE {
        return send_bytes(socket, &bytes, fds);
    }
    let memfd = rustix::fs::memfd_create(c"message", MemfdFlags::CLOEXEC)
        .call(|| "memfd_create(\"message\", MFD_CLOEXEC)".into())?;
    let mut file = std::fs::File::from(memfd);
    let payload = bytes.get(1..).unwrap_or_default();
    file.write_all(payload).call(|| format!("write(memfd, {} bytes)", payload.len()))?;
    file.rewind().call(|| "lseek(memfd, 0)".into())?;
    let fds: Vec<BorrowedFd<'_>> = fds.iter().copied().chain([file.as_fd()]).collect();
    send_bytes(socket, &[TAG_MEMFD], &fds)
}

fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    socket::send(socket, bytes, fds)
        .call(|| format!("sendmsg(channel, {} bytes, {} fds)", bytes.len(), fds.len()))
}

/// Receives a message by [`send`].
///
/// # Errors
/// recvmsg(2), or a message that does not parse.
pub(super) fn receive<M: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    wait: Wait,
) -> Result<Received<M>> {
    let mut bytes = [0; INLINE + 1];
    // The peer ended with messages of ours unread. The kernel says so once, in front of what the
    // peer has sent, and its end comes behind that.
    let received = match socket::receive(socket, &mut bytes, wait) {
        Err(rustix::io::Errno::CONNRESET) => socket::receive(socket, &mut bytes, wait),
        other => other,
    };
    let (length, mut fds) = match received {
        Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
        Err(rustix::io::Errno::CONNRESET) => return Ok(Received::End),
        other => other.call(|| "recvmsg(channel)".into())?,
    };
    let message = match bytes.get(..length).and_then(<[u8]>::split_first) {
        None => return Ok(Received::End),
        Some((&TAG_MEMFD, _)) => parse(&read_memfd(fds.pop())?)?,
        Some((_, payload)) => parse(payload)?,
    };
    Ok(Received::Message(message, fds))
}

fn read_memfd(memfd: Option<OwnedFd>) -> Result<Vec<u8>> {
    let memfd = memfd.ok_or_else(|| corrupt("a large message came without its memfd"))?;
    let mut payload = Vec::new();
    std::fs::File::from(memfd)
        .take(LARGEST + 1)
        .read_to_end(&mut payload)
        .call(|| "read(memfd)".into())?;
    if u64::try_from(payload.len()).unwrap_or(u64::MAX) > LARGEST {
        return Err(corrupt("a message is larger than 16 MiB"));
    }
    Ok(payload)
}

fn parse<M: DeserializeOwned>(payload: &[u8]) -> Result<M> {
    serde_json::from_slice(payload).map_err(|error| corrupt(&format!("message: {error}")))
}

fn corrupt(why: &str) -> Error {
    Error::new(Kind::Corrupt(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(20))
    }

    #[test]
    fn a_message_of_any_size_arrives_with_its_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        for size in [0, 1, INLINE, INLINE + 1, 1 << 20] {
            let sent = "x".repeat(size);
            a.send(&sent, &[a.as_fd()]).unwrap();
            let Received::Message(got, fds) = b.receive::<String>("text", &soon()).unwrap() else {
                panic!("no message of {size} bytes");
            };
            assert_eq!((got == sent, fds.len()), (true, 1));
        }
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_names_what_it_waited_for() {
        let (_a, b) = Channel::pair().unwrap();
        let error = b.receive::<String>("mapping of ids", &soon()).unwrap_err();
        assert_eq!(error.to_string(), "no mapping of ids within 20 ms");
    }

    #[test]
    fn the_last_word_of_a_peer_that_did_not_listen_is_heard() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&"unheard", &[]).unwrap();
        b.send(&"last word", &[]).unwrap();
        drop(b);
        let received = a.receive::<String>("text", &soon()).unwrap();
        assert!(matches!(received, Received::Message(text, _) if text == "last word"));
        assert!(matches!(a.receive::<String>("text", &soon()).unwrap(), Received::End));
    }

    #[test]
    fn a_peer_that_is_gone_is_the_end() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(matches!(b.receive::<String>("text", &soon()).unwrap(), Received::End));
        assert_eq!(b.send(&"x", &[]).unwrap_err().errno(), Some(nix::errno::Errno::EPIPE));
    }
}
