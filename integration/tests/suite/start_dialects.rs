//! The binary's own commands: `start` in every dialect of containerd, `delete`, `-info`, `-v`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use myshim_integration::claim::Claim;
use myshim_integration::command::{self, LIMIT};
use myshim_integration::containerd::shim_binary;
use myshim_integration::process::{Process, descriptors, status};
use myshim_integration::shim::{Bundle, Dialect, Ends, EventSink, Invocation, Shim, Stdio3};
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

pub(crate) const CLAIMS: &[Claim] = claims![
    containerd_2_3_and_later_get_a_bootstrap_result.once(),
    containerd_2_0_to_2_2_get_json.once(),
    containerd_1_6_gets_an_address.once(),
    options_of_every_type_are_taken.once(),
    the_socket_is_at_containerds_path_and_private.once(),
    a_second_start_answers_with_the_same_daemon.once(),
    a_dead_socket_is_replaced.once(),
    the_daemon_keeps_nothing_of_its_caller_open.once(),
    the_daemon_is_one_less_worth_than_containerd.once(),
    the_daemon_runs_in_one_thread_per_process.once(),
    the_daemon_logs_to_the_fifo.once(),
    info_tells_true_features.once(),
    version_is_told.once(),
    an_unknown_action_is_refused.once(),
];

fn started<'a>(t: &'a Test, bundle: &'a Bundle, sink: &EventSink, dialect: Dialect) -> Shim {
    Invocation::new(t, bundle, sink).start(dialect)
}

/// Runs a container in a shim started in `dialect`, start to end.
fn works(t: &Test, dialect: Dialect, version: i64) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.shell("exit 3"));
    let shim = started(t, &bundle, &sink, dialect);
    assert_eq!((shim.answer.version, shim.answer.protocol.as_str()), (version, "ttrpc"));
    shim.create(&bundle, &Stdio3::default()).unwrap();
    shim.start(&bundle.id, "").unwrap();
    assert_eq!(shim.wait(&bundle.id, "").unwrap().exit_status, 3);
    shim.delete(&bundle.id, "").unwrap();
    assert_eq!(sink.until(&bundle.id, "delete:3"), ["create", "start", "exit:3", "delete:3"]);
    shim.shutdown(&bundle.id, Ends::Yes);
    wait::until_true("the socket is gone", || !shim.answer.socket().exists());
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}

fn containerd_2_3_and_later_get_a_bootstrap_result(t: &Test) {
    works(t, Dialect::Bootstrap, 3);
}

fn containerd_2_0_to_2_2_get_json(t: &Test) {
    works(t, Dialect::Json, 3);
}

fn containerd_1_6_gets_an_address(t: &Test) {
    works(t, Dialect::Address, 2);
}

fn options_of_every_type_are_taken(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.shell("exit 3"));
    let mut runc = Options::new();
    runc.no_pivot_root = true;
    let mut toml = vec![0x1a];
    let body = b"SystemdCgroup = false\nNoNewKeyring = true\n";
    toml.push(u8::try_from(body.len()).unwrap());
    toml.extend(body);
    let forms = [
        ("containerd.runc.v1.Options", runc.write_to_bytes().unwrap()),
        ("runtimeoptions.v1.Options", toml),
        // The name that Kubernetes' part of containerd gave it before 2.0.
        ("cri.runtimeoptions.v1.Options", Vec::new()),
    ];
    for (name, value) in forms {
        for dialect in [Dialect::Bootstrap, Dialect::Json, Dialect::Address] {
            let mut options = Any::new();
            name.clone_into(&mut options.type_url);
            options.value.clone_from(&value);
            let mut invocation = Invocation::new(t, &bundle, &sink);
            invocation.options = Some(options.clone());
            let shim = invocation.start(dialect);
            let stdio = Stdio3::default();
            shim.create_with(&bundle, &stdio, |r| r.options = Some(options).into()).unwrap();
            shim.start(&bundle.id, "").unwrap();
            assert_eq!(shim.wait(&bundle.id, "").unwrap().exit_status, 3, "{name}, {dialect:?}");
            shim.delete(&bundle.id, "").unwrap();
            shim.shutdown(&bundle.id, Ends::Yes);
        }
    }
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}

fn the_socket_is_at_containerds_path_and_private(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["true"]));
    let shim = started(t, &bundle, &sink, Dialect::Bootstrap);
    let socket = shim.answer.socket();
    assert_eq!(socket, t.endpoint.shim_socket(&bundle.id));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    // No abstract socket: those have no permissions (CVE-2020-15257).
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let abstracts = sockets.lines().filter(|line| line.contains("@/") && line.contains(&t.tag));
    assert_eq!(abstracts.count(), 0);
    // Another user is turned away even where the mode would let it in.
    let parent = socket.parent().unwrap();
    assert_eq!(mode(parent) & 0o077, 0, "{} is open to others", parent.display());
    shim.shutdown(&bundle.id, Ends::Yes);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}

