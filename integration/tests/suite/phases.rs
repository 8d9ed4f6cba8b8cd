//! Where the time of an operation went is told: at once for one that fails, on SIGUSR2 for all.

use myshim_integration::claim::Claim;
use myshim_integration::shim::{Bundle, Dialect, EventSink, Invocation, Shim, Stdio3, shell};
use myshim_integration::{Test, claims, wait};
use rustix::process::{Pid, Signal, kill_process};

use crate::rpc::Rig;

pub(crate) const CLAIMS: &[Claim] =
    claims![a_failed_exec_leaves_its_phases, phases_are_told_on_sigusr2, spans_are_told_at_debug];

/// The first line of the log with all of `words`, once it is there.
#[track_caller]
fn line(shim: &mut Shim, words: &[&str]) -> String {
    let mut log = String::new();
    let found = wait::within(wait::SOON, || {
        log += &shim.log();
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        log.lines().find(has_all).map(str::to_owned)
    });
    found.unwrap_or_else(|| panic!("no line with {words:?} in:\n{log}"))
}

/// The names of the phases in a line, in their order; each has its time in µs.
fn phases(line: &str) -> Vec<&str> {
    let (_, phases) = line.split_once(" µs").unwrap();
    let (_, phases) = phases.split_once(": ").unwrap();
    // What follows the message are the fields of the log.
    let (phases, _) = phases.split_once('"').unwrap();
    phases
        .split(", ")
        .map(|phase| {
            let (name, time) = phase.rsplit_once(' ').unwrap();
            time.parse::<u64>().unwrap_or_else(|e| panic!("{phase:?} in {line:?}: {e}"));
            name
        })
        .collect()
}

fn a_failed_exec_leaves_its_phases(t: &Test) {
    let mut rig = Rig::sleeping(t);
    let no_program = serde_json::json!({
        "args": ["no-such-program"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}
    });
    let id = rig.id().to_owned();
    rig.shim.exec(&id, "e", &no_program, &Stdio3::default()).unwrap();
    rig.shim.start(&id, "e").unwrap_err();
    let line = line(&mut rig.shim, &["exec e", "and failed"]);
    let phases = phases(&line);
    assert!(phases.contains(&"tenant:identity"), "{line}");
    rig.end();
}

fn phases_are_told_on_sigusr2(t: &Test) {
    let mut rig = Rig::sleeping(t);
    let daemon = rig.shim.connect(&rig.bundle.id).unwrap().shim_pid;
    let daemon = i32::try_from(daemon).ok().and_then(Pid::from_raw).unwrap();
    kill_process(daemon, Signal::USR2).unwrap();
    let line = line(&mut rig.shim, &["create", &rig.bundle.id, " took "]);
    let phases = phases(&line);
    for phase in ["plan", "cgroup", "clone", "init:rootfs", "init:identity"] {
        assert!(phases.contains(&phase), "no {phase} in {line}");
    }
    assert_eq!(rig.shim.status(&rig.bundle.id, ""), "running");
    rig.end();
}

fn spans_are_told_at_debug(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
    let mut invocation = Invocation::new(t, &bundle, &sink);
    invocation.args.push("-debug".to_owned());
    let mut shim = invocation.start(Dialect::Bootstrap);
    shim.create(&bundle, &Stdio3::default()).unwrap();
    let id = &bundle.id;
    let operation = line(&mut shim, &["operation took", &format!("operation=\"create {id}\"")]);
    assert!(operation.contains("phases=\"") && operation.contains("init:rootfs"), "{operation}");
    shim.start(id, "").unwrap();
    shim.exec(id, "e", &shell("exit 0"), &Stdio3::default()).unwrap();
    shim.start(id, "e").unwrap();
    let request = format!("rpc=start container={id} exec=e");
    line(&mut shim, &["level=debug", "rpc took", &request]);
    crate::rpc::end(&shim, &bundle);
    invocation.run("delete", b"").ok();
}
