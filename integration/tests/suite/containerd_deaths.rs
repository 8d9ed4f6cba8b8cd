//! containerd is killed at every request to a shim: when the request has come in, and when it has
//! been carried out and not answered yet; a create also in the middle, with the new containerd there
//! before it goes on.
//!
//! Then a new containerd does its own clean-up. A container that was there beside it is served
//! throughout; what was half made is gone; what was whole is served and can be removed; no exit is
//! told twice, and nothing is left.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use containerd_shim_protos::api::UpdateTaskRequest;

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::events::Event;
use myshim_integration::process::cgroup_dir;
use myshim_integration::shim::{Shim, Stdio3};
use myshim_integration::test::{import, kill_hard};
use myshim_integration::{Container, Daemon, Test, claims, wait};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use rustix::process::Signal;
use serde_json::{Value, json};
use ttrpc::proto::{MessageHeader, Request};

use crate::deaths::{self, held};
use crate::spawner::let_go;

pub(crate) const CLAIMS: &[Claim] = claims![
    containerd_killed_at_a_create.within(240),
    containerd_killed_at_a_start.within(240),
    containerd_killed_at_an_exec.within(240),
    containerd_killed_at_a_kill.within(240),
    containerd_killed_at_a_delete.within(240),
    containerd_killed_at_a_pause_and_a_resume.within(240),
    containerd_killed_at_a_wait.within(240),
    a_client_that_is_killed_at_an_update_does_no_harm.once(),
    daemon_killed_at_each_request.within(240),
];

/// When what is held goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoesOn {
    WithoutContainerd,
    WithTheNext,
}

/// The daemon of a shim.
const DAEMON: &str = "containerd-shim";
const MAIN: &str = "myshim:main";

struct Rig {
    own: Test,
    daemon: Daemon,
    hold: PathBuf,
}

impl Rig {
    fn new(t: &Test) -> Self {
        let hold = t.dir.join("hold");
        let (dir, namespace) = (t.dir.join("c"), &t.endpoint.namespace);
        let daemon = Daemon::start_holding(t.version(), &dir, namespace, &hold);
        import(daemon.endpoint(), &t.dir);
        Self { own: t.on(&daemon), daemon, hold }
    }

    /// Kills containerd while the process `who` is held at `place` on behalf of `ctr` with `args`.
    fn killed_at(&mut self, (who, place): (&str, &str), goes_on: GoesOn, args: Vec<String>) {
        fs::write(&self.hold, place).unwrap();
        let client = self.own.ctr_start(args);
        let held = held(&self.own, who);
        fs::remove_file(&self.hold).unwrap();
        self.daemon.down(Signal::KILL);
        // ctr 1.6 may wait for ever for streams that nobody will open.
        client.signal(Signal::KILL);
        assert!(!client.finish(LIMIT).status.success());
        if goes_on == GoesOn::WithTheNext {
            self.daemon.up();
        }
        let_go(held);
        if goes_on == GoesOn::WithoutContainerd {
            self.daemon.up();
        }
    }

