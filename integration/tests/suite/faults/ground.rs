//! A shim with a neighbour, and the container that is struck; what is compared.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use myshim_integration::host::{cgroup_roots, mounts};
use myshim_integration::inject::{Fault, Place, Seen, Tracer};
use myshim_integration::process::{Process, descriptors};
use myshim_integration::shim::{Bundle, Dialect, Ends, EventSink, Invocation, Shim, Stdio3};
use myshim_integration::spec::Spec;
use myshim_integration::{Test, wait};
use serde_json::json;

use super::operations::{self, Operation, Target};
use super::outcome::{Outcome, judge};
use super::tolerated;

pub(super) struct Ground<'a> {
    t: &'a Test,
    operation: &'a Operation,
    sink: EventSink,
    neighbour: Bundle,
    bundle: Bundle,
    shim: Shim,
    daemon: u32,
    spawner: u32,
    tracer: Tracer,
    /// What the process of an operation without a fault looks like.
    usual: String,
    before: RefCell<BTreeSet<String>>,
}

impl<'a> Ground<'a> {
    pub(super) fn new(t: &'a Test, operation: &'a Operation) -> Self {
        let sink = EventSink::listen(t);
        let neighbour = Bundle::new(t, "next", |spec: Spec| spec.args(&["sleep", "3600"]));
        let bundle = Bundle::new(t, "web", operation.spec);
        let shim = Invocation::new(t, &neighbour, &sink).start(Dialect::Bootstrap);
        shim.create(&neighbour, &Stdio3::default()).unwrap();
        shim.start(&neighbour.id, "").unwrap();
        let daemon = shim.connect(&neighbour.id).unwrap().shim_pid;
        let spawner = wait::until("a spawner", || {
            let all = Process::all();
            all.values().find(|p| p.parent == daemon && p.comm == "myshim:spawner").map(|p| p.pid)
        });
        let tracer = Tracer::attach(spawner);
        let (usual, before) = (String::new(), RefCell::default());
        let mut ground = Self {
            t,
            operation,
            sink,
            neighbour,
            bundle,
            shim,
            daemon,
            spawner,
            tracer,
            usual,
            before,
        };
        // What is made at the first time stays: connections, caches.
        for _ in 0..2 {
            let target = ground.target();
            (operation.before)(&target);
            let pid = (operation.act)(&target).unwrap();
            ground.usual = facts(pid);
            (operation.after)(&ground.target());
            (operation.before)(&ground.target());
            ground.settle();
            ground.before = RefCell::new(ground.look());
            (operation.after)(&ground.target());
        }
        ground
    }

