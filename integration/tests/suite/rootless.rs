//! The shim below a containerd of an ordinary user, who may make no cgroup, or has been given one, or
//! has a systemd.

use std::fs;
use std::os::unix::fs::{chown, lchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use myshim_integration::claim::{Claim, Needs};
use myshim_integration::command::LIMIT;
use myshim_integration::host::remove_tree;
use myshim_integration::process::{Process, cgroup_dir, status};
use myshim_integration::rootless::{self, FIRST_SUBUID, Place, USER, UsersSystemd};
use myshim_integration::test::{import, kill_hard};
use myshim_integration::{Container, Daemon, Test, claims, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_user_has_containers,
    a_users_daemon_killed_leaves_nothing,
    the_hosts_sys_is_bound_beside_the_hosts_network.once(),
    a_users_systemd_holds_the_users_containers.needs(Needs::UsersSystemd).alone(),
    a_users_systemd_that_is_stopped_is_an_error_in_time
        .needs(Needs::UsersSystemd)
        .once()
        .alone()
        .within(180),
    a_delegated_cgroup_holds_the_users_containers.needs(Needs::CgroupV2),
];

/// The test on a containerd of the user's.
pub(crate) fn rootless(t: &Test) -> (Test, Daemon) {
    rootless_in(t, Place::Here)
}

fn rootless_in(t: &Test, place: Place<'_>) -> (Test, Daemon) {
    let daemon = rootless::start(t.version(), &t.dir.join("c"), &t.endpoint.namespace, place);
    import(daemon.endpoint(), &t.dir);
    (t.on(&daemon), daemon)
}

fn a_user_has_containers(t: &Test) {
    let (t, _daemon) = rootless(t);
    let out = t.run(&["--seccomp"], &["sh", "-c", "cat /proc/self/uid_map; cat /dev/null; id -u"]);
    let ids = out.ok().split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>();
    assert_eq!(ids, [0, USER, 1, 1, FIRST_SUBUID, 65_536, 0]);
    let c = t.sleeper("web", &[]);
    assert_eq!(c.exec(&["sh", "-c", "exit 3"]).code(), Some(3));
    let owner = format!("{USER}\t{USER}\t{USER}\t{USER}");
    assert_eq!(status(c.pid(), "Uid"), Some(owner));
    // No cgroup of its own: it is where its daemon is, and known by its processes alone.
    let cgroups = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroups(c.pid()), cgroups(c.shim().pid));
    let listed = t.ctr(["tasks", "ps", &c.id]).ok();
    assert!(listed.contains(&c.pid().to_string()), "{listed}");
    c.task("pause").fails(&["no cgroup that can be frozen"]);
    c.remove();
    t.run(&["--memory-limit", "33554432"], &["true"]).fails(&[
        "linux.resources.memory.limit: a limit needs a cgroup",
        "mkdir(",
        "EACCES",
    ]);
    let args = t.run_args(&t.id("tty"), &["--rm", "-t"], &["sh", "-c", "tty; exit 7"]);
    let (status, shown) = t.ctr_on_terminal(args).finish(LIMIT);
    assert_eq!(status.code(), Some(7), "{shown}");
    assert!(shown.contains("/dev/pts/0"), "{shown}");
    t.finish();
}

fn a_users_daemon_killed_leaves_nothing(t: &Test) {
    let (t, _daemon) = rootless(t);
    let c = t.sleeper("web", &[]);
    let (init, id) = (c.pid(), c.id.clone());
    kill_hard(c.shim().pid);
    wait::until_true("the container's process is gone", || Process::read(init).is_none());
    wait::until_true("containerd notices the death", || {
        !t.ctr(["tasks", "list"]).ok().contains("RUNNING")
    });
    t.try_ctr(["tasks", "delete", "--force", &id]);
    t.ctr(["containers", "delete", &id]).ok();
    t.finish();
}

/// As nerdctl asks for it: a sysfs may be mounted only by who owns the network namespace.
fn the_hosts_sys_is_bound_beside_the_hosts_network(t: &Test) {
    let (t, _daemon) = rootless(t);
    chown_tree(&t.rootfs());
    let out = t.run_spec(|spec| spec.host_namespace("network").args(&["true"]));
    out.fails(&["at /sys", "fsopen(\"sysfs\"", "EPERM"]);
    let out = t.run_spec(|spec| {
        let mounts = spec.0["mounts"].as_array().unwrap();
        let kept: Vec<_> = mounts.iter().filter(|m| m["destination"] != "/sys").collect();
        let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
        spec.clone()
            .with("/mounts", json!(kept))
            .mount("bind", "/sys", "/sys", &options)
            .host_namespace("network")
            .shell("test -d /sys/class/net/lo && ! touch /sys/x 2>/dev/null && echo bound")
    });
    assert_eq!(out.ok(), "bound\n");
    t.finish();
}

