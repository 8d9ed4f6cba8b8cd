//! The task service, method by method, asked directly at a shim's socket.

use std::fs;
use std::time::{Duration, Instant};

use containerd_shim_protos::cgroups::metrics::Metrics as MetricsV1;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as MetricsV2;
use containerd_shim_protos::shim::oci::ProcessDetails;
use myshim_integration::claim::Claim;
use myshim_integration::process::{Process, cgroup_dir};
use myshim_integration::shim::{
    Bundle, Dialect, Ends, EventSink, Invocation, Shim, Stdio3, Whom, shell,
};
use myshim_integration::spec::Spec;
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use protobuf::Message;
use serde_json::json;
use ttrpc::Code;

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    create_start_wait_delete.once(),
    create_of_a_missing_program_fails_without_an_exit.once(),
    an_unknown_container_is_not_found.once(),
    wrong_states_are_refused.once(),
    wait_answers_before_and_after_the_exit.once(),
    many_wait_at_once.once(),
    a_wait_whose_client_is_gone_does_no_harm.once(),
    kill_of_what_is_gone_is_not_found.once(),
    a_created_container_can_be_killed_and_deleted.once(),
    execs_have_states_of_their_own.once(),
    an_exec_may_be_added_before_start.once(),
    a_failed_exec_stays_created_and_unblocks_wait.once(),
    an_exec_id_in_use_already_exists.once(),
    an_exec_after_the_exit_is_a_failed_precondition.once(),
    pids_name_the_execs.once(),
    pause_and_resume_know_their_states.once(),
    an_exec_while_paused_is_refused.once(),
    a_paused_containers_kill_thaws_it.once(),
    stats_are_containerds_metrics.once(),
    update_changes_what_it_names.once(),
    connect_never_fails.once(),
    resize_and_close_without_terminal_or_stdin_do_nothing.once(),
    checkpoint_is_unimplemented.once(),
    shutdown_waits_for_the_last_container.once(),
    an_unknown_method_is_unimplemented.once(),
    both_names_of_the_service_are_served.once(),
    state_answers_while_a_create_hangs.once(),
    events_wait_for_a_subscriber_and_stay_in_order.once(),
    kill_all_ends_every_process.once(),
    a_killed_create_leaves_nothing.once(),
    exit_codes_and_times_are_kept_until_delete.once(),
    delete_by_the_binary_reports_the_true_exit_status.once(),
    delete_by_the_binary_is_idempotent.once(),
];

/// A shim with one created container.
struct Rig<'a> {
    t: &'a Test,
    sink: EventSink,
    bundle: Bundle,
    shim: Shim,
}

impl<'a> Rig<'a> {
    fn new(t: &'a Test, edit: impl FnOnce(Spec) -> Spec) -> Self {
        let sink = EventSink::listen(t);
        let bundle = Bundle::new(t, "web", edit);
        let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
        Self { t, sink, bundle, shim }
    }

    fn created(t: &'a Test, edit: impl FnOnce(Spec) -> Spec) -> Self {
        let rig = Self::new(t, edit);
        rig.shim.create(&rig.bundle, &Stdio3::default()).unwrap();
        rig
    }

    /// Running `sleep`.
    fn sleeping(t: &'a Test) -> Self {
        let rig = Self::created(t, |spec| spec.args(&["sleep", "3600"]));
        rig.shim.start(rig.id(), "").unwrap();
        rig
    }

    fn id(&self) -> &str {
        &self.bundle.id
    }

    fn exec(&self, exec: &str, script: &str) {
        self.shim.exec(self.id(), exec, &shell(script), &Stdio3::default()).unwrap();
    }

    fn code(&self, exec: &str) -> u32 {
        self.shim.wait(self.id(), exec).unwrap().exit_status
    }

    /// Ends what runs, and the shim; then what containerd does after every shim.
    fn end(self) {
        end(&self.shim, &self.bundle);
        Invocation::new(self.t, &self.bundle, &self.sink).run("delete", b"").ok();
    }
}

/// Kills and deletes the container, and ends its shim.
pub(crate) fn end(shim: &Shim, bundle: &Bundle) {
    if shim.status(&bundle.id, "") != "stopped" {
        shim.kill(&bundle.id, "", 9).unwrap();
        shim.wait(&bundle.id, "").unwrap();
    }
    shim.delete(&bundle.id, "").unwrap();
    shim.shutdown(&bundle.id, Ends::Yes);
}

