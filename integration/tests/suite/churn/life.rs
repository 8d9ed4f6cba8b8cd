//! One container from create to delete, with everything on the way that chance wants.

use std::fs;

use containerd_shim_protos::api::{CreateTaskRequest, StateRequest, WaitRequest};
use myshim_integration::shim::{Bundle, Rpc, Stdio3, shell};
use myshim_integration::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use ttrpc::Code;

use super::client::Client;
use super::{unread, vanish};

const KILLED: u32 = 128 + 9;

/// How a process is made to end, and with which status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By itself.
    Exits(u32),
    /// It is told to, and exits.
    Told(u32),
    /// By the shim's Kill.
    Killed,
    /// Behind the shim's back.
    Shot,
    /// While it waits for a reader who never comes.
    KilledWriting,
}

impl End {
    fn script(self) -> String {
        match self {
            End::Exits(code) => format!("exit {code}"),
            // The shell must be told while it waits for something that it can be woken from.
            End::Told(code) => {
                format!("trap 'exit {code}' TERM; while :; do sleep 1000 & wait; done")
            }
            End::Killed | End::Shot => "exec sleep 1000".to_owned(),
            End::KilledWriting => "exec yes".to_owned(),
        }
    }

    fn status(self) -> u32 {
        match self {
            End::Exits(code) | End::Told(code) => code,
            End::Killed | End::Shot | End::KilledWriting => KILLED,
        }
    }
}

/// A container of a client.
pub(super) struct Life<'a> {
    client: &'a mut Client,
    bundle: Bundle,
    id: String,
}

