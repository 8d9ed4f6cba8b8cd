//! A container's process in the foreground: signals go to it, a terminal is relayed, and its exit
//! status is ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use runtime::process::Child;
use runtime::sys::child::pidfd_send_signal;
use runtime::{Call, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::chain;
use crate::terminal::{self, Raw};

/// Signals that wait for the process in the foreground. Made before it is: none is lost.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks all signals; they are read from now on. The chain unblocks its own.
    pub(crate) fn catch() -> Result<Signals> {
        let all = SigSet::all();
        all.thread_block().call(|| "sigprocmask(SIG_BLOCK, all)".into())?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&all, flags).call(|| "signalfd(all)".into()).map(Signals)
    }

    /// Passes them on. The window's size is the terminal's matter.
    fn forward(&self, to: &Child, console: Option<BorrowedFd<'_>>) -> Result<()> {
        while let Some(info) = self.0.read_signal().call(|| "read(signalfd)".into())? {
            let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
            if signal == Signal::WINCH.as_raw() {
                console.map_or(Ok(()), terminal::copy_size)?;
            } else if signal != Signal::CHILD.as_raw() && signal != Signal::URG.as_raw() {
                // One that has ended meanwhile needs no signal.
                pidfd_send_signal(to.pidfd.as_fd(), signal).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// Waits for the end of a process. Its exit status, or 128 and the signal that ended it.
pub(crate) fn attend(process: &Child, signals: &Signals, console: Option<OwnedFd>) -> Result<u8> {
    let raw = console.is_some().then(Raw::begin).transpose()?;
    let console = console.as_ref().map(AsFd::as_fd);
    let mut open = Streams { input: console.is_some(), output: console.is_some() };
    loop {
        let ready = wait(process, signals, console, &open)?;
        if ready.signal {
            signals.forward(process, console)?;
        }
        if let Some(console) = console {
            if ready.typed {
                open.input = terminal::copy(rustix::stdio::stdin(), console)?;
            }
            if ready.shown {
                terminal::copy(console, rustix::stdio::stdout())?;
            }
            open.output &= ready.shown || !ready.hung_up;
        }
        if ready.ended && !ready.shown {
            break;
        }
    }
    drop(raw);
    let status = chain::reap(process)?;
    let code = status.and_then(|status| {
        let killed = status.terminating_signal().map(|signal| signal + 128);
        status.exit_status().or(killed)
    });
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// What of a terminal is still relayed.
struct Streams {
    input: bool,
    output: bool,
}

struct Ready {
    ended: bool,
    signal: bool,
    typed: bool,
    shown: bool,
    /// The last user of the terminal is gone.
    hung_up: bool,
}

fn wait(
    process: &Child,
    signals: &Signals,
    console: Option<BorrowedFd<'_>>,
    open: &Streams,
) -> Result<Ready> {
    let mut fds =
        vec![PollFd::new(&process.pidfd, PollFlags::IN), PollFd::new(&signals.0, PollFlags::IN)];
    let output = console.filter(|_| open.output);
    fds.extend(output.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    let input = open.input.then(rustix::stdio::stdin);
    fds.extend(input.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    rustix::io::retry_on_intr(|| poll(&mut fds, None)).call(|| "poll(foreground)".into())?;
    let mut events = fds.iter().map(PollFd::revents);
    let mut next = |is_polled: bool| {
        let events = is_polled.then(|| events.next()).flatten();
        events.unwrap_or(PollFlags::empty())
    };
    let (ended, signal) = (next(true), next(true));
    let (shown, typed) = (next(output.is_some()), next(open.input));
    Ok(Ready {
        ended: !ended.is_empty(),
        signal: !signal.is_empty(),
        shown: shown.contains(PollFlags::IN),
        hung_up: shown.contains(PollFlags::HUP),
        typed: !typed.is_empty(),
    })
}