    /// At a request, on both of its sides, and where `middle` says, with the next containerd there
    /// before it goes on: a container by `make`, the request by `args`, and what has become of the
    /// container, each time.
    fn at(
        mut self,
        (method, middle): (&str, Option<&str>),
        make: impl Fn(&Test),
        args: impl Fn(&Container<'_>) -> Vec<String>,
        check: impl Fn(&Container<'_>),
    ) {
        let stay = self.own.sleeper("stay", &[]).id;
        let sides = ["enter", "answer"].map(|side| format!("{side}/{method}"));
        let sides = sides.into_iter().map(|side| (DAEMON, side, GoesOn::WithoutContainerd));
        let middle = middle.map(|message| format!("{MAIN}/{message}"));
        let middle = middle.into_iter().map(|place| (MAIN, place, GoesOn::WithTheNext));
        for (who, place, goes_on) in sides.chain(middle) {
            make(&self.own);
            let args = args(&self.own.container("web"));
            self.killed_at((who, &place), goes_on, args);
            self.judge(&stay, &check);
        }
        self.end();
    }

    /// What is there after the restart, and that nothing of it stays.
    fn judge(&self, stay: &str, check: impl Fn(&Container<'_>)) {
        let (own, c) = (&self.own, self.own.container("web"));
        let stays = own.container("stay");
        assert_eq!((stays.id.as_str(), stays.status().as_str()), (stay, "RUNNING"));
        assert_eq!(stays.exec(&["echo", "hello"]).ok(), "hello\n");
        let events = own.events();
        check(&c);
        let alive = ["CREATED", "RUNNING", "PAUSED"].contains(&c.status().as_str());
        own.try_ctr(["tasks", "delete", "--force", &c.id]);
        own.ctr(["containers", "delete", &c.id]).ok();
        wait::until_true("the container is gone, and its shim", || own.shims().len() == 1);
        if alive {
            events.wait_for(&c.id, "delete");
        }
        let exits = events.shorts(&c.id).iter().filter(|short| *short == "exit").count();
        // A shim that went with what was half made, and that the new containerd had met by then, is
        // a task to it that has ended.
        assert!(exits == 1 || (exits == 0 && !alive), "{:?}", events.shorts(&c.id));
    }

    fn end(self) {
        self.own.container("stay").remove();
        self.own.finish();
    }
}

fn sleeper(own: &Test) {
    assert_eq!(own.sleeper("web", &[]).status(), "RUNNING");
}

fn nothing(_: &Test) {}

fn task(command: &str, c: &Container<'_>) -> Vec<String> {
    ["tasks", command, &c.id].map(str::to_owned).into()
}

fn containerd_killed_at_a_create(t: &Test) {
    let mut rig = Rig::new(t);
    let stay = rig.own.sleeper("stay", &[]).id;
    let create = rig.own.run_args(&rig.own.id("web"), &["--detach"], &["sleep", "3600"]);
    use GoesOn::{WithTheNext, WithoutContainerd};
    for (who, place, goes_on, then) in [
        (DAEMON, "enter/Create", WithoutContainerd, ""),
        (MAIN, "myshim:main/Created", WithoutContainerd, ""),
        (MAIN, "myshim:main/Created", WithTheNext, ""),
        (DAEMON, "answer/Create", WithoutContainerd, "CREATED"),
    ] {
        rig.killed_at((who, place), goes_on, create.clone());
        rig.judge(&stay, |c| assert_eq!(c.status(), then, "{place} {goes_on:?}"));
    }
    rig.end();
}

fn containerd_killed_at_a_start(t: &Test) {
    let rig = Rig::new(t);
    let start = rig.own.run_args(&rig.own.id("web"), &["--detach"], &["sleep", "3600"]);
    rig.at(
        ("Start", None),
        nothing,
        |_| start.clone(),
        |c| {
            c.wait_status("RUNNING");
            assert_eq!(c.exec(&["echo", "hello"]).ok(), "hello\n");
        },
    );
}

fn containerd_killed_at_an_exec(t: &Test) {
    for (method, middle) in [("Exec", None), ("Start", Some("Created"))] {
        Rig::new(t).at(
            (method, middle),
            sleeper,
            |c| c.exec_args("mine", &[], &["sleep", "1000"]),
            |c| {
                assert_eq!(c.status(), "RUNNING");
                assert_eq!(c.exec_as("other", &[], &["echo", "hello"]).ok(), "hello\n");
            },
        );
        fs::remove_dir_all(t.dir.join("c")).unwrap();
    }
}

fn containerd_killed_at_a_kill(t: &Test) {
    let args = |c: &Container<'_>| {
        ["tasks", "kill", "--signal", "SIGKILL", &c.id].map(str::to_owned).into()
    };
    // containerd 2 itself deletes a task that it finds without processes when it comes up.
    let ended = |c: &Container<'_>| {
        wait::until_true("its end is known", || ["STOPPED", ""].contains(&c.status().as_str()));
    };
    Rig::new(t).at(("Kill", None), sleeper, args, ended);
}

fn containerd_killed_at_a_delete(t: &Test) {
    let exited = |own: &Test| {
        let c = own.sleeper("web", &[]);
        c.kill("SIGKILL").ok();
        c.wait_status("STOPPED");
    };
    Rig::new(t).at(
        ("Delete", Some("Done")),
        exited,
        |c| task("delete", c),
        |c| wait::until_true("the task is gone", || c.status().is_empty()),
    );
}

fn containerd_killed_at_a_pause_and_a_resume(t: &Test) {
    let paused = |own: &Test| own.sleeper("web", &[]).task("pause").ok();
    Rig::new(t).at(
        ("Pause", Some("Done")),
        sleeper,
        |c| task("pause", c),
        |c| {
            c.wait_status("PAUSED");
            c.task("resume").ok();
            assert_eq!(c.exec(&["echo", "hello"]).ok(), "hello\n");
        },
    );
    fs::remove_dir_all(t.dir.join("c")).unwrap();
    Rig::new(t).at(
        ("Resume", Some("Done")),
        |own| drop(paused(own)),
        |c| task("resume", c),
        |c| {
            c.wait_status("RUNNING");
            assert_eq!(c.exec(&["echo", "hello"]).ok(), "hello\n");
        },
    );
}

fn containerd_killed_at_a_wait(t: &Test) {
    let mut rig = Rig::new(t);
    let stay = rig.own.sleeper("stay", &[]).id;
    let run = rig.own.run_args(&rig.own.id("web"), &[], &["sleep", "3600"]);
    rig.killed_at((DAEMON, "enter/Wait"), GoesOn::WithoutContainerd, run);
    rig.judge(&stay, |c| {
        // ctr asks before it starts.
        wait::until_true("it is served", || ["CREATED", "RUNNING"].contains(&c.status().as_str()));
    });
    rig.end();
}

/// ctr has no update. A client by hand, whose connection ends as that of a containerd that is
/// killed.
fn a_client_that_is_killed_at_an_update_does_no_harm(t: &Test) {
    for side in ["enter", "answer"] {
        let place = format!("{side}/Update");
        let rig = deaths::Rig::new(t, side, &place, |spec| spec.args(&["sleep", "3600"]));
        let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
        let pid = shim.create(&rig.bundle, &Stdio3::default()).unwrap().pid;
        shim.start(id, "").unwrap();
        let limit = json!({"pids": {"limit": 77}});
        let client = ask(shim, "Update", &update(id, &limit));
        let held = held(t, DAEMON);
        drop(client);
        let_go(held);
        let pids = cgroup_dir(pid, "pids").unwrap().join("pids.max");
        wait::until_true("the update is done", || fs::read_to_string(&pids).unwrap() == "77\n");
        assert_eq!(shim.status(id, ""), "running");
        crate::rpc::end(shim, &rig.bundle);
        rig.delete();
        t.finish();
    }
}

fn update(id: &str, resources: &Value) -> UpdateTaskRequest {
    let type_url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned();
    let any = Any { type_url, value: resources.to_string().into_bytes(), ..Any::default() };
    UpdateTaskRequest { id: id.to_owned(), resources: Some(any).into(), ..Default::default() }
}

/// Sends a request over a connection of its own.
fn ask(shim: &Shim, method: &str, request: &impl Message) -> UnixStream {
    let call = Request {
        service: format!("containerd.task.v{}.Task", shim.answer.version),
        method: method.to_owned(),
        payload: request.write_to_bytes().unwrap(),
        ..Request::default()
    };
    let payload = call.write_to_bytes().unwrap();
    let length = u32::try_from(payload.len()).unwrap();
    let mut stream = UnixStream::connect(shim.answer.socket()).unwrap();
    stream.write_all(&Vec::from(MessageHeader::new_request(1, length))).unwrap();
    stream.write_all(&payload).unwrap();
    stream
}

/// The other way round: containerd lives, and cleans up after the shim.
fn daemon_killed_at_each_request(t: &Test) {
    let rig = Rig::new(t);
    let own = &rig.own;
    let stay = own.sleeper("stay", &[]).id;
    let run = own.run_args(&own.id("web"), &["--detach"], &["sleep", "3600"]);
    let web = own.container("web");
    let exec = web.exec_args("mine", &[], &["sleep", "1000"]);
    let words = |command: &[&str]| {
        command.iter().chain([&&*web.id]).map(|&word| word.to_owned()).collect::<Vec<String>>()
    };
    let requests: [(&str, bool, Vec<String>); 7] = [
        ("Create", false, run.clone()),
        ("Start", false, run),
        ("Exec", true, exec.clone()),
        ("Start", true, exec),
        ("Pause", true, words(&["tasks", "pause"])),
        ("Kill", true, words(&["tasks", "kill", "--signal", "SIGTERM"])),
        ("Delete", true, words(&["tasks", "delete", "--force"])),
    ];
    for (method, exists, args) in requests {
        for side in ["enter", "answer"] {
            if exists {
                sleeper(own);
            }
            let events = own.events();
            fs::write(&rig.hold, format!("{side}/{method}")).unwrap();
            let client = own.ctr_start(args.clone());
            let held = held(own, DAEMON);
            fs::remove_file(&rig.hold).unwrap();
            kill_hard(held);
            wait::until_true("containerd cleans up", || own.shims().len() == 1);
            client.signal(Signal::KILL);
            drop(client.finish(LIMIT));
            wait::until_true("the task is gone or has ended", || {
                ["", "STOPPED"].contains(&web.status().as_str())
            });
            own.try_ctr(["tasks", "delete", "--force", &web.id]);
            own.try_ctr(["containers", "delete", &web.id]);
            // containerd may clean up twice, and tells each time what it learns from `delete`: the
            // same status, at a time of its own where no daemon saw the end.
            let mut exits = events.of(&web.id);
            exits.retain(|event| event.short() == "exit");
            let same = |event: &Event| event.number("exit_status") == 137;
            assert!(exits.len() <= 2 && exits.iter().all(same), "{side}/{method}: {exits:?}");
            let stays = own.container("stay");
            assert_eq!((stays.id.as_str(), stays.status().as_str()), (&*stay, "RUNNING"));
        }
    }
    rig.end();
}