fn create_start_wait_delete(t: &Test) {
    let rig = Rig::new(t, |spec| spec.shell("exit 3"));
    let (shim, id) = (&rig.shim, rig.id());
    let pid = shim.create(&rig.bundle, &Stdio3::default()).unwrap().pid;
    assert_eq!(shim.status(id, ""), "created");
    assert_eq!(shim.state(id, "").unwrap().pid, pid);
    assert_eq!(shim.start(id, "").unwrap().pid, pid);
    assert_eq!(shim.wait(id, "").unwrap().exit_status, 3);
    let state = shim.state(id, "").unwrap();
    assert_eq!((state.exit_status, state.bundle.as_str()), (3, &*rig.bundle.dir.to_string_lossy()));
    assert_eq!(shim.status(id, ""), "stopped");
    let deleted = shim.delete(id, "").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 3));
    assert!(deleted.exited_at.seconds > 1_700_000_000, "{deleted:?}");
    assert_eq!(rig.sink.until(id, "delete:3"), ["create", "start", "exit:3", "delete:3"]);
    assert_eq!(shim.state(id, "").unwrap_err().code, Code::NOT_FOUND);
    shim.shutdown(id, Ends::Yes);
    Invocation::new(t, &rig.bundle, &rig.sink).run("delete", b"").ok();
}

fn create_of_a_missing_program_fails_without_an_exit(t: &Test) {
    let rig = Rig::new(t, |spec| spec.args(&["no-such-program"]));
    let (shim, id) = (&rig.shim, rig.id());
    let error = shim.create(&rig.bundle, &Stdio3::default()).unwrap_err();
    assert!(error.message.contains("executable file not found in $PATH"), "{error:?}");
    assert_eq!(shim.delete(id, "").unwrap_err().code, Code::NOT_FOUND);
    assert_eq!(shim.state(id, "").unwrap_err().code, Code::NOT_FOUND);
    shim.shutdown(id, Ends::Yes);
    assert_eq!(rig.sink.of(id), [""; 0]);
    Invocation::new(t, &rig.bundle, &rig.sink).run("delete", b"").ok();
}

fn an_unknown_container_is_not_found(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id, no) = (&rig.shim, rig.id(), "no-such");
    let codes = [
        shim.state(no, "").map(drop),
        shim.start(no, "").map(drop),
        shim.kill(no, "", 9).map(drop),
        shim.delete(no, "").map(drop),
        shim.wait(no, "").map(drop),
        shim.pids(no).map(drop),
        shim.stats(no).map(drop),
        shim.pause(no).map(drop),
        shim.resume(no).map(drop),
        shim.update(no, &json!({})).map(drop),
        shim.exec(no, "e", &shell("true"), &Stdio3::default()).map(drop),
        shim.state(id, no).map(drop),
        shim.start(id, no).map(drop),
        shim.kill(id, no, 9).map(drop),
        shim.delete(id, no).map(drop),
        shim.wait(id, no).map(drop),
    ]
    .map(|answer| answer.map_err(|error| error.code));
    assert_eq!(codes, [(); 16].map(|()| Err(Code::NOT_FOUND)));
    rig.end();
}

fn wrong_states_are_refused(t: &Test) {
    let rig = Rig::created(t, |spec| spec.args(&["sleep", "3600"]));
    let (shim, id) = (&rig.shim, rig.id());
    assert!(shim.pause(id).is_err(), "pause before start");
    assert!(shim.resume(id).is_err(), "resume before start");
    shim.start(id, "").unwrap();
    assert!(shim.start(id, "").is_err(), "start twice");
    assert!(shim.delete(id, "").is_err(), "delete while it runs");
    assert!(shim.resume(id).is_err(), "resume while it runs");
    assert_eq!(shim.status(id, ""), "running");
    shim.kill(id, "", 9).unwrap();
    shim.wait(id, "").unwrap();
    assert!(shim.start(id, "").is_err(), "start after the exit");
    assert!(shim.pause(id).is_err(), "pause after the exit");
    assert_eq!(shim.status(id, ""), "stopped");
    rig.end();
}

