//! Any message on a channel of the chain.

use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::channel::{self, Channel, Received};
use super::operation::{FromStarted, News, ToTarget, Wire};
use super::protocol::{FromMain, ToMain};
use super::spawner::Supply;
use super::{Facts, Request};
use crate::fuzz::{survives, written};
use crate::sys::socket::{self, Wait};

/// A datagram that comes in is a message of the awaited type, the peer's end, or an error, as what
/// the tag in its first byte says: JSON in it, or in a memfd beside it. What is taken is the same
/// when it is sent on.
pub fn channel(input: &[u8]) {
    of_type::<Request>(input);
    of_type::<Wire>(input);
    of_type::<News>(input);
    of_type::<ToMain>(input);
    of_type::<FromMain>(input);
    of_type::<ToTarget>(input);
    of_type::<FromStarted>(input);
    of_type::<Supply>(input);
    of_type::<Facts>(input);
    received(input);
    drop(Channel::words_of::<FromStarted>(input));
}

fn of_type<M: Serialize + DeserializeOwned>(input: &[u8]) {
    survives::<M>(input.get(1..).unwrap_or_default());
}

fn received(input: &[u8]) {
    let Ok((a, b)) = socket::pair() else { panic!("no socket") };
    let memfd = memfd(input.get(1..).unwrap_or_default());
    let fds: &[BorrowedFd<'_>] = if input.len().is_multiple_of(2) { &[memfd.as_fd()] } else { &[] };
    if socket::send(a.as_fd(), input, fds).is_err() {
        // Larger than the socket's buffer.
        return;
    }
    if let Ok(Received::Message(request, _)) = channel::receive::<Request>(b.as_fd(), Wait::Dont) {
        assert!(channel::send(b.as_fd(), &request, &[]).is_ok());
        let again = channel::receive::<Request>(a.as_fd(), Wait::Dont);
        let Ok(Received::Message(again, _)) = again else { panic!("{request:?}: {again:?}") };
        assert_eq!(written(&again), written(&request));
    }
}

fn memfd(bytes: &[u8]) -> std::fs::File {
    let fd = rustix::fs::memfd_create(c"message", rustix::fs::MemfdFlags::CLOEXEC);
    let Ok(fd) = fd else { panic!("no memfd") };
    let mut file = std::fs::File::from(fd);
    assert!(file.write_all(bytes).and_then(|()| file.rewind()).is_ok());
    file
}
