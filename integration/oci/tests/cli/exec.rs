//! Tenants.

use std::fs;

use crate::bench::{Bench, until};

fn running() -> Bench {
    let bench = Bench::new();
    bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    bench
}

fn finish(bench: Bench) {
    bench.oci(&["delete", "-f", "c"]).ok();
    bench.finish();
}

#[test]
fn exec_ends_with_the_exit_status_of_its_program() {
    let bench = running();
    assert_eq!(bench.oci(&["exec", "c", "echo", "-d", "hi"]).ok(), "-d hi\n");
    bench.oci(&["exec", "c", "sh", "-c", "exit 9"]).exits(9);
    bench.oci(&["exec", "c", "sh", "-c", "kill -KILL $$"]).exits(137);
    let missing = bench.oci(&["exec", "c", "nope"]);
    missing.fails("exec: \"nope\": executable file not found in $PATH");
    missing.exits(255);
    finish(bench);
}

#[test]
fn flags_of_exec_change_the_process_of_the_bundle() {
    let bench = running();
    let script = "echo $A; id -u; id -g; id -G; pwd; cat /proc/self/status";
    let flags = ["--env", "A=1", "--user", "5:6", "-g", "7", "--cwd", "/tmp", "--cap", "CAP_CHOWN"];
    let mut args = vec!["exec"];
    args.extend(flags);
    args.extend(["c", "sh", "-c", script]);
    let out = bench.oci(&args).ok();
    let lines: Vec<&str> = out.lines().take(5).collect();
    assert_eq!(lines, ["1", "5", "6", "6 7", "/tmp"]);
    // CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE of the bundle, and CAP_CHOWN.
    let bounding = out.lines().find(|line| line.starts_with("CapBnd:"));
    assert_eq!(bounding, Some("CapBnd:\t0000000020000421"));
    finish(bench);
}

#[test]
fn a_process_file_is_taken_as_it_is() {
    let bench = running();
    let path = bench.dir.join("process.json");
    let process = r#"{"cwd":"/tmp","args":["sh","-c","echo $B; pwd"],"env":["PATH=/bin","B=2"]}"#;
    fs::write(&path, process).unwrap();
    let out = bench.oci(&["exec", "--process", path.to_str().unwrap(), "c"]).ok();
    assert_eq!(out, "2\n/tmp\n");
    finish(bench);
}

#[test]
fn a_detached_exec_goes_on_alone() {
    let bench = running();
    let pid_file = bench.dir.join("exec.pid");
    let flags = ["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), "c", "sleep", "999"];
    bench.oci(&flags).ok();
    let pid = fs::read_to_string(&pid_file).unwrap();
    until("it runs", || {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        line == b"sleep\x00999\x00"
    });
    let init = bench.state("c")["pid"].to_string();
    let mut pids: Vec<String> =
        serde_json::from_str::<Vec<i32>>(&bench.oci(&["ps", "--format", "json", "c"]).ok())
            .unwrap()
            .iter()
            .map(i32::to_string)
            .collect();
    let mut expected = vec![init, pid];
    expected.sort();
    pids.sort();
    assert_eq!(pids, expected);
    finish(bench);
}

#[test]
fn exec_works_in_a_created_container_and_not_in_a_stopped_one() {
    let bench = Bench::new();
    bench.create(&[], "c");
    assert_eq!(bench.oci(&["exec", "c", "echo", "hi"]).ok(), "hi\n");
    assert_eq!(bench.state("c")["status"], "created");
    bench.oci(&["kill", "c", "KILL"]).ok();
    bench.await_status("c", "stopped");
    bench.oci(&["exec", "c", "true"]).fails("container not running");
    finish(bench);
}

#[test]
fn exec_is_refused_in_a_paused_container_unless_it_is_to_wait() {
    let bench = running();
    bench.oci(&["pause", "c"]).ok();
    assert_eq!(bench.state("c")["status"], "paused");
    bench.oci(&["pause", "c"]).fails("container not running");
    bench.oci(&["exec", "c", "true"]).fails("paused");
    let waiting = bench.start(&["exec", "--ignore-paused", "c", "echo", "late"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(waiting.out(), "");
    bench.oci(&["resume", "c"]).ok();
    assert_eq!(waiting.finish().ok(), "late\n");
    bench.oci(&["resume", "c"]).fails("container not paused");
    assert_eq!(bench.state("c")["status"], "running");
    finish(bench);
}
