//! What a test has at hand.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::command::{LIMIT, Output, Running};
use crate::container::Container;
use crate::containerd::{Daemon, Endpoint, Version, runtime};
use crate::events::Events;
use crate::host::{HostSnapshot, Scope};
use crate::image::{self, Image};
use crate::process::Process;
use crate::pty::Terminal;
use crate::spec::Spec;
use crate::wait;

/// What the runner hands to the process of one test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fixture {
    /// The containerd that the tests of one version share.
    pub endpoint: Endpoint,
    /// Eight hexadecimal digits that are in the name of everything the test makes.
    pub tag: String,
    /// A folder for the test alone; removed by the runner.
    pub dir: PathBuf,
}

/// One test on one containerd.
#[derive(Debug)]
pub struct Test {
    /// The containerd.
    pub endpoint: Endpoint,
    /// See [`Fixture::tag`].
    pub tag: String,
    /// See [`Fixture::dir`].
    pub dir: PathBuf,
    ids: RefCell<Vec<String>>,
    before: HostSnapshot,
}

impl Test {
    /// Takes the snapshot of the host to which [`Self::finish`] compares.
    #[must_use]
    pub fn new(fixture: Fixture) -> Self {
        let Fixture { endpoint, tag, dir } = fixture;
        let before = HostSnapshot::take(&Scope { endpoint: &endpoint, tag: &tag, ids: &[] });
        Self { endpoint, tag, dir, ids: RefCell::default(), before }
    }

