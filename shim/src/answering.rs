//! Whether a daemon whose socket takes connections is alive.
//!
//! A process that was killed closes its descriptors one after the other, and what they refer to goes
//! as late as the mounts among them take. Whoever hears of the death by one of them may find the
//! socket still listening. So may who comes when the daemon has just forked the spawner, which has
//! yet to close what it inherits. A connection tells: the daemon answers on it, or it is reset.

use std::os::fd::{AsFd, OwnedFd};

use protobuf::Message;
use runtime::sys::socket::wait_readable;
use runtime::{Call, Error, Kind, Result};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use ttrpc::{MessageHeader, Request};

/// A daemon answers within milliseconds, a dead one is gone as soon. One that is stopped does
/// neither, and lives.
pub(crate) const WITHIN_MS: u64 = 1000;

/// Asks for anything, and waits for any answer, at most `within_ms`, on a connection to the daemon.
/// Silence counts as life.
///
/// # Errors
/// sendmsg(2), recvmsg(2), other than those that tell of the end.
pub(crate) fn is_alive(connection: &OwnedFd, within_ms: u64) -> Result<bool> {
    let question = question()?;
    match rustix::io::retry_on_intr(|| {
        rustix::net::send(connection, &question, SendFlags::NOSIGNAL)
    }) {
        Ok(_) => {}
        Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
        // Its backlog was full: it listens.
        Err(Errno::NOTCONN) => return Ok(true),
        Err(errno) => return Err(Error::call("sendmsg([socket])", errno)),
    }
    match wait_readable(connection.as_fd(), within_ms) {
        Err(Errno::TIMEDOUT) => return Ok(true),
        other => other.call(|| "poll([socket])".to_owned())?,
    }
    let mut answer = [0; 1];
    match rustix::io::retry_on_intr(|| {
        rustix::net::recv(connection, &mut answer, RecvFlags::empty()).map(|(got, _)| got)
    }) {
        Ok(0) | Err(Errno::CONNRESET) => Ok(false),
        Ok(_) => Ok(true),
        Err(errno) => Err(Error::call("recvmsg([socket])", errno)),
    }
}

/// Connect of the task service, which never fails.
fn question() -> Result<Vec<u8>> {
    let request = Request {
        service: "containerd.task.v2.Task".to_owned(),
        method: "Connect".to_owned(),
        ..Request::default()
    };
    let encode = |error| Error::new(Kind::Corrupt(format!("encode a request: {error}")));
    let payload = request.write_to_bytes().map_err(encode)?;
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut question = Vec::from(MessageHeader::new_request(1, length));
    question.extend(payload);
    Ok(question)
}
