//! The daemon's side of an operation and of a process that waits for start. Nothing here waits.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::channel::{Channel, Received};
use super::death::Death;
use super::{Answer, Child, Created, Facts, Request};
use crate::cgroup::{OomCounts, OomKills};
use crate::error::{Error, Kind, Result};

/// What main sends to the daemon as the answer to its request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wire {
    /// First: tests of deaths know a message by its first word.
    pub(super) end: End,
    pub(super) phases: String,
}

/// How an operation ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum End {
    /// Fds: the channel to the process that waits for start, then its console when it has one.
    Created { facts: Facts, who: String, oom_kills_before: OomCounts },
    /// Done; what went wrong and does not matter to the outcome; what main does next.
    Done { warnings: Vec<String>, then: Then },
    /// Failed; nothing is left.
    Failed(Error),
}

/// What main tells while it works.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum News {
    /// It has made a process. Fd: its pidfd.
    Forked { pid: i32, role: Role },
    /// It is about to lower memory.high for a while, which was this.
    Throttles { memory_high: String },
}

/// What main does when it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Then {
    /// It is as it was before, and waits for another request.
    Waits,
    /// It has changed itself, and ends.
    Ends,
}

/// Which process of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Intermediate,
    /// The container's init or a tenant: the process that the operation is about.
    Target,
}

/// The two channels between the daemon and a main, either end.
#[derive(Debug)]
pub(super) struct Link {
    /// Requests, and one answer to each.
    pub(super) requests: Channel,
    /// [`News`]: what main has made, at once. It has a channel of its own because the daemon
    /// looks there only when the operation ends, and is not to be woken up before.
    pub(super) news: Channel,
}

/// A main that waits for a request: forked ahead of it, so that no operation waits for a fork.
/// It ends when this is dropped.
#[derive(Debug)]
pub struct WaitingMain(pub(super) Link);

impl WaitingMain {
    /// Hands it an operation. Does not wait for it.
    ///
    /// # Errors
    /// sendmsg(2); EPIPE: it has died while it waited, and another one may do.
    pub fn submit(self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Operation> {
        self.0.requests.send(request, fds)?;
        let (queue, phases) = (VecDeque::new(), String::new());
        Ok(Operation { link: self.0, queue, then: Then::Ends, phases, memory_high: None })
    }
}

/// An operation under way: polls readable when [`Operation::try_next`] has something.
#[derive(Debug)]
pub struct Operation {
    link: Link,
    /// What is still to be handed out.
    queue: VecDeque<Answer>,
    then: Then,
    phases: String,
    memory_high: Option<String>,
}

impl Operation {
    /// The next answer, or None when there is none yet. Every [`Child`] that the operation forked
    /// comes out exactly once, before the answer or in it, and must be reaped by the caller: a
    /// status stays readable for main, which is no parent of theirs and finds it in /proc, until
    /// it is known how the operation ended.
    ///
    /// # Errors
    /// recvmsg(2), or a message that does not parse.
    pub fn try_next(&mut self) -> Result<Option<Answer>> {
        if let Some(answer) = self.queue.pop_front() {
            return Ok(Some(answer));
        }
        let (Wire { end, phases }, fds) = match self.link.requests.try_receive()? {
            Received::Nothing => return Ok(None),
            Received::End => return self.ended(Answer::End).map(|()| self.queue.pop_front()),
            Received::Message(wire, fds) => (wire, fds),
        };
        self.phases = phases;
        match end {
            End::Done { warnings, then } => {
                self.then = then;
                self.ended(Answer::Done { warnings })?;
            }
            End::Failed(error) => self.ended(Answer::Failed(error))?,
            End::Created { facts, who, oom_kills_before } => {
                let oom_kills = OomKills::since(&facts.cgroup, oom_kills_before);
                let death = Death { who, step: Step::Start.name(), oom_kills };
                self.created(facts, death, fds)?;
            }
        }
        Ok(self.queue.pop_front())
    }

    /// What was done for how long, in µs, once there is an answer: see [`crate::sys::phases::take`].
    pub fn phases(&self) -> &str {
        &self.phases
    }

    /// What memory.high of the container's cgroup was before main lowered it: of a main that has
    /// died, to be restored.
    pub fn memory_high(&self) -> Option<&str> {
        self.memory_high.as_deref()
    }

    /// Main, when it has answered and waits for another request.
    pub fn into_waiting(self) -> Option<WaitingMain> {
        (self.then == Then::Waits).then_some(WaitingMain(self.link))
    }

