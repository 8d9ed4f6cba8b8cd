//! No space, no inodes, or no writing where the shim keeps its files.

use std::fs;
use std::path::{Path, PathBuf};

use myshim_integration::shim::{Bundle, Dialect, EventSink, Invocation, Stdio3, make_fifo};
use myshim_integration::spec::Spec;
use myshim_integration::{Endpoint, Test, wait};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use serde_json::json;

use super::{Trial, create, exec, remove};
use crate::neighbour::Neighbour;

/// A page, which is what a tmpfs counts in.
const BLOCK: u64 = 4096;

/// A tmpfs of the test's own; unmounted when dropped.
pub(super) struct Small {
    dir: PathBuf,
}

impl Small {
    pub(super) fn at(dir: &Path) -> Self {
        let options = c"size=1m,nr_inodes=1000,mode=711";
        mount("small", dir, "tmpfs", MountFlags::empty(), Some(options)).unwrap();
        Self { dir: dir.to_path_buf() }
    }

    fn remount(&self, flags: MountFlags, options: &str) {
        mount_remount(&self.dir, flags, options).unwrap();
    }

    /// So many blocks beyond those in use.
    pub(super) fn blocks(&self, left: Option<usize>) {
        let now = rustix::fs::statvfs(&self.dir).unwrap();
        let used = now.f_blocks - now.f_bfree;
        let size = left.map_or(1 << 20, |left| (used + u64::try_from(left).unwrap()) * BLOCK);
        self.remount(MountFlags::empty(), &format!("size={size}"));
    }

    /// So many inodes beyond those in use.
    pub(super) fn inodes(&self, left: Option<usize>) {
        let now = rustix::fs::statvfs(&self.dir).unwrap();
        let used = now.f_files - now.f_ffree;
        let count = left.map_or(1000, |left| used + u64::try_from(left).unwrap());
        self.remount(MountFlags::empty(), &format!("nr_inodes={count}"));
    }

    pub(super) fn read_only(&self) {
        self.remount(MountFlags::RDONLY, "");
    }

    pub(super) fn writable(&self) {
        self.remount(MountFlags::empty(), "");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(&self.dir, UnmountFlags::DETACH).unwrap();
    }
}

/// A bundle on a file system of its own.
fn bundle_on_small(t: &Test, name: &str) -> (Bundle, Small) {
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_ERRNO"}],
    });
    let edit = |spec: Spec| spec.args(&["sleep", "3600"]).with("/linux/seccomp", filter);
    let bundle = Bundle::new(t, name, edit);
    let config = fs::read(bundle.dir.join("config.json")).unwrap();
    let small = Small::at(&bundle.dir);
    fs::write(bundle.dir.join("config.json"), config).unwrap();
    fs::create_dir(bundle.dir.join("rootfs")).unwrap();
    make_fifo(&bundle.dir.join("log"));
    (bundle, small)
}

type Ration = fn(&Small, Option<usize>);

pub(super) fn full_bundle(t: &Test) {
    let (bundle, small) = bundle_on_small(t, "web");
    let pod = Neighbour::new(t);
    let rations: [(&str, Ration); 2] = [("blocks", Small::blocks), ("inodes", Small::inodes)];
    for (what, ration) in rations {
        let failures = Trial {
            pod: &pod,
            bundle: &bundle,
            ration: &|left| ration(&small, left),
            act: &|| create(&pod.shim, &bundle, &Stdio3::default()),
            tells: &|text| text.contains("ENOSPC") && text.contains("myshim"),
            undo: &|| {
                remove(&pod.shim, &bundle.id, "");
                // As containerd does with the whole bundle.
                drop(fs::remove_dir_all(bundle.dir.join("myshim")));
            },
        }
        .run();
        assert!(failures > 1, "a create needs {failures} {what}");
        // What runs is served, and goes, without any.
        create(&pod.shim, &bundle, &Stdio3::default()).unwrap();
        ration(&small, Some(0));
        exec(&pod.shim, &bundle.id, &Stdio3::default()).unwrap();
        pod.shim.pause(&bundle.id).unwrap();
        pod.shim.resume(&bundle.id).unwrap();
        remove(&pod.shim, &bundle.id, "e");
        remove(&pod.shim, &bundle.id, "");
        ration(&small, None);
    }
    pod.end();
}

