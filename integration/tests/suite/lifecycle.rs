//! States, signals, events, statistics: what a client sees of a task from create to delete.

use std::fs;

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::process::cgroup_dir;
use myshim_integration::wait;
use myshim_integration::{Test, claims};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_task_goes_from_running_to_stopped_to_nothing,
    a_paused_container_does_nothing_until_resumed,
    a_paused_container_can_be_killed,
    a_signal_reaches_the_program,
    kill_all_reaches_every_process,
    a_stopped_container_cannot_be_killed,
    a_running_container_cannot_be_deleted,
    delete_by_force_ends_a_running_container,
    delete_tells_the_exit_code,
    ps_lists_every_process,
    metrics_show_use,
    events_of_a_run_come_in_order,
    events_of_an_exec_come_in_order,
    a_failed_start_publishes_no_start,
    an_oom_is_published_before_the_exit_it_caused,
    the_inits_exit_is_the_last,
    a_container_without_a_pid_namespace_leaves_no_process,
    the_shim_ends_with_its_last_container,
    the_rootfs_mount_is_gone_with_the_container,
];

fn a_task_goes_from_running_to_stopped_to_nothing(t: &Test) {
    let c = t.detached("web", &[], &["sh", "-c", "while [ ! -e /end ]; do sleep 0.05; done"]);
    assert_eq!(c.status(), "RUNNING");
    c.exec(&["touch", "/end"]).ok();
    c.wait_status("STOPPED");
    c.task("delete").ok();
    assert_eq!(c.status(), "");
    t.ctr(["containers", "delete", &c.id]).ok();
}

fn a_paused_container_does_nothing_until_resumed(t: &Test) {
    let script = "while :; do echo x >>/shared/count; sleep 0.01; done";
    let folder = t.folder("shared");
    let mount = format!("type=bind,src={},dst=/shared,options=rbind:rw", folder.display());
    let c = t.detached("web", &["--mount", &mount], &["sh", "-c", script]);
    let count = || fs::metadata(folder.join("count")).map_or(0, |file| file.len());
    let grows = |limit: u64| {
        let first = count();
        wait::within(std::time::Duration::from_millis(limit), || (count() > first).then_some(()))
    };
    assert!(grows(20_000).is_some());
    c.task("pause").ok();
    assert_eq!(c.status(), "PAUSED");
    assert!(grows(300).is_none(), "it counts though it is paused");
    c.task("resume").ok();
    assert_eq!(c.status(), "RUNNING");
    assert!(grows(20_000).is_some());
    c.remove();
}

fn a_paused_container_can_be_killed(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.task("pause").ok();
    c.kill("SIGKILL").ok();
    // A frozen process of cgroup v1 dies when it is thawed, and resume may find it gone.
    let stopped =
        wait::within(std::time::Duration::from_secs(2), || (c.status() == "STOPPED").then_some(()));
    if stopped.is_none() {
        c.task("resume").ok();
    }
    c.wait_status("STOPPED");
    c.remove();
}

fn a_signal_reaches_the_program(t: &Test) {
    let script = "trap 'echo usr1' USR1; trap 'echo hup; exit 9' HUP; echo ready; \
                  while :; do sleep 0.05; done";
    let id = t.id("web");
    let running = t.ctr_start(t.run_args(&id, &["--rm"], &["sh", "-c", script]));
    facts::says(&running, "ready");
    t.ctr(["tasks", "kill", "--signal", "SIGUSR1", &id]).ok();
    facts::says(&running, "usr1");
    t.ctr(["tasks", "kill", "--signal", "1", &id]).ok();
    let out = running.finish(LIMIT);
    assert!(out.exits(9).ends_with("hup\n"), "{out}");
}

fn kill_all_reaches_every_process(t: &Test) {
    // An init gets no signal that it has no handler for; the other process does.
    let c = t.detached("web", &[], &["sh", "-c", "sleep 1111 & wait; exit 5"]);
    let other = facts::process(t, "sleep 1111");
    t.ctr(["tasks", "kill", "--all", "--signal", "SIGTERM", &c.id]).ok();
    wait::until_true("the other process ends", || {
        myshim_integration::process::Process::read(other).is_none_or(|p| p.state == 'Z')
    });
    c.wait_status("STOPPED");
    c.remove();
}

fn a_stopped_container_cannot_be_killed(t: &Test) {
    let c = t.detached("web", &[], &["true"]);
    c.wait_status("STOPPED");
    c.kill("SIGKILL").fails(&["not found"]);
    c.remove();
}

fn a_running_container_cannot_be_deleted(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.task("delete").fails(&[]);
    assert_eq!(c.status(), "RUNNING");
    c.remove();
}

fn delete_by_force_ends_a_running_container(t: &Test) {
    let c = t.sleeper("web", &[]);
    let out = t.ctr(["tasks", "delete", "--force", &c.id]);
    assert!(out.err().contains("exit code 137"), "{out}");
    assert_eq!(c.status(), "");
    t.ctr(["containers", "delete", &c.id]).ok();
}

fn delete_tells_the_exit_code(t: &Test) {
    let c = t.detached("web", &[], &["sh", "-c", "exit 6"]);
    c.wait_status("STOPPED");
    let out = c.task("delete");
    assert!(out.err().contains("exit code 6"), "{out}");
    t.ctr(["containers", "delete", &c.id]).ok();
}

