//! Awaiting descriptors: the one place that hands them to tokio.

use std::os::fd::{AsFd, AsRawFd};

use runtime::{Call, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Gives tokio the number of a descriptor that is owned by `T`.
#[derive(Debug)]
pub(crate) struct Polled<T>(pub(crate) T);

impl<T: AsFd> AsRawFd for Polled<T> {
    #[allow(clippy::disallowed_types, reason = "AsyncFd asks for AsRawFd; the number stays there")]
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers a descriptor with tokio's epoll, edge-triggered.
///
/// # Errors
/// epoll_ctl(2): regular files cannot be awaited.
pub(crate) fn register<T: AsRawFd + AsFd>(owner: T, interest: Interest) -> Result<AsyncFd<T>> {
    #[allow(
        deprecated,
        reason = "its successor is unsafe for implementations of AsRawFd that give a descriptor \
                  they do not keep open; AsFd has promised what that asks for"
    )]
    AsyncFd::with_interest(owner, interest).call(|| format!("epoll_ctl(fd, {interest:?})"))
}

impl<T: AsFd> AsFd for Polled<T> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
