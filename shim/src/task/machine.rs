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

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use runtime::{Error, Kind, Result};

use super::exec::{Exec, ExecPhase};
use super::model::{
    Command, Deleted, Effect, Ended, Event, INIT, Key, NewExec, Reply, Report, Snapshot, Status,
    Whom,
};
use crate::io::Stdio;
use crate::reaper::Exit;

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

/// Init's life.
impl Machine {
    fn start(&mut self, reply: Reply<u32>) {
        if self.phase != Phase::Created {
            return reply.fail(not_now(format!("cannot start a {} process", self.phase.name())));
        }
        if self.end.is_some() {
            return reply.fail(not_now("cannot start a stopped process"));
        }
        self.busy = Some(Busy::Starting { reply, executed: false });
        self.effects.push(Effect::StartInit);
    }

    fn executed(&mut self) {
        if let Some(Busy::Starting { executed, .. }) = &mut self.busy {
            *executed = true;
        }
        self.phase = Phase::Running;
        self.effects.push(Effect::Publish(Event::Start { pid: self.pid }));
        self.begin_end();
    }

    fn started(&mut self, result: Result<()>) {
        let Some(Busy::Starting { reply, executed }) = self.busy.take() else { return };
        if result.is_err() && executed {
            // A poststart hook failed: the container is stopped (runtime.md, lifecycle 9).
            self.effects.push(Effect::Signal { key: INIT, signal: SIGKILL, reply: None });
        }
        reply.send(result.map(|()| self.pid));
        self.begin_end();
    }

    fn init_ended(&mut self, exit: Exit) {
        self.end = Some(End { exit, begun: false, sweeps: 0 });
        self.begin_end();
    }

    /// Handles init's exit, unless it is not known yet whether its program was executed.
    fn begin_end(&mut self) {
        if matches!(self.busy, Some(Busy::Starting { executed: false, .. })) {
            return;
        }
        let thaw = self.phase == Phase::Paused || self.is_freezing();
        let kill = !self.private_pid_namespace;
        if let Some(end) = &mut self.end
            && !end.begun
        {
            end.begun = true;
            self.sweep(thaw, kill);
            self.finish_end();
        }
    }

    fn sweep(&mut self, thaw: bool, kill: bool) {
        if let Some(end) = &mut self.end
            && (thaw || kill)
        {
            end.sweeps += 1;
            self.effects.push(Effect::Sweep { thaw, kill });
        }
    }

    fn swept(&mut self) {
        if let Some(end) = &mut self.end {
            end.sweeps -= 1;
        }
        self.finish_end();
    }

    /// Publishes init's exit when it is the last one.
    fn finish_end(&mut self) {
        let Some(End { exit, begun: true, sweeps: 0 }) = self.end else { return };
        if self.is_freezing() || self.execs.values().any(Exec::is_alive) {
            return;
        }
        self.end = None;
        self.phase = Phase::Stopped(exit);
        self.effects.push(Effect::Persist(exit));
        self.effects.push(Effect::Release(INIT));
        self.effects.push(Effect::Publish(Event::Exit { exec: None, pid: self.pid, exit }));
        for waiter in self.waiters.drain(..) {
            waiter.send(Ok(Ended { status: exit.status, at: Some(exit.at) }));
        }
        if matches!(self.busy, Some(Busy::Killing(_)))
            && let Some(Busy::Killing(reply)) = self.busy.take()
        {
            self.remove(reply);
        }
    }

    fn delete(&mut self, reply: Reply<Deleted>) {
        match self.phase {
            Phase::Stopped(_) => self.remove(reply),
            Phase::Created => {
                // As runc does: what has not been started is nobody's work.
                self.busy = Some(Busy::Killing(reply));
                self.effects.push(Effect::Signal { key: INIT, signal: SIGKILL, reply: None });
            }
            phase @ (Phase::Running | Phase::Paused) => {
                reply.fail(not_now(format!("cannot delete a {} process", phase.name())));
            }
        }
    }

    fn remove(&mut self, reply: Reply<Deleted>) {
        self.busy = Some(Busy::Removing(reply));
        self.effects.push(Effect::Remove);
    }

    fn removed(&mut self, result: Result<()>) {
        let Some(Busy::Removing(reply)) = self.busy.take() else { return };
        let Phase::Stopped(exit) = self.phase else { return };
        if let Err(error) = result {
            return reply.fail(error.at("failed to delete task"));
        }
        // First: whoever gets the reply finds the id free.
        self.effects.push(Effect::Leave);
        self.effects.push(Effect::Publish(Event::Delete { pid: self.pid, exit }));
        reply.send(Ok(Deleted { pid: Some(self.pid), exit: Some(exit) }));
    }