    /// Which containerd it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.endpoint.version
    }

    /// The same test on a containerd of its own, which it may stop and kill.
    #[must_use]
    pub fn with_own_daemon(&self) -> (Self, Daemon) {
        let daemon = Daemon::start(self.version(), &self.dir.join("c"), &self.endpoint.namespace);
        import(daemon.endpoint(), &self.dir);
        (self.on(&daemon), daemon)
    }

    /// The same test on another containerd. What is there before is that daemon.
    #[must_use]
    pub fn on(&self, daemon: &Daemon) -> Self {
        Self::new(Fixture {
            endpoint: daemon.endpoint().clone(),
            tag: self.tag.clone(),
            dir: self.dir.clone(),
        })
    }

    /// An id with the tag; its socket is looked for at the end.
    #[must_use]
    pub fn id(&self, name: &str) -> String {
        let id = format!("{name}-{}", self.tag);
        let mut ids = self.ids.borrow_mut();
        if !ids.contains(&id) {
            ids.push(id.clone());
        }
        id
    }

    /// Compares the host with what it was.
    ///
    /// # Panics
    /// When something is left behind.
    #[track_caller]
    pub fn finish(&self) {
        let ids = self.ids.borrow();
        let scope = Scope { endpoint: &self.endpoint, tag: &self.tag, ids: &ids };
        self.before.assert_same(&scope);
    }

    /// Runs `ctr`.
    #[must_use]
    pub fn ctr<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.endpoint.ctr_run(args, LIMIT)
    }

    /// Runs `ctr` where it does not matter whether it succeeds: removing what may be gone.
    pub fn try_ctr<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) {
        drop(self.ctr(args));
    }

    /// Starts `ctr`, with pipes on its standard streams.
    #[must_use]
    pub fn ctr_start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        let mut command = self.endpoint.ctr();
        command.args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(command)
    }

    /// Starts `ctr` on a terminal.
    #[must_use]
    pub fn ctr_on_terminal<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Terminal {
        let mut command: Command = self.endpoint.ctr();
        command.args(args);
        Terminal::start(command)
    }

    /// The arguments of `ctr run` with the runtime under test: `flags`, image, `id`, `program`.
    #[must_use]
    pub fn run_args(&self, id: &str, flags: &[&str], program: &[&str]) -> Vec<String> {
        let mut args = self.run_flags(flags);
        if systemd_cgroups() && !flags.contains(&"--cgroup") {
            args.extend(["--cgroup".to_owned(), self.cgroup_of(id)]);
        }
        args.extend([image::NAME, id].map(str::to_owned));
        args.extend(program.iter().map(|&word| word.to_owned()));
        args
    }

    fn run_flags(&self, flags: &[&str]) -> Vec<String> {
        let fifos = self.dir.join("fifo").to_string_lossy().into_owned();
        let mut args = vec!["run".to_owned(), "--runtime".to_owned(), runtime()];
        args.extend(["--fifo-dir".to_owned(), fifos]);
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        args
    }

    /// `ctr run --rm` in the foreground.
    #[must_use]
    pub fn run(&self, flags: &[&str], program: &[&str]) -> Output {
        let id = self.id("run");
        let mut all = vec!["--rm"];
        all.extend(flags);
        self.ctr(self.run_args(&id, &all, program))
    }

    /// `ctr run --rm` of a shell script; its standard output.
    ///
    /// # Panics
    /// When it does not end with 0.
    #[track_caller]
    pub fn shell(&self, flags: &[&str], script: &str) -> String {
        self.run(flags, &["sh", "-c", script]).ok()
    }

    /// `ctr run --detach`.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn detached(&self, name: &str, flags: &[&str], program: &[&str]) -> Container<'_> {
        let id = self.id(name);
        let mut all = vec!["--detach"];
        all.extend(flags);
        self.ctr(self.run_args(&id, &all, program)).ok();
        Container { test: self, id }
    }

    /// `ctr run --detach` of a program that is not there; the container is removed again.
    #[must_use]
    pub fn detached_failing(&self, name: &str, flags: &[&str]) -> Output {
        let id = self.id(name);
        let mut all = vec!["--detach"];
        all.extend(flags);
        let output = self.ctr(self.run_args(&id, &all, &["no-such-program"]));
        self.ctr(["containers", "delete", &id]).ok();
        output
    }

    /// A container that does nothing until it is killed.
    #[track_caller]
    #[must_use]
    pub fn sleeper(&self, name: &str, flags: &[&str]) -> Container<'_> {
        self.detached(name, flags, &["sleep", "3600"])
    }

    /// The handle of a container that was made otherwise.
    #[must_use]
    pub fn container(&self, name: &str) -> Container<'_> {
        Container { test: self, id: self.id(name) }
    }

    /// What `ctr oci spec` prints, for the container `id`, with a busybox root of the test's own
    /// and no terminal.
    ///
    /// # Panics
    /// When `ctr` prints no JSON.
    #[must_use]
    pub fn spec(&self, id: &str) -> Spec {
        let value: Value = serde_json::from_str(&self.ctr(["oci", "spec"]).ok()).unwrap();
        Spec(value)
            .with("/root", json!({"path": self.rootfs(), "readonly": false}))
            .with("/process/terminal", json!(false))
            .with("/process/env", json!(["PATH=/bin"]))
            .with("/linux/cgroupsPath", json!(self.cgroup_of(id)))
    }

    /// The test's own busybox root, made at the first call.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        let root = self.dir.join("rootfs");
        if !root.exists() {
            Image::busybox().unpack(&root);
        }
        root
    }

    /// The arguments of `ctr run --config`.
    #[must_use]
    pub fn spec_args(&self, id: &str, spec: &Spec, flags: &[&str]) -> Vec<String> {
        let file = self.dir.join(format!("{id}.json"));
        spec.write(&file);
        let mut args = self.run_flags(flags);
        args.extend(["--config".to_owned(), file.to_string_lossy().into_owned(), id.to_owned()]);
        args
    }

    /// `ctr run --rm --config` of what `edit` makes of [`Self::spec`].
    #[must_use]
    pub fn run_spec(&self, edit: impl FnOnce(Spec) -> Spec) -> Output {
        let id = self.id("run");
        let spec = edit(self.spec(&id));
        self.ctr(self.spec_args(&id, &spec, &["--rm"]))
    }

    /// `ctr run --detach --config` of what `edit` makes of [`Self::spec`].
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn detached_spec(&self, name: &str, edit: impl FnOnce(Spec) -> Spec) -> Container<'_> {
        let id = self.id(name);
        let spec = edit(self.spec(&id)).with("/linux/cgroupsPath", json!(self.cgroup_of(&id)));
        self.ctr(self.spec_args(&id, &spec, &["--detach"])).ok();
        Container { test: self, id }
    }

    /// The `cgroupsPath` of a container that asks for nothing else: a path, or with
    /// `MYSHIM_CGROUPS=systemd` a unit.
    #[must_use]
    pub fn cgroup_of(&self, id: &str) -> String {
        let namespace = &self.endpoint.namespace;
        match systemd_cgroups() {
            true => format!("system.slice:{namespace}:{id}"),
            false => format!("/{namespace}/{id}"),
        }
    }

    /// The end of the path of the cgroup that [`Self::cgroup_of`] names.
    #[must_use]
    pub fn cgroup_path_of(&self, id: &str) -> String {
        let namespace = &self.endpoint.namespace;
        match systemd_cgroups() {
            true => format!("/system.slice/{namespace}-{id}.scope"),
            false => format!("/{namespace}/{id}"),
        }
    }

    /// Subscribes to events.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::follow(&self.endpoint)
    }

    /// The daemons of the test's shims: processes of the shim's binary whose parent is none.
    #[must_use]
    pub fn shims(&self) -> Vec<Process> {
        let tagged = Process::tagged(&self.tag);
        let is_shim = |process: &Process| process.line.contains("containerd-shim-");
        tagged
            .values()
            .filter(|p| is_shim(p) && !tagged.get(&p.parent).is_some_and(is_shim))
            .cloned()
            .collect()
    }

    /// A folder in the test's own.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A file in the test's own folder.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// An executable script in the test's own folder, run by the host's shell.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// Whether the containers of this run are put into units of systemd (`MYSHIM_CGROUPS=systemd`).
fn systemd_cgroups() -> bool {
    std::env::var_os("MYSHIM_CGROUPS").is_some_and(|manager| manager == "systemd")
}

/// Imports the image into a containerd; `dir` takes the archive.
///
/// # Panics
/// When that fails.
pub fn import(endpoint: &Endpoint, dir: &Path) {
    let archive = dir.join("image.tar");
    if !archive.exists() {
        Image::busybox().archive(&archive, image::NAME);
    }
    import_archive(endpoint, &archive);
}

/// Imports an archive of images.
///
/// # Panics
/// When that fails.
pub fn import_archive(endpoint: &Endpoint, archive: &Path) {
    endpoint.ctr_run(["images", "import", &archive.to_string_lossy()], image::IMPORT).ok();
}

/// Ends a daemon with SIGKILL and waits until it is gone.
///
/// # Panics
/// When it stays.
pub fn kill_hard(pid: u32) {
    let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(raw, Signal::KILL).unwrap();
    wait::within(Duration::from_secs(10), || {
        Process::read(pid).is_none_or(|process| process.state == 'Z').then_some(())
    })
    .unwrap_or_else(|| panic!("{pid} outlives SIGKILL"));
}