fn wait_answers_before_and_after_the_exit(t: &Test) {
    let rig = Rig::created(t, |spec| spec.shell("exit 5"));
    let (id, second) = (rig.id().to_owned(), rig.shim.again());
    let waiter = std::thread::spawn(move || second.wait(&id, "").unwrap().exit_status);
    rig.shim.start(rig.id(), "").unwrap();
    assert_eq!(waiter.join().unwrap(), 5);
    for _ in 0..3 {
        assert_eq!(rig.code(""), 5);
    }
    rig.end();
}

fn many_wait_at_once(t: &Test) {
    let rig = Rig::sleeping(t);
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let (shim, id) = (rig.shim.again(), rig.id().to_owned());
            std::thread::spawn(move || shim.wait(&id, "").unwrap().exit_status)
        })
        .collect();
    rig.shim.kill(rig.id(), "", 9).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), 137);
    }
    rig.end();
}

fn a_wait_whose_client_is_gone_does_no_harm(t: &Test) {
    let rig = Rig::sleeping(t);
    let daemon = rig.shim.connect(rig.id()).unwrap().shim_pid;
    let before = facts::settled_descriptors(daemon).len();
    for _ in 0..10 {
        // A request to wait, and gone.
        let mut stream = std::os::unix::net::UnixStream::connect(rig.shim.answer.socket()).unwrap();
        std::io::Write::write_all(&mut stream, &wait_request(&rig)).unwrap();
    }
    wait::until_true("the connections are closed", || {
        facts::settled_descriptors(daemon).len() <= before
    });
    rig.shim.kill(rig.id(), "", 15).unwrap();
    assert_eq!(rig.shim.status(rig.id(), ""), "running");
    rig.end();
}

fn wait_request(rig: &Rig<'_>) -> Vec<u8> {
    let mut wait = containerd_shim_protos::api::WaitRequest::new();
    rig.id().clone_into(&mut wait.id);
    let mut request = ttrpc::proto::Request::new();
    request.service = format!("containerd.task.v{}.Task", rig.shim.answer.version);
    "Wait".clone_into(&mut request.method);
    request.payload = wait.write_to_bytes().unwrap();
    let body = request.write_to_bytes().unwrap();
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(1_u32.to_be_bytes());
    bytes.extend([1, 0]);
    bytes.extend(body);
    bytes
}

fn kill_of_what_is_gone_is_not_found(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id) = (&rig.shim, rig.id());
    rig.exec("e", "exit 0");
    let early = shim.kill(id, "e", 9).unwrap_err();
    assert_eq!(early.code, Code::FAILED_PRECONDITION, "an exec that is not started: {early:?}");
    shim.start(id, "e").unwrap();
    assert_eq!(rig.code("e"), 0);
    assert_eq!(shim.kill(id, "e", 9).unwrap_err().code, Code::NOT_FOUND);
    shim.kill(id, "", 9).unwrap();
    shim.wait(id, "").unwrap();
    assert_eq!(shim.kill(id, "", 9).unwrap_err().code, Code::NOT_FOUND);
    shim.delete(id, "e").unwrap();
    rig.end();
}

fn a_created_container_can_be_killed_and_deleted(t: &Test) {
    let rig = Rig::created(t, |spec| spec.args(&["sleep", "3600"]));
    let (shim, id) = (&rig.shim, rig.id());
    shim.kill(id, "", 9).unwrap();
    assert_eq!(rig.code(""), 137);
    assert_eq!(shim.status(id, ""), "stopped");
    assert_eq!(shim.delete(id, "").unwrap().exit_status, 137);
    assert_eq!(rig.sink.until(id, "delete:137"), ["create", "exit:137", "delete:137"]);
    shim.shutdown(id, Ends::Yes);
    Invocation::new(t, &rig.bundle, &rig.sink).run("delete", b"").ok();
}