    fn pause(&mut self, reply: Reply<()>) {
        match self.phase {
            _ if self.end.is_some() => reply.fail(not_now("cannot pause a stopped container")),
            Phase::Running => {
                self.busy = Some(Busy::Pausing(reply));
                self.effects.push(Effect::Pause);
            }
            Phase::Created => reply.fail(not_now("cannot pause task in created state")),
            phase @ (Phase::Paused | Phase::Stopped(_)) => {
                reply.fail(not_now(format!("cannot pause a {} container", phase.name())));
            }
        }
    }

    fn paused(&mut self, result: Result<()>) {
        let Some(Busy::Pausing(reply)) = self.busy.take() else { return };
        match result {
            // It has ended meanwhile; what is left of it must not stay frozen.
            Ok(()) if self.end.is_some() => {
                reply.fail(not_now("cannot pause a stopped container"));
                self.sweep(true, !self.private_pid_namespace);
            }
            Ok(()) => {
                self.phase = Phase::Paused;
                self.effects.push(Effect::Publish(Event::Paused));
                reply.send(Ok(()));
            }
            Err(error) => reply.fail(error.at("OCI runtime pause failed")),
        }
        self.finish_end();
    }

    fn resume(&mut self, reply: Reply<()>) {
        match self.phase {
            _ if self.end.is_some() => reply.fail(not_now("cannot resume a stopped container")),
            Phase::Paused => {
                self.busy = Some(Busy::Resuming(reply));
                self.effects.push(Effect::Resume);
            }
            Phase::Created => reply.fail(not_now("cannot resume task in created state")),
            Phase::Running => reply.fail(not_now("cannot resume a running process")),
            Phase::Stopped(_) => reply.fail(not_now("cannot resume a stopped container")),
        }
    }

    fn resumed(&mut self, result: Result<()>) {
        let Some(Busy::Resuming(reply)) = self.busy.take() else { return };
        match result {
            Ok(()) => {
                self.phase = Phase::Running;
                self.effects.push(Effect::Publish(Event::Resumed));
                reply.send(Ok(()));
            }
            Err(error) => reply.fail(error.at("OCI runtime resume failed")),
        }
        self.finish_end();
    }

    fn update(&mut self, resources: String, reply: Reply<()>) {
        if matches!(self.phase, Phase::Stopped(_)) || self.end.is_some() {
            return reply.fail(not_now("cannot update a stopped container"));
        }
        self.busy = Some(Busy::Updating(reply));
        self.effects.push(Effect::Update(resources));
    }

    fn updated(&mut self, result: Result<()>) {
        if let Some(Busy::Updating(reply)) = self.busy.take() {
            reply.send(result);
        }
    }

    fn kill(&mut self, signal: i32, whom: Whom, reply: Reply<()>) {
        let ended = matches!(self.phase, Phase::Stopped(_)) || self.end.is_some();
        match whom {
            // Without a pid namespace of its own, processes may be left when init is gone.
            Whom::All if !ended || !self.private_pid_namespace => {
                self.effects.push(Effect::KillAll { signal, reply });
            }
            Whom::One | Whom::All if ended => return reply.fail(finished()),
            Whom::One | Whom::All => {
                self.effects.push(Effect::Signal { key: INIT, signal, reply: Some(reply) });
            }
        }
        if signal == SIGKILL && (self.phase == Phase::Paused || self.is_freezing()) {
            self.effects.push(Effect::ThawForKill);
        }
    }

    fn wait(&mut self, exec: Option<&str>, reply: Reply<Ended>) {
        let (ended, waiters) = match exec {
            None => {
                let ended = match self.phase {
                    Phase::Stopped(exit) => Some(Ended { status: exit.status, at: Some(exit.at) }),
                    _ => None,
                };
                (ended, &mut self.waiters)
            }
            Some(id) => match self.execs.get_mut(id) {
                Some(exec) => (exec.ended(), &mut exec.waiters),
                None => return reply.fail(unknown(id)),
            },
        };
        if let Some(ended) = ended {
            return reply.send(Ok(ended));
        }
        waiters.retain(|waiter| !waiter.is_abandoned());
        waiters.push(reply);
    }

    fn snapshot(&self, exec: Option<&str>) -> Result<Snapshot> {
        let pausing = matches!(self.busy, Some(Busy::Pausing(_)));
        let (status, exit) = match self.phase {
            Phase::Running if pausing => (Status::Pausing, None),
            Phase::Created => (Status::Created, None),
            Phase::Running => (Status::Running, None),
            Phase::Paused => (Status::Paused, None),
            Phase::Stopped(exit) => (Status::Stopped, Some(exit)),
        };
        let Some(id) = exec else {
            return Ok(Snapshot { pid: Some(self.pid), status, exit, stdio: self.stdio.clone() });
        };
        let exec = self.execs.get(id).ok_or_else(|| unknown(id))?;
        let mut snapshot = exec.snapshot();
        // What is frozen is frozen as a whole.
        if matches!(status, Status::Paused | Status::Pausing) {
            snapshot.status = status;
        }
        Ok(snapshot)
    }

