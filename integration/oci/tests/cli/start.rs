//! Starting from another process.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::bench::{Bench, until};

#[test]
fn nothing_but_the_standard_streams_is_open_in_a_container_that_was_started() {
    let bench = Bench::new();
    // The fourth is the directory that ls reads.
    bench.program(&["ls", "/proc/self/fd"]);
    let out = bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    bench.await_status("c", "stopped");
    assert_eq!(fs::read_to_string(out).unwrap(), "0\n1\n2\n3\n");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn a_second_start_is_refused() {
    let bench = Bench::new();
    bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    bench.oci(&["start", "c"]).fails("cannot start an already running container");
    bench.oci(&["kill", "c", "KILL"]).ok();
    bench.await_status("c", "stopped");
    bench.oci(&["start", "c"]).fails("cannot start a container that has stopped");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn a_container_runs_as_soon_as_its_start_is_done() {
    let bench = Bench::new();
    for _ in 0..20 {
        bench.create(&[], "c");
        bench.oci(&["start", "c"]).ok();
        assert_eq!(bench.state("c")["status"], "running");
        bench.oci(&["delete", "-f", "c"]).ok();
    }
    bench.finish();
}

#[test]
fn of_two_starts_at_a_time_one_is_refused() {
    let bench = Bench::new();
    let busybox = "/bin/busybox";
    bench.change(|config| {
        let wait = "while ! [ -e /go ]; do busybox sleep 0.02; done";
        let args = ["sh", "-c", wait];
        let hook = json!({"path": busybox, "args": args, "env": ["PATH=/bin"]});
        config["hooks"] = json!({"startContainer": [hook]});
    });
    bench.create(&[], "c");
    let (mut one, mut other) = (bench.start(&["start", "c"]), bench.start(&["start", "c"]));
    until("one of them has ended", || {
        if one.child.try_wait().unwrap().is_some() {
            std::mem::swap(&mut one, &mut other);
        }
        other.child.try_wait().unwrap().is_some()
    });
    other.finish().fails("the container is being started already");
    assert_eq!(bench.state("c")["status"], "created");
    fs::write(bench.dir.join("bundle/rootfs/go"), "").unwrap();
    one.finish().ok();
    bench.oci(&["delete", "-f", "c"]).ok();
    bench.finish();
}

#[test]
fn a_program_that_the_kernel_refuses_fails_the_start() {
    let bench = Bench::new();
    let program = bench.dir.join("bundle/rootfs/bin/noprogram");
    fs::write(&program, "\x7fELF").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    bench.program(&["noprogram"]);
    bench.create(&[], "c");
    bench.oci(&["start", "c"]).fails("exec: \"noprogram\": exec format error");
    bench.await_status("c", "stopped");
    bench.oci(&["delete", "c"]).ok();
    bench.run(&[]).fails("exec: \"noprogram\": exec format error");
    bench.finish();
}

#[test]
fn a_container_killed_before_its_start_is_stopped() {
    let bench = Bench::new();
    bench.create(&[], "c");
    bench.oci(&["kill", "c", "KILL"]).ok();
    bench.await_status("c", "stopped");
    bench.oci(&["start", "c"]).fails("cannot start a container that has stopped");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn start_needs_no_call_that_a_filter_often_forbids() {
    let bench = Bench::new();
    bench.program(&["true"]);
    bench.change(|config| {
        // Without it the filter is loaded before the wait for start.
        config["process"]["noNewPrivileges"] = json!(false);
        // Those by which init tells main that it is ready are not among them.
        let names = [
            "accept",
            "accept4",
            "bind",
            "close_range",
            "connect",
            "getsockopt",
            "listen",
            "ppoll",
            "recvfrom",
            "socket",
        ];
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": names, "action": "SCMP_ACT_KILL_PROCESS"}],
        });
    });
    bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    bench.await_status("c", "stopped");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}
