//! The process chain from a program that has nothing else to do: every wait blocks.
//!
//! This program plays the daemon for as long as it lives. What it leaves behind is handed to the
//! nearest subreaper, or to pid 1, by the kernel.

use std::os::fd::{AsFd, BorrowedFd};

use runtime::process::{
    Answer, Child, Created, DeleteRequest, Request, Spawner, StartChannel, StartOutcome,
    UpdateRequest,
};
use runtime::sys::process::SingleThreaded;
use runtime::{Call, Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

/// `__WALL` of linux/wait.h: before their execve processes of the chain have no exit signal.
const WALL: WaitIdOptions = WaitIdOptions::from_bits_retain(0x4000_0000);

/// Runs a request that only has to be done.
pub(crate) fn run(request: &Request) -> Result<()> {
    match answer(request, &[])? {
        Answer::Done { warnings } => {
            warnings.iter().for_each(|warning| eprintln!("oci: {warning}"));
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

/// Makes a process that waits for start; see [`Request`] for `fds`.
pub(crate) fn make(request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Created> {
    match answer(request, fds)? {
        Answer::Created(created) => Ok(created),
        other => Err(unexpected(&other)),
    }
}

fn answer(request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
    let single = SingleThreaded::verify()
        .ok_or_else(|| Error::new(Kind::State("there is more than one thread".into())))?;
    let (spawner, child) = Spawner::fork(&single, None, None)?;
    let (mut operation, main) = spawner.submit(request, fds)?;
    // It ends now, and main with the operation.
    drop(spawner);
    let mut forked = vec![child];
    let answer = loop {
        match operation.try_next()? {
            None => wait_readable(operation.as_fd())?,
            Some(Answer::Forked(child)) => forked.push(child),
            Some(answer) => break answer,
        }
    };
    let memory_high = operation.memory_high().map(str::to_owned);
    drop(operation);
    let ended = reap(&main)?;
    let died = match &answer {
        Answer::End => true,
        Answer::Failed(error) => error.is_death_of_main(),
        _ => false,
    };
    if died {
        undo(request, &forked, memory_high.as_deref())?;
    }
    forked.iter().try_for_each(|child| reap(child).map(drop))?;
    match answer {
        Answer::Failed(error) => Err(error),
        Answer::End => {
            let how = ended.map_or_else(|| "not waited for".into(), |status| format!("{status:?}"));
            Err(Error::death_of_main(how))
        }
        answer => Ok(answer),
    }
}

/// What a main has made that died may wait for whoever starts it, and what it has changed for a
/// while is to be as before.
fn undo(request: &Request, forked: &[Child], memory_high: Option<&str>) -> Result<()> {
    match (request, memory_high) {
        (Request::Create(create), _) => {
            let delete = Request::Delete(DeleteRequest { state_dir: create.state_dir.clone() });
            let pidfds: Vec<_> = forked.iter().map(|child| child.pidfd.as_fd()).collect();
            answer(&delete, &pidfds)?;
        }
        (Request::Update(update), Some(high)) => {
            let restore = UpdateRequest::restoring(update.state_dir.clone(), high);
            answer(&Request::Update(restore), &[])?;
        }
        _ => {}
    }
    forked.iter().try_for_each(kill)
}

fn kill(child: &Child) -> Result<()> {
    match pidfd_send_signal(&child.pidfd, Signal::KILL) {
        Err(Errno::SRCH) => Ok(()),
        other => other.call(|| format!("pidfd_send_signal([{}], SIGKILL)", child.pid)),
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::new(Kind::Corrupt(format!("main answered with what was not asked for: {answer:?}")))
}

/// Lets a process that was made here execute its program, and waits until it does.
pub(crate) fn start(process: &Child, mut start: StartChannel) -> Result<()> {
    let sent = start.start();
    let outcome = loop {
        match start.try_outcome()? {
            Some(outcome) => break outcome,
            None => wait_readable(start.as_fd())?,
        }
    };
    // Of a process that is gone, its last words tell more than that they could not be sent to.
    match outcome {
        StartOutcome::Executed => sent,
        StartOutcome::Failed(error) => Err(error),
        StartOutcome::Died(death) => Err(death.explain(reap(process)?.as_ref().map(wait_form))),
    }
}

/// A status in the form of wait(2).
fn wait_form(status: &WaitIdStatus) -> i32 {
    status.terminating_signal().unwrap_or_else(|| status.exit_status().unwrap_or_default() << 8)
}

/// Waits for the end of a child.
pub(crate) fn reap(child: &Child) -> Result<Option<WaitIdStatus>> {
    let wait = || waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED | WALL);
    rustix::io::retry_on_intr(wait).call(|| format!("waitid([{}], WEXITED|__WALL)", child.pid))
}

fn wait_readable(fd: BorrowedFd<'_>) -> Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, None)).call(|| "poll(channel)".into()).map(drop)
}
