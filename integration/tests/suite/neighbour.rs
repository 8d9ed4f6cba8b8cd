//! A shim with a neighbour: a container that has nothing to do with what goes wrong beside it; and
//! all that can be seen of the daemon, to be compared.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use myshim_integration::host::{cgroup_roots, mounts};
use myshim_integration::process::{Process, descriptors};
use myshim_integration::shim::{Bundle, Dialect, Ends, EventSink, Invocation, Shim, Stdio3, shell};
use myshim_integration::spec::Spec;
use myshim_integration::{Test, wait};
use serde_json::json;

/// A daemon that serves a neighbour.
pub(crate) struct Neighbour<'a> {
    t: &'a Test,
    sink: EventSink,
    pub(crate) bundle: Bundle,
    pub(crate) shim: Shim,
    pub(crate) daemon: u32,
}

impl<'a> Neighbour<'a> {
    pub(crate) fn new(t: &'a Test) -> Self {
        Self::started_by(t, |spec| spec, |_| ())
    }

    /// With another spec for it, and a shim that is started otherwise.
    pub(crate) fn started_by(
        t: &'a Test,
        spec: impl FnOnce(Spec) -> Spec,
        edit: impl FnOnce(&mut Invocation<'_>),
    ) -> Self {
        let sink = EventSink::listen(t);
        let bundle = Bundle::new(t, "next", |of: Spec| spec(of.args(&["sleep", "3600"])));
        let mut invocation = Invocation::new(t, &bundle, &sink);
        edit(&mut invocation);
        let shim = invocation.start(Dialect::Bootstrap);
        shim.create(&bundle, &Stdio3::default()).unwrap();
        shim.start(&bundle.id, "").unwrap();
        let daemon = shim.connect(&bundle.id).unwrap().shim_pid;
        Self { t, sink, bundle, shim, daemon }
    }

    /// The spawner, whichever it is.
    pub(crate) fn spawner(&self) -> u32 {
        wait::until("a spawner", || {
            let all = children(self.daemon);
            all.iter().find(|p| p.comm == "myshim:spawner" && p.state != 'Z').map(|p| p.pid)
        })
    }

    /// The events of a container so far.
    pub(crate) fn events(&self, id: &str) -> Vec<String> {
        self.sink.of(id)
    }

    /// The events of a container, once the last one is there.
    #[track_caller]
    pub(crate) fn until(&self, id: &str, last: &str) -> Vec<String> {
        self.sink.until(id, last)
    }

    /// It runs, and is served.
    #[track_caller]
    pub(crate) fn assert_served(&self) {
        let (shim, id) = (&self.shim, self.bundle.id.as_str());
        assert_eq!(shim.status(id, ""), "running");
        shim.exec(id, "look", &shell("exit 7"), &Stdio3::default()).unwrap();
        shim.start(id, "look").unwrap();
        assert_eq!(shim.wait(id, "look").unwrap().exit_status, 7);
        shim.delete(id, "look").unwrap();
    }

    /// Main answers before it ends. Then one waits, which has served the neighbour: whatever the
    /// operation before it has come to, the daemon keeps the same descriptors.
    pub(crate) fn settle(&self) {
        self.shim.update(&self.bundle.id, &json!({})).unwrap();
        self.rest();
    }

    pub(crate) fn rest(&self) {
        wait::until_true("one main waits, and no other is there", || {
            let mains: Vec<_> = children(self.daemon)
                .into_iter()
                .filter(|p| matches!(p.comm.as_str(), "myshim:main" | "myshim:waits"))
                .collect();
            let waits = |main: &Process| main.comm == "myshim:waits" && receives(main.pid);
            matches!(mains.as_slice(), [main] if waits(main)) && receives(self.spawner())
        });
    }

    /// What is there of the daemon, of the host, and of a bundle.
    pub(crate) fn look(&self, bundle: &Bundle) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        lines.extend(named_children(self.daemon));
        let numbered = |who: &'static str, pid: u32| {
            let fds = descriptors(pid);
            // Spawner and main may be others each time, and so are the sockets to them.
            let kind = |fd: String| match fd.split_once(":[") {
                Some((kind @ ("socket" | "mnt"), _)) => kind.to_owned(),
                _ => fd,
            };
            let fds = fds.into_iter().map(kind).enumerate();
            fds.map(move |(n, fd)| format!("{who} fd {n} {fd}"))
        };
        lines.extend(numbered("daemon", self.daemon).filter(|fd| !fd.contains("pidfd")));
        let pidfds = descriptors(self.daemon).iter().filter(|fd| fd.contains("pidfd")).count();
        lines.insert(format!("daemon has {pidfds} pidfds"));
        lines.extend(numbered("spawner", self.spawner()));
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
        files(&bundle.dir, &mut lines);
        lines
    }

    /// What containerd does when the daemon is dead: both of its containers are removed.
    pub(crate) fn bury(self, other: &Bundle) {
        for bundle in [other, &self.bundle] {
            let deleted = Invocation::new(self.t, bundle, &self.sink).run("delete", b"");
            assert_eq!(deleted.code(), Some(0), "{deleted}");
        }
    }

    /// Removes it, and the shim. Nothing else is left in it.
    pub(crate) fn end(self) {
        self.shim.kill(&self.bundle.id, "", 9).unwrap();
        self.shim.wait(&self.bundle.id, "").unwrap();
        self.shim.delete(&self.bundle.id, "").unwrap();
        self.shim.shutdown(&self.bundle.id, Ends::Yes);
        Invocation::new(self.t, &self.bundle, &self.sink).run("delete", b"").ok();
    }
}

/// Of all processes but those of the containers, which have a pid of their own each time.
fn named_children(daemon: u32) -> Vec<String> {
    let mut lines: Vec<String> = children(daemon)
        .into_iter()
        .map(|p| format!("{} {} {}", p.comm, p.state == 'Z', p.line))
        .collect();
    lines.sort();
    lines.into_iter().enumerate().map(|(n, line)| format!("child {n} {line}")).collect()
}

/// The processes of which it is the parent, dead or alive.
pub(crate) fn children(daemon: u32) -> Vec<Process> {
    let list = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap();
    list.split_whitespace().filter_map(|pid| Process::read(pid.parse().ok()?)).collect()
}

/// Whether it sleeps in recvmsg(2).
fn receives(pid: u32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next().and_then(|number| number.parse().ok()) == Some(nix::libc::SYS_recvmsg)
}

fn files(dir: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        lines.insert(format!("file {}", entry.path().display()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), lines);
        }
    }
}

/// What a process is, without what is another number each time.
pub(crate) fn facts(pid: u32) -> String {
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

/// For the claim's output, and for who watches a long one.
pub(crate) fn log(line: &str) {
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("MYSHIM_FAULTS_LOG") {
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}