/// A container that sleeps, with limits, in the cgroup that `path` names, and its directory on the
/// host: what holds for it whoever has made that.
fn limited<'a>(t: &'a Test, path: &str) -> (Container<'a>, PathBuf) {
    chown_tree(&t.rootfs());
    let id = t.id("web");
    let spec = t
        .spec(&id)
        .args(&["sleep", "3600"])
        .host_namespace("cgroup")
        .with("/linux/cgroupsPath", json!(path))
        .with("/linux/resources/memory", json!({"limit": 64 << 20, "swap": 64 << 20}))
        .with("/linux/resources/pids", json!({"limit": 50}))
        .with("/linux/resources/cpu", json!({"shares": 512, "quota": 20_000, "period": 50_000}));
    t.ctr(t.spec_args(&id, &spec, &["--detach"])).ok();
    let c = t.container("web");
    let directory = cgroup_dir(c.pid(), "memory").unwrap();
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("pids.max", "50"),
        ("cpu.weight", "59"),
        ("cpu.max", "20000 50000"),
    ] {
        assert_eq!(fs::read_to_string(directory.join(file)).unwrap().trim(), value, "{file}");
    }
    let own = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert_eq!(c.exec(&["cat", "/proc/self/cgroup"]).ok(), own);
    c.task("pause").ok();
    assert_eq!(fs::read_to_string(directory.join("cgroup.freeze")).unwrap().trim(), "1");
    c.task("resume").ok();
    (c, directory)
}

fn a_users_systemd_holds_the_users_containers(t: &Test) {
    let systemd = UsersSystemd::start();
    let (test, daemon) = rootless_in(t, Place::Scope(&systemd));
    let unit = format!("t-{}.scope", test.id("web"));
    // No slice: the one that a user's containers are in.
    let (c, directory) = limited(&test, &format!(":t:{}", test.id("web")));
    assert_eq!(directory, systemd.cgroup().join("user.slice").join(&unit));
    let properties = "Slice,MemoryMax,MemorySwapMax,TasksMax,CPUWeight,CPUQuotaPerSecUSec";
    let shown = systemd.systemctl(&["show", &unit, "--property", properties]);
    for line in [
        "Slice=user.slice",
        "MemoryMax=67108864",
        "MemorySwapMax=0",
        "TasksMax=50",
        "CPUWeight=59",
        "CPUQuotaPerSecUSec=400ms",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let before = limits_of(&directory);
    assert_eq!(systemd.systemctl(&["daemon-reload"]), "");
    assert_eq!(limits_of(&directory), before);
    c.remove();
    let state = systemd.systemctl(&["show", &unit, "--property", "LoadState"]);
    assert_eq!(state, "LoadState=not-found\n");
    assert!(!directory.exists());
    test.finish();
    drop(daemon);
    drop(systemd);
}

fn a_users_systemd_that_is_stopped_is_an_error_in_time(t: &Test) {
    let systemd = UsersSystemd::start();
    let (test, daemon) = rootless_in(t, Place::Scope(&systemd));
    chown_tree(&test.rootfs());
    let path = format!(":t:{}", test.id("run"));
    let run = || test.run_spec(|spec| spec.args(&["true"]).with("/linux/cgroupsPath", json!(path)));
    run().ok();
    signal(systemd.pid(), Signal::STOP);
    let begin = Instant::now();
    let out = run();
    // It has 20 s for an answer.
    let took = begin.elapsed();
    signal(systemd.pid(), Signal::CONT);
    out.fails(&["no answer to", "within 20000 ms"]);
    assert!(took < wait::scaled(Duration::from_secs(40)), "{took:?}");
    run().ok();
    test.finish();
    drop(daemon);
    drop(systemd);
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

fn limits_of(directory: &Path) -> Vec<String> {
    ["memory.max", "memory.swap.max", "pids.max", "cpu.weight", "cpu.max"]
        .map(|file| fs::read_to_string(directory.join(file)).unwrap())
        .into()
}

/// A directory of cgroup v2 that is the user's, as a manager delegates one.
struct Delegated(PathBuf);

impl Delegated {
    fn new(t: &Test) -> Self {
        let dir = Path::new("/sys/fs/cgroup").join(t.id("given"));
        let daemon = dir.join("daemon");
        // What the parent does not hand down nobody can delegate.
        fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids").unwrap();
        fs::create_dir_all(&daemon).unwrap();
        let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
        for directory in [&dir, &daemon] {
            chown(directory, Some(USER), Some(USER)).unwrap();
            for file in listed.lines().map(|file| directory.join(file)).filter(|f| f.exists()) {
                chown(&file, Some(USER), Some(USER)).unwrap();
            }
        }
        Self(dir)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let gone = || {
            remove_tree(&self.0);
            !self.0.exists()
        };
        wait::until_true("the delegated cgroup is empty", gone);
    }
}

fn a_delegated_cgroup_holds_the_users_containers(t: &Test) {
    let given = Delegated::new(t);
    let (test, daemon) = rootless_in(t, Place::Cgroup(&given.0.join("daemon")));
    let path = format!("/{}/web", test.id("given"));
    let (c, directory) = limited(&test, &path);
    assert_eq!(directory, given.0.join("web"));
    c.remove();
    assert!(!directory.exists());
    // Beside it nothing is the user's.
    let out = test.run(&["--memory-limit", "33554432"], &["true"]);
    out.fails(&["linux.resources.memory.limit: a limit needs a cgroup", "mkdir(", "EACCES"]);
    test.finish();
    drop(daemon);
}

pub(crate) fn chown_tree(path: &std::path::Path) {
    lchown(path, Some(USER), Some(USER)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            chown_tree(&entry.unwrap().path());
        }
    }
}
