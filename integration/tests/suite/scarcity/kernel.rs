//! What the kernel has a number of: inotify instances, mounts, terminals.

use std::fs;

use myshim_integration::Test;
use myshim_integration::host::mounts;
use myshim_integration::shim::{Bundle, EventSink, Invocation, Stdio3, shell};
use myshim_integration::spec::Spec;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

use super::{Streams, create, exec, remove};
use crate::neighbour::Neighbour;

/// A shim that `before`, a line of shell, runs in front of, in namespaces by `unshare`.
fn behind<'a>(
    t: &'a Test,
    unshare: &str,
    before: &str,
    spec: impl FnOnce(Spec) -> Spec,
) -> Neighbour<'a> {
    let real = Invocation::new(t, &Bundle::new(t, "none", |s| s), &EventSink::listen(t)).binary;
    let script = t.script(
        "shim",
        &format!(
            "exec /usr/bin/unshare {unshare} /bin/sh -c 'PATH=/usr/bin:/bin; {before}; \
             exec {} \"$@\"' sh \"$@\"",
            real.display()
        ),
    );
    Neighbour::started_by(t, spec, |invocation| invocation.binary = script)
}

pub(super) fn many_mounts(t: &Test) {
    // Each turn doubles what is there.
    let folder = t.folder("m").display().to_string();
    let script = format!(
        "mount -t tmpfs many {folder}; \
         for n in 1 2 3 4 5 6 7 8 9 10 11 12; do mkdir {folder}/$n; \
         mount --rbind {folder} {folder}/$n; done"
    );
    let pod = behind(t, "--mount", &script, |spec| spec);
    let table = || fs::read_to_string(format!("/proc/{}/mountinfo", pod.daemon)).unwrap();
    let before = table();
    assert!(before.lines().count() >= 4096, "{} mounts", before.lines().count());
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
    for _ in 0..3 {
        let pid = create(&pod.shim, &bundle, &Stdio3::default()).unwrap();
        assert!(table() == before, "the host's table changes with a container");
        let own = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert!(own.lines().count() < 40, "the container has {} mounts", own.lines().count());
        exec(&pod.shim, &bundle.id, &Stdio3::default()).unwrap();
        remove(&pod.shim, &bundle.id, "e");
        remove(&pod.shim, &bundle.id, "");
    }
    pod.assert_served();
    assert!(table() == before, "the host's table is another one");
    pod.end();
    assert!(!mounts().iter().any(|mount| mount.contains(&folder)));
}

pub(super) fn no_inotify(t: &Test) {
    let pod = behind(
        t,
        "--user --map-root-user --mount",
        "echo 0 >/proc/sys/user/max_inotify_instances",
        |spec| devpts(spec, &[]),
    );
    let daemon = pod.daemon.to_string();
    let mut tried = std::process::Command::new("/usr/bin/nsenter");
    tried.args(["--user", "--preserve-credentials", "--target", &daemon, "/usr/bin/tail"]);
    // No process has this number; tail would look at a file until it ends.
    tried.args(["-f", "--pid=4194304", "/etc/passwd"]);
    let out = myshim_integration::command::run(tried, myshim_integration::command::LIMIT);
    assert!(out.err().contains("inotify cannot be used"), "{out}");
    let bundle = Bundle::new(t, "web", |spec| devpts(spec.args(&["sleep", "3600"]), &[]));
    create(&pod.shim, &bundle, &Stdio3::default()).unwrap();
    exec(&pod.shim, &bundle.id, &Stdio3::default()).unwrap();
    remove(&pod.shim, &bundle.id, "e");
    remove(&pod.shim, &bundle.id, "");
    pod.assert_served();
    pod.end();
}

/// With a devpts that has these options beside the usual ones. The group 5 is not everywhere.
fn devpts(spec: Spec, more: &[&str]) -> Spec {
    let mounts = spec.0["mounts"].as_array().unwrap();
    let index = mounts.iter().position(|mount| mount["type"] == "devpts").unwrap();
    let usual = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let options: Vec<&str> = usual.iter().chain(more).copied().collect();
    spec.with(&format!("/mounts/{index}/options"), json!(options))
}

fn on_terminal(script: &str) -> Value {
    let mut process = shell(script);
    process["terminal"] = json!(true);
    process
}

pub(super) fn no_terminal(t: &Test) {
    let pod = Neighbour::new(t);
    let shim = &pod.shim;
    let tells = |text: &str| {
        assert!(text.contains("ptmx") && text.contains("ENOSPC"), "{text:?}");
    };
    // One terminal is all there is, and somebody has it.
    let pts = t.folder("pts");
    let options = c"newinstance,ptmxmode=0666,max=1";
    mount("devpts", &pts, "devpts", MountFlags::empty(), Some(options)).unwrap();
    let taken = fs::File::options().read(true).write(true).open(pts.join("ptmx")).unwrap();
    let edit = |spec: Spec| {
        let spec = spec.args(&["sleep", "3600"]).with("/process/terminal", json!(true));
        spec.mount("bind", &pts.to_string_lossy(), "/dev/pts", &["bind"])
    };
    let (bundle, streams) = (Bundle::new(t, "tty", edit), Streams::new(t, "tty", true));
    pod.settle();
    let before = pod.look(&bundle);
    tells(&create(shim, &bundle, &streams.stdio).unwrap_err().message);
    pod.settle();
    assert_eq!(pod.look(&bundle), before);
    drop(taken);
    create(shim, &bundle, &streams.stdio).unwrap();
    remove(shim, &bundle.id, "");
    unmount(&pts, UnmountFlags::empty()).unwrap();

    let edit = |spec: Spec| {
        let spec = spec.args(&["sleep", "3600"]).with("/process/terminal", json!(true));
        devpts(spec, &["max=1"])
    };
    let bundle = Bundle::new(t, "one", edit);
    let (first, second) = (Streams::new(t, "one", true), Streams::new(t, "two", true));
    create(shim, &bundle, &first.stdio).unwrap();
    pod.settle();
    let before = pod.look(&bundle);
    shim.exec(&bundle.id, "e", &on_terminal("true"), &second.stdio).unwrap();
    tells(&shim.start(&bundle.id, "e").unwrap_err().message);
    shim.delete(&bundle.id, "e").unwrap();
    pod.settle();
    assert_eq!(pod.look(&bundle), before);
    assert_eq!(shim.status(&bundle.id, ""), "running");
    remove(shim, &bundle.id, "");
    pod.assert_served();
    pod.end();
}
