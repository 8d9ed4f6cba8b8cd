//! Hazards that shape the program from the beginning: its own binary, descriptors, capabilities.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use myshim_integration::claim::Claim;
use myshim_integration::containerd::shim_binary;
use myshim_integration::process::{Process, status};
use myshim_integration::{Test, claims};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    an_entrypoint_that_is_the_runtime_itself_does_not_change_it,
    an_exec_does_not_open_the_way_to_the_runtimes_binary,
    a_container_has_three_descriptors,
    an_exec_has_three_descriptors,
    a_cwd_through_a_descriptor_is_refused,
    nothing_is_inheritable,
    bundle_and_state_are_closed_to_other_users,
    a_symlink_in_place_of_proc_is_not_followed,
    a_symlink_in_place_of_dev_is_not_followed,
    a_mount_through_a_symlink_stays_inside,
    the_shims_processes_are_not_to_be_seen,
    the_core_pattern_cannot_be_written,
];

fn hash(t: &Test) -> Vec<u8> {
    Sha256::digest(fs::read(shim_binary(t.version())).unwrap()).to_vec()
}

fn an_entrypoint_that_is_the_runtime_itself_does_not_change_it(t: &Test) {
    // CVE-2019-5736: the kernel runs /proc/self/exe for the script: the runtime's own binary.
    let before = hash(t);
    for _ in 0..3 {
        let out = t.run(&[], &["/bin/selfie"]);
        assert!(!out.status.success(), "{out}");
    }
    let c = t.sleeper("web", &[]);
    assert!(!c.exec(&["/bin/selfie"]).status.success());
    c.remove();
    assert_eq!(hash(t), before);
}

fn an_exec_does_not_open_the_way_to_the_runtimes_binary(t: &Test) {
    let before = hash(t);
    // Tries to write to the program of every process it sees, and of each new one.
    let script = "while :; do for p in /proc/[0-9]*; do \
                  case $(readlink $p/exe) in *shim*) echo x 2>/dev/null >$p/exe && echo WRITTEN;; esac; \
                  done; done";
    let id = t.id("web");
    let running = t.ctr_start(t.run_args(&id, &["--rm"], &["sh", "-c", script]));
    myshim_integration::wait::until_true("the container runs", || {
        t.container("web").status() == "RUNNING"
    });
    for _ in 0..10 {
        t.container("web").exec(&["true"]).ok();
    }
    t.container("web").kill("SIGKILL").ok();
    let out = running.finish(myshim_integration::command::LIMIT);
    assert!(!out.out().contains("WRITTEN"), "{out}");
    assert_eq!(hash(t), before);
}

fn a_container_has_three_descriptors(t: &Test) {
    let c = t.sleeper("web", &[]);
    let open = myshim_integration::process::descriptors(c.pid());
    assert_eq!(open.len(), 3, "{open:#?}");
    c.remove();
}

fn an_exec_has_three_descriptors(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.exec_as("e", &["--detach"], &["sleep", "1000"]).ok();
    let pid = facts::process(t, "sleep 1000");
    let open = myshim_integration::process::descriptors(pid);
    assert_eq!(open.len(), 3, "{open:#?}");
    c.remove();
}

fn a_cwd_through_a_descriptor_is_refused(t: &Test) {
    // CVE-2024-21626: a descriptor that leaked leads out of the root.
    let c = t.sleeper("web", &[]);
    for n in (3..40).chain([63, 64, 127, 255]) {
        let cwd = format!("/proc/self/fd/{n}");
        let out = c.exec_as("e", &["--cwd", &cwd], &["sh", "-c", "ls ../../../../etc/shadow"]);
        assert!(!out.status.success(), "{cwd}: {out}");
    }
    c.remove();
    for n in [3, 4, 5, 6, 7, 8, 9, 10, 11, 12] {
        let cwd = format!("/proc/self/fd/{n}");
        let out =
            t.run_spec(|s| s.with("/process/cwd", json!(cwd)).shell("ls ../../../../etc/shadow"));
        assert!(!out.status.success(), "{cwd}: {out}");
    }
}

fn nothing_is_inheritable(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.exec_as("e", &["--detach"], &["sleep", "1000"]).ok();
    for pid in [c.pid(), facts::process(t, "sleep 1000")] {
        assert_eq!(status(pid, "CapInh").as_deref(), Some("0000000000000000"));
        assert_eq!(status(pid, "CapAmb").as_deref(), Some("0000000000000000"));
    }
    c.remove();
}

fn bundle_and_state_are_closed_to_other_users(t: &Test) {
    let c = t.sleeper("web", &[]);
    let bundle = t.endpoint.bundles().join(&c.id);
    let mode = fs::metadata(&bundle).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & 0o077, 0, "{} is {mode:o}", bundle.display());
    let mut setpriv = std::process::Command::new("/usr/bin/setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "ls"]);
    setpriv.arg(&bundle);
    let out = myshim_integration::command::run(setpriv, myshim_integration::command::LIMIT);
    assert!(!out.status.success(), "{out}");
    c.remove();
}

fn a_symlink_in_place_of_proc_is_not_followed(t: &Test) {
    let root = t.rootfs();
    fs::remove_dir(root.join("proc")).unwrap();
    std::os::unix::fs::symlink("/home", root.join("proc")).unwrap();
    let out = t.run_spec(|spec| spec.args(&["true"]));
    // CVE-2019-19921: proc belongs on a real directory, or nowhere.
    out.fails(&["/proc"]);
}

fn a_symlink_in_place_of_dev_is_not_followed(t: &Test) {
    let root = t.rootfs();
    fs::remove_dir(root.join("dev")).unwrap();
    std::os::unix::fs::symlink("/tmp", root.join("dev")).unwrap();
    let out = t.run_spec(|spec| spec.shell("echo x >/dev/null; stat -c %t:%T /dev/null"));
    // Refused, or followed inside the root; on the host nothing is made.
    if out.status.success() {
        assert_eq!(out.ok(), "1:3\n");
    }
    assert!(!std::path::Path::new("/tmp/null").exists());
}

fn a_mount_through_a_symlink_stays_inside(t: &Test) {
    let root = t.rootfs();
    let outside = t.folder("outside");
    std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
    let file = t.file("file", "words\n").to_string_lossy().into_owned();
    let out = t.run_spec(|spec| {
        spec.mount("bind", &file, "/link/made", &["bind"]).args(&["cat", "/link/made"])
    });
    if out.status.success() {
        assert_eq!(out.ok(), "words\n");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "made outside the root");
}

fn the_shims_processes_are_not_to_be_seen(t: &Test) {
    let c = t.sleeper("web", &[]);
    let out = c.exec(&["sh", "-c", "cat /proc/[0-9]*/comm"]).ok();
    assert!(!out.contains("shim"), "{out}");
    // Nor does a process of the container have the shim's memory to be read.
    let own = Process::read(c.pid()).unwrap();
    assert_eq!(own.comm, "sleep");
    c.remove();
}

fn the_core_pattern_cannot_be_written(t: &Test) {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let out = t.run(&[], &["sh", "-c", "echo '|/bin/evil' >/proc/sys/kernel/core_pattern"]);
    assert!(!out.status.success(), "{out}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}