    fn close_io(&mut self, exec: Option<&str>) -> Result<()> {
        let key = match exec {
            None => INIT,
            Some(id) => {
                let exec = self.exec(id)?;
                exec.stdin_closed = true;
                exec.key
            }
        };
        self.effects.push(Effect::CloseStdin(key));
        Ok(())
    }
}

pub(super) fn finished() -> Error {
    Error::new(Kind::NotFound("process already finished".into()))
}

/// The execs' lives.
impl Machine {
    fn add_exec(&mut self, new: NewExec) -> Result<()> {
        if new.id.is_empty() {
            return Err(Error::argument("exec_id", "must not be empty"));
        }
        if self.execs.contains_key(&new.id) {
            return Err(Error::new(Kind::AlreadyExists(format!("id {}", new.id))));
        }
        match self.phase {
            _ if self.end.is_some() => return Err(not_now("cannot exec in a stopped state")),
            Phase::Paused | Phase::Stopped(_) => {
                return Err(not_now(format!("cannot exec in a {} state", self.phase.name())));
            }
            Phase::Created | Phase::Running => {}
        }
        self.last_key += 1;
        let id = new.id.clone();
        self.execs.insert(id.clone(), Exec::new(Key(self.last_key), Arc::new(new)));
        self.effects.push(Effect::Publish(Event::ExecAdded { exec: id }));
        Ok(())
    }

    fn start_exec(&mut self, id: &str, reply: Reply<u32>) {
        let blocked = if self.end.is_some() || matches!(self.phase, Phase::Stopped(_)) {
            Some("container's init process is not running")
        } else if self.phase == Phase::Paused {
            Some("cannot start an exec in a paused container")
        } else {
            None
        };
        let exec = match self.exec(id) {
            Ok(exec) => exec,
            Err(error) => return reply.fail(error),
        };
        if let Some(why) = blocked {
            return reply.fail(not_now(why));
        }
        match exec.begin_start(reply) {
            Ok(effect) => self.effects.push(effect),
            Err((reply, error)) => reply.fail(error),
        }
    }

    fn exec_started(&mut self, key: Key, result: Result<u32>) {
        let Some((id, exec)) = self.exec_by_key(key) else { return };
        let id = id.clone();
        match result {
            Ok(pid) => {
                let reply = exec.started(pid);
                let stdin_closed = exec.stdin_closed;
                self.effects.push(Effect::Publish(Event::ExecStarted { exec: id, pid }));
                if stdin_closed {
                    self.effects.push(Effect::CloseStdin(key));
                }
                if let Some(reply) = reply {
                    reply.send(Ok(pid));
                }
                if self.end.is_some() {
                    // It came too late for what ended the others.
                    self.effects.push(Effect::Signal { key, signal: SIGKILL, reply: None });
                    self.sweep(false, !self.private_pid_namespace);
                }
            }
            Err(error) => {
                if let Some(reply) = exec.start_failed() {
                    reply.fail(error.at("OCI runtime exec failed"));
                }
                self.finish_end();
            }
        }
    }

    fn exec_ended(&mut self, key: Key, exit: Exit) {
        let Some((id, exec)) = self.exec_by_key(key) else { return };
        let id = id.clone();
        let Some(pid) = exec.pid else { return };
        exec.stopped(exit);
        self.effects.push(Effect::Release(key));
        self.effects.push(Effect::Publish(Event::Exit { exec: Some(id), pid, exit }));
        self.finish_end();
    }

    fn kill_exec(&mut self, id: &str, signal: i32, reply: Reply<()>) {
        let (key, phase) = match self.exec(id) {
            Ok(exec) => (exec.key, exec.phase),
            Err(error) => return reply.fail(error),
        };
        match phase {
            ExecPhase::Created | ExecPhase::Starting => reply.fail(not_now("process not created")),
            ExecPhase::Stopped(_) | ExecPhase::Deleting => reply.fail(finished()),
            ExecPhase::Running => {
                self.effects.push(Effect::Signal { key, signal, reply: Some(reply) });
                if signal == SIGKILL && (self.phase == Phase::Paused || self.is_freezing()) {
                    self.effects.push(Effect::ThawForKill);
                }
            }
        }
    }

    fn delete_exec(&mut self, id: &str, reply: Reply<Deleted>) {
        let exec = match self.exec(id) {
            Ok(exec) => exec,
            Err(error) => return reply.fail(error),
        };
        match exec.begin_delete(reply) {
            Ok(effect) => self.effects.push(effect),
            Err((reply, error)) => reply.fail(error),
        }
    }

    fn exec_drained(&mut self, key: Key) {
        let Some(id) = self.exec_by_key(key).map(|(id, _)| id.clone()) else { return };
        if let Some(exec) = self.execs.remove(&id) {
            exec.deleted();
        }
    }

    fn exec_pids(&self) -> Vec<(u32, String)> {
        let alive = self.execs.iter().filter(|(_, exec)| exec.phase == ExecPhase::Running);
        alive.filter_map(|(id, exec)| Some((exec.pid?, id.clone()))).collect()
    }
}
