//! From create to delete.

use std::fs;

use rustix::process::Signal;

use crate::bench::{Bench, until};

#[test]
fn a_container_lives_from_create_to_delete_without_a_daemon() {
    let bench = Bench::new();
    bench.script("echo started; exec sleep 1000");
    let pid_file = bench.dir.join("pid");
    let out = bench.create(&["--pid-file", pid_file.to_str().unwrap()], "c");
    let state = bench.state("c");
    assert_eq!((&state["status"], &state["id"]), (&"created".into(), &"c".into()));
    assert_eq!(state["bundle"], bench.bundle());
    assert_eq!(state["pid"].to_string(), fs::read_to_string(&pid_file).unwrap());
    assert_eq!(fs::read_to_string(&out).unwrap(), "");
    bench.oci(&["start", "c"]).ok();
    bench.await_status("c", "running");
    until("the program prints", || fs::read_to_string(&out).unwrap() == "started\n");
    bench.oci(&["kill", "c", "KILL"]).ok();
    bench.await_status("c", "stopped");
    assert_eq!(bench.state("c")["pid"], 0);
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn deleting_a_created_container_ends_it() {
    let bench = Bench::new();
    bench.create(&[], "c");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn only_force_deletes_a_running_container() {
    let bench = Bench::new();
    bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    bench.oci(&["delete", "c"]).fails("cannot delete container c that is not stopped: running");
    bench.oci(&["delete", "--force", "c"]).ok();
    bench.oci(&["delete", "--force", "c"]).ok();
    bench.finish();
}

#[test]
fn run_ends_with_the_exit_status_of_the_program_and_leaves_nothing() {
    let bench = Bench::new();
    bench.script("echo out; echo err >&2; exit 7");
    let output = bench.run(&[]);
    assert_eq!((output.out.as_str(), output.err.as_str()), ("out\n", "err\n"));
    output.exits(7);
    bench.finish();
}

#[test]
fn run_keeps_a_container_that_is_to_be_kept() {
    let bench = Bench::new();
    bench.program(&["true"]);
    bench.run(&["--keep"]).ok();
    assert_eq!(bench.state("c")["status"], "stopped");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn a_detached_run_goes_on_alone() {
    let bench = Bench::new();
    bench.run(&["--detach"]).ok();
    assert_eq!(bench.state("c")["status"], "running");
    bench.oci(&["delete", "-f", "c"]).ok();
    bench.finish();
}

#[test]
fn a_signal_to_run_reaches_the_program() {
    let bench = Bench::new();
    bench.script("trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done");
    let running = bench.start_run(&[]);
    until("the trap is set", || running.out() == "ready\n");
    running.signal(Signal::TERM);
    running.finish().exits(42);
    bench.finish();
}

#[test]
fn run_of_a_program_that_is_killed_ends_with_128_and_the_signal() {
    let bench = Bench::new();
    bench.script("echo ready; exec sleep 1000");
    let running = bench.start_run(&[]);
    until("it runs", || running.out() == "ready\n");
    bench.oci(&["kill", "c", "9"]).ok();
    running.finish().exits(137);
    bench.finish();
}

#[test]
fn kill_all_reaches_every_process() {
    let bench = Bench::new();
    bench.script("trap '' TERM; (trap 'echo child; exit' TERM; echo go; while :; do sleep 0.05; done) & wait");
    let out = bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    until("the child waits", || fs::read_to_string(&out).unwrap() == "go\n");
    bench.oci(&["kill", "--all", "c", "TERM"]).ok();
    until("the child hears", || fs::read_to_string(&out).unwrap() == "go\nchild\n");
    bench.oci(&["delete", "-f", "c"]).ok();
    bench.finish();
}

#[test]
fn list_has_all_containers() {
    let bench = Bench::new();
    assert_eq!(bench.oci(&["list", "-q"]).ok(), "");
    bench.create(&[], "b");
    bench.change(|config| config["linux"]["cgroupsPath"] = format!("/{}-a", bench.tag).into());
    bench.create(&[], "a");
    bench.oci(&["start", "a"]).ok();
    assert_eq!(bench.oci(&["list", "--quiet"]).ok(), "a\nb\n");
    let list: serde_json::Value =
        serde_json::from_str(&bench.oci(&["list", "--format", "json"]).ok()).unwrap();
    assert_eq!((&list[0]["status"], &list[1]["status"]), (&"running".into(), &"created".into()));
    let table = bench.oci(&["list"]).ok();
    assert!(table.starts_with("ID ") && table.lines().count() == 3, "{table}");
    for id in ["a", "b"] {
        bench.oci(&["delete", "-f", id]).ok();
    }
    bench.finish();
}

#[test]
fn hooks_run_from_create_to_delete() {
    let bench = Bench::new();
    let log = bench.dir.join("log");
    let hook = |name: &str| {
        let script = format!("echo {name} >> {}", log.display());
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    bench.change(|config| {
        config["hooks"] = serde_json::json!({
            "prestart": hook("prestart"),
            "createRuntime": hook("createRuntime"),
            "poststart": hook("poststart"),
            "poststop": hook("poststop"),
        });
    });
    let logged = || fs::read_to_string(&log).unwrap_or_default().replace('\n', " ");
    bench.create(&[], "c");
    assert_eq!(logged(), "prestart createRuntime ");
    bench.oci(&["start", "c"]).ok();
    assert_eq!(logged(), "prestart createRuntime poststart ");
    bench.oci(&["delete", "-f", "c"]).ok();
    assert_eq!(logged(), "prestart createRuntime poststart poststop ");
    bench.finish();
}
