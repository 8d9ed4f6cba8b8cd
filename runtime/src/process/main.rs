//! Main: one operation, then gone.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::channel::{Channel, Deadline, Received};
use super::operation::{Role, Wire};
use super::protocol::Waiting;
use super::{Child, Facts, Request, create, exec, upkeep};
use crate::apply::rootfs::EmptyMountNamespace;
use crate::container::StateDir;
use crate::error::{Error, Kind, Result};
use crate::plan::Host;
use crate::sys::process::{self, SingleThreaded};

/// The daemon has written the request before main exists.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// What an operation ends with, when it succeeds.
pub(super) enum Outcome {
    /// A process waits for start.
    Created {
        facts: Facts,
        waiting: Waiting,
        /// Where there is a record of network devices, to be forgotten once the daemon knows.
        unfinished: Option<StateDir>,
    },
    /// Done, with warnings.
    Done(Vec<String>),
}

/// What every operation works with.
pub(super) struct Main<'a> {
    pub(super) daemon: &'a Channel,
    pub(super) single: &'a SingleThreaded,
    pub(super) host: &'a Host,
    /// Where init may start in place of a copy of the host's mounts; None where it cannot be had.
    pub(super) empty: Option<&'a EmptyMountNamespace>,
}

impl Main<'_> {
    /// Tells the daemon of a process that it will have to reap.
    pub(super) fn announce(&self, child: &Child, role: Role) -> Result<()> {
        let forked = Wire::Forked { pid: child.pid, role };
        self.daemon.send(&forked, &[child.pidfd.as_fd()])
    }
}

/// Main's whole life.
pub(super) fn run(
    daemon: &Channel,
    single: &SingleThreaded,
    host: &Result<Host>,
    empty: Option<&EmptyMountNamespace>,
) -> ! {
    super::set_name(c"myshim:main");
    die_with_daemon();
    let outcome = match host {
        Ok(host) => serve(&Main { daemon, single, host, empty }),
        Err(error) => Err(error.clone().at("read the host's facts")),
    };
    let told = match outcome {
        Ok(Outcome::Done(warnings)) => daemon.send(&Wire::Done { warnings }, &[]),
        Ok(Outcome::Created { facts, waiting, unfinished }) => {
            let Waiting { channel, console, who, oom_kills_before } = waiting;
            let console = console.as_ref().map(AsFd::as_fd);
            let fds: Vec<BorrowedFd<'_>> = [channel.as_fd()].into_iter().chain(console).collect();
            daemon
                .send(&Wire::Created { facts, who: who.into(), oom_kills_before }, &fds)
                .and_then(|()| unfinished.map_or(Ok(()), |dir| dir.forget_net_devices()))
        }
        Err(error) => daemon.send(&Wire::Failed(error), &[]),
    };
    // Who does not hear the answer sees the end of the stream without one.
    process::exit(if told.is_ok() { 0 } else { 1 })
}

/// A main whose daemon is gone has nobody to answer, and may be waiting for a hook: it is killed,
/// and its hook with it. What it has made so far is found by its state, as after any crash.
fn die_with_daemon() {
    // Fails only for a number that is no signal. A daemon that died before this is noticed by
    // the channel.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .unwrap_or_default();
}

fn serve(main: &Main<'_>) -> Result<Outcome> {
    let deadline = Deadline::after(REQUEST_DEADLINE);
    let Received::Message(request, fds) = main.daemon.receive::<Request>("request", &deadline)?
    else {
        return Err(Error::new(Kind::Corrupt("the daemon ended before it sent a request".into())));
    };
    match request {
        Request::Create(request) => create::run(main, &request, fds),
        Request::Exec(request) => exec::run(main, &request, fds),
        Request::Delete(request) => upkeep::delete(main, &request, &fds).map(Outcome::Done),
        Request::Update(request) => upkeep::update(&request).map(Outcome::Done),
        Request::Freeze(request) => upkeep::freeze(&request).map(done),
        Request::KillAll(request) => upkeep::kill_all(&request).map(done),
        Request::Poststart(request) => upkeep::poststart(main, &request).map(done),
    }
}

fn done((): ()) -> Outcome {
    Outcome::Done(Vec::new())
}
