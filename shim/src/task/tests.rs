//! The machine, told by hand what became of its effects: what is allowed when, and in which order
//! containerd is told.

use std::time::{Duration, SystemTime};

use runtime::{Error, Kind, Result};
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::machine::{Birth, Machine};
use super::model::*;
use crate::io::Stdio;
use crate::reaper::Exit;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// A machine, and all it has ever wanted.
struct Model {
    machine: Machine,
    events: Vec<Event>,
    /// The last input's effects but events, as text.
    effects: Vec<String>,
    replies: Vec<Reply<()>>,
}

/// An answer that may not be there yet.
struct Answer<T>(Receiver<Result<T>>);

impl<T> Answer<T> {
    fn is_pending(&mut self) -> bool {
        matches!(self.0.try_recv(), Err(TryRecvError::Empty))
    }

    fn now(mut self) -> Result<T> {
        self.0.try_recv().expect("an answer")
    }
}

fn exit(status: u32) -> Exit {
    Exit { status, at: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(status)) }
}

fn failure() -> Error {
    Error::new(Kind::Program { program: "foo".into(), why: "nope".into() })
}

fn is_state(error: &Error) -> bool {
    matches!(error.kind(), Kind::State(_))
}

fn is_not_found(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound(_))
}

impl Model {
    fn new(private_pid_namespace: bool) -> Model {
        let birth = Birth { pid: 100, stdio: Stdio::default(), private_pid_namespace };
        Model {
            machine: Machine::new(birth),
            events: Vec::new(),
            effects: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn running() -> Model {
        let mut model = Model::new(true);
        let start = model.start(None);
        model.report(Report::Executed);
        model.report(Report::Started(Ok(())));
        assert_eq!(start.now().unwrap(), 100);
        model
    }

    /// With execs of these ids that run, with pids from 201 on; their keys count from 1.
    fn with_execs(mut self, ids: &[&str]) -> Model {
        for (id, key) in ids.iter().zip(1..) {
            self.add(id).now().unwrap();
            let start = self.start(Some(id));
            let pid = 200 + u32::try_from(key).unwrap();
            self.report(Report::ExecStarted(Key(key), Ok(pid)));
            assert_eq!(start.now().unwrap(), pid);
        }
        self
    }

    fn keep(&mut self, effects: Vec<Effect>) {
        self.effects.clear();
        for effect in effects {
            match effect {
                Effect::Publish(event) => self.events.push(event),
                Effect::Signal { key, signal, reply } => {
                    self.effects.push(format!("signal {} {signal}", key.0));
                    self.replies.extend(reply);
                }
                Effect::KillAll { signal, reply } => {
                    self.effects.push(format!("kill all {signal}"));
                    self.replies.push(reply);
                }
                Effect::StartExec(key, new) => {
                    self.effects.push(format!("start {} {}", key.0, new.id));
                }
                Effect::Feed(_) => {}
                Effect::Persist(exit) => self.effects.push(format!("persist {}", exit.status)),
                Effect::Release(key) => self.effects.push(format!("release {}", key.0)),
                Effect::Resize { key, reply, .. } => {
                    self.effects.push(format!("resize {}", key.0));
                    reply.send(Ok(()));
                }
                other => self.effects.push(format!("{other:?}")),
            }
        }
    }

    fn ask<T>(&mut self, command: impl FnOnce(Reply<T>) -> Command) -> Answer<T> {
        let (reply, receiver) = Reply::channel();
        let effects = self.machine.command(command(reply));
        self.keep(effects);
        Answer(receiver)
    }

    fn report(&mut self, report: Report) {
        let effects = self.machine.report(report);
        self.keep(effects);
    }

    fn start(&mut self, exec: Option<&str>) -> Answer<u32> {
        let exec = exec.map(Into::into);
        self.ask(|reply| Command::Start { exec, reply })
    }

    fn add(&mut self, id: &str) -> Answer<()> {
        let exec = NewExec { id: id.into(), process: "{}".into(), stdio: Stdio::default() };
        self.ask(|reply| Command::Exec { exec, reply })
    }

    fn delete(&mut self, exec: Option<&str>) -> Answer<Deleted> {
        let exec = exec.map(Into::into);
        self.ask(|reply| Command::Delete { exec, reply })
    }

    fn wait(&mut self, exec: Option<&str>) -> Answer<Ended> {
        let exec = exec.map(Into::into);
        self.ask(|reply| Command::Wait { exec, reply })
    }

    fn kill(&mut self, exec: Option<&str>, signal: i32, whom: Whom) -> Answer<()> {
        let exec = exec.map(Into::into);
        self.ask(|reply| Command::Kill { exec, signal, whom, reply })
    }

    fn pause(&mut self) -> Answer<()> {
        self.ask(|reply| Command::Pause { reply })
    }

    fn resume(&mut self) -> Answer<()> {
        self.ask(|reply| Command::Resume { reply })
    }

    fn status(&mut self, exec: Option<&str>) -> Status {
        let exec = exec.map(Into::into);
        self.ask(|reply| Command::State { exec, reply }).now().unwrap().status
    }

    fn names(&self) -> Vec<String> {
        let name = |event: &Event| match event {
            Event::Start { .. } => "start".into(),
            Event::ExecAdded { exec } => format!("added {exec}"),
            Event::ExecStarted { exec, .. } => format!("started {exec}"),
            Event::Exit { exec: None, exit, .. } => format!("exit {}", exit.status),
            Event::Exit { exec: Some(exec), exit, .. } => format!("exit {exec} {}", exit.status),
            Event::Delete { .. } => "delete".into(),
            Event::Paused => "paused".into(),
            Event::Resumed => "resumed".into(),
        };
        self.events.iter().map(name).collect()
    }
}

#[test]
fn a_life_is_told_in_its_order() {
    let mut model = Model::new(true);
    assert_eq!(model.status(None), Status::Created);
    let mut wait = model.wait(None);
    let start = model.start(None);
    assert_eq!(model.effects, ["StartInit"]);
    model.report(Report::Executed);
    model.report(Report::Started(Ok(())));
    assert_eq!(start.now().unwrap(), 100);
    assert_eq!(model.status(None), Status::Running);
    assert!(wait.is_pending());
    model.report(Report::Exited(INIT, exit(3)));
    assert_eq!(model.effects, ["persist 3", "release 0"]);
    assert_eq!(wait.now().unwrap(), Ended { status: 3, at: Some(exit(3).at) });
    assert_eq!(model.wait(None).now().unwrap().status, 3, "a wait is repeatable");
    assert_eq!(model.status(None), Status::Stopped);
    let delete = model.delete(None);
    assert_eq!(model.effects, ["Remove"]);
    model.report(Report::Removed(Ok(())));
    assert_eq!(model.effects, ["Leave"]);
    assert_eq!(delete.now().unwrap(), Deleted { pid: Some(100), exit: Some(exit(3)) });
    assert_eq!(model.names(), ["start", "exit 3", "delete"]);
}

#[test]
fn a_deletion_that_nobody_waits_for_ends_an_empty_daemon() {
    let mut model = Model::new(true);
    model.report(Report::Exited(INIT, exit(137)));
    drop(model.delete(None));
    model.report(Report::Removed(Ok(())));
    assert_eq!(model.effects, ["Leave", "EndWhenEmpty"]);
}

#[test]
fn an_exit_that_is_learned_before_the_start_is_told_after_it() {
    let mut model = Model::new(true);
    let start = model.start(None);
    model.report(Report::Exited(INIT, exit(0)));
    assert!(model.events.is_empty());
    model.report(Report::Executed);
    model.report(Report::Started(Ok(())));
    assert_eq!(start.now().unwrap(), 100);
    assert_eq!(model.names(), ["start", "exit 0"]);
}

#[test]
fn a_failed_start_is_answered_when_the_process_is_gone() {
    let mut model = Model::new(true);
    let mut start = model.start(None);
    model.report(Report::Started(Err(failure())));
    assert_eq!(model.effects, ["signal 0 9"]);
    assert!(start.is_pending());
    let mut delete = model.delete(None);
    assert!(delete.is_pending(), "its turn comes after");
    model.report(Report::Exited(INIT, exit(1)));
    assert!(start.now().is_err());
    assert_eq!(model.names(), ["exit 1"], "it has never started");
    assert_eq!(model.effects, ["persist 1", "release 0", "Remove"]);
}

#[test]
fn a_start_that_failed_after_the_exit_was_learned_is_answered_at_once() {
    let mut model = Model::new(true);
    let start = model.start(None);
    model.report(Report::Exited(INIT, exit(1)));
    model.report(Report::Started(Err(failure())));
    assert!(start.now().is_err());
    assert_eq!(model.names(), ["exit 1"]);
    assert!(is_state(&model.start(None).now().unwrap_err()));
}

#[test]
fn a_failed_poststart_hook_stops_the_container() {
    let mut model = Model::new(true);
    let mut start = model.start(None);
    model.report(Report::Executed);
    model.report(Report::Started(Err(failure())));
    assert_eq!(model.effects, ["signal 0 9"]);
    assert!(start.is_pending());
    model.report(Report::Exited(INIT, exit(137)));
    assert!(start.now().is_err());
    assert_eq!(model.names(), ["start", "exit 137"]);
}

#[test]
fn inits_exit_is_the_last_one() {
    let mut model = Model::running().with_execs(&["a", "b"]);
    let mut wait = model.wait(None);
    model.report(Report::Exited(INIT, exit(0)));
    assert!(model.effects.is_empty(), "the kernel ends the rest");
    assert!(wait.is_pending());
    assert_eq!(model.status(None), Status::Running);
    model.add("c").now().unwrap_err();
    model.report(Report::Exited(Key(2), exit(137)));
    model.report(Report::Exited(Key(1), exit(137)));
    assert_eq!(wait.now().unwrap().status, 0);
    let exits = &model.names()[5..];
    assert_eq!(exits, ["exit b 137", "exit a 137", "exit 0"]);
}

#[test]
fn what_the_kernel_does_not_end_is_killed_before_inits_exit_is_told() {
    let mut model = Model::new(false);
    model.start(None);
    model.report(Report::Executed);
    model.report(Report::Started(Ok(())));
    model.report(Report::Exited(INIT, exit(0)));
    assert_eq!(model.effects, ["Sweep(Sweep { thaw: false, kill: true })"]);
    assert_eq!(model.names(), ["start"]);
    model.report(Report::Swept);
    assert_eq!(model.names(), ["start", "exit 0"]);
    model.kill(None, SIGTERM, Whom::All);
    assert_eq!(model.effects, ["kill all 15"], "somebody may have joined the cgroup");
}

#[test]
fn an_exec_whose_start_overlaps_inits_end_is_killed_and_waited_for() {
    let mut model = Model::new(false);
    model.start(None);
    model.report(Report::Executed);
    model.report(Report::Started(Ok(())));
    model.add("late").now().unwrap();
    let start = model.start(Some("late"));
    model.report(Report::Exited(INIT, exit(0)));
    model.report(Report::Swept);
    assert_eq!(model.names(), ["start", "added late"]);
    model.report(Report::ExecStarted(Key(1), Ok(201)));
    assert_eq!(start.now().unwrap(), 201);
    assert_eq!(model.effects, ["signal 1 9", "Sweep(Sweep { thaw: false, kill: true })"]);
    model.report(Report::Exited(Key(1), exit(137)));
    assert_eq!(model.names().last().unwrap(), "exit late 137");
    model.report(Report::Swept);
    assert_eq!(model.names().last().unwrap(), "exit 0");
}

#[test]
fn after_inits_end_no_exec_is_started() {
    let mut model = Model::running().with_execs(&["a"]);
    model.add("b").now().unwrap();
    model.report(Report::Exited(INIT, exit(0)));
    assert!(is_state(&model.start(Some("b")).now().unwrap_err()));
    model.report(Report::Exited(Key(1), exit(137)));
    assert!(is_state(&model.start(Some("b")).now().unwrap_err()));
}

#[test]
fn an_execs_id_is_taken_until_it_is_deleted() {
    let mut model = Model::running();
    model.add("a").now().unwrap();
    let error = model.add("a").now().unwrap_err();
    assert!(matches!(error.kind(), Kind::AlreadyExists(_)));
    assert!(matches!(model.add("").now().unwrap_err().kind(), Kind::Argument { .. }));
    let mut delete = model.delete(Some("a"));
    assert_eq!(model.effects, ["Drain(Key(1))"]);
    assert!(delete.is_pending());
    assert!(is_not_found(&model.delete(Some("a")).now().unwrap_err()));
    assert!(model.add("a").now().is_err());
    model.report(Report::Drained(Key(1)));
    assert_eq!(delete.now().unwrap(), Deleted { pid: None, exit: None });
    model.add("a").now().unwrap();
    model.start(Some("a"));
    assert_eq!(model.effects, ["start 2 a"], "a key of its own");
}

#[test]
fn an_exec_that_cannot_be_started_stays_created_and_ends_waits() {
    let mut model = Model::running();
    model.add("a").now().unwrap();
    let wait = model.wait(Some("a"));
    let start = model.start(Some("a"));
    model.report(Report::ExecStarted(Key(1), Err(failure())));
    let error = start.now().unwrap_err();
    assert_eq!(error.to_string(), "OCI runtime exec failed: exec: \"foo\": nope");
    assert_eq!(wait.now().unwrap(), Ended { status: 255, at: None });
    assert_eq!(model.status(Some("a")), Status::Created);
    assert_eq!(model.names(), ["start", "added a"]);
    model.report(Report::Exited(INIT, exit(0)));
    assert_eq!(model.names().last().unwrap(), "exit 0", "it is not waited for");
}

#[test]
fn only_what_does_not_run_is_deleted() {
    let mut model = Model::running().with_execs(&["a"]);
    let error = model.delete(None).now().unwrap_err();
    assert_eq!(error.to_string(), "cannot delete a running process");
    assert!(is_state(&error));
    assert!(is_state(&model.delete(Some("a")).now().unwrap_err()));
    assert!(is_not_found(&model.delete(Some("b")).now().unwrap_err()));
    model.report(Report::Exited(Key(1), exit(5)));
    let delete = model.delete(Some("a"));
    model.report(Report::Drained(Key(1)));
    assert_eq!(delete.now().unwrap(), Deleted { pid: Some(201), exit: Some(exit(5)) });
    assert_eq!(model.names().last().unwrap(), "exit a 5", "no event for an exec's deletion");
}

#[test]
fn a_created_container_is_killed_by_its_deletion() {
    let mut model = Model::new(true);
    let mut delete = model.delete(None);
    assert_eq!(model.effects, ["signal 0 9"]);
    assert!(delete.is_pending());
    model.report(Report::Exited(INIT, exit(137)));
    assert_eq!(model.effects, ["persist 137", "release 0", "Remove"]);
    model.report(Report::Removed(Ok(())));
    assert_eq!(delete.now().unwrap().exit, Some(exit(137)));
    assert_eq!(model.names(), ["exit 137", "delete"]);
}

#[test]
fn a_deletion_that_failed_may_be_tried_again() {
    let mut model = Model::running();
    model.report(Report::Exited(INIT, exit(0)));
    let first = model.delete(None);
    let mut second = model.delete(None);
    model.report(Report::Removed(Err(failure())));
    assert!(first.now().is_err());
    assert_eq!(model.effects, ["Remove"], "the second one's turn");
    assert!(second.is_pending());
    model.report(Report::Removed(Ok(())));
    second.now().unwrap();
}

#[test]
fn a_kill_is_answered_whatever_is_being_done() {
    let mut model = Model::running().with_execs(&["a"]);
    model.add("b").now().unwrap();
    let mut pause = model.pause();
    assert_eq!(model.status(None), Status::Pausing);
    assert_eq!(model.status(Some("a")), Status::Pausing);
    model.kill(None, SIGTERM, Whom::One);
    assert_eq!(model.effects, ["signal 0 15"]);
    model.kill(Some("a"), SIGTERM, Whom::One);
    assert_eq!(model.effects, ["signal 1 15"]);
    model.kill(None, SIGTERM, Whom::All);
    assert_eq!(model.effects, ["kill all 15"]);
    assert!(is_state(&model.kill(Some("b"), SIGTERM, Whom::One).now().unwrap_err()));
    assert!(pause.is_pending());
}

#[test]
fn who_has_ended_is_not_found_by_a_kill() {
    let mut model = Model::running().with_execs(&["a"]);
    model.report(Report::Exited(Key(1), exit(0)));
    let error = model.kill(Some("a"), SIGTERM, Whom::One).now().unwrap_err();
    assert_eq!(error.to_string(), "process already finished: not found");
    model.report(Report::Exited(INIT, exit(0)));
    for whom in [Whom::One, Whom::All] {
        assert!(is_not_found(&model.kill(None, SIGKILL, whom).now().unwrap_err()));
    }
}

#[test]
fn a_kill_reaches_the_frozen() {
    let mut model = Model::running();
    model.pause();
    model.report(Report::Paused(Ok(())));
    assert_eq!(model.status(None), Status::Paused);
    model.kill(None, SIGTERM, Whom::One);
    assert_eq!(model.effects, ["signal 0 15"], "it waits for the thaw");
    model.kill(None, SIGKILL, Whom::One);
    assert_eq!(model.effects, ["signal 0 9", "ThawForKill"]);
    model.report(Report::Exited(INIT, exit(137)));
    assert_eq!(model.effects, ["Sweep(Sweep { thaw: true, kill: false })"]);
    model.report(Report::Swept);
    assert_eq!(model.names(), ["start", "paused", "exit 137"]);
}

#[test]
fn what_ends_while_it_is_being_frozen_does_not_stay_frozen() {
    let mut model = Model::running();
    let pause = model.pause();
    model.report(Report::Exited(INIT, exit(0)));
    model.report(Report::Swept);
    assert_eq!(model.names(), ["start"]);
    model.report(Report::Paused(Ok(())));
    assert!(is_state(&pause.now().unwrap_err()));
    assert_eq!(model.effects, ["Sweep(Sweep { thaw: true, kill: false })"]);
    model.report(Report::Swept);
    assert_eq!(model.names(), ["start", "exit 0"]);
}

#[test]
fn pause_and_resume_are_for_what_runs_and_what_is_paused() {
    let mut model = Model::new(true);
    assert!(is_state(&model.pause().now().unwrap_err()));
    let mut model = Model::running();
    assert!(is_state(&model.resume().now().unwrap_err()));
    let pause = model.pause();
    let mut resume = model.resume();
    assert!(resume.is_pending(), "one after the other");
    model.report(Report::Paused(Ok(())));
    pause.now().unwrap();
    assert_eq!(model.effects, ["Resume"]);
    model.report(Report::Resumed(Ok(())));
    resume.now().unwrap();
    assert_eq!(model.names(), ["start", "paused", "resumed"]);
}

#[test]
fn a_paused_container_takes_no_execs() {
    let mut model = Model::running();
    model.add("a").now().unwrap();
    model.pause();
    let mut start = model.start(Some("a"));
    assert!(start.is_pending());
    model.report(Report::Paused(Ok(())));
    assert!(is_state(&start.now().unwrap_err()));
    assert!(is_state(&model.add("b").now().unwrap_err()));
    assert!(is_state(&model.delete(None).now().unwrap_err()));
}

#[test]
fn a_pause_waits_for_execs_that_are_being_started() {
    let mut model = Model::running();
    model.add("a").now().unwrap();
    model.add("b").now().unwrap();
    model.start(Some("a"));
    model.pause();
    assert!(model.effects.is_empty());
    let mut late = model.start(Some("b"));
    assert!(late.is_pending(), "it may not overtake the pause");
    model.report(Report::ExecStarted(Key(1), Ok(201)));
    assert_eq!(model.effects, ["Pause"]);
    model.report(Report::Paused(Ok(())));
    assert!(is_state(&late.now().unwrap_err()));
}

#[test]
fn stdin_that_is_closed_before_the_start_is_closed_after_it() {
    let mut model = Model::running();
    model.add("a").now().unwrap();
    let exec = Some("a".to_owned());
    model.ask(|reply| Command::CloseIo { exec, reply }).now().unwrap();
    model.start(Some("a"));
    model.report(Report::ExecStarted(Key(1), Ok(201)));
    assert_eq!(model.effects, ["CloseStdin(Key(1))"]);
}

#[test]
fn limits_change_in_every_state_but_the_last() {
    let update = |reply| Command::Update { resources: "{}".into(), reply };
    let mut model = Model::new(true);
    let answer = model.ask(update);
    model.report(Report::Updated(Ok(())));
    answer.now().unwrap();
    let mut model = Model::running();
    model.pause();
    model.report(Report::Paused(Ok(())));
    model.ask(update);
    assert_eq!(model.effects, ["Update(\"{}\")"]);
    model.report(Report::Updated(Ok(())));
    model.report(Report::Exited(INIT, exit(0)));
    model.report(Report::Swept);
    assert!(is_state(&model.ask(update).now().unwrap_err()));
}

#[test]
fn a_client_that_hangs_up_stops_nothing() {
    let mut model = Model::new(true);
    drop(model.start(None));
    drop(model.wait(None));
    model.report(Report::Executed);
    model.report(Report::Started(Ok(())));
    model.report(Report::Exited(INIT, exit(0)));
    assert_eq!(model.names(), ["start", "exit 0"]);
}

#[test]
fn the_pids_of_execs_that_run_are_known() {
    let mut model = Model::running().with_execs(&["a", "b"]);
    model.report(Report::Exited(Key(1), exit(0)));
    let pids = model.ask(|reply| Command::ExecPids { reply }).now().unwrap();
    assert_eq!(pids, [(202, "b".to_owned())]);
}
