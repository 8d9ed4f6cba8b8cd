//! Every system call of the chain fails once, and every process of it is killed in front of each
//! of its system calls.
//!
//! A shim by hand serves a neighbour that has nothing to do with it all. One run without a fault
//! shows the way of an operation: which processes make which calls. Then the operation is run
//! again for each of them, with a fault there. It ends with an error that names the call, or it
//! succeeds, and then [`tolerated`] has the reason and the container is as without the fault. Each
//! time the host is as before, the neighbour runs, and the daemon serves the same request again.
//!
//! `make test-faults` runs all of it. The suite runs a sample, by a seed that is always the same so
//! that it tells of changes and not of luck; `MYSHIM_FAULTS_SEED` chooses another.

mod ground;
mod operations;
mod outcome;
mod spawner;
mod tolerated;

use myshim_integration::claim::Claim;
use myshim_integration::inject::{Fault, Place, Seen};
use myshim_integration::{Test, claims};
use rustix::io::Errno;

use ground::Ground;
use operations::Operation;

use crate::neighbour::log;

pub(crate) const CLAIMS: &[Claim] = claims![
    every_system_call_of_a_create_fails_once.once().within(LIMIT),
    every_system_call_of_a_create_with_everything_fails_once.once().within(LIMIT),
    every_system_call_of_an_exec_fails_once.once().within(LIMIT),
    every_system_call_of_an_exec_with_everything_fails_once.once().within(LIMIT),
    every_system_call_of_a_delete_fails_once.once().within(LIMIT),
    every_system_call_of_pause_and_resume_fails_once.once().within(LIMIT),
    every_system_call_of_an_update_fails_once.once().within(LIMIT),
    every_system_call_of_kill_all_fails_once.once().within(LIMIT),
    every_system_call_of_the_spawner_fails_once.once().within(LIMIT),
    the_spawner_dies_in_front_of_each_of_its_calls.once().within(LIMIT),
    every_process_of_a_create_dies_once.once().within(LIMIT),
    every_process_of_a_create_with_everything_dies_once.once().within(LIMIT),
    every_process_of_an_exec_dies_once.once().within(LIMIT),
    every_process_of_a_delete_dies_once.once().within(LIMIT),
];

/// For all of them in one claim; the sample takes some seconds.
const LIMIT: u64 = 3600;

/// How many of the faults of one claim the suite tries.
const SAMPLE: usize = 60;

/// Calls that can be interrupted where no handler of a signal is: with EINTR the kernel would
/// begin any other again.
const INTERRUPTIBLE: [&str; 14] = [
    "accept4", "connect", "fcntl", "flock", "openat", "poll", "ppoll", "read", "readv", "recvmsg",
    "sendmsg", "wait4", "waitid", "write",
];

/// Calls that cannot fail with valid arguments. close(2) gives the descriptor up whatever it
/// returns, and getrandom(2) has no error but that of a signal.
const INFALLIBLE: [&str; 16] = [
    "close",
    "getrandom",
    "brk",
    "exit",
    "exit_group",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "gettid",
    "getuid",
    "rt_sigaction",
    "rt_sigreturn",
    "sched_yield",
    "umask",
];

fn errors_of(seen: &Seen) -> Vec<Fault> {
    let name = seen.name.as_str();
    if INFALLIBLE.contains(&name) {
        return vec![];
    }
    let all = [Errno::PERM, Errno::NOMEM, Errno::INTR];
    let of_call = |errno: &Errno| *errno != Errno::INTR || INTERRUPTIBLE.contains(&name);
    all.into_iter().filter(of_call).map(Fault::Fails).collect()
}

fn death_of(_: &Seen) -> Vec<Fault> {
    vec![Fault::Kills]
}

