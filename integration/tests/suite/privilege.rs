//! What others can see of the shim, and reach: other users of the host, and containers.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

use myshim_integration::claim::Claim;
use myshim_integration::command::{self, LIMIT, Output};
use myshim_integration::process::{Process, status};
use myshim_integration::shim::{Stdio3, shell};
use myshim_integration::spec::Spec;
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::deaths;

pub(crate) const CLAIMS: &[Claim] = claims![
    another_user_reaches_no_socket_state_or_bundle,
    another_user_reads_nothing_of_the_shims_processes,
    a_container_that_sees_the_shims_processes_reads_nothing_of_them.once(),
    a_tenant_that_is_about_to_enter_is_closed_to_its_container.once(),
    an_init_that_is_about_to_be_is_closed_to_other_containers.once(),
    what_the_shim_forks_inherits_no_capability_by_execve,
];

/// Runs a program as a user who owns nothing and is in no group.
fn as_nobody(program: &[&str]) -> Output {
    let mut setpriv = Command::new("/usr/bin/setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).args(program);
    command::run(setpriv, LIMIT)
}

/// Whether `test FLAG PATH` says so, as nobody.
fn nobody_may(flag: &str, path: &Path) -> bool {
    let path = path.to_string_lossy();
    let out = as_nobody(&["/usr/bin/test", flag, &path]);
    assert!(matches!(out.status.code(), Some(0 | 1)), "{out}");
    out.status.success()
}

/// The daemon, and its children that are no containers.
fn of_the_shim(daemon: u32) -> Vec<Process> {
    let ours = |process: &Process| process.comm.starts_with("myshim:") || process.pid == daemon;
    let children = move |process: &Process| process.pid == daemon || process.parent == daemon;
    let spawned = || {
        let all = Process::all();
        let found: Vec<Process> =
            all.into_values().filter(|process| children(process) && ours(process)).collect();
        // Daemon, spawner, and the main that waits.
        (found.len() >= 3).then_some(found)
    };
    wait::until("daemon, spawner and a main that waits", spawned)
}

fn another_user_reaches_no_socket_state_or_bundle(t: &Test) {
    let c = t.sleeper("web", &[]);
    let bundle = t.endpoint.bundles().join(&c.id);
    let socket = t.endpoint.shim_socket(&c.id);
    let state = bundle.join("myshim");
    let paths = [socket, bundle.join("config.json"), state.join("state.json"), state, bundle];
    for path in &paths {
        assert!(path.exists(), "{} is not there", path.display());
        for flag in ["-r", "-w", "-x"] {
            // connect(2) wants leave to write.
            assert!(!nobody_may(flag, path), "{flag} {}", path.display());
        }
    }
    assert!(nobody_may("-r", Path::new("/etc/passwd")), "nobody may nothing at all");
    c.remove();
}

fn another_user_reads_nothing_of_the_shims_processes(t: &Test) {
    let c = t.sleeper("web", &[]);
    for process in of_the_shim(c.shim().pid) {
        for file in ["mem", "environ", "maps", "fd", "cwd", "exe", "auxv"] {
            let path = PathBuf::from(format!("/proc/{}/{file}", process.pid));
            let open = format!("head -c 1 {0} || ls {0}/", path.display());
            let out = as_nobody(&["/bin/sh", "-c", &open]);
            assert!(!out.status.success(), "{} {file}: {out}", process.comm);
            assert!(out.err().contains("Permission denied"), "{} {file}: {out}", process.comm);
        }
    }
    c.remove();
}

/// Prints `SEEN name` for each process of a shim that it sees, and `READ name file` for what it
/// can read of it; `CAN` when it can read such files at all. Over and over. What it could read of a
/// process that has executed its program meanwhile is that program's. (The files of a zombie can be
/// opened, and are empty. /proc/PID/mem is left out, for it has nothing at its beginning; who may
/// open it may read these, too.)
const WATCH: &str = "
    : </proc/$$/maps && echo CAN
    could() { [ \"$(cat $p/comm 2>/dev/null)\" = \"$c\" ] && echo READ $c $1; }
    while :; do for p in /proc/[0-9]*; do
        c=$(cat $p/comm 2>/dev/null)
        case $c in init:*|tenant:*|inter:*|myshim:*|containerd-shim)
            echo SEEN $c
            for f in environ maps auxv; do
                [ \"$(head -c 1 $p/$f 2>/dev/null | wc -c)\" = 1 ] && could $f
            done
            for fd in 0 1 2 3 4 5; do
                readlink $p/fd/$fd >/dev/null && could fd
            done
            readlink $p/exe >/dev/null && could exe
        esac
    done; done";

/// Waits until the watcher has seen a process of this name, thrice, so that it has looked at it
/// whole; it must have read nothing.
fn assert_closed(file: &Path, name: &str) {
    let seen = format!("SEEN {name}");
    let said = || fs::read_to_string(file).unwrap_or_default();
    wait::until_true("the watcher looks at it", || said().matches(&seen).count() >= 3);
    let said = said();
    assert!(said.contains("CAN"), "the watcher can read nothing at all");
    let read: Vec<&str> = said.lines().filter(|line| line.starts_with("READ")).collect();
    assert!(read.is_empty(), "{read:#?}");
}

fn as_user(spec: Spec, uid: u32) -> Spec {
    spec.with("/process/user", json!({"uid": uid, "gid": uid}))
}

/// Root with the capabilities that `ctr` gives, and a user with none.
fn watchers() -> [fn(Spec) -> Spec; 2] {
    [|spec| spec, |spec| as_user(spec, 1000).capabilities(&[])]
}

fn a_container_that_sees_the_shims_processes_reads_nothing_of_them(t: &Test) {
    for (n, user) in watchers().into_iter().enumerate() {
        let out = t.file(&format!("out{n}"), "");
        let folder = t.dir.to_string_lossy().into_owned();
        fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        let script = format!("exec >>{}; {WATCH}", out.display());
        let watcher = t.detached_spec("watcher", |spec| {
            user(spec)
                .host_namespace("pid")
                .mount("bind", &folder, &folder, &["rbind"])
                .shell(&script)
        });
        for name in ["containerd-shim", "myshim:spawner", "myshim:waits"] {
            assert_closed(&out, name);
        }
        watcher.remove();
    }
}

fn a_tenant_that_is_about_to_enter_is_closed_to_its_container(t: &Test) {
    // CVE-2016-9962: a process that comes in from the host is one of the container's before it
    // executes its program, and has descriptors of the host's.
    for (n, user) in watchers().into_iter().enumerate() {
        let rig =
            deaths::Rig::new(t, &format!("web{n}"), "tenant/Ready", |spec| user(spec).shell(WATCH));
        let (shim, id) = (&rig.shim, rig.bundle.id.clone());
        let out = t.dir.join(format!("out{n}"));
        shim.create(&rig.bundle, &Stdio3::to_file(&out)).unwrap();
        shim.start(&id, "").unwrap();
        let uid = status(shim.state(&id, "").unwrap().pid, "Uid").unwrap();
        let uid: u32 = uid.split_whitespace().next().unwrap().parse().unwrap();
        let mut process = shell("exit 5");
        process["user"] = json!({"uid": uid, "gid": uid});
        shim.exec(&id, "e", &process, &Stdio3::default()).unwrap();
        thread::scope(|scope| {
            let started = scope.spawn(|| shim.start(&id, "e").unwrap());
            let tenant = deaths::held(t, "tenant");
            // What is not dumpable belongs to root, whoever it runs as.
            let owner = fs::metadata(format!("/proc/{tenant}/environ")).unwrap().uid();
            assert_eq!(owner, 0, "of a process of user {uid}");
            assert_closed(&out, "tenant:ready");
            let pid = Pid::from_raw(i32::try_from(tenant).unwrap()).unwrap();
            kill_process(pid, Signal::CONT).unwrap();
            started.join().unwrap();
        });
        assert_eq!(shim.wait(&id, "e").unwrap().exit_status, 5);
        shim.kill(&id, "", 9).unwrap();
        shim.wait(&id, "").unwrap();
        shim.delete(&id, "").unwrap();
        rig.over();
    }
}

fn an_init_that_is_about_to_be_is_closed_to_other_containers(t: &Test) {
    let rig = deaths::Rig::new(t, "web", "init/Ready", |spec| as_user(spec, 1000).args(&["true"]));
    let out = t.file("out", "");
    let folder = t.dir.to_string_lossy().into_owned();
    let script = format!("exec >>{}; {WATCH}", out.display());
    let watcher = t.detached_spec("watcher", |spec| {
        spec.host_namespace("pid").mount("bind", &folder, &folder, &["rbind"]).shell(&script)
    });
    let (shim, id) = (&rig.shim, rig.bundle.id.clone());
    thread::scope(|scope| {
        let created = scope.spawn(|| shim.create(&rig.bundle, &Stdio3::default()).unwrap());
        let init = deaths::held(t, "init");
        assert_eq!(fs::metadata(format!("/proc/{init}/environ")).unwrap().uid(), 0);
        assert_closed(&out, "init:ready");
        assert_closed(&out, "myshim:main");
        let pid = Pid::from_raw(i32::try_from(init).unwrap()).unwrap();
        kill_process(pid, Signal::CONT).unwrap();
        created.join().unwrap();
    });
    shim.kill(&id, "", 9).unwrap();
    shim.wait(&id, "").unwrap();
    shim.delete(&id, "").unwrap();
    watcher.remove();
    rig.over();
}

fn what_the_shim_forks_inherits_no_capability_by_execve(t: &Test) {
    let c = t.sleeper("web", &[]);
    for process in of_the_shim(c.shim().pid) {
        for set in ["CapInh", "CapAmb"] {
            let mask = status(process.pid, set);
            assert_eq!(mask.as_deref(), Some("0000000000000000"), "{} {set}", process.comm);
        }
    }
    c.remove();
}
