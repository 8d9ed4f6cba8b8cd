//! The standard streams of init and of tenants.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::apply::{console, stdio};
use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::{Process, Terminal};

/// Leads a session of its own, so that it has no controlling terminal but the one it is given.
pub(super) fn new_session() -> Result<()> {
    rustix::process::setsid().call(|| "setsid()".into()).map(drop)
}

/// Puts the streams in place: those that the daemon has passed, or a new terminal's, whose
/// master is returned. `root` is the container's root directory.
pub(super) fn connect(
    process: &Process,
    root: BorrowedFd<'_>,
    passed: &[OwnedFd],
    dev_console: DevConsole,
) -> Result<Option<OwnedFd>> {
    let master = match process.terminal {
        Some(terminal) => Some(open_terminal(root, terminal, dev_console).at("console")?),
        None => {
            pass(passed)?;
            stdio::reopen_null(root)?;
            None
        }
    };
    stdio::give_to(process.uid)?;
    Ok(master)
}

/// Whether the terminal becomes the container's /dev/console: init's does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DevConsole {
    Bind,
    Leave,
}

fn open_terminal(
    root: BorrowedFd<'_>,
    terminal: Terminal,
    dev_console: DevConsole,
) -> Result<OwnedFd> {
    let console = console::open(root, terminal)?;
    if dev_console == DevConsole::Bind {
        console::bind(root, &console)?;
    }
    stdio::set_terminal(&console)?;
    Ok(console.master)
}

fn pass(streams: &[OwnedFd]) -> Result<()> {
    let [stdin, stdout, stderr] = streams else {
        let count = streams.len();
        return Err(Error::new(Kind::Corrupt(format!("{count} standard streams came, not 3"))));
    };
    stdio::set(stdin.as_fd(), stdout.as_fd(), stderr.as_fd())
}
