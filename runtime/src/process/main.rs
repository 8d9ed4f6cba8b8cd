//! Main: waits for a request, carries it out, and is gone; one that has only looked after a container
//! is as it was before, and waits for the next.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::channel::{Channel, Received};
use super::operation::{End, Link, News, Role, Then, Wire};
use super::protocol::Waiting;
use super::{Child, Facts, Request, create, exec, upkeep};
use crate::apply::rootfs::EmptyMountNamespace;
use crate::container::StateDir;
use crate::error::{Error, Result};
use crate::plan::Host;
use crate::sys::process::{self, SingleThreaded};
use crate::sys::{phases, prefault};

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
    Done(Vec<String>, Then),
}

/// What every operation works with.
pub(super) struct Main<'a> {
    pub(super) daemon: &'a Link,
    pub(super) single: &'a SingleThreaded,
    pub(super) host: &'a Host,
    /// Where init may start in place of a copy of the host's mounts; None where it cannot be had.
    pub(super) empty: Option<&'a EmptyMountNamespace>,
}

impl Main<'_> {
    /// Tells the daemon of a process that it will have to reap.
    pub(super) fn announce(&self, child: &Child, role: Role) -> Result<()> {
        let forked = News::Forked { pid: child.pid, role };
        self.daemon.news.send(&forked, &[child.pidfd.as_fd()])
    }
}

/// Main's whole life.
pub(super) fn run(
    daemon: &Link,
    single: &SingleThreaded,
    host: &Result<Host>,
    empty: Option<&EmptyMountNamespace>,
) -> ! {
    super::set_name(c"myshim:waits");
    die_with_daemon();
    // Without the page there are no phases to tell, and nothing else is missing.
    phases::keep().unwrap_or_default();
    prefault::touch();
    loop {
        let outcome = match daemon.requests.receive_forever::<Request>() {
            Ok(Received::Message(request, fds)) => {
                super::set_name(c"myshim:main");
                match host {
                    Ok(host) => serve(&Main { daemon, single, host, empty }, request, fds),
                    Err(error) => Err(error.clone().at("read the host's facts")),
                }
            }
            Ok(Received::End | Received::Nothing) => process::exit(0),
            Err(error) => Err(error.at("request")),
        };
        // An answer may fail where a shorter one does not. For undoing it is too late here.
        let answered = answer(&daemon.requests, outcome).or_else(|error| {
            let error = Error::death_of_main(format!("it cannot answer: {error}"));
            answer(&daemon.requests, Err(error))
        });
        match answered {
            Ok(Then::Waits) => super::set_name(c"myshim:waits"),
            Ok(Then::Ends) => process::exit(0),
            // Who does not hear the answer sees the end of the stream without one.
            Err(_) => process::exit(1),
        }
    }
}

fn answer(daemon: &Channel, outcome: Result<Outcome>) -> Result<Then> {
    let phases = phases::take();
    let mut recorded = None;
    let (end, fds, then) = match outcome {
        Ok(Outcome::Done(warnings, then)) => (End::Done { warnings, then }, Vec::new(), then),
        Ok(Outcome::Created { facts, waiting, unfinished }) => {
            recorded = unfinished;
            let Waiting { channel, console, who, oom_kills_before } = waiting;
            let fds = [Some(channel.socket()), console].into_iter().flatten().collect();
            (End::Created { facts, who: who.into(), oom_kills_before }, fds, Then::Ends)
        }
        Err(error) => (End::Failed(error), Vec::new(), Then::Ends),
    };
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(OwnedFd::as_fd).collect();
    daemon.send(&Wire { end, phases }, &fds)?;
    recorded.map_or(Ok(()), |dir| dir.forget_net_devices()).map(|()| then)
}

/// A main whose daemon is gone has nobody to answer, and may be waiting for a hook: it is killed,
/// and its hook with it. What it has made so far is found by its state, as after any crash.
fn die_with_daemon() {
    // Fails only for a number that is no signal. A daemon that died before this is noticed by
    // the channel.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .unwrap_or_default();
}

fn serve(main: &Main<'_>, request: Request, fds: Vec<OwnedFd>) -> Result<Outcome> {
    match request {
        Request::Create(request) => create::run(main, &request, fds),
        Request::Exec(request) => exec::run(main, &request, fds),
        Request::Delete(request) => upkeep::delete(main, &request, &fds),
        Request::Update(request) => {
            upkeep::update(main, &request).map(|warnings| Outcome::Done(warnings, Then::Waits))
        }
        Request::Freeze(request) => upkeep::freeze(&request).map(done),
        Request::KillAll(request) => upkeep::kill_all(&request).map(done),
        // Hooks have a directory of their own.
        Request::Poststart(request) => {
            upkeep::poststart(main, &request).map(|()| Outcome::Done(Vec::new(), Then::Ends))
        }
    }
}

fn done((): ()) -> Outcome {
    Outcome::Done(Vec::new(), Then::Waits)
}