fn a_second_start_answers_with_the_same_daemon(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["true"]));
    let first = started(t, &bundle, &sink, Dialect::Bootstrap);
    let second = started(t, &bundle, &sink, Dialect::Bootstrap);
    assert_eq!(first.answer, second.answer);
    let pid = |shim: &Shim| shim.connect(&bundle.id).unwrap().shim_pid;
    assert_eq!(pid(&first), pid(&second));
    first.shutdown(&bundle.id, Ends::Yes);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}

fn a_dead_socket_is_replaced(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["true"]));
    let first = started(t, &bundle, &sink, Dialect::Bootstrap);
    myshim_integration::test::kill_hard(first.connect(&bundle.id).unwrap().shim_pid);
    let second = started(t, &bundle, &sink, Dialect::Bootstrap);
    assert_eq!(first.answer, second.answer);
    second.shutdown(&bundle.id, Ends::Yes);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}

fn the_daemon_keeps_nothing_of_its_caller_open(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["true"]));
    // A caller with a file open that it forgot to close on exec.
    let leak = t.file("leak", "text");
    let invocation = Invocation::new(t, &bundle, &sink);
    let inner = invocation.command("start");
    let mut outer = Command::new("/bin/sh");
    outer.args(["-c", "exec 7<\"$LEAK\" 8<\"$LEAK\"; exec \"$0\" \"$@\""]).arg(inner.get_program());
    outer.args(inner.get_args()).current_dir(&bundle.dir).env_clear().env("LEAK", &leak);
    outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    outer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let log = myshim_integration::shim::open_fifo(&bundle.dir.join("log"));
    let mut running = command::Running::start(outer);
    running.write(&invocation.stdin(Dialect::Bootstrap));
    running.finish(LIMIT).ok();
    drop(log);
    let shim = started(t, &bundle, &sink, Dialect::Bootstrap);
    for process in Process::tagged(&t.tag).values() {
        let open = descriptors(process.pid);
        let leaked = open.iter().any(|link| link == &*leak.to_string_lossy());
        assert!(!leaked, "{process:?} has {open:#?}");
    }
    shim.shutdown(&bundle.id, Ends::Yes);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}

fn the_daemon_is_one_less_worth_than_containerd(t: &Test) {
    let c = t.sleeper("web", &[]);
    let score = |pid: u32| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let config = t.endpoint.dir.join("config.toml").to_string_lossy().into_owned();
    let containerd = Process::all().into_values().find(|p| p.line.ends_with(&config)).unwrap();
    assert_eq!(score(c.shim().pid), score(containerd.pid) + 1);
    c.remove();
}

fn the_daemon_runs_in_one_thread_per_process(t: &Test) {
    let c = t.sleeper("web", &[]);
    for process in Process::tagged(&t.tag).values().filter(|p| p.line.contains("containerd-shim")) {
        assert_eq!(status(process.pid, "Threads").as_deref(), Some("1"), "{process:?}");
    }
    c.remove();
}

fn the_daemon_logs_to_the_fifo(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["true"]));
    let mut shim = started(t, &bundle, &sink, Dialect::Bootstrap);
    let pid = shim.connect(&bundle.id).unwrap().shim_pid;
    let log = bundle.dir.join("log").to_string_lossy().into_owned();
    assert!(descriptors(pid).contains(&log), "{:#?}", descriptors(pid));
    shim.shutdown(&bundle.id, Ends::Yes);
    let text = shim.log();
    assert!(!text.contains("panicked"), "{text}");
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}

fn info_tells_true_features(t: &Test) {
    let mut command = Command::new(shim_binary(t.version()));
    command.arg("-info");
    let out = command::run(command, LIMIT);
    out.ok();
    let info = RuntimeInfo::parse_from_bytes(&out.stdout).unwrap();
    assert_eq!(info.name, myshim_integration::containerd::runtime());
    let url = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
    assert_eq!(info.features.type_url, url);
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
    let has = |pointer: &str, word: &str| {
        let list = features.pointer(pointer).and_then(|value| value.as_array());
        list.is_some_and(|list| list.iter().any(|item| item == word))
    };
    assert!(has("/mountOptions", "rro"), "{features:#}");
    assert!(has("/linux/namespaces", "user"), "{features:#}");
    assert!(has("/linux/capabilities", "CAP_SYS_ADMIN"), "{features:#}");
    assert!(has("/linux/seccomp/actions", "SCMP_ACT_ERRNO"), "{features:#}");
    assert!(has("/hooks", "createRuntime"), "{features:#}");
    assert_eq!(features.pointer("/linux/cgroup/v1"), Some(&true.into()), "{features:#}");
}

fn version_is_told(t: &Test) {
    for flag in ["-v", "-version"] {
        let mut command = Command::new(shim_binary(t.version()));
        command.arg(flag);
        let text = command::run(command, LIMIT).ok();
        assert!(text.chars().any(|c| c.is_ascii_digit()), "{text}");
    }
}

fn an_unknown_action_is_refused(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec);
    Invocation::new(t, &bundle, &sink).run("juggle", b"").fails(&["juggle"]);
}