pub(super) fn read_only_bundle(t: &Test) {
    let (bundle, small) = bundle_on_small(t, "web");
    let pod = Neighbour::new(t);
    let (shim, id) = (&pod.shim, bundle.id.as_str());
    create(shim, &bundle, &Stdio3::default()).unwrap();
    remove(shim, id, "");
    pod.settle();
    let before = pod.look(&bundle);
    small.read_only();
    let error = create(shim, &bundle, &Stdio3::default()).unwrap_err();
    assert!(error.message.contains("myshim") && error.message.contains("EROFS"), "{error:?}");
    small.writable();
    pod.settle();
    assert_eq!(pod.look(&bundle), before);
    // One that runs when it happens is served, its end is told, and it is deleted afterwards.
    create(shim, &bundle, &Stdio3::default()).unwrap();
    small.read_only();
    exec(shim, id, &Stdio3::default()).unwrap();
    remove(shim, id, "e");
    shim.kill(id, "", 9).unwrap();
    assert_eq!(shim.wait(id, "").unwrap().exit_status, 137);
    let error = shim.delete(id, "").unwrap_err();
    assert!(error.message.contains("EROFS"), "{error:?}");
    assert_eq!(shim.status(id, ""), "stopped");
    pod.assert_served();
    small.writable();
    assert_eq!(shim.delete(id, "").unwrap().exit_status, 137);
    // The first one has been told of as well.
    wait::until_true("the second deletion is told", || count(&pod.events(id), "delete:137") == 2);
    assert_eq!(count(&pod.events(id), "exit:137"), 2);
    pod.settle();
    assert_eq!(pod.look(&bundle), before);
    pod.end();
}

fn count(events: &[String], what: &str) -> usize {
    events.iter().filter(|event| *event == what).count()
}

/// containerd's own state, and with it every bundle.
pub(super) fn full_state(t: &Test) {
    let state = t.folder("c").join("state");
    fs::create_dir(&state).unwrap();
    let small = Small::at(&state);
    let (own, daemon) = t.with_own_daemon();
    let c = own.sleeper("web", &[]);
    small.blocks(Some(0));
    let out = own.run(&[], &["true"]);
    assert!(!out.status.success() && out.err().contains("no space left on device"), "{out}");
    assert_eq!(c.exec(&["echo", "hello"]).ok(), "hello\n");
    c.kill("SIGKILL").ok();
    c.wait_status("STOPPED");
    small.blocks(None);
    assert_eq!(own.run(&[], &["echo", "hello"]).ok(), "hello\n");
    c.remove();
    own.finish();
    drop(daemon);
}

/// As containerd starts a shim, where that has no place for its socket.
pub(super) fn full_sockets(t: &Test) {
    let endpoint = Endpoint { dir: t.folder("c"), ..t.endpoint.clone() };
    let sockets = endpoint.socket_dir();
    fs::create_dir(&sockets).unwrap();
    let small = Small::at(&sockets);
    let (tag, dir) = (t.tag.clone(), t.dir.clone());
    let own = Test::new(myshim_integration::test::Fixture { endpoint, tag, dir });
    let sink = EventSink::listen(&own);
    let bundle = Bundle::new(&own, "web", |spec| spec.args(&["true"]));
    let start = |errno: &str| {
        let invocation = Invocation::new(&own, &bundle, &sink);
        let out = invocation.run("start", &invocation.stdin(Dialect::Bootstrap));
        out.fails(&[errno, &sockets.to_string_lossy()]);
        wait::until_true("no shim is left", || own.shims().is_empty());
    };
    small.inodes(Some(0));
    start("ENOSPC");
    small.inodes(None);
    small.read_only();
    start("EROFS");
    small.writable();
    assert_eq!(Invocation::new(&own, &bundle, &sink).run("delete", b"").code(), Some(0));
    assert_eq!(fs::read_dir(&sockets).unwrap().count(), 0);
    own.finish();
}

/// A shim that sees a /run without space: the compiled filters are not kept there.
pub(super) fn full_run(t: &Test) {
    let real = Invocation::new(t, &Bundle::new(t, "none", |s| s), &EventSink::listen(t)).binary;
    let own_run = "PATH=/usr/bin:/bin; mount -t tmpfs -o size=4k,nr_inodes=64,mode=755 small /run \
                   && cat /dev/zero >/run/fill 2>/dev/null";
    let script = t.script(
        "shim",
        &format!(
            "exec /usr/bin/unshare --mount /bin/sh -c '{own_run}; exec {} \"$@\"' sh \"$@\"",
            real.display()
        ),
    );
    let pod = Neighbour::started_by(t, |spec| spec, |invocation| invocation.binary = script);
    let run = PathBuf::from(format!("/proc/{}/root/run", pod.daemon));
    assert_eq!(fs::metadata(run.join("fill")).unwrap().len(), BLOCK);
    // A filter that no other test has.
    let number = u32::from_str_radix(&t.tag[..7], 16).unwrap();
    let argument = json!({"index": 0, "value": number, "op": "SCMP_CMP_EQ"});
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_ERRNO", "args": [argument]}],
    });
    let edit = |spec: Spec| spec.args(&["sleep", "3600"]).with("/linux/seccomp", filter);
    let bundle = Bundle::new(t, "web", edit);
    for _ in 0..2 {
        let pid = create(&pod.shim, &bundle, &Stdio3::default()).unwrap();
        let seccomp = myshim_integration::process::status(pid, "Seccomp");
        assert_eq!(seccomp.as_deref(), Some("2"));
        remove(&pod.shim, &bundle.id, "");
    }
    let kept = fs::read_dir(run.join("containerd-shim-myshim/seccomp")).unwrap();
    assert_eq!(kept.count(), 0);
    pod.end();
}