fn execs_have_states_of_their_own(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id) = (&rig.shim, rig.id());
    rig.exec("e", "while [ ! -e /end ]; do sleep 0.02; done; exit 6");
    assert_eq!(shim.status(id, "e"), "created");
    let pid = shim.start(id, "e").unwrap().pid;
    assert_eq!(shim.state(id, "e").unwrap().pid, pid);
    assert_eq!(shim.status(id, "e"), "running");
    rig.exec("f", "touch /end");
    shim.start(id, "f").unwrap();
    assert_eq!((rig.code("e"), rig.code("f")), (6, 0));
    assert_eq!(shim.status(id, "e"), "stopped");
    assert_eq!(shim.delete(id, "e").unwrap().exit_status, 6);
    shim.delete(id, "f").unwrap();
    assert_eq!(shim.state(id, "e").unwrap_err().code, Code::NOT_FOUND);
    let events = rig.sink.until(id, "e exit:6");
    let of_e: Vec<_> = events.iter().filter(|event| event.starts_with("e ")).collect();
    assert_eq!(of_e, ["e added", "e started", "e exit:6"]);
    // Only an init's delete is an event.
    assert!(!events.iter().any(|event| event.starts_with("delete")), "{events:?}");
    rig.end();
}

fn an_exec_may_be_added_before_start(t: &Test) {
    let rig = Rig::created(t, |spec| spec.args(&["sleep", "3600"]));
    rig.exec("e", "exit 4");
    rig.shim.start(rig.id(), "").unwrap();
    rig.shim.start(rig.id(), "e").unwrap();
    assert_eq!(rig.code("e"), 4);
    rig.shim.delete(rig.id(), "e").unwrap();
    rig.end();
}

fn a_failed_exec_stays_created_and_unblocks_wait(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id) = (&rig.shim, rig.id());
    let process = json!({
        "args": ["no-such-program"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
    });
    shim.exec(id, "e", &process, &Stdio3::default()).unwrap();
    let (second, of) = (shim.again(), id.to_owned());
    let waiter = std::thread::spawn(move || second.wait(&of, "e"));
    let error = shim.start(id, "e").unwrap_err();
    assert!(error.message.contains("executable file not found in $PATH"), "{error:?}");
    wait::until_true("the wait is answered", || waiter.is_finished());
    shim.delete(id, "e").unwrap();
    assert!(!rig.sink.of(id).contains(&"e started".to_owned()));
    rig.end();
}

fn an_exec_id_in_use_already_exists(t: &Test) {
    let rig = Rig::sleeping(t);
    rig.exec("e", "true");
    let again = rig.shim.exec(rig.id(), "e", &shell("true"), &Stdio3::default()).unwrap_err();
    assert_eq!(again.code, Code::ALREADY_EXISTS, "{again:?}");
    rig.shim.delete(rig.id(), "e").unwrap();
    rig.end();
}

fn an_exec_after_the_exit_is_a_failed_precondition(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id) = (&rig.shim, rig.id());
    rig.exec("e", "true");
    shim.kill(id, "", 9).unwrap();
    shim.wait(id, "").unwrap();
    let late = shim.start(id, "e").unwrap_err();
    assert_eq!(late.code, Code::FAILED_PRECONDITION, "{late:?}");
    assert!(shim.exec(id, "f", &shell("true"), &Stdio3::default()).is_err());
    shim.delete(id, "e").unwrap();
    rig.end();
}

fn pids_name_the_execs(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id) = (&rig.shim, rig.id());
    rig.exec("mine", "sleep 1000 & wait");
    let exec = shim.start(id, "mine").unwrap().pid;
    let init = shim.state(id, "").unwrap().pid;
    let child = facts::process(t, "sleep 1000");
    let listed = shim.pids(id).unwrap().processes;
    let mut pids: Vec<u32> = listed.iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    let mut wanted = [init, exec, child];
    wanted.sort_unstable();
    assert_eq!(pids, wanted);
    let details = &listed.iter().find(|process| process.pid == exec).unwrap().info;
    assert_eq!(details.type_url, "containerd.runc.v1.ProcessDetails");
    assert_eq!(ProcessDetails::parse_from_bytes(&details.value).unwrap().exec_id, "mine");
    rig.end();
}

fn pause_and_resume_know_their_states(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id) = (&rig.shim, rig.id());
    shim.pause(id).unwrap();
    assert_eq!(shim.status(id, ""), "paused");
    assert!(shim.pause(id).is_err(), "pause twice");
    shim.resume(id).unwrap();
    assert_eq!(shim.status(id, ""), "running");
    assert_eq!(rig.sink.until(id, "resumed"), ["create", "start", "paused", "resumed"]);
    rig.end();
}

