//! containerd goes and comes back while containers run.

use std::time::Duration;

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::wait;
use myshim_integration::{Container, Daemon, Test, Version, claims};
use rustix::process::Signal;

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    containers_survive_a_stop_and_start_of_containerd.within(120),
    containers_survive_the_death_of_containerd.within(120),
    an_exit_while_containerd_is_down_is_reported_once.within(120),
    an_exec_ends_while_containerd_is_down.within(120),
    output_goes_on_while_containerd_is_down.within(120),
    a_terminal_is_attached_again_after_a_restart.within(120),
    a_pod_survives_a_restart.within(120),
    a_killed_shim_is_noticed_after_a_restart.within(120),
];

/// Stops containerd with `signal`, does `meanwhile`, starts it.
fn restart(daemon: &mut Daemon, signal: Signal, meanwhile: impl FnOnce()) {
    daemon.down(signal);
    meanwhile();
    daemon.up();
}

fn outlives(own: &Test, daemon: &mut Daemon, signal: Signal) {
    let c = own.sleeper("web", &[]);
    let (pid, shim) = (c.pid(), c.shim().pid);
    restart(daemon, signal, || ());
    assert_eq!((c.status().as_str(), c.pid(), c.shim().pid), ("RUNNING", pid, shim));
    assert_eq!(c.exec(&["echo", "hello"]).ok(), "hello\n");
    c.task("pause").ok();
    c.task("resume").ok();
    own.ctr(["tasks", "metrics", &c.id]).ok();
    c.remove();
    own.finish();
}

fn containers_survive_a_stop_and_start_of_containerd(t: &Test) {
    let (own, mut daemon) = t.with_own_daemon();
    outlives(&own, &mut daemon, Signal::TERM);
}

fn containers_survive_the_death_of_containerd(t: &Test) {
    let (own, mut daemon) = t.with_own_daemon();
    outlives(&own, &mut daemon, Signal::KILL);
}

fn an_exit_while_containerd_is_down_is_reported_once(t: &Test) {
    let (own, mut daemon) = t.with_own_daemon();
    let c =
        own.detached("web", &[], &["sh", "-c", "while [ ! -e /end ]; do sleep 0.05; done; exit 9"]);
    let stay = own.sleeper("stay", &[]);
    let root = format!("/proc/{}/root/end", c.pid());
    restart(&mut daemon, Signal::TERM, || {
        let pid = facts_pid(&own);
        std::fs::write(&root, "").unwrap();
        wait::until_true("the program ends while containerd is down", || {
            myshim_integration::process::Process::read(pid).is_none_or(|p| p.state == 'Z')
        });
    });
    let events = own.events();
    assert_eq!(stay.status(), "RUNNING");
    // containerd 2 itself deletes a task that it finds without processes when it comes up.
    wait::until_true("the exit is known", || ["STOPPED", ""].contains(&c.status().as_str()));
    if c.status() == "STOPPED" {
        let out = c.task("delete");
        assert!(out.err().contains("exit code 9"), "{out}");
    } else {
        assert_eq!(own.version(), Version::V2);
    }
    // The stream may have begun after the exit came through; twice it may not come.
    let exits = events.shorts(&c.id).iter().filter(|short| *short == "exit").count();
    assert!(exits <= 1, "{:?}", events.shorts(&c.id));
    own.ctr(["containers", "delete", &c.id]).ok();
    stay.remove();
    drop(events);
    own.finish();
}

/// The pid of the program that waits for /end.
fn facts_pid(t: &Test) -> u32 {
    let all = myshim_integration::process::Process::tagged(&t.tag);
    all.values().find(|p| p.line.starts_with("sh -c while")).expect("the program").pid
}

fn an_exec_ends_while_containerd_is_down(t: &Test) {
    let (own, mut daemon) = t.with_own_daemon();
    let c = own.sleeper("web", &[]);
    c.exec_as("mine", &["--detach"], &["sleep", "1000"]).ok();
    let pid = facts::process(&own, "sleep 1000");
    restart(&mut daemon, Signal::TERM, || myshim_integration::test::kill_hard(pid));
    // The id is taken until the exec is deleted; its process is gone.
    assert!(!c.exec(&["ps"]).ok().contains("sleep 1000"));
    assert_eq!(c.status(), "RUNNING");
    c.remove();
    own.finish();
}

fn output_goes_on_while_containerd_is_down(t: &Test) {
    let (own, mut daemon) = t.with_own_daemon();
    let file = own.dir.join("out");
    let uri = format!("file://{}", file.display());
    let script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.01; done";
    let c = own.detached("web", &["--log-uri", &uri], &["sh", "-c", script]);
    let lines = || std::fs::read_to_string(&file).unwrap_or_default().lines().count();
    wait::until_true("the first lines", || lines() > 5);
    restart(&mut daemon, Signal::TERM, || {
        let before = lines();
        wait::until_true("more lines while containerd is down", || lines() > before + 5);
    });
    c.wait_status("STOPPED");
    assert_eq!(lines(), 200);
    c.remove();
    own.finish();
}

fn a_terminal_is_attached_again_after_a_restart(t: &Test) {
    let (own, mut daemon) = t.with_own_daemon();
    let args = own.run_args(&own.id("tty"), &["-t", "--detach"], &["sh"]);
    assert!(own.ctr_on_terminal(args).finish(LIMIT).0.success());
    let c: Container<'_> = own.container("tty");
    restart(&mut daemon, Signal::KILL, || ());
    let mut tty = own.ctr_on_terminal(["tasks", "attach", &c.id]);
    wait::until("the shell answers", || {
        tty.send("echo $((6*7))\n");
        tty.shown().contains("42\n").then_some(())
    });
    tty.send("exit 4\n");
    assert_eq!(tty.finish(Duration::from_secs(30)).0.code(), Some(4));
    c.remove();
    own.finish();
}

fn a_pod_survives_a_restart(t: &Test) {
    let (own, mut daemon) = t.with_own_daemon();
    let flag = format!("io.kubernetes.cri.sandbox-id={}", own.id("pause"));
    let pause = own.sleeper("pause", &["--annotation", &flag]);
    let app = own.sleeper("app", &["--annotation", &flag]);
    restart(&mut daemon, Signal::TERM, || ());
    assert_eq!((pause.status().as_str(), app.status().as_str()), ("RUNNING", "RUNNING"));
    let third = own.sleeper("third", &["--annotation", &flag]);
    assert_eq!(own.shims().len(), 1);
    for c in [third, app, pause] {
        c.remove();
    }
    own.finish();
}

fn a_killed_shim_is_noticed_after_a_restart(t: &Test) {
    let (own, mut daemon) = t.with_own_daemon();
    let c = own.sleeper("web", &[]);
    let shim = c.shim().pid;
    restart(&mut daemon, Signal::TERM, || myshim_integration::test::kill_hard(shim));
    wait::until_true("the task is gone", || {
        let status = c.status();
        status.is_empty() || status == "STOPPED" || status == "UNKNOWN"
    });
    own.try_ctr(["tasks", "delete", "--force", &c.id]);
    own.ctr(["containers", "delete", &c.id]).ok();
    own.finish();
}