/// Tries the faults of an operation, all or a sample.
fn sweep(t: &Test, operation: &Operation, faults: fn(&Seen) -> Vec<Fault>) {
    let ground = Ground::new(t, operation);
    let way = ground.way();
    // The spawner is about no operation: see `spawner`. And what befalls a main that waits again
    // is told to whoever comes next.
    let waits = |seen: &Seen| seen.comm == "myshim:waits" && seen.name == "recvmsg";
    let places = way.iter().filter(|seen| seen.place.process > 0 && !waits(seen));
    let all: Vec<(Place, Fault)> =
        places.flat_map(|seen| faults(seen).into_iter().map(|fault| (seen.place, fault))).collect();
    let count = all.len();
    assert!(count > 0, "nothing of it is seen");
    let (chosen, how) = choose(all);
    log(&format!(
        "{}: {count} faults on {} calls, {} tried ({how})",
        operation.name,
        way.len(),
        chosen.len(),
    ));
    let (tried, mut wrong) = (chosen.len(), Vec::new());
    let (mut told, mut tolerated, mut missed) = (0, 0, 0);
    for (place, fault) in chosen {
        match ground.strike(place, fault) {
            outcome::Outcome::Told => told += 1,
            outcome::Outcome::Tolerated => tolerated += 1,
            outcome::Outcome::NotReached => missed += 1,
            outcome::Outcome::Wrong(why) => {
                log(&why);
                wrong.push(why);
            }
        }
    }
    let sums = format!("{told} told, {tolerated} tolerated, {missed} not reached");
    log(&format!("{}: {sums}, {} wrong", operation.name, wrong.len()));
    ground.end();
    assert!(wrong.is_empty(), "{how}: {} are wrong", wrong.len());
    // Where main answers before it has done its last calls, and where a kill takes fewer rounds.
    assert!(missed * 3 <= tried, "{how}: {missed} of {tried} were not reached");
}

/// The faults to try, and how they were chosen.
fn choose(mut all: Vec<(Place, Fault)>) -> (Vec<(Place, Fault)>, String) {
    if std::env::var_os("MYSHIM_FAULTS").is_some_and(|which| which == "all") {
        return (all, "all".to_owned());
    }
    let seed = std::env::var("MYSHIM_FAULTS_SEED");
    let seed: u64 = seed.map_or(1, |seed| seed.parse().unwrap());
    let mut state = seed;
    let mut random = || {
        // Knuth's linear congruential generator; its high bits are good enough.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    let mut chosen = Vec::new();
    while chosen.len() < SAMPLE && !all.is_empty() {
        chosen.push(all.swap_remove(random() % all.len()));
    }
    (chosen, format!("MYSHIM_FAULTS_SEED={seed}"))
}

fn every_system_call_of_a_create_fails_once(t: &Test) {
    sweep(t, &operations::CREATE, errors_of);
}

fn every_system_call_of_a_create_with_everything_fails_once(t: &Test) {
    sweep(t, &operations::CREATE_WITH_EVERYTHING, errors_of);
}

fn every_system_call_of_an_exec_fails_once(t: &Test) {
    sweep(t, &operations::EXEC, errors_of);
}

fn every_system_call_of_an_exec_with_everything_fails_once(t: &Test) {
    sweep(t, &operations::EXEC_WITH_EVERYTHING, errors_of);
}

fn every_system_call_of_a_delete_fails_once(t: &Test) {
    sweep(t, &operations::DELETE, errors_of);
}

fn every_system_call_of_pause_and_resume_fails_once(t: &Test) {
    sweep(t, &operations::PAUSE_AND_RESUME, errors_of);
}

fn every_system_call_of_an_update_fails_once(t: &Test) {
    sweep(t, &operations::UPDATE, errors_of);
}

fn every_system_call_of_kill_all_fails_once(t: &Test) {
    sweep(t, &operations::KILL_ALL, errors_of);
}

fn every_system_call_of_the_spawner_fails_once(t: &Test) {
    spawner::sweep(t, errors_of);
}

fn the_spawner_dies_in_front_of_each_of_its_calls(t: &Test) {
    spawner::sweep(t, death_of);
}

fn every_process_of_a_create_dies_once(t: &Test) {
    sweep(t, &operations::CREATE, death_of);
}

fn every_process_of_a_create_with_everything_dies_once(t: &Test) {
    sweep(t, &operations::CREATE_WITH_EVERYTHING, death_of);
}

fn every_process_of_an_exec_dies_once(t: &Test) {
    sweep(t, &operations::EXEC, death_of);
}

fn every_process_of_a_delete_dies_once(t: &Test) {
    sweep(t, &operations::DELETE, death_of);
}