fn an_exec_while_paused_is_refused(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id) = (&rig.shim, rig.id());
    shim.pause(id).unwrap();
    let added = shim.exec(id, "e", &shell("true"), &Stdio3::default());
    let begin = Instant::now();
    let refused = added.is_err() || shim.start(id, "e").is_err();
    assert!(refused && begin.elapsed() < wait::scaled(Duration::from_secs(5)));
    shim.resume(id).unwrap();
    rig.end();
}

fn a_paused_containers_kill_thaws_it(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id) = (&rig.shim, rig.id());
    shim.pause(id).unwrap();
    shim.kill(id, "", 9).unwrap();
    assert_eq!(rig.code(""), 137);
    assert_eq!(shim.status(id, ""), "stopped");
    rig.end();
}

fn stats_are_containerds_metrics(t: &Test) {
    let rig = Rig::created(t, |spec| {
        spec.args(&["sleep", "3600"]).with("/linux/resources/memory", json!({"limit": 67_108_864}))
    });
    rig.shim.start(rig.id(), "").unwrap();
    let stats = rig.shim.stats(rig.id()).unwrap().stats.unwrap();
    let (pids, usage, limit) = match stats.type_url.as_str() {
        "io.containerd.cgroups.v1.Metrics" => {
            let metrics = MetricsV1::parse_from_bytes(&stats.value).unwrap();
            let memory = &metrics.memory.usage;
            (metrics.pids.current, memory.usage, memory.limit)
        }
        "io.containerd.cgroups.v2.Metrics" => {
            let metrics = MetricsV2::parse_from_bytes(&stats.value).unwrap();
            (metrics.pids.current, metrics.memory.usage, metrics.memory.usage_limit)
        }
        other => panic!("{other}"),
    };
    assert_eq!((pids, limit), (1, 67_108_864));
    assert!(usage > 0 && usage < limit, "{usage}");
    rig.end();
}

fn update_changes_what_it_names(t: &Test) {
    let rig = Rig::created(t, |spec| {
        spec.args(&["sleep", "3600"])
            .with("/linux/resources/memory", json!({"limit": 67_108_864}))
            .with("/linux/resources/pids", json!({"limit": 77}))
    });
    let (shim, id) = (&rig.shim, rig.id());
    let pid = shim.state(id, "").unwrap().pid;
    let read = |controller: &str, names: &[&str]| {
        facts::first_of(&cgroup_dir(pid, controller).unwrap(), names)
    };
    let memory = || read("memory", &["memory.limit_in_bytes", "memory.max"]);
    shim.update(id, &json!({"memory": {"limit": 33_554_432}})).unwrap();
    assert_eq!((memory().as_str(), read("pids", &["pids.max"]).as_str()), ("33554432", "77"));
    shim.start(id, "").unwrap();
    shim.update(id, &json!({"pids": {"limit": 88}})).unwrap();
    assert_eq!((memory().as_str(), read("pids", &["pids.max"]).as_str()), ("33554432", "88"));
    shim.pause(id).unwrap();
    shim.update(id, &json!({"memory": {"limit": 67_108_864}})).unwrap();
    assert_eq!(memory(), "67108864");
    shim.resume(id).unwrap();
    let error = shim.update(id, &json!({"cpu": {"quota": "many"}})).unwrap_err();
    assert!(error.message.contains("quota"), "{error:?}");
    rig.end();
}

fn connect_never_fails(t: &Test) {
    let rig = Rig::sleeping(t);
    let known = rig.shim.connect(rig.id()).unwrap();
    assert_eq!(known.task_pid, rig.shim.state(rig.id(), "").unwrap().pid);
    assert!(Process::read(known.shim_pid).is_some_and(|p| p.line.contains("containerd-shim")));
    let unknown = rig.shim.connect("no-such").unwrap();
    assert_eq!((unknown.shim_pid, unknown.task_pid), (known.shim_pid, 0));
    rig.end();
}

fn resize_and_close_without_terminal_or_stdin_do_nothing(t: &Test) {
    let rig = Rig::sleeping(t);
    rig.shim.resize(rig.id(), "", 80, 24).unwrap();
    rig.shim.close_stdin(rig.id(), "").unwrap();
    assert_eq!(rig.shim.status(rig.id(), ""), "running");
    rig.end();
}

