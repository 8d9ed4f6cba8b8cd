//! The shim below a containerd of an ordinary user, who may make no cgroup.

use std::fs;
use std::os::unix::fs::lchown;

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::process::{Process, status};
use myshim_integration::rootless::{self, FIRST_SUBUID, USER};
use myshim_integration::test::{import, kill_hard};
use myshim_integration::{Daemon, Test, claims, wait};
use serde_json::json;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_user_has_containers,
    a_users_daemon_killed_leaves_nothing,
    the_hosts_sys_is_bound_beside_the_hosts_network.once(),
];

/// The test on a containerd of the user's.
pub(crate) fn rootless(t: &Test) -> (Test, Daemon) {
    let daemon = rootless::start(t.version(), &t.dir.join("c"), &t.endpoint.namespace);
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

pub(crate) fn chown_tree(path: &std::path::Path) {
    lchown(path, Some(USER), Some(USER)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            chown_tree(&entry.unwrap().path());
        }
    }
}
