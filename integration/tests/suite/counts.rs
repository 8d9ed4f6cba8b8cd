//! What a create, an exec and a delete cost, counted and not timed: system calls of the processes
//! that the spawner forks, up to the execve of the user's program.
//!
//! With cgroup v1, calls on the files of cgroups are left out, since hosts have one to a dozen
//! hierarchies; with v2 alone they count. A change that needs more calls says here how many, and
//! why in its message; one that needs fewer lowers the figure.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use myshim_integration::claim::{Claim, Needs};
use myshim_integration::command::Running;
use myshim_integration::process::Process;
use myshim_integration::shim::{Bundle, Dialect, Ends, EventSink, Invocation, Shim, Stdio3, shell};
use myshim_integration::spec::Spec;
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use rustix::process::Signal;
use serde_json::json;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_create_an_exec_and_a_delete_take_few_system_calls.once().needs(Needs::CgroupV1),
    on_v2_they_take_few_with_those_on_cgroups.once().needs(Needs::CgroupV2),
    on_v2_every_process_is_born_in_its_cgroup.once().needs(Needs::CgroupV2),
];

/// Of a create with the usual mounts, two masked and two read-only paths; of an exec; of the delete
/// of a container that has ended.
const ON_V1: [usize; 3] = [270, 119, 21];
/// The same with cgroup v2 alone, calls on the cgroup included.
const ON_V2: [usize; 3] = [288, 128, 25];

fn a_create_an_exec_and_a_delete_take_few_system_calls(t: &Test) {
    take_at_most(t, ON_V1, Cgroups::LeftOut);
}

fn on_v2_they_take_few_with_those_on_cgroups(t: &Test) {
    take_at_most(t, ON_V2, Cgroups::Counted);
}

/// Whether calls on the files of cgroups count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cgroups {
    Counted,
    LeftOut,
}

fn take_at_most(t: &Test, allowed: [usize; 3], cgroups: Cgroups) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| {
        let path = format!("/{}/{}", t.endpoint.namespace, t.id("web"));
        plain(spec).with("/linux/cgroupsPath", json!(path))
    });
    let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
    let id = &bundle.id;
    let spawner = spawner(&shim, id);
    let count = |work: &dyn Fn()| parse(&trace(t, spawner, work), spawner, cgroups);

    let created = count(&|| {
        shim.create(&bundle, &Stdio3::default()).unwrap();
        shim.start(id, "").unwrap();
    });
    let exec = count(&|| {
        shim.exec(id, "e", &shell("exit 0"), &Stdio3::default()).unwrap();
        shim.start(id, "e").unwrap();
        shim.wait(id, "e").unwrap();
        shim.delete(id, "e").unwrap();
    });
    shim.kill(id, "", 9).unwrap();
    shim.wait(id, "").unwrap();
    let delete = count(&|| {
        shim.delete(id, "").unwrap();
    });
    shim.shutdown(id, Ends::Yes);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
    let counted = [&created, &exec, &delete].map(|calls| calls.values().sum::<usize>());
    let within = counted.iter().zip(allowed).all(|(counted, allowed)| *counted <= allowed);
    assert!(within, "{counted:?}, not {allowed:?}: {created:#?} {exec:#?} {delete:#?}");
}

fn on_v2_every_process_is_born_in_its_cgroup(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", plain);
    let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
    let id = &bundle.id;
    let trace = trace(t, spawner(&shim, id), || {
        shim.create(&bundle, &Stdio3::default()).unwrap();
        shim.start(id, "").unwrap();
        shim.exec(id, "e", &shell("exit 0"), &Stdio3::default()).unwrap();
        shim.start(id, "e").unwrap();
        shim.wait(id, "e").unwrap();
        shim.delete(id, "e").unwrap();
    });
    crate::rpc::end(&shim, &bundle);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
    let born = trace.lines().filter(|line| line.contains("CLONE_INTO_CGROUP"));
    assert_eq!(born.count(), 2, "init and the exec: {trace}");
    let moves = |line: &&str| line.contains("cgroup.procs") || line.contains("cgroup.threads");
    let moved: Vec<&str> = trace.lines().filter(moves).collect();
    assert!(moved.is_empty(), "{moved:#?}");
}

/// Nothing that is there on one host and not on another.
fn plain(spec: Spec) -> Spec {
    spec.args(&["sleep", "3600"])
        .with("/linux/maskedPaths", json!(["/proc/cmdline", "/sys/kernel"]))
        .with("/linux/readonlyPaths", json!(["/proc/sys", "/proc/irq"]))
}

fn spawner(shim: &Shim, id: &str) -> u32 {
    let daemon = shim.connect(id).unwrap().shim_pid;
    wait::until("a spawner", || child(daemon, "myshim:spawner"))
}

fn child(daemon: u32, name: &str) -> Option<u32> {
    let is_it = |process: &Process| process.parent == daemon && process.comm == name;
    Process::all().into_values().find(is_it).map(|process| process.pid)
}

/// What strace says of the spawner and what it forks while `work` is done.
fn trace(t: &Test, spawner: u32, work: impl FnOnce()) -> String {
    let file = t.dir.join("strace");
    let daemon = Process::read(spawner).unwrap().parent;
    let main = wait::until("a main that waits", || child(daemon, "myshim:waits"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "0", "-o"]).arg(&file);
    strace.args(["-p", &spawner.to_string(), "-p", &main.to_string()]);
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let strace = Running::start(strace);
    let attached = || strace.err_so_far().matches("attached").count() == 2;
    wait::until_true("strace is attached", attached);
    work();
    // Main answers before it ends.
    wait::until_true("main ends", || child(daemon, "myshim:main").is_none());
    wait::until("the next main", || child(daemon, "myshim:waits"));
    strace.signal(Signal::INT);
    drop(strace.finish(wait::SOON));
    fs::read_to_string(file).unwrap()
}

/// System calls by name, of the main that waits for an operation and of what is forked meanwhile,
/// the main that waits for the next operation included.
fn parse(text: &str, spawner: u32, cgroups: Cgroups) -> BTreeMap<String, usize> {
    let mut done: Vec<&str> = vec![];
    let mut calls = BTreeMap::new();
    let spawner = spawner.to_string();
    for line in text.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let starts = call.starts_with(|first: char| first.is_ascii_lowercase());
        // A clone into a cgroup is a clone.
        let on_cgroup = cgroups == Cgroups::LeftOut
            && call.contains("/sys/fs/cgroup")
            && !call.starts_with("clone3");
        // Where the clock is in the vDSO, as on any real machine, this is no system call.
        let is_clock = call.starts_with("clock_gettime(");
        if !starts || pid == spawner || done.contains(&pid) || on_cgroup || is_clock {
            continue;
        }
        let name = call.split('(').next().unwrap_or_default();
        *calls.entry(name.to_owned()).or_insert(0) += 1;
        if name == "execve" {
            done.push(pid);
        }
    }
    calls
}