fn checkpoint_is_unimplemented(t: &Test) {
    let rig = Rig::sleeping(t);
    let error = rig.shim.checkpoint(rig.id(), &t.dir.join("image")).unwrap_err();
    assert_eq!(error.code, Code::UNIMPLEMENTED, "{error:?}");
    assert_eq!(rig.shim.status(rig.id(), ""), "running");
    rig.end();
}

fn shutdown_waits_for_the_last_container(t: &Test) {
    let rig = Rig::sleeping(t);
    rig.shim.shutdown(rig.id(), Ends::No);
    assert_eq!(rig.shim.status(rig.id(), ""), "running");
    rig.end();
}

fn an_unknown_method_is_unimplemented(t: &Test) {
    let rig = Rig::sleeping(t);
    for (service, method) in [
        ("containerd.task.v3.Task", "Juggle"),
        ("containerd.task.v9.Task", "State"),
        ("no.such.Service", "State"),
    ] {
        let error = rig.shim.raw(service, method, Vec::new()).unwrap_err();
        // What the ttrpc library says of a service that was never registered.
        let known = [Code::UNIMPLEMENTED, Code::NOT_FOUND, Code::INVALID_ARGUMENT];
        assert!(known.contains(&error.code), "{service}/{method}: {error:?}");
    }
    rig.end();
}

fn both_names_of_the_service_are_served(t: &Test) {
    let rig = Rig::sleeping(t);
    let mut request = containerd_shim_protos::api::StateRequest::new();
    rig.id().clone_into(&mut request.id);
    let payload = request.write_to_bytes().unwrap();
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let answer = rig.shim.raw(service, "State", payload.clone()).unwrap();
        let state = containerd_shim_protos::api::StateResponse::parse_from_bytes(&answer).unwrap();
        assert_eq!(state.id, rig.id(), "{service}");
    }
    rig.end();
}

fn state_answers_while_a_create_hangs(t: &Test) {
    let rig = Rig::sleeping(t);
    let go = t.dir.join("go");
    let hook =
        t.script("hook", &format!("while [ ! -e {} ]; do /bin/sleep 0.02; done", go.display()));
    let slow = Bundle::new(t, "slow", |spec| {
        spec.args(&["true"]).push("/hooks/createRuntime", json!({"path": hook}))
    });
    let (second, bundle) = (rig.shim.again(), slow.clone());
    let create = std::thread::spawn(move || second.create(&bundle, &Stdio3::default()));
    wait::until_true("the hook runs", || {
        Process::tagged(&t.tag).values().any(|process| process.line.ends_with("/hook"))
    });
    let begin = Instant::now();
    for _ in 0..10 {
        assert_eq!(rig.shim.status(rig.id(), ""), "running");
    }
    rig.exec("e", "exit 3");
    rig.shim.start(rig.id(), "e").unwrap();
    assert_eq!(rig.code("e"), 3);
    rig.shim.delete(rig.id(), "e").unwrap();
    assert!(begin.elapsed() < wait::scaled(Duration::from_secs(5)), "others wait for the create");
    assert!(!create.is_finished());
    fs::write(go, "").unwrap();
    create.join().unwrap().unwrap();
    rig.shim.kill(&slow.id, "", 9).unwrap();
    rig.shim.wait(&slow.id, "").unwrap();
    rig.shim.delete(&slow.id, "").unwrap();
    rig.end();
}

fn events_wait_for_a_subscriber_and_stay_in_order(t: &Test) {
    let mut rig = Rig::sleeping(t);
    assert_eq!(rig.sink.until(rig.id(), "start"), ["create", "start"]);
    rig.sink.down();
    for n in 0..20 {
        let exec = format!("e{n}");
        rig.exec(&exec, &format!("exit {n}"));
        rig.shim.start(rig.id(), &exec).unwrap();
        assert_eq!(rig.code(&exec), n);
        rig.shim.delete(rig.id(), &exec).unwrap();
    }
    rig.shim.kill(rig.id(), "", 9).unwrap();
    rig.shim.wait(rig.id(), "").unwrap();
    rig.sink.up();
    let seen = rig.sink.until(rig.id(), "exit:137");
    let mut wanted = vec!["create".to_owned(), "start".to_owned()];
    for n in 0..20 {
        wanted.extend([format!("e{n} added"), format!("e{n} started"), format!("e{n} exit:{n}")]);
    }
    wanted.push("exit:137".to_owned());
    assert_eq!(seen, wanted);
    rig.end();
}

