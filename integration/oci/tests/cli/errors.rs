//! What is told when something is wrong.

use std::fs;

use serde_json::Value;

use crate::bench::Bench;

#[test]
fn a_container_that_does_not_exist_is_called_so() {
    let bench = Bench::new();
    for command in ["state", "start", "kill", "delete", "pause", "resume", "ps", "events"] {
        bench.oci(&[command, "nobody"]).fails("container does not exist");
    }
    bench.oci(&["exec", "nobody", "true"]).fails("container does not exist");
    bench.oci(&["delete", "--force", "nobody"]).ok();
    bench.finish();
}

#[test]
fn an_id_that_is_taken_and_an_id_that_is_none_are_refused() {
    let bench = Bench::new();
    bench.create(&[], "c");
    let again = bench.oci(&["create", "--bundle", &bench.bundle(), "c"]);
    again.fails("container \"c\": already exists");
    for id in ["../x", "a b", "", ".."] {
        let output = bench.oci(&["create", "--bundle", &bench.bundle(), id]);
        output.fails("invalid container ID format");
    }
    bench.oci(&["create", "--bundle", &bench.bundle()]).fails("container id: missing");
    assert_eq!(bench.state("c")["status"], "created");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    let bench = Bench::new();
    bench.program(&["nope"]);
    let create = ["create", "--bundle", &bench.bundle(), "c"];
    bench.oci(&create).fails("exec: \"nope\": executable file not found in $PATH");
    bench.oci(&["state", "c"]).fails("container does not exist");
    bench.run(&[]).exits(1);
    bench.finish();
}

#[test]
fn a_create_whose_main_is_killed_leaves_nothing() {
    let bench = Bench::new();
    bench.change(|config| {
        let hook = serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]});
        config["hooks"] = serde_json::json!({"createRuntime": [hook]});
    });
    let create = ["create", "--bundle", &bench.bundle(), "c"];
    bench.oci(&create).fails("main ended before it answered");
    bench.oci(&["state", "c"]).fails("container does not exist");
    bench.finish();
}

#[test]
fn a_bundle_without_a_specification_is_refused_with_its_path() {
    let bench = Bench::new();
    fs::remove_file(bench.dir.join("bundle/config.json")).unwrap();
    bench.run(&[]).fails("bundle/config.json");
    bench.oci(&["run", "--bundle", "/nonexistent", "c"]).fails("/nonexistent");
    bench.finish();
}

#[test]
fn a_terminal_needs_somebody_to_have_it() {
    let bench = Bench::new();
    bench.run(&["--console-socket", "/nowhere"]).fails("cannot use console socket");
    bench.change(|config| config["process"]["terminal"] = Value::Bool(true));
    let create = ["create", "--bundle", &bench.bundle(), "c"];
    bench.oci(&create).fails("without setting console socket");
    let nowhere = ["create", "--console-socket", "/nowhere", "--bundle", &bench.bundle(), "c"];
    bench.oci(&nowhere).fails("connect(\"/nowhere\"): ENOENT");
    bench.finish();
}

#[test]
fn errors_are_written_to_the_log_that_was_asked_for() {
    let bench = Bench::new();
    let log = bench.dir.join("log.json");
    let log = log.to_str().unwrap();
    bench.oci(&["--log", log, "--log-format", "json", "state", "x"]).fails("does not exist");
    let line: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!(
        (&line["level"], &line["msg"]),
        (&"error".into(), &"container does not exist".into())
    );
    bench.oci(&["frobnicate"]).fails("\"frobnicate\" is not known");
    bench.oci(&["state", "--frobnicate", "x"]).fails("no such flag");
    bench.finish();
}