    /// What main has made and not been asked for yet.
    fn made(&mut self) -> Result<Vec<(Role, Child)>> {
        let mut made = Vec::new();
        loop {
            match self.link.news.try_receive()? {
                Received::Message(News::Forked { pid, role }, fds) => {
                    let pidfd = fds.into_iter().next().ok_or_else(|| missing("pidfd"))?;
                    made.push((role, Child { pid, pidfd }));
                }
                Received::Message(News::Throttles { memory_high }, _) => {
                    self.memory_high = Some(memory_high);
                }
                Received::Nothing | Received::End => return Ok(made),
            }
        }
    }

    /// `answer` ends the operation: what it has made is dead, or about to be.
    fn ended(&mut self, answer: Answer) -> Result<()> {
        let made = self.made()?;
        self.end(made, answer);
        Ok(())
    }

    fn end(&mut self, made: Vec<(Role, Child)>, answer: Answer) {
        let children = made.into_iter().map(|(_, child)| Answer::Forked(child));
        self.queue.extend(children.chain([answer]));
    }

    fn created(&mut self, facts: Facts, death: Death, fds: Vec<OwnedFd>) -> Result<()> {
        let mut made = self.made()?;
        let target = made.pop().filter(|(role, _)| *role == Role::Target);
        let (_, process) = target.ok_or_else(|| missing("process"))?;
        let mut fds = fds.into_iter();
        let start = fds.next().ok_or_else(|| missing("start channel"))?;
        let start = StartChannel {
            channel: Channel::from_fd(start),
            step: Step::Start,
            death: Some(death),
        };
        let created = Created { process, start, console: fds.next(), facts };
        self.end(made, Answer::Created(created));
        Ok(())
    }
}

impl AsFd for Operation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.requests.as_fd()
    }
}

fn missing(what: &str) -> Error {
    Error::new(Kind::Corrupt(format!("main's answer came without its {what}")))
}

/// What the daemon tells a process that waits for start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToTarget {
    /// Execute the user's program.
    Start,
}

/// What a process that was started tells the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromStarted {
    /// The next thing is the startContainer hooks.
    Hooks,
    /// The next thing is the execve: the end of the stream after this means that it succeeded.
    Executing,
    /// It could not be executed.
    Failed(Error),
}

/// How far a process has come that was told to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Start,
    Hooks,
    Executing,
}

impl Step {
    /// As errors have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Step::Start => "start",
            Step::Hooks => "startContainer hooks",
            Step::Executing => "execve",
        }
    }
}

/// The daemon's end of the channel to a process that waits for start: polls readable when
/// [`StartChannel::try_outcome`] has something. Dropping it ends a process that still waits.
#[derive(Debug)]
pub struct StartChannel {
    channel: Channel,
    step: Step,
    /// What is told of its death, which comes once.
    death: Option<Death>,
}

/// How a start went.
#[derive(Debug)]
pub enum StartOutcome {
    /// The user's program runs (or has ended already).
    Executed,
    /// It does not, and the process has ended, or is about to.
    Failed(Error),
    /// The process died before it executed anything.
    Died(Death),
}

impl StartChannel {
    /// Lets the process execute the user's program.
    ///
    /// # Errors
    /// sendmsg(2); EPIPE: the process is gone.
    pub fn start(&self) -> Result<()> {
        self.channel.send(&ToTarget::Start, &[])
    }

    /// How the start went, or None when that is not known yet.
    ///
    /// # Errors
    /// recvmsg(2), or a message that does not parse.
    pub fn try_outcome(&mut self) -> Result<Option<StartOutcome>> {
        loop {
            return match self.channel.try_receive::<FromStarted>()? {
                Received::Nothing => Ok(None),
                Received::Message(FromStarted::Hooks, _) => {
                    self.step = Step::Hooks;
                    continue;
                }
                Received::Message(FromStarted::Executing, _) => {
                    self.step = Step::Executing;
                    continue;
                }
                Received::Message(FromStarted::Failed(error), _) => {
                    Ok(Some(StartOutcome::Failed(error)))
                }
                Received::End if self.step == Step::Executing => Ok(Some(StartOutcome::Executed)),
                Received::End => Ok(self
                    .death
                    .take()
                    .map(|death| StartOutcome::Died(Death { step: self.step.name(), ..death }))),
            };
        }
    }
}

impl AsFd for StartChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
