//! A bundle with busybox, the command, and the host before and after.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long anything may take on a loaded host.
const LIMIT: Duration = Duration::from_secs(60);

/// All that one test works with. What it makes has its tag in the name.
pub(crate) struct Bench {
    pub(crate) tag: String,
    pub(crate) dir: PathBuf,
    before: BTreeSet<String>,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Output {
    /// Its standard output, when it has succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.out
    }

    /// Fails unless it has failed with these words.
    #[track_caller]
    pub(crate) fn fails(&self, words: &str) {
        assert!(!self.status.success() && self.err.contains(words), "{words:?}: {self:?}");
    }

    /// Fails unless it has ended with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        self.out
    }
}

/// A command that runs. Its output goes to files: a container may hold it for longer.
pub(crate) struct Running {
    pub(crate) child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        let end = Instant::now() + LIMIT;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => {
                    self.child.kill().unwrap();
                    self.child.wait().unwrap();
                    panic!("did not end; {:?}", fs::read_to_string(&self.err));
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let read = |path| fs::read_to_string(path).unwrap();
        Output { status, out: read(&self.out), err: read(&self.err) }
    }
}

impl Bench {
    pub(crate) fn new() -> Bench {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let tag = format!("myshimoci{}x{number}", std::process::id());
        let dir = std::env::temp_dir().join(&tag);
        let before = snapshot(&tag);
        let bin = dir.join("bundle/rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for name in ["proc", "dev", "sys", "tmp"] {
            fs::create_dir(dir.join("bundle/rootfs").join(name)).unwrap();
        }
        fs::copy("/usr/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
        for name in ["sh", "sleep", "cat", "ls", "echo", "id", "true", "stty", "tty", "readlink"] {
            symlink("busybox", bin.join(name)).unwrap();
        }
        let bench = Bench { tag, dir, before };
        bench.oci(&["spec", "--bundle", &bench.bundle()]).ok();
        bench.change(|config| {
            config["process"]["terminal"] = json!(false);
            config["root"]["readonly"] = json!(false);
            config["linux"]["cgroupsPath"] = json!(format!("/{}", bench.tag));
        });
        bench.program(&["sleep", "1000"]);
        bench
    }

    pub(crate) fn bundle(&self) -> String {
        self.dir.join("bundle").to_str().unwrap().to_owned()
    }

    /// Changes config.json.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.join("bundle/config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// What init executes.
    pub(crate) fn program(&self, args: &[&str]) {
        self.change(|config| config["process"]["args"] = json!(args));
    }

    /// A shell script for init.
    pub(crate) fn script(&self, script: &str) {
        self.program(&["sh", "-c", script]);
    }

    /// The command line of the tool.
    pub(crate) fn line(&self, args: &[&str]) -> Vec<String> {
        let root = self.dir.join("root").to_str().unwrap().to_owned();
        let tool = [env!("CARGO_BIN_EXE_myshim-oci").to_owned(), "--root".to_owned(), root];
        tool.into_iter().chain(args.iter().map(|&arg| arg.to_owned())).collect()
    }

    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_line(&self.line(args))
    }

    /// Any command, with its output in files and nothing on its standard input.
    pub(crate) fn start_line(&self, line: &[String]) -> Running {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let [out, err] = ["out", "err"].map(|name| self.dir.join(format!("{name}{number}")));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).stdin(Stdio::null()).current_dir(&self.dir);
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Running { child: command.spawn().unwrap(), out, err }
    }

    #[track_caller]
    pub(crate) fn oci(&self, args: &[&str]) -> Output {
        self.start(args).finish()
    }

    /// `create`; where the program's output goes.
    #[track_caller]
    pub(crate) fn create(&self, flags: &[&str], id: &str) -> PathBuf {
        let bundle = self.bundle();
        let mut args = vec!["create", "--bundle", &bundle];
        args.extend(flags);
        args.push(id);
        let running = self.start(&args);
        let out = running.out.clone();
        running.finish().ok();
        out
    }

    /// `run` in the foreground.
    #[track_caller]
    pub(crate) fn run(&self, flags: &[&str]) -> Output {
        self.start_run(flags).finish()
    }

    pub(crate) fn start_run(&self, flags: &[&str]) -> Running {
        let bundle = self.bundle();
        let mut args = vec!["run", "--bundle", &bundle];
        args.extend(flags);
        args.push("c");
        self.start(&args)
    }

    #[track_caller]
    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.oci(&["state", id]).ok()).unwrap()
    }

    #[track_caller]
    pub(crate) fn await_status(&self, id: &str, status: &str) {
        until(&format!("{id} is {status}"), || self.state(id)["status"] == status);
    }

    /// Fails unless the host is as it was.
    #[track_caller]
    pub(crate) fn finish(self) {
        let mut left = Vec::new();
        let same = within(|| {
            left = snapshot(&self.tag).difference(&self.before).cloned().collect();
            left.is_empty()
        });
        assert!(same, "left on the host: {left:#?}");
        let states = fs::read_dir(self.dir.join("root"));
        assert_eq!(states.map_or(0, Iterator::count), 0, "a state is left");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let states = fs::read_dir(self.dir.join("root")).into_iter().flatten().flatten();
        for state in states {
            let id = state.file_name().into_string().unwrap();
            let line = self.line(&["delete", "--force", &id]);
            Command::new(&line[0]).args(&line[1..]).status().ok();
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn within(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + LIMIT;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Waits until it holds.
#[track_caller]
pub(crate) fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(within(holds), "not within {LIMIT:?}: {what}");
}

/// Processes, mounts and cgroups with the tag in their command, cgroup or name.
fn snapshot(tag: &str) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let text =
        |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let (line, cgroup) = (text(path.join("cmdline")), text(path.join("cgroup")));
        let zombie = text(path.join("stat")).contains(") Z ");
        if !zombie && (line.contains(tag) || cgroup.contains(tag)) {
            lines.insert(format!("process {} {line:?}", path.display()));
        }
    }
    let mounts = text("/proc/self/mountinfo".into());
    lines.extend(mounts.lines().filter(|mount| mount.contains(tag)).map(str::to_owned));
    for mount in mounts.lines().filter(|mount| mount.contains(" - cgroup")) {
        let root = Path::new(mount.split(' ').nth(4).unwrap());
        let dirs = fs::read_dir(root).into_iter().flatten().flatten();
        let ours = dirs.filter(|dir| dir.file_name().to_string_lossy().contains(tag));
        lines.extend(ours.map(|dir| format!("cgroup {}", dir.path().display())));
    }
    lines
}
