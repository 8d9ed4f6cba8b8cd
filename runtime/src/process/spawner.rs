//! The spawner: forked by the daemon while that is small and has one thread, it forks one main per
//! operation, as a sibling of its own.
//!
//! It touches little memory, so its forks copy few page tables; it blocks on one socket and does
//! no work itself, so a request never waits for another one's. It is cloned with exit signal 0,
//! which every process of the chain inherits through CLONE_PARENT: until such a process executes
//! a program, only `__WALL` or its pidfd can wait for it, and no sweep of orphans ever sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::channel::Channel;
use super::operation::{Operation, Role, Wire};
use super::{Child, Request, main};
use crate::apply::rootfs::EmptyMountNamespace;
use crate::error::{Call, Error, Result};
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
    /// when needed). The daemon reaps it by the [`Child`]; it ends by itself when the handle
    /// is dropped.
    ///
    /// # Errors
    /// socketpair(2), clone3(2).
    pub fn fork(
        single: &SingleThreaded,
        seccomp_cache: Option<PathBuf>,
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
                let status = if serve(&theirs, &single, seccomp_cache).is_ok() { 0 } else { 1 };
                process::exit(status)
            }
        }
    }

    /// Hands an operation to a new main. Does not wait for it.
    ///
    /// # Errors
    /// socketpair(2), sendmsg(2); EPIPE: the spawner is gone, fork another.
    pub fn submit(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Operation> {
        let (ours, theirs) = Channel::pair()?;
        ours.send(request, fds)?;
        socket::send(self.socket.as_fd(), &[0], &[theirs.as_fd()])
            .call(|| "sendmsg(spawner, 1 fd)".into())?;
        Ok(Operation::new(ours))
    }
}

impl AsFd for Spawner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The spawner's whole life: 0, 1, 2 and the socket are all it keeps open.
fn serve(socket: &OwnedFd, single: &SingleThreaded, seccomp_cache: Option<PathBuf>) -> Result<()> {
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
    let host = Host::read(seccomp_cache);
    // Without it containers start from a copy, which is slower and nothing else.
    let empty = EmptyMountNamespace::make().ok();
    loop {
        let mut byte = [0; 1];
        let (length, fds) = socket::receive(socket.as_fd(), &mut byte, Wait::Block)
            .call(|| "recvmsg(daemon)".into())?;
        if length == 0 {
            return Ok(());
        }
        if let Some(operation) = fds.into_iter().next() {
            fork_main(Channel::from_fd(operation), single, &host, empty.as_ref());
        }
    }
}

/// Forks main, or tells the daemon through the operation's own channel why that failed.
fn fork_main(
    channel: Channel,
    single: &SingleThreaded,
    host: &Result<Host>,
    empty: Option<&EmptyMountNamespace>,
) {
    let clone = Clone { flags: super::CLONE_PARENT, ..Clone::default() };
    let told = match process::clone3(single, &clone) {
        Ok(Forked::Child(single)) => main::run(&channel, &single, host, empty),
        Ok(Forked::Parent { pid, pidfd }) => {
            channel.send(&Wire::Forked { pid, role: Role::Main }, &[pidfd.as_fd()])
        }
        Err(errno) => {
            let error = Error::call("clone3(CLONE_PARENT|CLONE_PIDFD)", errno).at("fork main");
            channel.send(&Wire::Failed(error), &[])
        }
    };
    // A daemon that no longer listens on this channel has given the operation up; main finds out
    // by the same channel.
    drop(told);
}