fn ps_lists_every_process(t: &Test) {
    let c = t.detached("web", &[], &["sh", "-c", "sleep 1111 & sleep 2222"]);
    let (one, two) = (facts::process(t, "sleep 1111"), facts::process(t, "sleep 2222"));
    c.exec_as("mine", &["--detach"], &["sleep", "3333"]).ok();
    let exec = facts::process(t, "sleep 3333");
    let text = c.task("ps").ok();
    let listed: Vec<&str> = text.lines().filter_map(|l| l.split_whitespace().next()).collect();
    for pid in [c.pid(), one, two, exec] {
        assert!(listed.contains(&pid.to_string().as_str()), "{pid} is missing: {text}");
    }
    assert_eq!(listed.len(), 4, "a head and three processes: {text}");
    assert!(text.contains("mine"), "the exec's id is missing: {text}");
    c.remove();
}

fn metrics_show_use(t: &Test) {
    let c = t.sleeper("web", &["--memory-limit", "67108864"]);
    let out = t.ctr(["tasks", "metrics", "--format", "json", &c.id]).ok();
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    let memory = &value["memory"]["usage"];
    let number = |v: &serde_json::Value| v.as_u64().or_else(|| v.as_str()?.parse().ok());
    let usage = number(&memory["usage"]).or_else(|| number(memory));
    assert!(usage.is_some_and(|bytes| bytes > 0 && bytes < 67_108_864), "{out}");
    assert!(out.contains("67108864"), "no limit: {out}");
    let pids = number(&value["pids"]["current"]);
    assert_eq!(pids, Some(1), "{out}");
    c.remove();
}

fn events_of_a_run_come_in_order(t: &Test) {
    let events = t.events();
    t.run(&[], &["sh", "-c", "exit 3"]).exits(3);
    let seen = events.wait_for(&t.id("run"), "delete");
    assert_eq!(events.shorts(&t.id("run")), ["create", "start", "exit", "delete"]);
    assert_eq!((seen[2].number("exit_status"), seen[3].number("exit_status")), (3, 3));
    let pid = seen[0].number("pid");
    assert!(pid > 0 && seen.iter().all(|event| event.number("pid") == pid), "{seen:?}");
}

fn events_of_an_exec_come_in_order(t: &Test) {
    let events = t.events();
    let c = t.sleeper("web", &[]);
    c.exec_as("mine", &[], &["sh", "-c", "exit 4"]).exits(4);
    let seen = events.wait_for(&c.id, "exit mine");
    let shorts = events.shorts(&c.id);
    assert_eq!(shorts, ["create", "start", "exec-added mine", "exec-started mine", "exit mine"]);
    assert_eq!(seen[4].number("exit_status"), 4);
    c.remove();
}

fn a_failed_start_publishes_no_start(t: &Test) {
    let events = t.events();
    t.run(&[], &["no-such-program"]).fails(&["no-such-program"]);
    t.run(&[], &["true"]).ok();
    events.wait_for(&t.id("run"), "delete");
    let shorts = events.shorts(&t.id("run"));
    let starts = shorts.iter().filter(|short| *short == "start").count();
    let exits = shorts.iter().filter(|short| *short == "exit").count();
    assert_eq!((starts, exits), (1, 1), "{shorts:?}");
}

fn an_oom_is_published_before_the_exit_it_caused(t: &Test) {
    let events = t.events();
    // dd's buffer is larger than the limit.
    let hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"];
    t.run(&["--memory-limit", "16777216"], &hog).exits(137);
    events.wait_for(&t.id("run"), "delete");
    assert_eq!(events.shorts(&t.id("run")), ["create", "start", "oom", "exit", "delete"]);
}

fn the_inits_exit_is_the_last(t: &Test) {
    let events = t.events();
    let c = t.sleeper("web", &[]);
    for n in 0..5 {
        c.exec_as(&format!("e{n}"), &["--detach"], &["sleep", "1000"]).ok();
    }
    c.kill("SIGKILL").ok();
    events.wait_for(&c.id, "exit");
    let shorts = events.shorts(&c.id);
    let exits: Vec<_> = shorts.iter().filter(|short| short.starts_with("exit")).collect();
    assert_eq!(exits.len(), 6, "{shorts:?}");
    assert_eq!(exits[5], "exit", "{shorts:?}");
    c.remove();
}

fn a_container_without_a_pid_namespace_leaves_no_process(t: &Test) {
    let c = t.detached_spec("web", |spec| {
        spec.host_namespace("pid").shell("sleep 1111 & (sleep 2222 &) ; exec sleep 3333")
    });
    for line in ["sleep 1111", "sleep 2222"] {
        facts::process(t, line);
    }
    let dir = cgroup_dir(c.pid(), "pids").unwrap();
    c.kill("SIGKILL").ok();
    c.wait_status("STOPPED");
    // systemd takes an empty one away at once.
    wait::until_true("the cgroup is empty or gone", || {
        fs::read_to_string(dir.join("cgroup.procs")).map_or(!dir.exists(), |text| text.is_empty())
    });
    c.remove();
}

fn the_shim_ends_with_its_last_container(t: &Test) {
    let c = t.sleeper("web", &[]);
    assert_eq!(t.shims().len(), 1);
    c.remove();
    wait::until_true("the shim has ended", || t.shims().is_empty());
}

fn the_rootfs_mount_is_gone_with_the_container(t: &Test) {
    let c = t.sleeper("web", &[]);
    let bundle = t.endpoint.bundles().join(&c.id);
    assert!(bundle.exists());
    c.kill("SIGKILL").ok();
    c.wait_status("STOPPED");
    c.remove();
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!text.contains(&t.tag) && !bundle.exists());
}
