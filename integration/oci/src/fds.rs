//! Descriptors that this program was started with, for the container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use runtime::process::ExtraFds;
use runtime::{Call, Error, Result};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The first descriptor behind the standard streams.
const FIRST: usize = 3;

/// The standard streams.
pub(crate) fn stdio() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Which of its own are told of by sd_listen_fds(3), and `preserve` more behind them. To be
/// called before anything else is opened.
pub(crate) fn take(listen: usize, preserve: usize) -> Result<(ExtraFds, Vec<OwnedFd>)> {
    let count = listen + preserve;
    if count == 0 {
        return Ok((ExtraFds::default(), Vec::new()));
    }
    let numbers = FIRST..FIRST + count;
    for number in numbers.clone() {
        if !Path::new("/proc/self/fd").join(number.to_string()).exists() {
            let why = format!("descriptor {number} of {count} is not open");
            return Err(Error::argument("preserve-fds", why));
        }
    }
    let own = pidfd_open(getpid(), PidfdFlags::empty()).call(|| "pidfd_open(self)".into())?;
    let fds = numbers.map(|number| {
        let foreign = i32::try_from(number).unwrap_or(i32::MAX);
        pidfd_getfd(own.as_fd(), foreign, PidfdGetfdFlags::empty())
            .call(|| format!("pidfd_getfd([self], {number})"))
    });
    Ok((ExtraFds { count, listen }, fds.collect::<Result<_>>()?))
}

/// How many descriptors a service manager has passed to this very process.
pub(crate) fn listening() -> usize {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let for_us = number("LISTEN_PID") == usize::try_from(std::process::id()).ok();
    number("LISTEN_FDS").filter(|_| for_us).unwrap_or(0)
}
