//! One exec's states.

use std::sync::Arc;

use runtime::Error;

use super::machine::{not_now, unknown};
use super::model::{Deleted, Effect, Ended, Key, NewExec, Reply, Snapshot, Status};
use crate::reaper::Exit;

/// What containerd's client takes for a status that nobody knows.
const UNKNOWN_STATUS: u32 = 255;

/// A process beside init.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) key: Key,
    pub(super) phase: ExecPhase,
    pub(super) waiters: Vec<Reply<Ended>>,
    /// Its pid, once it was started.
    pub(super) pid: Option<u32>,
    /// CloseIO was asked for; it may come before the start.
    pub(super) stdin_closed: bool,
    new: Arc<NewExec>,
    /// A start was tried and failed. It may be tried again, but waits for it are over.
    failed: bool,
    exit: Option<Exit>,
    starting: Option<Reply<u32>>,
    deleting: Option<Reply<Deleted>>,
}

/// Where an exec is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecPhase {
    Created,
    Starting,
    Running,
    Stopped(Exit),
    Deleting,
}

/// A reply that is still owed, and what it is to be.
type Refusal<T> = (Reply<T>, Error);

impl Exec {
    pub(super) fn new(key: Key, new: Arc<NewExec>) -> Exec {
        Exec {
            key,
            phase: ExecPhase::Created,
            waiters: Vec::new(),
            pid: None,
            stdin_closed: false,
            new,
            failed: false,
            exit: None,
            starting: None,
            deleting: None,
        }
    }

    /// It has a process, or is about to have one.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.phase, ExecPhase::Starting | ExecPhase::Running)
    }

    pub(super) fn begin_start(&mut self, reply: Reply<u32>) -> Result<Effect, Refusal<u32>> {
        let what = match self.phase {
            ExecPhase::Created => {
                self.phase = ExecPhase::Starting;
                self.starting = Some(reply);
                return Ok(Effect::StartExec(self.key, Arc::clone(&self.new)));
            }
            ExecPhase::Starting | ExecPhase::Running => "running",
            ExecPhase::Stopped(_) => "stopped",
            ExecPhase::Deleting => "deleted",
        };
        Err((reply, not_now(format!("cannot start a {what} process"))))
    }

    pub(super) fn started(&mut self, pid: u32) -> Option<Reply<u32>> {
        self.phase = ExecPhase::Running;
        self.pid = Some(pid);
        self.starting.take()
    }

    pub(super) fn start_failed(&mut self) -> Option<Reply<u32>> {
        self.phase = ExecPhase::Created;
        self.failed = true;
        self.tell_waiters();
        self.starting.take()
    }

    pub(super) fn stopped(&mut self, exit: Exit) {
        self.phase = ExecPhase::Stopped(exit);
        self.exit = Some(exit);
        self.tell_waiters();
    }

    /// What a wait is answered, when it is over.
    pub(super) fn ended(&self) -> Option<Ended> {
        match self.exit {
            Some(exit) => Some(Ended { status: exit.status, at: Some(exit.at) }),
            None if self.failed => Some(Ended { status: UNKNOWN_STATUS, at: None }),
            None => None,
        }
    }

    fn tell_waiters(&mut self) {
        if let Some(ended) = self.ended() {
            for waiter in self.waiters.drain(..) {
                waiter.send(Ok(ended));
            }
        }
    }

    pub(super) fn begin_delete(
        &mut self,
        reply: Reply<Deleted>,
    ) -> Result<Effect, Refusal<Deleted>> {
        match self.phase {
            ExecPhase::Created | ExecPhase::Stopped(_) => {
                self.phase = ExecPhase::Deleting;
                self.deleting = Some(reply);
                Ok(Effect::Drain(self.key))
            }
            ExecPhase::Starting | ExecPhase::Running => {
                Err((reply, not_now("cannot delete a running process")))
            }
            ExecPhase::Deleting => Err((reply, unknown(&self.new.id))),
        }
    }

    /// Its id is free again.
    pub(super) fn deleted(mut self) {
        for waiter in self.waiters.drain(..) {
            waiter.fail(unknown(&self.new.id));
        }
        if let Some(reply) = self.deleting.take() {
            reply.send(Ok(Deleted { pid: self.pid, exit: self.exit }));
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let status = match self.phase {
            ExecPhase::Created | ExecPhase::Starting => Status::Created,
            ExecPhase::Running => Status::Running,
            ExecPhase::Deleting if self.exit.is_none() => Status::Created,
            ExecPhase::Stopped(_) | ExecPhase::Deleting => Status::Stopped,
        };
        Snapshot { pid: self.pid, status, exit: self.exit, stdio: self.new.stdio.clone() }
    }
}
