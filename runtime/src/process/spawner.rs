//! The spawner: forked by the daemon while that is small and has one thread, it forks mains, as
//! siblings of its own: one for each order of the daemon, which has one waiting ahead of the next
//! operation.
//!
//! It touches little memory, so its forks copy few page tables; it blocks on one socket and does
//! no work itself, so an order never waits for an operation. It is cloned with exit signal 0,
//! which every process of the chain inherits through CLONE_PARENT: until such a process executes
//! a program, only `__WALL` or its pidfd can wait for it, and no sweep of orphans ever sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::channel::{self, Channel, Received};
use super::operation::{Link, Operation, WaitingMain};
use super::{Child, Request, main};
use crate::apply::own;
use crate::apply::rootfs::EmptyMountNamespace;
use crate::error::{Call, Error, Kind, Result};
use crate::plan::Host;
use crate::sys::process::{self, Clone, CloseHow, Forked, SingleThreaded};
use crate::sys::socket::{self, Wait};

/// The daemon's handle. Its socket polls readable when the spawner is gone.
#[derive(Debug)]
pub struct Spawner {
    socket: OwnedFd,
}

impl Spawner {
    /// Forks the spawner. Compiled seccomp filters are kept in `seccomp_cache` (made with mode 0700
    /// when needed). `oom_score_adj` is what containers are to inherit, where that is not the
    /// caller's own. The daemon reaps it by the [`Child`]; it ends by itself when the handle is
    /// dropped.
    ///
    /// # Errors
    /// socketpair(2), clone3(2).
    pub fn fork(
        single: &SingleThreaded,
        seccomp_cache: Option<PathBuf>,
        oom_score_adj: Option<i32>,
    ) -> Result<(Spawner, Child)> {
        let (ours, theirs) =
            socket::pair().call(|| "socketpair(AF_UNIX, SOCK_SEQPACKET|SOCK_CLOEXEC)".into())?;
        let clone = Clone { flags: process::CLONE_CLEAR_SIGHAND, ..Clone::default() };
        let forked = process::clone3(single, &clone)
            .call(|| "clone3(CLONE_PIDFD|CLONE_CLEAR_SIGHAND)".into())
            .map_err(|error| error.at("fork spawner"))?;
        match forked {
            Forked::Parent { pid, pidfd } => Ok((Spawner { socket: ours }, Child { pid, pidfd })),
            Forked::Child(single) => {
                // Nobody reads a status but the daemon's log: 1 says that it never served.
                let host = || {
                    oom_score_adj.map_or(Ok(()), own::set_oom_score)?;
                    Host::read(seccomp_cache)
                };
                let status = if serve(&theirs, &single, host).is_ok() { 0 } else { 1 };
                process::exit(status)
            }
        }
    }

    /// Asks for one more main, which comes by [`Spawner::try_main`]. Does not wait for it.
    ///
    /// # Errors
    /// sendmsg(2); EPIPE: the spawner is gone, fork another.
    pub fn order(&self) -> Result<()> {
        socket::send(self.socket.as_fd(), &[0], &[]).call(|| "sendmsg(spawner, 1 byte)".into())
    }

    /// The next main that was ordered, if it is there. Its [`Child`] must be reaped by the caller.
    ///
    /// # Errors
    /// recvmsg(2), or a message that does not parse.
    pub fn try_main(&self) -> Result<Ordered> {
        self.next_main(Wait::Dont)
    }

    /// For a caller that has nothing else to do: orders a main, waits for it, and hands it the
    /// operation.
    ///
    /// # Errors
    /// As for all of these; a main that could not be forked.
    pub fn submit(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Operation, Child)> {
        self.order()?;
        match self.next_main(Wait::Block)? {
            Ordered::Main(main, child) => Ok((main.submit(request, fds)?, child)),
            Ordered::Failed(error) => Err(error),
            Ordered::Nothing | Ordered::Gone => {
                let (who, how) = ("spawner".into(), "it ended before it answered".into());
                Err(Error::new(Kind::PeerDied { who, how }))
            }
        }
    }

