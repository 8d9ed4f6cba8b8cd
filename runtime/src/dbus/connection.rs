//! The socket, and waiting at it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::message::{Call, Incoming, Refusal, length_of};
use super::value::Value;
use crate::error::{self, Call as _, Error, Kind, Result};
use crate::sys::socket::wait_readable;

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A message bus, which wants to be greeted, and told which signals are of interest.
    Bus,
    /// The service itself, which sends all of its signals to everybody.
    Service,
}

/// One conversation, which is over at its deadline.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    path: PathBuf,
    serial: u32,
    unread: Vec<u8>,
    /// Jobs that were seen to end: object path and result.
    ended: VecDeque<(String, String)>,
    deadline: Instant,
    within: Duration,
}

impl Connection {
    /// Connects and authenticates.
    ///
    /// Who we are the peer takes from the socket itself (SO_PEERCRED): a user id that we claimed
    /// would be that of our user namespace, which the peer may not be in.
    ///
    /// # Errors
    /// connect(2); `Deadline`; `State` when the peer does not want us or hangs up.
    pub(crate) fn open(path: &Path, peer: Peer, within: Duration) -> Result<Connection> {
        let deadline = Instant::now() + within;
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .call(|| "socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC)".into())?;
        // A connect(2) waits while the backlog of the peer is full, and a send while its buffer is.
        set_socket_timeout(&socket, Timeout::Send, Some(within))
            .call(|| "setsockopt(SO_SNDTIMEO)".into())?;
        let call = || format!("connect({})", path.display());
        let address = SocketAddrUnix::new(path).call(call)?;
        let mut connection = Connection {
            socket,
            path: path.to_owned(),
            serial: 0,
            unread: Vec::new(),
            ended: VecDeque::new(),
            deadline,
            within,
        };
        match rustix::io::retry_on_intr(|| rustix::net::connect(&connection.socket, &address)) {
            Ok(()) => {}
            Err(Errno::AGAIN) => return Err(connection.late("connection")),
            Err(errno) => return Err(errno).call(call),
        }
        connection.authenticate()?;
        if peer == Peer::Bus {
            connection.bus("Hello", &[])?;
        }
        Ok(connection)
    }

    fn authenticate(&mut self) -> Result<()> {
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", "AUTH")?;
        // `DATA` asks for the user id, of which we have sent none.
        for wanted in ["DATA", "OK"] {
            let line = self.line()?;
            if line.split(' ').next() != Some(wanted) {
                let why = format!("{} refuses us: {line}", self.path.display());
                return Err(Error::new(Kind::State(why)));
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.receive("answer to AUTH")?;
        }
    }

    /// Calls a method of the bus itself.
    fn bus(&mut self, member: &str, arguments: &[Value]) -> Result<()> {
        let name = "org.freedesktop.DBus";
        let path = "/org/freedesktop/DBus";
        let call = Call { destination: name, path, interface: name, member, arguments };
        match self.call(&call, member)? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(self.refused(member, &refusal)),
        }
    }

    /// Asks the bus for the signals of this rule.
    ///
    /// # Errors
    /// As for [`Connection::call`]; `State` when the bus refuses.
    pub(crate) fn listen(&mut self, rule: &str) -> Result<()> {
        self.bus("AddMatch", &[Value::text(rule)])
    }

    /// Calls a method and waits for its answer: a string or an object path, if it has one.
    /// `what` names the call in messages.
    ///
    /// # Errors
    /// sendmsg(2), recvmsg(2); `Deadline`; `State` when the peer hangs up; `Corrupt` when it does
    /// not speak D-Bus.
    pub(crate) fn call(
        &mut self,
        call: &Call<'_>,
        what: &str,
    ) -> Result<std::result::Result<String, Refusal>> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&call.encode(serial), what)?;
        loop {
            let message = self.next(&format!("answer to {what}"))?;
            if message.answers(serial) {
                return message.outcome().ok_or_else(|| self.garbled());
            }
            self.ended.extend(message.job_removed());
        }
    }

    /// The error for a call that was refused and must not be.
    pub(crate) fn refused(&self, what: &str, refusal: &Refusal) -> Error {
        Error::new(Kind::State(format!("{what}: {} ({})", refusal.text, refusal.name)))
    }

    /// Waits for the end of a job of systemd, and returns its result.
    ///
    /// # Errors
    /// As for [`Connection::call`].
    pub(crate) fn end_of_job(&mut self, job: &str, what: &str) -> Result<String> {
        loop {
            while let Some((ended, result)) = self.ended.pop_front() {
                if ended == job {
                    return Ok(result);
                }
            }
            let message = self.next(&format!("end of the job of {what}"))?;
            self.ended.extend(message.job_removed());
        }
    }

    fn next(&mut self, awaited: &str) -> Result<Incoming> {
        loop {
            let length = length_of(&self.unread).map_err(|()| self.garbled())?;
            if let Some(length) = length.filter(|length| *length <= self.unread.len()) {
                let message: Vec<u8> = self.unread.drain(..length).collect();
                return Incoming::parse(message).ok_or_else(|| self.garbled());
            }
            self.receive(awaited)?;
        }
    }

    fn receive(&mut self, awaited: &str) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // Rounded up: a wait for 0 ms would turn in circles before the end.
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        match wait_readable(self.socket.as_fd(), left) {
            Err(Errno::TIMEDOUT) => return Err(self.late(awaited)),
            other => other.call(|| format!("poll({})", self.path.display()))?,
        }
        let mut buffer = [0; 4096];
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT)
        });
        let length = match received {
            Ok((0, _)) => {
                let why = format!("{} hung up: no {awaited}", self.path.display());
                return Err(Error::new(Kind::State(why)));
            }
            Ok((length, _)) => length,
            Err(Errno::AGAIN) => return Ok(()),
            Err(errno) => {
                return Err(errno).call(|| format!("recv({}): no {awaited}", self.path.display()));
            }
        };
        self.unread.extend_from_slice(buffer.get(..length).unwrap_or_default());
        match Instant::now() < self.deadline {
            true => Ok(()),
            // A peer that never stops talking of other things.
            false => Err(self.late(awaited)),
        }
    }

    fn send(&mut self, mut bytes: &[u8], what: &str) -> Result<()> {
        while !bytes.is_empty() {
            let sent = rustix::io::retry_on_intr(|| {
                rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL)
            });
            match sent {
                Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
                Err(Errno::AGAIN) => return Err(self.late(&format!("room for {what}"))),
                Err(errno) => {
                    return Err(errno).call(|| format!("send({}, {what})", self.path.display()));
                }
            }
        }
        Ok(())
    }

    fn late(&self, awaited: &str) -> Error {
        let after_ms = u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX);
        let awaited = format!("{awaited} from {}", self.path.display());
        Error::new(error::Kind::Deadline { awaited, after_ms })
    }

    fn garbled(&self) -> Error {
        let why = format!("{}: what came is no D-Bus message we know", self.path.display());
        Error::new(Kind::Corrupt(why))
    }
}
