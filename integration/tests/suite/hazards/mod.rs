//! What broke the runtimes before this one, each as a claim. docs/hazards.md lists hazard, cure
//! and claim; a comment at a claim says how it was seen to fail on a build without the cure.

pub(crate) mod binary;
pub(crate) mod devices;
pub(crate) mod procfs;
mod racer;
pub(crate) mod races;
pub(crate) mod root;
pub(crate) mod service;
pub(crate) mod sizes;
pub(crate) mod specs;
pub(crate) mod users;

use std::fs;
use std::path::PathBuf;

use myshim_integration::Test;
use myshim_integration::shim::{Bundle, Dialect, Ends, EventSink, Invocation, Shim, Stdio3};
use myshim_integration::spec::Spec;
use serde_json::{Value, json};

/// One shim by hand for many containers, one after the other: a start is milliseconds.
pub(crate) struct Hand<'a> {
    t: &'a Test,
    sink: EventSink,
    pub(crate) bundle: Bundle,
    pub(crate) shim: Shim,
}

/// What a program wrote, to both streams, and its exit code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: u32,
    pub(crate) out: String,
}

impl<'a> Hand<'a> {
    pub(crate) fn new(t: &'a Test) -> Self {
        let sink = EventSink::listen(t);
        let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
        let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
        Self { t, sink, bundle, shim }
    }

    /// A spec for it.
    pub(crate) fn spec(&self) -> Spec {
        self.t.spec(&self.bundle.id)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.bundle.dir.join("config.json")
    }

    /// The daemon's pid.
    pub(crate) fn daemon(&self) -> u32 {
        self.shim.connect(&self.bundle.id).unwrap().shim_pid
    }

    /// Create of what config.json says; the error's text.
    pub(crate) fn create(&self) -> Result<(), String> {
        let out = self.bundle.dir.join("out");
        fs::remove_file(&out).ok();
        let answer = self.shim.create(&self.bundle, &Stdio3::to_file(&out));
        answer.map(drop).map_err(|error| error.message)
    }

    /// A container of `spec` from create to delete; the error's text when it does not start.
    pub(crate) fn run(&self, spec: &Spec) -> Result<Ran, String> {
        spec.write(&self.config());
        self.create()?;
        self.finish()
    }

    /// Start, wait and delete of a container that was created.
    pub(crate) fn finish(&self) -> Result<Ran, String> {
        let id = &self.bundle.id;
        let started = self.shim.start(id, "");
        let code = match &started {
            Ok(_) => self.shim.wait(id, "").unwrap().exit_status,
            Err(_) => 0,
        };
        self.shim.delete(id, "").unwrap();
        let out = fs::read(self.bundle.dir.join("out")).unwrap_or_default();
        let out = String::from_utf8_lossy(&out).into_owned();
        started.map(|_| Ran { code, out }).map_err(|error| error.message)
    }

    /// Starts a container that sleeps, for execs.
    pub(crate) fn sleep(&self) {
        self.spec().args(&["sleep", "3600"]).write(&self.config());
        self.create().unwrap();
        self.shim.start(&self.bundle.id, "").unwrap();
    }

    /// An exec from its beginning to its delete.
    pub(crate) fn exec(&self, process: &Value) -> Result<Ran, String> {
        let (id, file) = (&self.bundle.id, self.bundle.dir.join("exec-out"));
        fs::remove_file(&file).ok();
        self.shim.exec(id, "e", process, &Stdio3::to_file(&file)).map_err(|e| e.message)?;
        let started = self.shim.start(id, "e");
        let code = match &started {
            Ok(_) => self.shim.wait(id, "e").unwrap().exit_status,
            Err(_) => 0,
        };
        self.shim.delete(id, "e").unwrap();
        let out = fs::read(&file).unwrap_or_default();
        let out = String::from_utf8_lossy(&out).into_owned();
        started.map(|_| Ran { code, out }).map_err(|error| error.message)
    }

    /// Kills and deletes what [`Self::sleep`] started.
    pub(crate) fn wake(&self) {
        let id = &self.bundle.id;
        self.shim.kill(id, "", 9).unwrap();
        self.shim.wait(id, "").unwrap();
        self.shim.delete(id, "").unwrap();
    }

    /// Ends the shim; then what containerd does after every shim.
    pub(crate) fn end(self) {
        self.shim.shutdown(&self.bundle.id, Ends::Yes);
        Invocation::new(self.t, &self.bundle, &self.sink).run("delete", b"").ok();
    }
}

/// An exec of a program with these arguments, as root.
fn process(args: &[&str]) -> Value {
    json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})
}

/// The most physical memory that a process has had, in kB.
fn peak(pid: u32) -> u64 {
    let text = myshim_integration::process::status(pid, "VmHWM").unwrap_or_default();
    text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// What a claim wants to see made inside only is called so.
fn made(t: &Test) -> String {
    format!("made-{}", t.tag)
}

/// The places of the host where something called [`made`] is: those that a path that leads out
/// would lead to, and the claim's own folder but for the container's root and volume.
fn made_outside(t: &Test) -> Vec<String> {
    let shallow =
        ["/", "/bin", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/tmp", "/usr", "/var"];
    let mut found = Vec::new();
    shallow.iter().for_each(|dir| look_for(t, dir.as_ref(), 1, &mut found));
    look_for(t, &t.dir, 6, &mut found);
    for root in myshim_integration::host::cgroup_roots() {
        look_for(t, &root, 4, &mut found);
    }
    found
}

fn look_for(t: &Test, dir: &std::path::Path, depth: u32, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().contains(&made(t)) {
            found.push(entry.path().to_string_lossy().into_owned());
        } else if depth > 1
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && ![t.rootfs(), t.dir.join("volume")].contains(&entry.path())
        {
            look_for(t, &entry.path(), depth - 1, found);
        }
    }
}