    fn next_main(&self, wait: Wait) -> Result<Ordered> {
        match channel::receive::<Supply>(self.socket.as_fd(), wait)? {
            Received::Nothing => Ok(Ordered::Nothing),
            Received::End => Ok(Ordered::Gone),
            Received::Message(Supply::Failed(error), _) => Ok(Ordered::Failed(error)),
            Received::Message(Supply::Forked { pid }, fds) => match <[OwnedFd; 3]>::try_from(fds) {
                Ok([pidfd, requests, news]) => {
                    let [requests, news] = [requests, news].map(Channel::from_fd);
                    Ok(Ordered::Main(WaitingMain(Link { requests, news }), Child { pid, pidfd }))
                }
                Err(_) => Err(Error::new(Kind::Corrupt("a main came without its fds".into()))),
            },
        }
    }
}

/// What has come of an order.
#[derive(Debug)]
pub enum Ordered {
    /// A main.
    Main(WaitingMain, Child),
    /// It could not be forked.
    Failed(Error),
    /// Nothing yet.
    Nothing,
    /// The spawner is gone: fork another.
    Gone,
}

/// What the spawner answers to an order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Supply {
    /// Fds: main's pidfd, and the daemon's ends of the two channels.
    Forked {
        pid: i32,
    },
    Failed(Error),
}

impl AsFd for Spawner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The spawner's whole life: 0, 1, 2 and the socket are all it keeps open.
fn serve(
    socket: &OwnedFd,
    single: &SingleThreaded,
    host: impl FnOnce() -> Result<Host>,
) -> Result<()> {
    const SOCKET: u32 = 3;
    process::reset_signals().call(|| "sigprocmask(SIG_SETMASK, {})".into())?;
    super::set_name(c"myshim:spawner");
    let socket = rustix::io::fcntl_dupfd_cloexec(socket, 3)
        .call(|| "fcntl(spawner, F_DUPFD_CLOEXEC)".into())
        .and_then(|socket| super::move_fd(socket, SOCKET))?;
    process::close_from(single, SOCKET + 1, CloseHow::Now)
        .call(|| format!("close_range({}, ~0, 0)", SOCKET + 1))?;
    // Once for all operations: their mains inherit it. A host that cannot be read is an error of
    // each of them.
    let host = host();
    // Without it containers start from a copy, which is slower and nothing else.
    let empty = EmptyMountNamespace::make().ok();
    loop {
        let mut byte = [0; 1];
        let (length, _) = socket::receive(socket.as_fd(), &mut byte, Wait::Block)
            .call(|| "recvmsg(daemon)".into())?;
        if length == 0 {
            return Ok(());
        }
        fork_main(&socket, single, &host, empty.as_ref())?;
    }
}

/// Forks main, or tells the daemon why that failed.
fn fork_main(
    daemon: &OwnedFd,
    single: &SingleThreaded,
    host: &Result<Host>,
    empty: Option<&EmptyMountNamespace>,
) -> Result<()> {
    let told = channels().and_then(|(ours, theirs)| {
        let clone = Clone { flags: super::CLONE_PARENT, ..Clone::default() };
        match process::clone3(single, &clone) {
            Ok(Forked::Child(single)) => {
                // The daemon's ends are the daemon's alone: their end is how main learns of its.
                drop(theirs);
                crate::sys::fd::close_inherited(&single, daemon.as_fd());
                main::run(&ours, &single, host, empty)
            }
            Ok(Forked::Parent { pid, pidfd }) => {
                let fds = [pidfd.as_fd(), theirs.requests.as_fd(), theirs.news.as_fd()];
                channel::send(daemon.as_fd(), &Supply::Forked { pid }, &fds)
            }
            Err(errno) => Err(Error::call("clone3(CLONE_PARENT|CLONE_PIDFD)", errno)),
        }
    });
    match told {
        Err(error) => channel::send(daemon.as_fd(), &Supply::Failed(error.at("fork main")), &[]),
        Ok(()) => Ok(()),
    }
}

/// Main's ends, and the daemon's.
fn channels() -> Result<(Link, Link)> {
    let (ours, theirs) = Channel::pair()?;
    let (speak, hear) = Channel::pair()?;
    Ok((Link { requests: ours, news: speak }, Link { requests: theirs, news: hear }))
}