    fn target(&self) -> Target<'_> {
        Target { shim: &self.shim, bundle: &self.bundle }
    }

    /// Main answers before it ends. Then one waits, which has served the neighbour: whatever the
    /// operation before it has come to, the daemon keeps the same descriptors.
    fn settle(&self) {
        self.shim.update(&self.neighbour.id, &json!({})).unwrap();
        self.rest();
    }

    fn rest(&self) {
        wait::until_true("one main waits, and no other is there", || {
            let mains: Vec<_> = processes(self.daemon)
                .into_iter()
                .filter(|p| matches!(p.comm.as_str(), "myshim:main" | "myshim:waits"))
                .collect();
            let waits = |main: &Process| main.comm == "myshim:waits" && receives(main.pid);
            matches!(mains.as_slice(), [main] if waits(main)) && receives(self.spawner)
        });
    }

    /// All calls of the operation when nothing is wrong.
    pub(super) fn way(&self) -> Vec<Seen> {
        (self.operation.before)(&self.target());
        self.settle();
        self.tracer.record();
        (self.operation.act)(&self.target()).unwrap();
        self.rest();
        let seen = self.tracer.seen();
        self.tracer.disarm();
        (self.operation.after)(&self.target());
        seen
    }

    pub(super) fn strike(&self, place: Place, fault: Fault) -> Outcome {
        (self.operation.before)(&self.target());
        self.settle();
        self.tracer.arm(place, fault);
        let begin = Instant::now();
        let outcome = (self.operation.act)(&self.target());
        let took = begin.elapsed();
        let shown = outcome.as_ref().map(|pid| facts(*pid));
        let struck = self.tracer.struck();
        self.tracer.disarm();
        let Some(struck) = struck else {
            (self.operation.after)(&self.target());
            let broken = outcome.err().map(|error| error.message);
            let broken = broken.or_else(|| self.left());
            return broken.map_or(Outcome::NotReached, |why| {
                Outcome::Wrong(format!("{place:?}, without a fault: {why}"))
            });
        };
        let text = outcome.as_ref().err().map(|error| error.message.as_str());
        let judged = judge(self.operation.name, &struck, fault, text, took);
        (self.operation.after)(&self.target());
        let about = || {
            let fault = super::outcome::shown(fault);
            format!("{}: {struck:?} {fault} ({text:?})", self.operation.name)
        };
        if let Ok(shown) = shown
            && shown != self.usual
            && !tolerated::may_differ(&struck, fault)
        {
            self.clean();
            return Outcome::Wrong(format!(
                "{} differs: {}",
                about(),
                difference(&self.usual, &shown)
            ));
        }
        match (self.left(), judged) {
            (None, judged) => judged,
            (Some(left), Outcome::Wrong(why)) => Outcome::Wrong(format!("{why} leaves {left}")),
            (Some(left), _) => Outcome::Wrong(format!("{} leaves {left}", about())),
        }
    }

    /// After a run that was not as it ought to be.
    fn clean(&self) {
        operations::remove(&self.target());
    }

    /// What is there and ought not to be, or is not and ought to be.
    fn left(&self) -> Option<String> {
        (self.operation.before)(&self.target());
        self.settle();
        let mut now = BTreeSet::new();
        let limit = std::time::Duration::from_secs(20);
        let same = wait::within(limit, || {
            now = self.look();
            (now == *self.before.borrow()).then_some(())
        });
        assert_eq!(self.shim.status(&self.neighbour.id, ""), "running");
        if same.is_some() {
            return None;
        }
        // What is left once is told once.
        let before = self.before.replace(now.clone());
        let more: Vec<_> = now.difference(&before).collect();
        let less: Vec<_> = before.difference(&now).collect();
        Some(format!("more: {more:?}, less: {less:?}"))
    }

    fn look(&self) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        lines.extend(children(self.daemon));
        let numbered = |who: &'static str, pid: u32| {
            let fds = descriptors(pid);
            // A main that waits may be another one each time, and so are the sockets to it.
            let kind = |fd: String| if fd.starts_with("socket:") { "socket".into() } else { fd };
            let fds = fds.into_iter().map(kind).enumerate();
            fds.map(move |(n, fd)| format!("{who} fd {n} {fd}"))
        };
        lines.extend(numbered("daemon", self.daemon).filter(|fd| !fd.contains("pidfd")));
        let pidfds = descriptors(self.daemon).iter().filter(|fd| fd.contains("pidfd")).count();
        lines.insert(format!("daemon has {pidfds} pidfds"));
        lines.extend(numbered("spawner", self.spawner));
        lines.extend(mounts().into_iter().filter(|mount| mount.contains(&self.t.tag)));
        let own = fs::read_to_string(format!("/proc/{}/mountinfo", self.daemon)).unwrap();
        let points = own.lines().filter_map(|mount| mount.split(' ').nth(4));
        let points = points.filter(|point| point.contains(&self.t.tag));
        lines.extend(points.map(|point| format!("daemon's mount {point}")));
        for root in cgroup_roots() {
            let groups = fs::read_dir(root.join(&self.t.endpoint.namespace)).into_iter().flatten();
            let names = groups.flatten().map(|entry| entry.path().display().to_string());
            lines.extend(names.filter(|name| name.contains(&self.t.tag)));
        }
        files(&self.bundle.dir, &mut lines);
        lines
    }

    pub(super) fn end(self) {
        operations::remove(&self.target());
        operations::remove(&Target { shim: &self.shim, bundle: &self.neighbour });
        self.shim.shutdown(&self.bundle.id, Ends::Yes);
        self.tracer.finish();
        Invocation::new(self.t, &self.neighbour, &self.sink).run("delete", b"").ok();
    }
}

/// Of all processes but those of the containers, which have a pid of their own each time.
fn children(daemon: u32) -> Vec<String> {
    processes(daemon)
        .into_iter()
        .enumerate()
        .map(|(n, p)| format!("child {n} {} {} {}", p.comm, p.state == 'Z', p.line))
        .collect()
}

fn processes(daemon: u32) -> Vec<Process> {
    let list = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap();
    list.split_whitespace().filter_map(|pid| Process::read(pid.parse().ok()?)).collect()
}

/// Whether it sleeps in recvmsg(2).
fn receives(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next().and_then(|number| number.parse().ok()) == Some(nix::libc::SYS_recvmsg)
}

fn files(dir: &std::path::Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        lines.insert(format!("file {}", entry.path().display()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), lines);
        }
    }
}

/// What a process is, without what is another number each time.
fn facts(pid: u32) -> String {
    if pid == 0 {
        return String::new();
    }
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let mut text = String::new();
    for field in [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "Cpus_allowed",
        "Mems_allowed",
    ] {
        let value = myshim_integration::process::status(pid, field);
        text += &format!("{field} {value:?}\n");
    }
    for name in [
        "cgroup",
        "limits",
        "oom_score_adj",
        "uid_map",
        "gid_map",
        "cmdline",
        "environ",
        "timens_offsets",
        "personality",
    ] {
        text += &format!("{name}: {}\n", read(name));
    }
    for link in ["cwd", "root", "exe"] {
        let link = fs::read_link(format!("/proc/{pid}/{link}")).unwrap_or_default();
        text += &format!("{}\n", link.display());
    }
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default();
        text += &format!("{kind} own {}\n", of(&pid.to_string()) != of("self"));
    }
    for mount in read("mountinfo").lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        let kept = fields[3..].iter().filter(|f| !f.contains(':')).copied();
        text += &format!("{}\n", kept.collect::<Vec<_>>().join(" "));
    }
    let fds = descriptors(pid);
    text + &fds.join("\n")
}

fn difference(usual: &str, shown: &str) -> String {
    let (usual, shown): (BTreeSet<_>, BTreeSet<_>) =
        (usual.lines().collect(), shown.lines().collect());
    let less: Vec<_> = usual.difference(&shown).collect();
    let more: Vec<_> = shown.difference(&usual).collect();
    format!("less {less:?}, more {more:?}")
}
