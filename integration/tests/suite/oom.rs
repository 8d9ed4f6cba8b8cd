//! What the kernel kills for want of memory is told: exactly, once, before the exit it caused,
//! and with the limit that was hit.

use std::fs;
use std::path::{Path, PathBuf};

use myshim_integration::claim::{Claim, Needs};
use myshim_integration::process::cgroup_dir;
use myshim_integration::shim::{Bundle, Dialect, Ends, EventSink, Invocation, Shim, Stdio3, shell};
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims, host, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::rpc::Rig;

pub(crate) const CLAIMS: &[Claim] = claims![
    twenty_kills_are_told_each_before_its_exit.within(120).once(),
    a_neighbours_kill_is_not_told.once(),
    the_containers_own_limit_is_named.once(),
    a_kill_is_told_when_systemd_has_taken_the_cgroup_away.once().needs(Needs::Systemd),
    an_end_without_a_kill_is_not_told_as_one.once().needs(Needs::Systemd),
    a_limit_above_is_named_and_only_the_victim_told.once().needs(Needs::CgroupV2),
    a_limit_that_the_container_made_is_its_own_affair.once().needs(Needs::CgroupV2),
];

const LIMIT: u64 = 16 << 20;

/// Its buffer is larger than [`LIMIT`], and than the parent's of two containers.
const HOG: &str = "exec dd if=/dev/zero of=/dev/null bs=96M count=1";

fn limited(spec: Spec) -> Spec {
    spec.args(&["sleep", "3600"]).with("/linux/resources/memory", json!({"limit": LIMIT}))
}

fn running<'a>(t: &'a Test, edit: impl FnOnce(Spec) -> Spec) -> Rig<'a> {
    let rig = Rig::created(t, edit);
    rig.shim.start(rig.id(), "").unwrap();
    rig
}

fn hog(shim: &Shim, id: &str, exec: &str) {
    shim.exec(id, exec, &shell(HOG), &Stdio3::default()).unwrap();
    shim.start(id, exec).unwrap();
    assert_eq!(shim.wait(id, exec).unwrap().exit_status, 137);
    shim.delete(id, exec).unwrap();
}

/// The daemon's line about a kill in the container, once it is there.
#[track_caller]
fn line_about(shim: &mut Shim, id: &str) -> String {
    let mut log = String::new();
    let found = wait::within(wait::SOON, || {
        log += &shim.log();
        let about = |line: &&str| line.contains("for want of memory") && line.contains(id);
        log.lines().find(about).map(str::to_owned)
    });
    found.unwrap_or_else(|| panic!("no line about {id} in:\n{log}"))
}

fn ooms(events: &[String]) -> usize {
    events.iter().filter(|event| *event == "oom").count()
}

fn twenty_kills_are_told_each_before_its_exit(t: &Test) {
    let rig = running(t, limited);
    for round in 1..=20 {
        let exec = format!("e{round}");
        hog(&rig.shim, rig.id(), &exec);
        let exit = format!("{exec} exit:137");
        let events = rig.sink.until(rig.id(), &exit);
        let before: Vec<_> = events.into_iter().take_while(|event| *event != exit).collect();
        assert_eq!(ooms(&before), round, "{before:?}");
    }
    rig.end();
}

/// Two containers of one pod; the sink tells their events apart.
struct Pair<'a> {
    t: &'a Test,
    sink: EventSink,
    shim: Shim,
    web: Bundle,
    other: Bundle,
}

impl<'a> Pair<'a> {
    fn new(t: &'a Test, edit: impl Fn(Spec, &str) -> Spec) -> Self {
        let sink = EventSink::listen(t);
        let [web, other] =
            ["web", "other"].map(|name| Bundle::new(t, name, |spec| edit(spec, name)));
        let shim = Invocation::new(t, &web, &sink).start(Dialect::Bootstrap);
        for bundle in [&web, &other] {
            shim.create(bundle, &Stdio3::default()).unwrap();
            shim.start(&bundle.id, "").unwrap();
        }
        Self { t, sink, shim, web, other }
    }

    fn end(self) {
        for bundle in [&self.other, &self.web] {
            self.shim.kill(&bundle.id, "", 9).unwrap();
            self.shim.wait(&bundle.id, "").unwrap();
            self.shim.delete(&bundle.id, "").unwrap();
        }
        // An event that came late would be here by now.
        let events = self.sink.until(&self.other.id, "delete:137");
        assert_eq!(ooms(&events), 0, "{events:?}");
        self.shim.shutdown(&self.web.id, Ends::Yes);
        Invocation::new(self.t, &self.web, &self.sink).run("delete", b"").ok();
    }
}

