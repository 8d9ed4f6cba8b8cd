//! Many at once: every exit code and every event arrives, in order.

use std::time::Duration;

use myshim_integration::claim::Claim;
use myshim_integration::command::Running;
use myshim_integration::{Test, claims};

pub(crate) const CLAIMS: &[Claim] = claims![
    fifty_containers_at_once.within(180).alone(),
    two_hundred_execs_at_once_in_one_container.within(180).alone(),
    ten_containers_of_one_pod_at_once.within(120).alone(),
];

const LONG: Duration = Duration::from_secs(120);

fn fifty_containers_at_once(t: &Test) {
    let events = t.events();
    let started: Vec<(i32, String, Running)> = (0..50)
        .map(|n| {
            let id = t.id(&format!("c{n}"));
            let script = format!("echo out-{n}; exit {n}");
            let args = t.run_args(&id, &["--rm"], &["sh", "-c", &script]);
            (n, id, t.ctr_start(args))
        })
        .collect();
    for (n, id, running) in started {
        let out = running.finish(LONG);
        assert_eq!(out.exits(n), format!("out-{n}\n"));
        let seen = events.wait_for(&id, "delete");
        assert_eq!(events.shorts(&id), ["create", "start", "exit", "delete"], "{id}");
        assert_eq!(seen[2].number("exit_status"), u64::try_from(n).unwrap(), "{id}");
    }
}

fn two_hundred_execs_at_once_in_one_container(t: &Test) {
    let events = t.events();
    let c = t.sleeper("web", &[]);
    let started: Vec<(i32, Running)> = (0..200)
        .map(|n| {
            let script = format!("echo out-{n}; exit {n}");
            (n, t.ctr_start(c.exec_args(&format!("e{n}"), &[], &["sh", "-c", &script])))
        })
        .collect();
    for (n, running) in started {
        assert_eq!(running.finish(LONG).exits(n), format!("out-{n}\n"));
    }
    let wanted: usize = 2 + 200 * 3;
    let seen = events.wait(&c.id, |events| events.len() >= wanted);
    assert_eq!(seen.len(), wanted);
    for n in 0..200 {
        let exec = format!("e{n}");
        let of: Vec<_> = seen.iter().filter(|e| e.short().ends_with(&format!(" {exec}"))).collect();
        let shorts: Vec<_> = of.iter().map(|event| event.short()).collect();
        let order = ["exec-added", "exec-started", "exit"].map(|topic| format!("{topic} {exec}"));
        assert_eq!(shorts, order);
        assert_eq!(of[2].number("exit_status"), n);
    }
    c.remove();
}

fn ten_containers_of_one_pod_at_once(t: &Test) {
    let flag = format!("io.kubernetes.cri.sandbox-id={}", t.id("pause"));
    let pause = t.sleeper("pause", &["--annotation", &flag]);
    let started: Vec<(i32, Running)> = (0..10)
        .map(|n| {
            let id = t.id(&format!("c{n}"));
            let script = format!("exit {n}");
            let args = t.run_args(&id, &["--rm", "--annotation", &flag], &["sh", "-c", &script]);
            (n, t.ctr_start(args))
        })
        .collect();
    for (n, running) in started {
        running.finish(LONG).exits(n);
    }
    assert_eq!(t.shims().len(), 1);
    pause.remove();
}
