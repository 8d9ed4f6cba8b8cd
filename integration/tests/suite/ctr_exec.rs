//! `ctr tasks exec`: a second process in a container has all that the first has.

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::process::status;
use myshim_integration::test::kill_hard;
use myshim_integration::wait;
use myshim_integration::{Test, Version, claims};
use serde_json::json;

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    an_exec_prints_and_ends_with_its_code,
    an_exec_joins_every_namespace,
    an_exec_joins_every_cgroup,
    an_exec_sees_the_containers_root_and_processes,
    an_exec_has_the_containers_environment_and_cwd,
    an_exec_is_as_confined_as_the_init,
    an_exec_of_a_missing_program_names_it,
    an_exec_reads_its_standard_input_to_the_end,
    a_failed_exec_leaves_the_container_usable,
    an_exec_id_may_be_used_again,
    a_used_exec_id_is_refused,
    a_detached_exec_runs_on,
    an_exec_killed_by_a_signal_ends_with_128_and_it,
    an_exec_into_a_paused_container_is_refused,
    an_exec_into_a_stopped_container_is_refused,
    execs_end_when_the_init_ends,
    an_execs_children_do_not_hold_it_up,
    an_exec_leaves_nothing_in_the_daemon,
];

fn an_exec_prints_and_ends_with_its_code(t: &Test) {
    let c = t.sleeper("web", &[]);
    let out = c.exec(&["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((out.exits(3).as_str(), out.err().as_str()), ("out\n", "err\n"));
    c.exec(&["true"]).ok();
    c.remove();
}

fn an_exec_joins_every_namespace(t: &Test) {
    let c = t.sleeper("web", &[]);
    let pid = c.pid().to_string();
    let out = c.exec(&[
        "sh",
        "-c",
        "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done",
    ]);
    let text = out.ok();
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    for (kind, seen) in kinds.into_iter().zip(text.lines()) {
        assert_eq!(seen, facts::namespace(&pid, kind));
    }
    assert_eq!(text.lines().count(), kinds.len(), "{text}");
    c.remove();
}

fn an_exec_joins_every_cgroup(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.exec_as("long", &["--detach"], &["sleep", "1000"]).ok();
    let cgroups = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let exec = facts::process(t, "sleep 1000");
    assert_eq!(cgroups(exec), cgroups(c.pid()));
    c.remove();
}

fn an_exec_sees_the_containers_root_and_processes(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.exec(&["sh", "-c", "echo mark >/mark"]).ok();
    assert_eq!(c.exec(&["cat", "/mark", "/etc/hostname"]).ok(), "mark\nimage\n");
    assert_eq!(c.exec(&["cat", "/proc/1/comm"]).ok(), "sleep\n");
    c.remove();
}

fn an_exec_has_the_containers_environment_and_cwd(t: &Test) {
    let c = t.sleeper("web", &["--env", "A=1", "--cwd", "/home"]);
    assert_eq!(c.exec(&["sh", "-c", "echo $A; pwd"]).ok(), "1\n/home\n");
    assert_eq!(c.exec_as("e", &["--cwd", "/tmp"], &["pwd"]).ok(), "/tmp\n");
    c.remove();
}

fn an_exec_is_as_confined_as_the_init(t: &Test) {
    let c = t.detached_spec("web", |spec| {
        spec.args(&["sleep", "3600"])
            .with("/process/oomScoreAdj", json!(500))
            .with("/process/noNewPrivileges", json!(true))
            .with("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]))
            .with(
                "/linux/seccomp",
                json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}],
                }),
            )
            .capabilities(&["CAP_CHOWN", "CAP_KILL"])
            .with("/process/capabilities/inheritable", json!([]))
            .with("/process/capabilities/ambient", json!([]))
    });
    c.exec_as("long", &["--detach"], &["sleep", "1000"]).ok();
    let exec = facts::process(t, "sleep 1000");
    let init = c.pid();
    for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid"]
    {
        assert_eq!(status(exec, field), status(init, field), "{field}");
    }
    assert_eq!(status(exec, "Seccomp").as_deref(), Some("2"));
    let read =
        |pid: u32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    for file in ["oom_score_adj", "limits"] {
        assert_eq!(read(exec, file), read(init, file), "{file}");
    }
    c.exec(&["chmod", "600", "/etc/plain"]).fails(&["Operation not permitted"]);
    c.remove();
}

fn an_exec_of_a_missing_program_names_it(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.exec(&["no-such-program"]).fails(&["no-such-program", "executable file not found in $PATH"]);
    c.exec(&["/etc/plain"]).fails(&["/etc/plain", "permission denied"]);
    c.remove();
}

