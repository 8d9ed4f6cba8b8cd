//! The daemon's side of an operation and of a process that waits for start. Nothing here waits.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::channel::{Channel, Received};
use super::death::Death;
use super::{Answer, Child, Created, Facts};
use crate::cgroup::OomKills;
use crate::error::{Error, Kind, Result};

/// What main and the spawner send to the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Wire {
    /// A process of the chain exists. Fd: its pidfd.
    Forked { pid: i32, role: Role },
    /// Fds: the channel to the process that waits for start, then its console when it has one.
    Created { facts: Facts, who: String, oom_kills_before: u64 },
    /// Done; what went wrong and does not matter to the outcome.
    Done { warnings: Vec<String> },
    /// Failed; nothing is left.
    Failed(Error),
}

/// Which process of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Main,
    Intermediate,
    /// The container's init or a tenant: the process that the operation is about.
    Target,
}

/// An operation under way: polls readable when [`Operation::try_next`] has something.
#[derive(Debug)]
pub struct Operation {
    channel: Channel,
    /// What main has made, kept until it is known how the operation ended: a status must stay
    /// readable for main, which is no parent of theirs and finds it in /proc.
    made: Vec<(Role, Child)>,
    /// What is still to be handed out.
    queue: VecDeque<Answer>,
}

impl Operation {
    pub(super) fn new(channel: Channel) -> Operation {
        Operation { channel, made: Vec::new(), queue: VecDeque::new() }
    }

    /// The next answer, or None when there is none yet. Every [`Child`] that the operation forked
    /// comes out exactly once, and must be reaped by the caller.
    ///
    /// # Errors
    /// recvmsg(2), or a message that does not parse.
    pub fn try_next(&mut self) -> Result<Option<Answer>> {
        loop {
            if let Some(answer) = self.queue.pop_front() {
                return Ok(Some(answer));
            }
            match self.channel.try_receive::<Wire>()? {
                Received::Nothing => return Ok(None),
                Received::End => self.ended(Answer::End),
                Received::Message(Wire::Done { warnings }, _) => {
                    self.ended(Answer::Done { warnings })
                }
                Received::Message(Wire::Failed(error), _) => self.ended(Answer::Failed(error)),
                Received::Message(Wire::Created { facts, who, oom_kills_before }, fds) => {
                    let oom_kills = OomKills::since(&facts.cgroup, oom_kills_before);
                    let death = Death { who, step: Step::Start.name(), oom_kills };
                    self.created(facts, death, fds)?;
                }
                Received::Message(Wire::Forked { pid, role }, fds) => {
                    let pidfd = fds.into_iter().next().ok_or_else(|| missing("pidfd"))?;
                    self.forked(role, Child { pid, pidfd });
                }
            }
        }
    }

    fn forked(&mut self, role: Role, child: Child) {
        match role {
            Role::Main => self.queue.push_back(Answer::Main(child)),
            Role::Intermediate | Role::Target => self.made.push((role, child)),
        }
    }

    /// `answer` ends the operation: what it has made is dead, or about to be.
    fn ended(&mut self, answer: Answer) {
        let children = self.made.drain(..).map(|(_, child)| Answer::Forked(child));
        self.queue.extend(children.chain([answer]));
    }

    fn created(&mut self, facts: Facts, death: Death, fds: Vec<OwnedFd>) -> Result<()> {
        let target = self.made.pop().filter(|(role, _)| *role == Role::Target);
        let (_, process) = target.ok_or_else(|| missing("process"))?;
        let mut fds = fds.into_iter();
        let start = fds.next().ok_or_else(|| missing("start channel"))?;
        let start = StartChannel {
            channel: Channel::from_fd(start),
            step: Step::Start,
            death: Some(death),
        };
        self.ended(Answer::Created(Created { process, start, console: fds.next(), facts }));
        Ok(())
    }
}

impl AsFd for Operation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
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
