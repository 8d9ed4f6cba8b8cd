//! The execs' lives.

use std::sync::Arc;

use runtime::{Error, Kind, Result};

use super::super::exec::{Exec, ExecPhase};
use super::super::model::{Deleted, Effect, Event, Key, NewExec, Reply, Sweep};
use super::init::finished;
use super::{Machine, Phase, SIGKILL, not_now};
use crate::reaper::Exit;

impl Machine {
    pub(super) fn add_exec(&mut self, new: NewExec) -> Result<()> {
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

    pub(super) fn start_exec(&mut self, id: &str, reply: Reply<u32>) {
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

    pub(super) fn exec_started(&mut self, key: Key, result: Result<u32>) {
        let Some((id, exec)) = self.exec_by_key(key) else { return };
        let id = id.clone();
        match result {
            Ok(pid) => {
                let reply = exec.started(pid);
                let stdin_closed = exec.stdin_closed;
                if stdin_closed {
                    self.effects.push(Effect::CloseStdin(key));
                }
                self.effects.push(Effect::Feed(key));
                self.effects.push(Effect::Publish(Event::ExecStarted { exec: id, pid }));
                if let Some(reply) = reply {
                    reply.send(Ok(pid));
                }
                if self.end.is_some() {
                    // It came too late for what ended the others.
                    self.effects.push(Effect::Signal { key, signal: SIGKILL, reply: None });
                    self.sweep(Sweep { thaw: false, kill: !self.private_pid_namespace });
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

    pub(super) fn exec_ended(&mut self, key: Key, exit: Exit) {
        let Some((id, exec)) = self.exec_by_key(key) else { return };
        let id = id.clone();
        let Some(pid) = exec.pid else { return };
        exec.stopped(exit);
        self.effects.push(Effect::Release(key));
        self.effects.push(Effect::Publish(Event::Exit { exec: Some(id), pid, exit }));
        self.finish_end();
    }

    pub(super) fn kill_exec(&mut self, id: &str, signal: i32, reply: Reply<()>) {
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

    pub(super) fn delete_exec(&mut self, id: &str, reply: Reply<Deleted>) {
        let exec = match self.exec(id) {
            Ok(exec) => exec,
            Err(error) => return reply.fail(error),
        };
        match exec.begin_delete(reply) {
            Ok(effect) => self.effects.push(effect),
            Err((reply, error)) => reply.fail(error),
        }
    }

    pub(super) fn exec_drained(&mut self, key: Key) {
        let Some(id) = self.exec_by_key(key).map(|(id, _)| id.clone()) else { return };
        if let Some(exec) = self.execs.remove(&id) {
            exec.deleted();
        }
    }

    pub(super) fn exec_pids(&self) -> Vec<(u32, String)> {
        let alive = self.execs.iter().filter(|(_, exec)| exec.phase == ExecPhase::Running);
        alive.filter_map(|(id, exec)| Some((exec.pid?, id.clone()))).collect()
    }
}