fn an_exec_reads_its_standard_input_to_the_end(t: &Test) {
    let c = t.sleeper("web", &[]);
    let mut running = t.ctr_start(c.exec_args("e", &[], &["sh", "-c", "cat; echo end"]));
    running.write(b"one\ntwo\n");
    let out = running.finish(LIMIT);
    assert_eq!(out.ok(), "one\ntwo\nend\n");
    c.remove();
}

fn a_failed_exec_leaves_the_container_usable(t: &Test) {
    let c = t.sleeper("web", &[]);
    for _ in 0..3 {
        c.exec(&["no-such-program"]).fails(&["no-such-program"]);
        c.exec(&["true"]).ok();
    }
    assert_eq!(c.status(), "RUNNING");
    c.remove();
}

fn an_exec_id_may_be_used_again(t: &Test) {
    let c = t.sleeper("web", &[]);
    for n in ["1", "2", "3"] {
        assert_eq!(c.exec_as("same", &[], &["echo", n]).ok().trim(), n);
    }
    c.remove();
}

fn a_used_exec_id_is_refused(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.exec_as("same", &["--detach"], &["sleep", "1000"]).ok();
    c.exec_as("same", &[], &["true"]).fails(&["already exists"]);
    c.remove();
}

fn a_detached_exec_runs_on(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.exec_as("long", &["--detach"], &["sh", "-c", "echo up >/up; exec sleep 1000"]).ok();
    wait::until_true("the detached exec works", || c.exec(&["cat", "/up"]).out() == "up\n");
    assert!(c.exec(&["ps"]).ok().contains("sleep 1000"));
    t.ctr(["tasks", "kill", "--signal", "SIGKILL", "--exec-id", "long", &c.id]).ok();
    wait::until_true("the killed exec is gone", || !c.exec(&["ps"]).ok().contains("sleep 1000"));
    c.remove();
}

fn an_exec_killed_by_a_signal_ends_with_128_and_it(t: &Test) {
    let c = t.sleeper("web", &[]);
    let running = t.ctr_start(c.exec_args("e", &[], &["sh", "-c", "echo up; sleep 1000"]));
    facts::says(&running, "up");
    t.ctr(["tasks", "kill", "--signal", "SIGKILL", "--exec-id", "e", &c.id]).ok();
    running.finish(LIMIT).exits(137);
    assert_eq!(c.exec(&["sh", "-c", "kill -TERM $$"]).code(), Some(143));
    c.remove();
}

fn an_exec_into_a_paused_container_is_refused(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.task("pause").ok();
    c.exec(&["true"]).fails(&["paused"]);
    c.task("resume").ok();
    c.exec(&["true"]).ok();
    c.remove();
}

fn an_exec_into_a_stopped_container_is_refused(t: &Test) {
    let c = t.detached("web", &[], &["true"]);
    c.wait_status("STOPPED");
    assert!(!c.exec(&["true"]).status.success());
    c.remove();
}

fn execs_end_when_the_init_ends(t: &Test) {
    let c = t.sleeper("web", &[]);
    let running = t.ctr_start(c.exec_args("e", &[], &["sh", "-c", "echo up; exec sleep 1000"]));
    facts::says(&running, "up");
    c.kill("SIGKILL").ok();
    running.finish(LIMIT).exits(137);
    c.remove();
}

fn an_execs_children_do_not_hold_it_up(t: &Test) {
    let c = t.sleeper("web", &[]);
    let events = t.events();
    // The child keeps the exec's standard output open.
    let running = t.ctr_start(c.exec_args("e", &[], &["sh", "-c", "sleep 1000 & echo done"]));
    facts::says(&running, "done");
    events.wait_for(&c.id, "exit e");
    if t.version() == Version::V2 {
        // ctr 2 itself waits for the end of the output.
        kill_hard(facts::process(t, "sleep 1000"));
    }
    running.finish(LIMIT).ok();
    c.remove();
}

fn an_exec_leaves_nothing_in_the_daemon(t: &Test) {
    let c = t.sleeper("web", &[]);
    let shim = c.shim().pid;
    c.exec(&["true"]).ok();
    let before = facts::settled_descriptors(shim);
    for _ in 0..5 {
        c.exec(&["true"]).ok();
        c.exec(&["no-such-program"]).fails(&[]);
    }
    let after = wait::within(wait::SOON, || {
        Some(facts::settled_descriptors(shim)).filter(|now| now.len() <= before.len())
    });
    assert!(after.is_some(), "before: {before:#?}\nafter: {:#?}", facts::settled_descriptors(shim));
    c.remove();
}
