//! The spawner and the mains that wait die, at any time: the next operation has others.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use myshim_integration::claim::Claim;
use myshim_integration::containerd::hold_binary;
use myshim_integration::process::Process;
use myshim_integration::shim::{Bundle, Invocation, Rpc, Shim, Stdio3, shell};
use myshim_integration::test::kill_hard;
use myshim_integration::{Test, claims, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::deaths::{held, is_held};
use crate::neighbour::{Neighbour, children, facts};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_spawner_that_dies_at_rest_is_replaced.once(),
    a_spawner_that_dies_under_requests_is_replaced.once(),
    a_spawner_killed_before_it_tells_of_a_main_leaves_none.once(),
    spawners_that_die_each_time_are_an_error.once(),
    a_main_that_dies_while_it_waits_is_replaced.once(),
];

/// A container, created, started and looked at, killed and deleted.
fn life(pod: &Neighbour<'_>, bundle: &Bundle) -> String {
    let (shim, id) = (&pod.shim, bundle.id.as_str());
    let pid = shim.create(bundle, &Stdio3::default()).unwrap().pid;
    shim.start(id, "").unwrap();
    let facts = facts(pid);
    shim.kill(id, "", 9).unwrap();
    shim.wait(id, "").unwrap();
    shim.delete(id, "").unwrap();
    facts
}

/// A request for which a main is needed, and one for which none is. The status of the exec: 7.
pub(crate) fn exec((shim, id): (&Shim, &str), exec: &str) -> Rpc<u32> {
    shim.exec(id, exec, &shell("exit 7"), &Stdio3::default())?;
    let started = shim.start(id, exec);
    let status = started.as_ref().map_or(Ok(0), |_| Ok(shim.wait(id, exec)?.exit_status))?;
    shim.delete(id, exec)?;
    started.map(|_| status)
}

/// Uses up the main that waits: one that has failed does not wait again, and the next one is ordered.
pub(crate) fn use_up(next: (&Shim, &str)) {
    let error = fail(next);
    assert!(error.contains("no-such-program"), "{error}");
}

/// The error of an exec that cannot go well.
pub(crate) fn fail((shim, id): (&Shim, &str)) -> String {
    let mut process = shell("");
    process["args"] = json!(["/no-such-program"]);
    shim.exec(id, "bad", &process, &Stdio3::default()).unwrap();
    let error = shim.start(id, "bad").unwrap_err();
    shim.delete(id, "bad").unwrap();
    error.message
}

/// The neighbour, for [`exec`].
pub(crate) fn next<'a>(pod: &'a Neighbour<'_>) -> (&'a Shim, &'a str) {
    (&pod.shim, &pod.bundle.id)
}

#[track_caller]
pub(crate) fn assert_same(pod: &Neighbour<'_>, bundle: &Bundle, before: &BTreeSet<String>) {
    let mut now = BTreeSet::new();
    let same = wait::within(wait::SOON, || {
        now = pod.look(bundle);
        (now == *before).then_some(())
    });
    let more: Vec<_> = now.difference(before).collect();
    let less: Vec<_> = before.difference(&now).collect();
    assert!(same.is_some(), "more {more:?}, less {less:?}");
}

#[track_caller]
fn assert_like(facts: &str, usual: &str) {
    let lines = facts.lines().zip(usual.lines());
    let other: Vec<_> = lines.filter(|(now, usual)| now != usual).collect();
    assert!(facts == usual, "{other:?}");
}

/// A daemon that has served, and what a container of it and its surroundings look like.
struct Rest<'a> {
    pod: Neighbour<'a>,
    bundle: Bundle,
    usual: String,
    before: BTreeSet<String>,
}

impl<'a> Rest<'a> {
    fn of(t: &'a Test) -> Self {
        let pod = Neighbour::new(t);
        let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
        life(&pod, &bundle);
        pod.settle();
        let (usual, before) = (life(&pod, &bundle), pod.look(&bundle));
        Self { pod, bundle, usual, before }
    }
}

fn kill_spawner(pod: &Neighbour<'_>) {
    let spawner = pod.spawner();
    kill_hard(spawner);
}

/// Checked once against a daemon that forked the second spawner as it was itself: the containers
/// then had its OOM score, and not containerd's.
fn a_spawner_that_dies_at_rest_is_replaced(t: &Test) {
    let Rest { pod, bundle, usual, before } = Rest::of(t);
    for _ in 0..3 {
        kill_spawner(&pod);
        // What was made before is served: state, signals, pause, metrics.
        let (shim, next) = (&pod.shim, pod.bundle.id.as_str());
        assert_eq!(shim.status(next, ""), "running");
        shim.kill(next, "", 28).unwrap();
        shim.stats(next).unwrap();
        shim.pause(next).unwrap();
        shim.resume(next).unwrap();
        use_up((shim, next));
        assert_like(&life(&pod, &bundle), &usual);
        pod.assert_served();
        pod.settle();
        assert_same(&pod, &bundle, &before);
    }
    // Also when it ends, there is none.
    kill_spawner(&pod);
    pod.end();
}

