//! A container's states: what is allowed when, and in which order containerd is told.
//!
//! The machine is told of commands and reports, and answers with replies and [`Effect`]s. It
//! waits for nothing and touches nothing, so its owner can always take the next command.
//!
//! What holds:
//! - `Start` is published before any `Exit` of the same process, though the process may end first;
//! - init's `Exit` is the last one published. Its end blocks the start of further execs; where the
//!   kernel does not end the rest (no pid namespace of its own), all are killed; execs that run or
//!   are being started are waited for;
//! - start, pause, resume, update and deletion of init happen one after the other, in the order in
//!   which they were asked for. An exec's start does not overlap with pause or resume: a process
//!   frozen half way through its making would hold up both;
//! - everything else is answered at once.

mod execs;
mod init;

use std::collections::{BTreeMap, VecDeque};

use runtime::{Error, Kind, Result};

use super::exec::{Exec, ExecPhase};
use super::model::{Command, Deleted, Effect, Ended, INIT, Key, Reply, Report};
use crate::io::Stdio;
use crate::reaper::Exit;

pub(super) use init::finished;

const SIGKILL: i32 = 9;

/// A container, from its creation to its deletion. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Machine {
    pid: u32,
    stdio: Stdio,
    phase: Phase,
    busy: Option<Busy>,
    end: Option<End>,
    waiters: Vec<Reply<Ended>>,
    execs: BTreeMap<String, Exec>,
    last_key: u64,
    /// Commands that wait for their turn.
    queue: VecDeque<Command>,
    effects: Vec<Effect>,
    /// The kernel ends all of the container's processes when init ends.
    private_pid_namespace: bool,
}

/// What a machine starts from.
#[derive(Debug, Clone)]
pub(crate) struct Birth {
    /// Init's pid.
    pub(crate) pid: u32,
    /// Init's streams.
    pub(crate) stdio: Stdio,
    /// See [`runtime::process::Facts`].
    pub(crate) private_pid_namespace: bool,
}

/// Where init is in its life. `Stopped` only when its exit has been published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Running,
    Paused,
    Stopped(Exit),
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Created => "created",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Stopped(_) => "stopped",
        }
    }
}

/// What is being done to init, and who waits for it.
#[derive(Debug)]
enum Busy {
    Starting {
        reply: Reply<u32>,
        executed: bool,
    },
    Pausing(Reply<()>),
    Resuming(Reply<()>),
    Updating(Reply<()>),
    /// Its start has failed; its exit comes before the answer.
    Failing(Reply<u32>, Error),
    /// Killed before it was started; its exit comes first.
    Killing(Reply<Deleted>),
    Removing(Reply<Deleted>),
}

/// Init has ended, and its exit is not published yet.
#[derive(Debug, Clone, Copy)]
struct End {
    exit: Exit,
    /// The exit may be handled: it is known whether the start succeeded.
    begun: bool,
    /// Sweeps under way.
    sweeps: u32,
}

impl Machine {
    /// A container whose init waits for start.
    pub(crate) fn new(birth: Birth) -> Machine {
        Machine {
            pid: birth.pid,
            stdio: birth.stdio,
            phase: Phase::Created,
            busy: None,
            end: None,
            waiters: Vec::new(),
            execs: BTreeMap::new(),
            last_key: INIT.0,
            queue: VecDeque::new(),
            effects: Vec::new(),
            private_pid_namespace: birth.private_pid_namespace,
        }
    }

    /// Takes a command; the effects are to be carried out in their order.
    pub(crate) fn command(&mut self, command: Command) -> Vec<Effect> {
        if self.must_wait(&command) {
            self.queue.push_back(command);
        } else {
            self.perform(command);
        }
        std::mem::take(&mut self.effects)
    }

    /// Takes a report; the effects are to be carried out in their order.
    pub(crate) fn report(&mut self, report: Report) -> Vec<Effect> {
        match report {
            Report::Executed => self.executed(),
            Report::Started(result) => self.started(result),
            Report::ExecStarted(key, result) => self.exec_started(key, result),
            Report::Exited(INIT, exit) => self.init_ended(exit),
            Report::Exited(key, exit) => self.exec_ended(key, exit),
            Report::Paused(result) => self.paused(result),
            Report::Resumed(result) => self.resumed(result),
            Report::Updated(result) => self.updated(result),
            Report::Swept => self.swept(),
            Report::Drained(key) => self.exec_drained(key),
            Report::Removed(result) => self.removed(result),
        }
        self.take_turns();
        std::mem::take(&mut self.effects)
    }

