//! Init's life.

use runtime::{Error, Kind, Result};

use super::super::exec::Exec;
use super::super::model::{
    Deleted, Effect, Ended, Event, INIT, Reply, Snapshot, Status, Sweep, Whom,
};
use super::{Busy, End, Machine, Phase, SIGKILL, not_now, unknown};
use crate::reaper::Exit;

impl Machine {
    pub(super) fn start(&mut self, reply: Reply<u32>) {
        if self.phase != Phase::Created {
            return reply.fail(not_now(format!("cannot start a {} process", self.phase.name())));
        }
        if self.end.is_some() {
            return reply.fail(not_now("cannot start a stopped process"));
        }
        self.busy = Some(Busy::Starting { reply, executed: false });
        self.effects.push(Effect::StartInit);
    }

    pub(super) fn executed(&mut self) {
        if let Some(Busy::Starting { executed, .. }) = &mut self.busy {
            *executed = true;
        }
        self.phase = Phase::Running;
        self.effects.push(Effect::Feed(INIT));
        self.effects.push(Effect::Publish(Event::Start { pid: self.pid }));
        self.begin_end();
    }

    pub(super) fn started(&mut self, result: Result<()>) {
        let Some(Busy::Starting { reply, .. }) = self.busy.take() else { return };
        match result {
            Ok(()) => reply.send(Ok(self.pid)),
            Err(error) if matches!(self.phase, Phase::Stopped(_)) => reply.fail(error),
            // The program could not be executed, or a poststart hook failed: the container is
            // stopped (runtime.md, lifecycle 9). The answer waits for that: a client deletes the
            // task at once.
            Err(error) => {
                self.effects.push(Effect::Signal { key: INIT, signal: SIGKILL, reply: None });
                self.busy = Some(Busy::Failing(reply, error));
            }
        }
        self.begin_end();
    }

    pub(super) fn init_ended(&mut self, exit: Exit) {
        self.end = Some(End { exit, begun: false, sweeps: 0 });
        self.begin_end();
    }

    /// Handles init's exit, unless it is not known yet whether its program was executed.
    pub(super) fn begin_end(&mut self) {
        if matches!(self.busy, Some(Busy::Starting { executed: false, .. })) {
            return;
        }
        let thaw = self.phase == Phase::Paused || self.is_freezing();
        let sweep = Sweep { thaw, kill: !self.private_pid_namespace };
        if let Some(end) = &mut self.end
            && !end.begun
        {
            end.begun = true;
            self.sweep(sweep);
            self.finish_end();
        }
    }

    pub(super) fn sweep(&mut self, sweep: Sweep) {
        if let Some(end) = &mut self.end
            && (sweep.thaw || sweep.kill)
        {
            end.sweeps += 1;
            self.effects.push(Effect::Sweep(sweep));
        }
    }

    pub(super) fn swept(&mut self) {
        if let Some(end) = &mut self.end {
            end.sweeps -= 1;
        }
        self.finish_end();
    }

    /// Publishes init's exit when it is the last one.
    pub(super) fn finish_end(&mut self) {
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
        match self.busy.take() {
            Some(Busy::Killing(reply)) => self.remove(reply),
            Some(Busy::Failing(reply, error)) => reply.fail(error),
            busy => self.busy = busy,
        }
    }

    pub(super) fn delete(&mut self, reply: Reply<Deleted>) {
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

    pub(super) fn remove(&mut self, reply: Reply<Deleted>) {
        self.busy = Some(Busy::Removing(reply));
        self.effects.push(Effect::Remove);
    }

    pub(super) fn removed(&mut self, result: Result<()>) {
        let Some(Busy::Removing(reply)) = self.busy.take() else { return };
        let Phase::Stopped(exit) = self.phase else { return };
        if let Err(error) = result {
            return reply.fail(error.at("failed to delete task"));
        }
        // First: whoever gets the reply finds the id free.
        self.effects.push(Effect::Leave);
        if reply.is_abandoned() {
            self.effects.push(Effect::EndWhenEmpty);
        }
        self.effects.push(Effect::Publish(Event::Delete { pid: self.pid, exit }));
        reply.send(Ok(Deleted { pid: Some(self.pid), exit: Some(exit) }));
    }

    pub(super) fn pause(&mut self, reply: Reply<()>) {
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

    pub(super) fn paused(&mut self, result: Result<()>) {
        let Some(Busy::Pausing(reply)) = self.busy.take() else { return };
        match result {
            // It has ended meanwhile; what is left of it must not stay frozen.
            Ok(()) if self.end.is_some() => {
                reply.fail(not_now("cannot pause a stopped container"));
                self.sweep(Sweep { thaw: true, kill: !self.private_pid_namespace });
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

    pub(super) fn resume(&mut self, reply: Reply<()>) {
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

    pub(super) fn resumed(&mut self, result: Result<()>) {
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

    pub(super) fn update(&mut self, resources: String, reply: Reply<()>) {
        if matches!(self.phase, Phase::Stopped(_)) || self.end.is_some() {
            return reply.fail(not_now("cannot update a stopped container"));
        }
        self.busy = Some(Busy::Updating(reply));
        self.effects.push(Effect::Update(resources));
    }

    pub(super) fn updated(&mut self, result: Result<()>) {
        if let Some(Busy::Updating(reply)) = self.busy.take() {
            reply.send(result);
        }
    }

    pub(super) fn kill(&mut self, signal: i32, whom: Whom, reply: Reply<()>) {
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

    pub(super) fn wait(&mut self, exec: Option<&str>, reply: Reply<Ended>) {
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

    pub(super) fn snapshot(&self, exec: Option<&str>) -> Result<Snapshot> {
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

    pub(super) fn close_io(&mut self, exec: Option<&str>) -> Result<()> {
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

pub(in crate::task) fn finished() -> Error {
    Error::new(Kind::NotFound("process already finished".into()))
}
