//! What a host may be short of: descriptors, space, processes, memory, terminals. Each time the
//! client is told of what, by call and errno; the neighbour of the same daemon is served; nothing is
//! left; and it works again when there is enough.
//!
//! How much is needed is not known here and need not be: each claim begins with nothing to spare
//! and gives one more each time, until the operation succeeds. So whatever asks for something is once
//! the one that does not get it.

mod descriptors;
mod disk;
mod kernel;
mod processes;

use std::collections::BTreeSet;

use myshim_integration::claim::Claim;
use myshim_integration::shim::{Bundle, Rpc, Shim, Stdio3, make_fifo, open_fifo, shell};
use myshim_integration::{Test, claims, wait};

use crate::neighbour::{Neighbour, log};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_daemon_without_descriptors_says_so_and_leaves_nothing.once().within(120),
    kill_and_delete_need_no_descriptor.once(),
    a_bundle_without_space_says_so_and_leaves_nothing.once().within(120),
    a_read_only_bundle_says_so_and_can_be_deleted_later.once(),
    containers_outlive_a_full_state_folder.within(120),
    a_start_without_a_place_for_its_socket_says_so.once(),
    a_filter_that_cannot_be_kept_is_compiled.once(),
    a_shim_that_may_not_fork_says_so_and_leaves_nothing.once().within(120),
    a_chain_without_memory_is_told_and_the_neighbour_lives.once().within(120),
    a_shim_without_memory_is_replaced_or_leaves_nothing.once(),
    four_thousand_mounts_of_the_host_stay_as_they_are.once().within(120),
    no_inotify_instance_is_needed.once(),
    without_a_terminal_to_be_had_says_so.once(),
];

fn a_daemon_without_descriptors_says_so_and_leaves_nothing(t: &Test) {
    descriptors::say_so(t);
}

fn kill_and_delete_need_no_descriptor(t: &Test) {
    descriptors::kill_and_delete(t);
}

fn a_bundle_without_space_says_so_and_leaves_nothing(t: &Test) {
    disk::full_bundle(t);
}

fn a_read_only_bundle_says_so_and_can_be_deleted_later(t: &Test) {
    disk::read_only_bundle(t);
}

fn containers_outlive_a_full_state_folder(t: &Test) {
    disk::full_state(t);
}

fn a_start_without_a_place_for_its_socket_says_so(t: &Test) {
    disk::full_sockets(t);
}

fn a_filter_that_cannot_be_kept_is_compiled(t: &Test) {
    disk::full_run(t);
}

fn a_shim_that_may_not_fork_says_so_and_leaves_nothing(t: &Test) {
    processes::no_more(t);
}

fn a_chain_without_memory_is_told_and_the_neighbour_lives(t: &Test) {
    processes::no_memory_for_the_chain(t);
}

fn a_shim_without_memory_is_replaced_or_leaves_nothing(t: &Test) {
    processes::no_memory_for_the_shim(t);
}

fn four_thousand_mounts_of_the_host_stay_as_they_are(t: &Test) {
    kernel::many_mounts(t);
}

fn no_inotify_instance_is_needed(t: &Test) {
    kernel::no_inotify(t);
}

fn without_a_terminal_to_be_had_says_so(t: &Test) {
    kernel::no_terminal(t);
}

/// What is tried with ever more of something.
struct Trial<'a> {
    pod: &'a Neighbour<'a>,
    bundle: &'a Bundle,
    /// So much is left of it; None: as much as there is.
    ration: &'a dyn Fn(Option<usize>),
    act: &'a dyn Fn() -> Rpc<u32>,
    /// Whether an error tells of what is lacking.
    tells: &'a dyn Fn(&str) -> bool,
    /// After a success and after a failure: where `act` began.
    undo: &'a dyn Fn(),
}

/// More than any operation needs.
const MOST: usize = 60;

impl Trial<'_> {
    /// With nothing, with one, with two, until it succeeds. How often it did not.
    #[track_caller]
    fn run(&self) -> usize {
        // What is made at the first time stays: connections, caches.
        (self.act)().unwrap();
        (self.undo)();
        self.pod.settle();
        let before = self.pod.look(self.bundle);
        for left in 0..MOST {
            (self.ration)(Some(left));
            let outcome = (self.act)();
            (self.ration)(None);
            match &outcome {
                Ok(_) => log(&format!("with {left}: success")),
                Err(error) => {
                    log(&format!("with {left}: {}", error.message));
                    assert!((self.tells)(&error.message), "with {left}: {:?}", error.message);
                }
            }
            (self.undo)();
            self.pod.settle();
            self.assert_as(&before, left);
            self.pod.assert_served();
            if outcome.is_ok() {
                return left;
            }
        }
        panic!("no success, however much there is");
    }

    #[track_caller]
    fn assert_as(&self, before: &BTreeSet<String>, left: usize) {
        let mut now = BTreeSet::new();
        let same = wait::within(wait::SOON, || {
            now = self.pod.look(self.bundle);
            (now == *before).then_some(())
        });
        let more: Vec<_> = now.difference(before).collect();
        let less: Vec<_> = before.difference(&now).collect();
        assert!(same.is_some(), "with {left}: more {more:?}, less {less:?}");
    }
}

/// Fifos that this holds open, as a client does.
struct Streams {
    stdio: Stdio3,
    _held: Vec<std::fs::File>,
}

impl Streams {
    fn new(t: &Test, name: &str, terminal: bool) -> Self {
        let mut held = Vec::new();
        let mut path = |stream: &str| {
            let path = t.dir.join(format!("{name}-{stream}"));
            make_fifo(&path);
            held.push(open_fifo(&path));
            path.to_string_lossy().into_owned()
        };
        let (stdin, stdout) = (path("in"), path("out"));
        let stderr = if terminal { String::new() } else { path("err") };
        Self { stdio: Stdio3 { terminal, stdin, stdout, stderr }, _held: held }
    }
}

fn create(shim: &Shim, bundle: &Bundle, stdio: &Stdio3) -> Rpc<u32> {
    let pid = shim.create(bundle, stdio)?.pid;
    shim.start(&bundle.id, "")?;
    Ok(pid)
}

fn exec(shim: &Shim, id: &str, stdio: &Stdio3) -> Rpc<u32> {
    shim.exec(id, "e", &shell("exec sleep 1000"), stdio)?;
    Ok(shim.start(id, "e")?.pid)
}

/// Whatever there is of it, be it made or started or not.
fn remove(shim: &Shim, id: &str, exec: &str) {
    if shim.state(id, exec).is_ok() {
        // What was never started cannot be killed, and is ended by its deletion.
        if shim.kill(id, exec, 9).is_ok() {
            shim.wait(id, exec).unwrap();
        }
        shim.delete(id, exec).unwrap();
    }
}