fn a_spawner_that_dies_under_requests_is_replaced(t: &Test) {
    const CLIENTS: usize = 8;
    let pod = Neighbour::new(t);
    exec(next(&pod), "e").unwrap();
    pod.settle();
    let before = pod.look(&pod.bundle);
    for round in 0..10 {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|n| {
                    let next = next(&pod);
                    scope.spawn(move || exec(next, &format!("e{round}-{n}")))
                })
                .collect();
            kill_spawner(&pod);
            for client in clients {
                assert_eq!(client.join().unwrap(), Ok(7));
            }
        });
        // It may have died behind the last order.
        use_up(next(&pod));
        pod.settle();
        assert_same(&pod, &pod.bundle, &before);
    }
    pod.end();
}

/// Lets a process go on that is held.
pub(crate) fn let_go(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
}

/// The spawner of the test that is held.
fn held_spawner(tag: &str) -> Option<u32> {
    let held = |process: &&Process| process.comm == "myshim:spawner" && is_held(process.pid);
    Process::tagged(tag).values().find(held).map(|process| process.pid)
}

/// What `act` gives, while `to` is done to every spawner that is held.
fn while_held<T>(tag: &str, to: fn(u32), act: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                held_spawner(tag).into_iter().for_each(to);
                std::thread::yield_now();
            }
        });
        let outcome = act();
        over.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Every spawner is held before it tells of any main; one has been told of.
fn held_before_each_main(t: &Test) -> Neighbour<'_> {
    while_held(&t.tag, let_go, || {
        let hold = |invocation: &mut Invocation<'_>| {
            invocation.binary = hold_binary();
            assert!(invocation.binary.exists(), "run `make hold`");
            let hold = "myshim:spawner/Forked".to_owned();
            invocation.env.push(("MYSHIM_HOLD".to_owned(), hold));
        };
        let pod = Neighbour::started_by(t, |spec| spec, hold);
        pod.rest();
        pod
    })
}

/// Uses up the main that has been told of, upon which the spawner is held before the next.
fn use_up_and_hold(pod: &Neighbour<'_>, t: &Test) -> u32 {
    use_up(next(pod));
    held(t, "myshim:spawner")
}

/// Checked once against a daemon that did not look for such mains: they stayed, as zombies.
fn a_spawner_killed_before_it_tells_of_a_main_leaves_none(t: &Test) {
    let pod = held_before_each_main(t);
    for _ in 0..3 {
        kill_hard(use_up_and_hold(&pod, t));
        while_held(&t.tag, let_go, || {
            assert_eq!(exec(next(&pod), "e"), Ok(7));
            pod.rest();
        });
        wait::until_true("one spawner and one main, and no zombie", || {
            let all = children(pod.daemon).into_iter().map(|p| (p.comm, p.state == 'Z'));
            let mut chain: Vec<_> = all.filter(|(comm, _)| comm.starts_with("myshim:")).collect();
            chain.sort();
            let alive = |name: &str| (name.to_owned(), false);
            chain == [alive("myshim:spawner"), alive("myshim:waits")]
        });
    }
    pod.end();
}

/// Checked once against a daemon that forked another one whenever one had died: it did so without
/// end, and the request was never answered.
fn spawners_that_die_each_time_are_an_error(t: &Test) {
    let pod = held_before_each_main(t);
    use_up_and_hold(&pod, t);
    let error = while_held(&t.tag, kill_hard, || exec(next(&pod), "e")).unwrap_err();
    assert!(error.message.contains("spawner ended before it answered"), "{error:?}");
    assert_eq!(pod.shim.status(&pod.bundle.id, ""), "running");
    pod.shim.kill(&pod.bundle.id, "", 28).unwrap();
    assert_eq!(while_held(&t.tag, let_go, || exec(next(&pod), "e")), Ok(7));
    pod.end();
}

fn a_main_that_dies_while_it_waits_is_replaced(t: &Test) {
    let Rest { pod, bundle, usual, before } = Rest::of(t);
    for round in 0..6 {
        // One that has served before, or one that nobody has used yet.
        if round % 2 == 0 {
            pod.settle();
        } else {
            exec(next(&pod), "e").unwrap();
        }
        let waits = |process: &Process| process.comm == "myshim:waits" && process.state != 'Z';
        wait::until_true("a main that waits", || {
            let all = children(pod.daemon);
            all.iter().filter(|process| waits(process)).for_each(|main| kill_hard(main.pid));
            all.iter().any(waits)
        });
        assert_like(&life(&pod, &bundle), &usual);
        pod.settle();
        assert_same(&pod, &bundle, &before);
    }
    pod.end();
}