fn kill_all_ends_every_process(t: &Test) {
    let rig = Rig::created(t, |spec| {
        spec.host_namespace("pid").shell("sleep 1001 & (sleep 1002 &); sleep 1003")
    });
    rig.shim.start(rig.id(), "").unwrap();
    for line in ["sleep 1001", "sleep 1002"] {
        facts::process(t, line);
    }
    rig.shim.kill_as(rig.id(), "", 9, Whom::All).unwrap();
    assert_eq!(rig.code(""), 137);
    wait::until_true("no process is left", || {
        !Process::tagged(&t.tag).values().any(|process| process.line.starts_with("sleep 100"))
    });
    rig.end();
}

fn a_killed_create_leaves_nothing(t: &Test) {
    let hook = t.script("hook", "exec /bin/sleep 1234");
    let rig = Rig::new(t, |spec| {
        spec.args(&["true"]).push("/hooks/createRuntime", json!({"path": hook}))
    });
    let (second, bundle) = (rig.shim.again(), rig.bundle.clone());
    let create = std::thread::spawn(move || second.create(&bundle, &Stdio3::default()));
    let pid = facts::process(t, "/bin/sleep 1234");
    myshim_integration::test::kill_hard(pid);
    let error = create.join().unwrap().unwrap_err();
    assert!(error.message.contains("createRuntime"), "{error:?}");
    rig.shim.shutdown(rig.id(), Ends::Yes);
    Invocation::new(t, &rig.bundle, &rig.sink).run("delete", b"").ok();
}

fn exit_codes_and_times_are_kept_until_delete(t: &Test) {
    let rig = Rig::sleeping(t);
    let (shim, id) = (&rig.shim, rig.id());
    rig.exec("e", "exit 9");
    shim.start(id, "e").unwrap();
    let first = shim.wait(id, "e").unwrap();
    for _ in 0..3 {
        let again = shim.wait(id, "e").unwrap();
        assert_eq!((again.exit_status, &again.exited_at), (9, &first.exited_at));
        assert_eq!(shim.state(id, "e").unwrap().exited_at, first.exited_at);
    }
    assert_eq!(shim.delete(id, "e").unwrap().exited_at, first.exited_at);
    rig.end();
}

fn delete_by_the_binary_reports_the_true_exit_status(t: &Test) {
    let rig = Rig::created(t, |spec| spec.shell("exit 5"));
    rig.shim.start(rig.id(), "").unwrap();
    assert_eq!(rig.code(""), 5);
    let daemon = rig.shim.connect(rig.id()).unwrap().shim_pid;
    myshim_integration::test::kill_hard(daemon);
    let out = Invocation::new(t, &rig.bundle, &rig.sink).run("delete", b"");
    out.ok();
    let answer =
        containerd_shim_protos::api::DeleteResponse::parse_from_bytes(&out.stdout).unwrap();
    assert_eq!(answer.exit_status, 5, "{answer:?}");
}

fn delete_by_the_binary_is_idempotent(t: &Test) {
    let rig = Rig::sleeping(t);
    let daemon = rig.shim.connect(rig.id()).unwrap().shim_pid;
    myshim_integration::test::kill_hard(daemon);
    for _ in 0..3 {
        let begin = Instant::now();
        let out = Invocation::new(t, &rig.bundle, &rig.sink).run("delete", b"");
        out.ok();
        let answer =
            containerd_shim_protos::api::DeleteResponse::parse_from_bytes(&out.stdout).unwrap();
        assert_eq!(answer.exit_status, 137, "{answer:?}");
        assert!(
            begin.elapsed() < wait::scaled(Duration::from_secs(5)),
            "containerd gives it five seconds"
        );
    }
    wait::until_true("every process is gone", || facts::process_count(t) == 0);
    // And with nothing in the bundle, too.
    for entry in fs::read_dir(&rig.bundle.dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    Invocation::new(t, &rig.bundle, &rig.sink).run("delete", b"").ok();
}