    /// Whether a command has to wait for what is being done, or for those that wait already.
    fn must_wait(&self, command: &Command) -> bool {
        match command {
            Command::Start { exec: None, .. }
            | Command::Delete { exec: None, .. }
            | Command::Update { .. } => self.busy.is_some() || !self.queue.is_empty(),
            Command::Pause { .. } | Command::Resume { .. } => {
                self.busy.is_some() || !self.queue.is_empty() || self.is_starting_an_exec()
            }
            Command::Start { exec: Some(_), .. } => {
                self.is_freezing() || self.queue.iter().any(freezes)
            }
            _ => false,
        }
    }

    fn is_freezing(&self) -> bool {
        matches!(self.busy, Some(Busy::Pausing(_) | Busy::Resuming(_)))
    }

    /// Performs what can be performed of the queue. Its first one always can when nothing else is
    /// being done, but a pause waits for execs that are being started.
    fn take_turns(&mut self) {
        while let Some(next) = self.queue.front() {
            let now = match next {
                Command::Start { exec: Some(_), .. } => !self.is_freezing(),
                next if freezes(next) => self.busy.is_none() && !self.is_starting_an_exec(),
                _ => self.busy.is_none(),
            };
            if !now {
                return;
            }
            if let Some(command) = self.queue.pop_front() {
                self.perform(command);
            }
        }
    }

    fn is_starting_an_exec(&self) -> bool {
        self.execs.values().any(|exec| exec.phase == ExecPhase::Starting)
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Start { exec: None, reply } => self.start(reply),
            Command::Start { exec: Some(id), reply } => self.start_exec(&id, reply),
            Command::Exec { exec, reply } => {
                let added = self.add_exec(exec);
                reply.send(added);
            }
            Command::Delete { exec: None, reply } => self.delete(reply),
            Command::Delete { exec: Some(id), reply } => self.delete_exec(&id, reply),
            Command::State { exec, reply } => reply.send(self.snapshot(exec.as_deref())),
            Command::ExecPids { reply } => reply.send(Ok(self.exec_pids())),
            Command::Pause { reply } => self.pause(reply),
            Command::Resume { reply } => self.resume(reply),
            Command::Kill { exec: None, signal, whom, reply } => self.kill(signal, whom, reply),
            Command::Kill { exec: Some(id), signal, reply, .. } => {
                self.kill_exec(&id, signal, reply);
            }
            Command::Resize { exec, columns, rows, reply } => match self.key(exec.as_deref()) {
                Ok(key) => self.effects.push(Effect::Resize { key, columns, rows, reply }),
                Err(error) => reply.fail(error),
            },
            Command::CloseIo { exec, reply } => {
                let closed = self.close_io(exec.as_deref());
                reply.send(closed);
            }
            Command::Update { resources, reply } => self.update(resources, reply),
            Command::Wait { exec, reply } => self.wait(exec.as_deref(), reply),
        }
    }

    fn exec(&mut self, id: &str) -> Result<&mut Exec> {
        self.execs.get_mut(id).ok_or_else(|| unknown(id))
    }

    fn exec_by_key(&mut self, key: Key) -> Option<(&String, &mut Exec)> {
        self.execs.iter_mut().find(|(_, exec)| exec.key == key)
    }

    fn key(&self, exec: Option<&str>) -> Result<Key> {
        match exec {
            None => Ok(INIT),
            Some(id) => self.execs.get(id).map(|exec| exec.key).ok_or_else(|| unknown(id)),
        }
    }
}

fn freezes(command: &Command) -> bool {
    matches!(command, Command::Pause { .. } | Command::Resume { .. })
}

pub(super) fn unknown(id: &str) -> Error {
    Error::new(Kind::NotFound(format!("process does not exist {id}")))
}

pub(super) fn not_now(why: impl Into<String>) -> Error {
    Error::new(Kind::State(why.into()))
}
