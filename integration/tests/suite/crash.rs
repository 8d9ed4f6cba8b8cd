//! Whatever dies, at whatever step: containerd's delete leaves no process, mount, cgroup, socket
//! or file.

use std::time::Duration;

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::process::Process;
use myshim_integration::test::kill_hard;
use myshim_integration::wait;
use myshim_integration::{Container, Test, claims};
use serde_json::json;

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_killed_daemon_leaves_nothing,
    a_daemon_killed_with_a_terminal_leaves_nothing,
    a_daemon_killed_with_execs_leaves_nothing,
    a_daemon_killed_with_a_paused_container_leaves_nothing,
    a_daemon_killed_without_a_pid_namespace_leaves_nothing,
    a_daemon_killed_in_the_middle_of_a_create_leaves_nothing,
    a_client_killed_in_the_middle_of_a_create_leaves_nothing,
    an_init_killed_from_outside_is_reported,
    the_daemons_helpers_may_die,
    a_container_of_the_same_id_starts_after_a_crash,
];

/// Kills the daemon, then removes what containerd still knows.
fn crash(t: &Test, c: Container<'_>) {
    kill_hard(c.shim().pid);
    bury(t, &c.id);
    drop(c);
}

/// Removes a container whose daemon is dead.
fn bury(t: &Test, id: &str) {
    wait::until_true("containerd notices the death", || {
        let out = t.ctr(["tasks", "list"]).ok();
        !out.lines().any(|line| line.starts_with(id) && line.contains("RUNNING"))
    });
    // The task may be gone by itself already.
    t.try_ctr(["tasks", "delete", "--force", id]);
    t.ctr(["containers", "delete", id]).ok();
    wait::until_true("every process is gone", || facts::process_count(t) == 0);
}

fn a_killed_daemon_leaves_nothing(t: &Test) {
    crash(t, t.sleeper("web", &[]));
}

fn a_daemon_killed_with_a_terminal_leaves_nothing(t: &Test) {
    let args = t.run_args(&t.id("tty"), &["-t", "--detach"], &["sleep", "3600"]);
    assert!(t.ctr_on_terminal(args).finish(LIMIT).0.success());
    crash(t, t.container("tty"));
}

fn a_daemon_killed_with_execs_leaves_nothing(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.exec_as("a", &["--detach"], &["sleep", "1000"]).ok();
    c.exec_as("b", &["--detach"], &["sh", "-c", "sleep 1001 & sleep 1002 & wait"]).ok();
    facts::process(t, "sleep 1002");
    crash(t, c);
}

fn a_daemon_killed_with_a_paused_container_leaves_nothing(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.task("pause").ok();
    crash(t, c);
}

fn a_daemon_killed_without_a_pid_namespace_leaves_nothing(t: &Test) {
    let c = t.detached_spec("web", |spec| {
        spec.host_namespace("pid").shell("sleep 1001 & (sleep 1002 &); exec sleep 1003")
    });
    facts::process(t, "sleep 1002");
    crash(t, c);
}

fn a_daemon_killed_in_the_middle_of_a_create_leaves_nothing(t: &Test) {
    let id = t.id("web");
    let hook = t.script("hook", "exec /bin/sleep 1234");
    let spec = t.spec(&id).args(&["true"]).push("/hooks/createRuntime", json!({"path": hook}));
    let running = t.ctr_start(t.spec_args(&id, &spec, &[]));
    facts::process_of(t, &running, "/bin/sleep 1234");
    kill_hard(t.container("web").shim().pid);
    assert!(!running.finish(LIMIT).status.success());
    bury(t, &id);
}

fn a_client_killed_in_the_middle_of_a_create_leaves_nothing(t: &Test) {
    let id = t.id("web");
    let hook = t.script("hook", "/bin/sleep 2.34");
    let spec =
        t.spec(&id).args(&["sleep", "3600"]).push("/hooks/createRuntime", json!({"path": hook}));
    let running = t.ctr_start(t.spec_args(&id, &spec, &[]));
    facts::process_of(t, &running, "/bin/sleep 2.34");
    running.signal(rustix::process::Signal::KILL);
    assert!(!running.finish(LIMIT).status.success());
    // containerd's call is cancelled with its client; whatever came of it can be removed.
    wait::within(Duration::from_secs(30), || {
        t.try_ctr(["tasks", "delete", "--force", &id]);
        t.try_ctr(["containers", "delete", &id]);
        (!t.ctr(["containers", "list", "-q"]).ok().contains(&id)).then_some(())
    });
    wait::until_true("every process is gone", || facts::process_count(t) == 0);
}

fn an_init_killed_from_outside_is_reported(t: &Test) {
    let running = t.ctr_start(t.run_args(&t.id("web"), &["--rm"], &["sleep", "3600"]));
    kill_hard(facts::process(t, "sleep 3600"));
    running.finish(LIMIT).exits(137);
}

fn the_daemons_helpers_may_die(t: &Test) {
    let c = t.sleeper("web", &[]);
    let (daemon, init) = (c.shim().pid, c.pid());
    let helpers: Vec<u32> = Process::tagged(&t.tag)
        .values()
        .filter(|p| p.parent == daemon && p.pid != init && p.line.contains("containerd-shim"))
        .map(|p| p.pid)
        .collect();
    helpers.iter().for_each(|&pid| kill_hard(pid));
    // A further exec works or says why not; the container goes on, and can be removed.
    let out = c.exec(&["true"]);
    assert!(out.status.success() || !out.err().trim().is_empty(), "{out}");
    assert_eq!(c.status(), "RUNNING");
    c.remove();
}

fn a_container_of_the_same_id_starts_after_a_crash(t: &Test) {
    for _ in 0..2 {
        crash(t, t.sleeper("web", &[]));
    }
    let c = t.sleeper("web", &[]);
    assert_eq!(c.exec(&["echo", "hello"]).ok(), "hello\n");
    c.remove();
}
