//! What a create with its delete, and an exec, ask of the allocator, in all processes of the chain
//! from the spawner to the execve: counted and not timed.
//!
//! A change that needs more says here how much, and why in its message; one that needs less lowers
//! the figure: it fails as well when it is too high. Numbers of the host's cgroup hierarchies and
//! digits of pids are part of it, so the figures are those of a host with ten hierarchies, and
//! bytes may differ by 1 %.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot run fails")]
#![allow(dead_code, reason = "the bench has more use for its modules")]

#[path = "../benches/bench/bundle.rs"]
mod bundle;
#[path = "../benches/bench/library.rs"]
mod library;

use std::fs;
use std::process::ExitCode;

use runtime::cgroup::Layout;
use runtime::sys::counting::{self, Counting};
use runtime::sys::process::SingleThreaded;

use crate::bundle::{Layers, Network};
use crate::library::Library;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Hierarchies of the host that the figures are from.
const HIERARCHIES: usize = 10;
/// Allocations and bytes of a create and its delete.
const CREATE: (u64, u64) = (1052, 72_947);
/// Of an exec.
const EXEC: (u64, u64) = (303, 32_506);

fn main() -> ExitCode {
    let hierarchies = Layout::detect().unwrap().hierarchies().count();
    if hierarchies != HIERARCHIES {
        println!("cannot be shown on this machine, which has {hierarchies} cgroup hierarchies:");
        println!("    a_create_and_an_exec_ask_little_of_the_allocator");
        return ExitCode::SUCCESS;
    }
    let (create, exec) = counted();
    let held = is(create, CREATE) && is(exec, EXEC);
    if !held {
        println!("create {create:?}, not {CREATE:?}; exec {exec:?}, not {EXEC:?}");
    }
    let (word, passed, failed) = if held { ("ok", 1, 0) } else { ("FAILED", 0, 1) };
    println!("test a_create_and_an_exec_ask_little_of_the_allocator ... {word}");
    println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored");
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn counted() -> ((u64, u64), (u64, u64)) {
    let name = format!("alloc{:010}", std::process::id());
    let dir = std::env::temp_dir().join(&name);
    let layers = Layers::make(&dir, 1);
    let single = SingleThreaded::verify().expect("one thread");
    counting::share().unwrap();
    // The spawner is counted, and all that it forks; this process is not.
    counting::count(true);
    let mut library = Library::new(&single, &dir, &layers, &name);
    counting::count(false);
    // The first of each makes what the others find: cgroups above theirs, the sleeper.
    library.create(Network::Host);
    library.exec();
    library.settle();
    counting::take();
    library.create(Network::Host);
    library.settle();
    let create = counting::take();
    library.exec();
    library.settle();
    let exec = counting::take();
    drop(library);
    fs::remove_dir_all(&dir).unwrap();
    (create, exec)
}

fn is((calls, bytes): (u64, u64), (wanted_calls, wanted_bytes): (u64, u64)) -> bool {
    calls == wanted_calls && bytes.abs_diff(wanted_bytes) * 100 <= wanted_bytes
}
