//! Pods: containers with one sandbox annotation share one daemon.

use myshim_integration::claim::Claim;
use myshim_integration::test::kill_hard;
use myshim_integration::wait;
use myshim_integration::{Container, Test, claims};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_pods_containers_share_one_daemon,
    the_group_annotation_counts_as_well,
    containers_of_two_pods_have_two_daemons,
    a_pods_containers_end_one_by_one,
    a_pods_container_is_killed_alone,
    a_pods_daemon_returns_what_a_container_held,
    when_a_pods_daemon_dies_all_its_containers_go,
];

const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";

/// A container in the pod whose first container has the id `pod`.
fn member<'a>(t: &'a Test, name: &str, key: &str, pod: &str, program: &[&str]) -> Container<'a> {
    t.detached(name, &["--annotation", &format!("{key}={pod}")], program)
}

fn sleeper<'a>(t: &'a Test, name: &str) -> Container<'a> {
    member(t, name, SANDBOX, &t.id("pause"), &["sleep", "3600"])
}

fn a_pods_containers_share_one_daemon(t: &Test) {
    let pause = sleeper(t, "pause");
    let before = facts::process_count(t);
    let daemon = pause.shim().pid;
    let app = sleeper(t, "app");
    assert_eq!(app.shim().pid, daemon);
    wait::until_true("the second costs one process: its own", || {
        facts::process_count(t) == before + 1
    });
    assert_ne!(pause.pid(), app.pid());
    assert_eq!(app.exec(&["echo", "hello"]).ok(), "hello\n");
    app.remove();
    pause.remove();
}

fn the_group_annotation_counts_as_well(t: &Test) {
    let (key, pod) = ("io.containerd.runc.v2.group", t.id("pause"));
    let pause = member(t, "pause", key, &pod, &["sleep", "3600"]);
    let app = member(t, "app", key, &pod, &["sleep", "3600"]);
    assert_eq!(t.shims().len(), 1);
    app.remove();
    pause.remove();
}

fn containers_of_two_pods_have_two_daemons(t: &Test) {
    let one = member(t, "one", SANDBOX, &t.id("one"), &["sleep", "3600"]);
    let two = member(t, "two", SANDBOX, &t.id("two"), &["sleep", "3600"]);
    assert_eq!(t.shims().len(), 2);
    one.remove();
    assert_eq!(two.exec(&["echo", "hello"]).ok(), "hello\n");
    two.remove();
}

fn a_pods_containers_end_one_by_one(t: &Test) {
    let pause = sleeper(t, "pause");
    let daemon = pause.shim().pid;
    for n in 0..3 {
        let app = sleeper(t, "app");
        assert_eq!(app.shim().pid, daemon, "container {n}");
        app.remove();
        assert_eq!(pause.status(), "RUNNING");
    }
    // The first may go before the others, too.
    let app = sleeper(t, "app");
    pause.remove();
    assert_eq!(app.exec(&["echo", "hello"]).ok(), "hello\n");
    assert_eq!(app.shim().pid, daemon);
    app.remove();
}

fn a_pods_container_is_killed_alone(t: &Test) {
    let events = t.events();
    let (pause, app) = (sleeper(t, "pause"), sleeper(t, "app"));
    app.kill("SIGKILL").ok();
    events.wait_for(&app.id, "exit");
    assert_eq!(pause.status(), "RUNNING");
    assert!(!events.shorts(&pause.id).contains(&"exit".to_owned()));
    app.remove();
    pause.remove();
}

fn a_pods_daemon_returns_what_a_container_held(t: &Test) {
    let pause = sleeper(t, "pause");
    let daemon = pause.shim().pid;
    sleeper(t, "app").remove();
    let before = facts::settled_descriptors(daemon);
    for _ in 0..3 {
        sleeper(t, "app").remove();
        let bad = t.detached_failing("bad", &["--annotation", &format!("{SANDBOX}={}", pause.id)]);
        bad.fails(&["no-such-program"]);
    }
    let after = wait::within(wait::SOON, || {
        Some(facts::settled_descriptors(daemon)).filter(|now| now.len() <= before.len())
    });
    let now = facts::settled_descriptors(daemon);
    assert!(after.is_some(), "before: {before:#?}\nafter: {now:#?}");
    pause.remove();
}

fn when_a_pods_daemon_dies_all_its_containers_go(t: &Test) {
    let (pause, app) = (sleeper(t, "pause"), sleeper(t, "app"));
    kill_hard(pause.shim().pid);
    wait::until_true("every process of the pod is gone", || facts::process_count(t) == 0);
    // What containerd still knows of them can be removed.
    for c in [app, pause] {
        wait::until_true("the task can be removed", || {
            let out = t.ctr(["tasks", "delete", "--force", &c.id]);
            out.status.success() || c.status().is_empty()
        });
        t.ctr(["containers", "delete", &c.id]).ok();
    }
}
