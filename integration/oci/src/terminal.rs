//! Pseudo terminals: passed to whoever asked for one, or relayed to our own.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;

use runtime::{At, Call, Result};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::termios::{OptionalActions, Termios};

/// Sends the master to the socket at `path`, with a name for it, as runc does.
pub(crate) fn send(master: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let address = SocketAddrUnix::new(path).call(|| format!("sockaddr_un({path:?})"))?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let socket = socket.call(|| "socket(AF_UNIX, SOCK_STREAM)".into())?;
    rustix::net::connect(&socket, &address)
        .call(|| format!("connect({path:?})"))
        .at("console socket")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [master];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let name = [IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(&socket, &name, &mut ancillary, SendFlags::NOSIGNAL)
        .call(|| format!("sendmsg({path:?}, 1 fd)"))
        .at("console socket")
        .map(drop)
}

/// Our own terminal in raw mode; as it was before, once this is dropped.
#[derive(Debug)]
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    /// Sets it, where standard input is a terminal.
    pub(crate) fn begin() -> Result<Raw> {
        let own = rustix::stdio::stdin();
        let Ok(before) = rustix::termios::tcgetattr(own) else { return Ok(Raw(None)) };
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(own, OptionalActions::Now, &raw)
            .call(|| "tcsetattr(stdin, raw)".into())?;
        Ok(Raw(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs no modes.
            rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before)
                .unwrap_or_default();
        }
    }
}

/// Gives the size of our own terminal to the container's, where we have one.
pub(crate) fn copy_size(console: BorrowedFd<'_>) -> Result<()> {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        Ok(size) => {
            rustix::termios::tcsetwinsize(console, size).call(|| "ioctl(TIOCSWINSZ)".into())
        }
        Err(_) => Ok(()),
    }
}

/// Copies what is there. Whether there may be more.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool> {
    let mut buffer = [0; 16 * 1024];
    let length = match rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer)) {
        // Nobody has the terminal open any more.
        Err(Errno::IO) => return Ok(false),
        other => other.call(|| "read(terminal)".into())?,
    };
    let mut left = buffer.get(..length).unwrap_or_default();
    while !left.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(to, left));
        let written = written.call(|| "write(terminal)".into())?;
        left = left.get(written..).unwrap_or_default();
    }
    Ok(length > 0)
}