impl<'a> Life<'a> {
    pub(super) fn new(client: &'a mut Client, bundle: Bundle) -> Life<'a> {
        let id = bundle.id.clone();
        Life { client, bundle, id }
    }

    pub(super) fn live(mut self) {
        let end = self.end();
        self.write_program(&end.script());
        let (io, _held) = self.io(end, "init");
        let pid = self.create(&io);
        self.client.history.of_container(&self.id, "create");
        if self.client.random.once_in(4) {
            self.refused_as_a_second_one(&io);
        }
        if self.client.random.once_in(8) {
            // Never started.
            self.kill("", 9);
            return self.gone(KILLED);
        }
        self.client.did("start");
        self.client.shim.start(&self.id, "").unwrap();
        self.client.history.of_container(&self.id, "start");
        if let End::Exits(code) = end {
            return self.gone(code);
        }
        for _ in 0..self.client.random.below(4) {
            self.something();
        }
        let left_behind = self.client.random.once_in(4).then(|| self.exec_that_stays());
        match end {
            End::Told(_) => self.tell(),
            End::Shot => self.shoot(pid),
            _ => self.kill("", 9),
        }
        self.gone_with(end.status(), left_behind);
    }

    fn end(&mut self) -> End {
        let random = &mut self.client.random;
        match random.below(5) {
            0 => End::Exits(random.below(128)),
            1 => End::Told(random.below(128)),
            2 => End::Killed,
            3 => End::Shot,
            _ => End::KilledWriting,
        }
    }

    fn write_program(&self, script: &str) {
        let path = self.bundle.dir.join("config.json");
        let mut spec: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        spec["process"]["args"] = json!(["sh", "-c", script]);
        fs::write(&path, spec.to_string()).unwrap();
    }

    fn io(&self, end: End, name: &str) -> (Stdio3, Option<fs::File>) {
        if end != End::KilledWriting {
            return (Stdio3::default(), None);
        }
        let (io, held) = unread(&self.client.fifos, &format!("{}-{name}", self.id));
        (io, Some(held))
    }

    /// Makes it, now and then by a client that is gone before the answer.
    fn create(&mut self, io: &Stdio3) -> u32 {
        self.client.did("create");
        if self.client.random.once_in(6) {
            self.client.did("client that vanishes in create");
            let mut request = CreateTaskRequest::new();
            request.id.clone_from(&self.id);
            request.bundle = self.bundle.dir.to_string_lossy().into_owned();
            request.stdout.clone_from(&io.stdout);
            vanish::call(&self.client.shim, "Create", &request);
        }
        // The one that nobody waits for is either made, or undone: until then its id is in use.
        wait::until("the container is made, by whichever create", || {
            match self.client.shim.create(&self.bundle, io) {
                Ok(created) => Some(created.pid),
                Err(error) if error.code == Code::ALREADY_EXISTS => {
                    Some(self.client.shim.state(&self.id, "").ok()?.pid)
                }
                Err(error) => panic!("create {}: {error:?}", self.id),
            }
        })
    }

    fn refused_as_a_second_one(&mut self, io: &Stdio3) {
        self.client.did("create of an id in use");
        let error = self.client.shim.create(&self.bundle, io).unwrap_err();
        assert_eq!(error.code, Code::ALREADY_EXISTS, "{error:?}");
    }

    /// One thing that can be done to a container that runs.
    fn something(&mut self) {
        match self.client.random.below(10) {
            0..=4 => self.exec(),
            5 => self.pause(),
            6 => self.ask(),
            7 => self.vanish(),
            8 => self.failing_exec(),
            _ => self.delete_too_early(),
        }
    }

    fn added(&mut self, end: End) -> (String, Option<fs::File>) {
        let exec = self.client.exec_id();
        let (io, held) = self.io(end, &exec);
        self.client.did("exec");
        self.client.shim.exec(&self.id, &exec, &shell(&end.script()), &io).unwrap();
        self.client.history.of_exec(&self.id, &exec, "added");
        (exec, held)
    }

    fn start_exec(&mut self, exec: &str) -> u32 {
        self.client.did("start of an exec");
        let pid = self.client.shim.start(&self.id, exec).unwrap().pid;
        self.client.history.of_exec(&self.id, exec, "started");
        pid
    }

    fn exec(&mut self) {
        let end = self.end();
        let (exec, _held) = self.added(end);
        if self.client.random.once_in(4) {
            self.client.did("exec of an id in use");
            let again = self.client.shim.exec(&self.id, &exec, &shell("exit"), &Stdio3::default());
            assert_eq!(again.unwrap_err().code, Code::ALREADY_EXISTS);
        }
        let pid = self.start_exec(&exec);
        match end {
            End::Exits(_) => {}
            End::Shot => self.shoot(pid),
            // It may not have set its trap yet: a kill is always understood.
            End::Told(_) | End::Killed | End::KilledWriting => self.kill(&exec, 9),
        }
        let status = if let End::Told(_) = end { KILLED } else { end.status() };
        self.client.history.of_exec(&self.id, &exec, format!("exit:{status}"));
        self.ended(&exec, status);
        let deleted = self.client.shim.delete(&self.id, &exec).unwrap();
        assert_eq!(deleted.exit_status, status, "{} {exec}", self.id);
    }

    /// An exec that the end of the container ends.
    fn exec_that_stays(&mut self) -> String {
        let (exec, _) = self.added(End::Killed);
        self.start_exec(&exec);
        self.client.history.of_exec(&self.id, &exec, format!("exit:{KILLED}"));
        exec
    }

    fn failing_exec(&mut self) {
        self.client.did("exec of a missing program");
        let exec = self.client.exec_id();
        let process = json!({"args": ["no-such-program"], "cwd": "/", "env": ["PATH=/bin"]});
        self.client.shim.exec(&self.id, &exec, &process, &Stdio3::default()).unwrap();
        self.client.history.of_exec(&self.id, &exec, "added");
        let error = self.client.shim.start(&self.id, &exec).unwrap_err();
        assert!(error.message.contains("executable file not found"), "{error:?}");
        self.client.shim.delete(&self.id, &exec).unwrap();
    }

    fn pause(&mut self) {
        self.client.did("pause");
        self.client.shim.pause(&self.id).unwrap();
        self.client.history.of_container(&self.id, "paused");
        assert_eq!(self.client.shim.status(&self.id, ""), "paused");
        self.client.did("resume");
        self.client.shim.resume(&self.id).unwrap();
        self.client.history.of_container(&self.id, "resumed");
    }

    fn ask(&mut self) {
        self.client.did("state, pids, stats");
        assert_eq!(self.client.shim.status(&self.id, ""), "running");
        assert!(!self.client.shim.pids(&self.id).unwrap().processes.is_empty());
        self.client.shim.stats(&self.id).unwrap();
    }

    fn vanish(&mut self) {
        self.client.did("client that vanishes");
        let mut wait = WaitRequest::new();
        wait.id.clone_from(&self.id);
        vanish::call(&self.client.shim, "Wait", &wait);
        let mut state = StateRequest::new();
        state.id.clone_from(&self.id);
        vanish::call(&self.client.shim, "State", &state);
        vanish::half_a_call(&self.client.shim);
    }

    fn delete_too_early(&mut self) {
        self.client.did("delete of what runs");
        let error = self.client.shim.delete(&self.id, "").unwrap_err();
        assert_eq!(error.code, Code::FAILED_PRECONDITION, "{error:?}");
    }

    fn kill(&mut self, exec: &str, signal: u32) {
        self.client.did("kill");
        match self.client.shim.kill(&self.id, exec, signal) {
            Ok(_) => {}
            Err(error) => panic!("kill {} {exec}: {error:?}", self.id),
        }
    }

    /// A shell that has not set its trap yet, as pid 1, does not hear it: it is told again.
    fn tell(&mut self) {
        wait::until("the container hears SIGTERM", || {
            self.client.did("kill");
            match self.client.shim.kill(&self.id, "", 15) {
                Ok(_) => (self.client.shim.status(&self.id, "") == "stopped").then_some(()),
                Err(error) if error.code == Code::NOT_FOUND => Some(()),
                Err(error) => panic!("tell {}: {error:?}", self.id),
            }
        });
    }

    fn shoot(&mut self, pid: u32) {
        self.client.did("kill behind the shim's back");
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }

    fn ended(&mut self, exec: &str, status: u32) {
        self.client.did("wait");
        let waited: Rpc<_> = self.client.shim.wait(&self.id, exec);
        assert_eq!(waited.unwrap().exit_status, status, "{} {exec:?}", self.id);
    }

    fn gone(self, status: u32) {
        self.gone_with(status, None);
    }

    /// It has ended, or is about to, with this status.
    fn gone_with(mut self, status: u32, left_behind: Option<String>) {
        self.ended("", status);
        self.client.history.of_container(&self.id, format!("exit:{status}"));
        if let Some(exec) = left_behind {
            self.ended(&exec, KILLED);
            if self.client.random.once_in(2) {
                self.client.shim.delete(&self.id, &exec).unwrap();
            }
        }
        self.client.did("delete");
        let deleted = self.client.shim.delete(&self.id, "").unwrap();
        assert_eq!(deleted.exit_status, status, "{}", self.id);
        self.client.history.of_container(&self.id, format!("delete:{status}"));
        let error = self.client.shim.state(&self.id, "").unwrap_err();
        assert_eq!(error.code, Code::NOT_FOUND, "{error:?}");
        for entry in fs::read_dir(&self.client.fifos).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}