fn a_neighbours_kill_is_not_told(t: &Test) {
    let pair = Pair::new(t, |spec, _| limited(spec));
    hog(&pair.shim, &pair.web.id, "e");
    assert_eq!(ooms(&pair.sink.until(&pair.web.id, "e exit:137")), 1);
    pair.end();
}

fn the_containers_own_limit_is_named(t: &Test) {
    let mut rig = running(t, limited);
    hog(&rig.shim, &rig.bundle.id, "e");
    let line = line_about(&mut rig.shim, &rig.bundle.id);
    assert!(line.contains("the container's own"), "{line}");
    rig.end();
}

/// A cgroup of the test's own on the host, with a memory limit.
struct Pod(PathBuf);

impl Pod {
    fn new(t: &Test) -> Self {
        let dir = Path::new("/sys/fs/cgroup").join(t.id("pod"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("memory.max"), (4 * LIMIT).to_string()).unwrap();
        Self(dir)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        host::remove_tree(&self.0);
    }
}

fn a_limit_above_is_named_and_only_the_victim_told(t: &Test) {
    let pod = Pod::new(t);
    let name = pod.0.file_name().unwrap().to_string_lossy().into_owned();
    let mut pair = Pair::new(t, |spec, container| {
        spec.args(&["sleep", "3600"])
            .with("/linux/cgroupsPath", json!(format!("/{name}/{container}")))
    });
    hog(&pair.shim, &pair.web.id, "e");
    assert_eq!(ooms(&pair.sink.until(&pair.web.id, "e exit:137")), 1);
    let line = line_about(&mut pair.shim, &pair.web.id);
    assert!(line.contains(&format!("of {}", pod.0.display())), "{line}");
    pair.end();
}

fn a_limit_that_the_container_made_is_its_own_affair(t: &Test) {
    let mut rig = running(t, |spec| {
        let script = "cd /sys/fs/cgroup; mkdir init small; echo 1 >init/cgroup.procs; \
                      echo +memory >cgroup.subtree_control; echo 8M >small/memory.max && : >/ready; \
                      exec sleep 3600";
        crate::cgroup_v2::manages_itself(spec, script)
    });
    wait::until_true("it has arranged itself", || t.rootfs().join("ready").exists());
    let script = format!("echo 0 >/sys/fs/cgroup/small/cgroup.procs; {HOG}");
    rig.shim.exec(rig.id(), "e", &shell(&script), &Stdio3::default()).unwrap();
    rig.shim.start(rig.id(), "e").unwrap();
    assert_eq!(rig.code("e"), 137);
    let events = rig.sink.until(rig.id(), "e exit:137");
    assert_eq!(ooms(&events), 0, "{events:?}");
    let line = line_about(&mut rig.shim, &rig.bundle.id);
    assert!(line.contains("that the container made"), "{line}");
    rig.end();
}

/// A scope ends with its last process, and its counters with it. The daemon is late: it is stopped
/// while that happens. The events before `exit`, and the shim.
fn with_a_late_daemon<'a>(t: &'a Test, program: &str, exit: &str) -> (Rig<'a>, Vec<String>) {
    let path = format!("system.slice:t:{}", t.id("web"));
    let script = format!("while [ ! -e /go ]; do sleep 0.1; done; {program}");
    let rig =
        running(t, |spec| limited(spec).shell(&script).with("/linux/cgroupsPath", json!(path)));
    let directory = cgroup_dir(rig.shim.state(rig.id(), "").unwrap().pid, "memory").unwrap();
    let daemon = rig.shim.connect(rig.id()).unwrap().shim_pid;
    signal(daemon, Signal::STOP);
    fs::write(t.rootfs().join("go"), "").unwrap();
    wait::until_true("systemd takes the cgroup away", || !directory.exists());
    signal(daemon, Signal::CONT);
    let events = rig.sink.until(rig.id(), exit);
    (rig, events.into_iter().take_while(|event| event != exit).collect())
}

fn a_kill_is_told_when_systemd_has_taken_the_cgroup_away(t: &Test) {
    let (mut rig, before) = with_a_late_daemon(t, HOG, "exit:137");
    assert_eq!(ooms(&before), 1, "{before:?}");
    let id = rig.id().to_owned();
    let line = line_about(&mut rig.shim, &id);
    assert!(line.contains("the container's own"), "{line}");
    rig.end();
}

fn an_end_without_a_kill_is_not_told_as_one(t: &Test) {
    // The same status, with the cgroup gone as well.
    let (rig, before) = with_a_late_daemon(t, "exit 137", "exit:137");
    assert_eq!(ooms(&before), 0, "{before:?}");
    rig.end();
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}
