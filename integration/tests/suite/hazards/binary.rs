//! The shim's own binary, descriptors, and what a process inherits.

use std::fs;
use std::path::Path;

use myshim_integration::claim::Claim;
use myshim_integration::containerd::shim_binary;
use myshim_integration::process::{Process, descriptors, status};
use myshim_integration::shim::Stdio3;
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims, wait};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Hand, process};
use crate::{deaths, facts};

pub(crate) const CLAIMS: &[Claim] = claims![
    an_entrypoint_that_is_the_runtime_itself_does_not_change_it,
    an_exec_does_not_open_the_way_to_the_runtimes_binary,
    a_container_has_three_descriptors,
    an_exec_has_three_descriptors,
    a_cwd_through_a_descriptor_is_refused,
    a_cwd_through_any_descriptor_is_refused_and_makes_nothing.once().within(120),
    a_program_through_a_descriptor_is_refused.once().within(120),
    a_process_before_its_execve_holds_nothing_but_its_channel.once(),
    nothing_is_inheritable,
    the_shims_processes_are_not_to_be_seen,
    a_process_on_its_way_in_cannot_be_looked_into.once(),
    a_process_on_its_way_into_a_user_namespace_cannot_be_looked_into.once(),
];

pub(super) fn hash(t: &Test) -> Vec<u8> {
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
    wait::until_true("the container runs", || t.container("web").status() == "RUNNING");
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
    let open = descriptors(c.pid());
    assert_eq!(open.len(), 3, "{open:#?}");
    c.remove();
}

fn an_exec_has_three_descriptors(t: &Test) {
    let c = t.sleeper("web", &[]);
    c.exec_as("e", &["--detach"], &["sleep", "1000"]).ok();
    let pid = facts::process(t, "sleep 1000");
    let open = descriptors(pid);
    assert_eq!(open.len(), 3, "{open:#?}");
    c.remove();
}

fn a_cwd_through_a_descriptor_is_refused(t: &Test) {
    // CVE-2024-21626: a descriptor that leaked leads out of the root.
    let c = t.sleeper("web", &[]);
    let out = c.exec_as("e", &["--cwd", "/proc/self/fd/7"], &["ls", "../../../../etc/shadow"]);
    out.fails(&["working directory", "/proc/self/fd/7"]);
    c.remove();
    let out = t.run_spec(|spec| {
        spec.with("/process/cwd", json!("/proc/self/fd/7")).args(&["ls", "../../../../etc/shadow"])
    });
    out.fails(&["working directory", "proc/self/fd/7"]);
}

/// CVE-2024-21626, for every number, with something behind it, and by a link of the image.
fn a_cwd_through_any_descriptor_is_refused_and_makes_nothing(t: &Test) {
    let links = t.rootfs().join("links");
    fs::create_dir(&links).unwrap();
    let made = format!("made-{}", t.tag);
    let cwds: Vec<String> = (3..=255)
        .map(|n| match n % 4 {
            0 => format!("/proc/self/fd/{n}/../../{made}"),
            1 => {
                let link = links.join(n.to_string());
                std::os::unix::fs::symlink(format!("/proc/self/fd/{n}"), link).unwrap();
                format!("/links/{n}")
            }
            2 => format!("/proc/thread-self/fd/{n}"),
            _ => format!("/proc/self/fd/{n}"),
        })
        .collect();
    let hand = Hand::new(t);
    for cwd in &cwds {
        let spec = hand.spec().with("/process/cwd", json!(cwd)).args(&["pwd"]);
        let error = hand.run(&spec).expect_err(cwd);
        assert!(error.contains("working directory"), "{cwd}: {error}");
    }
    hand.sleep();
    for cwd in &cwds {
        let mut pwd = process(&["pwd"]);
        pwd["cwd"] = json!(cwd);
        let error = hand.exec(&pwd).expect_err(cwd);
        assert!(error.contains("working directory"), "{cwd}: {error}");
    }
    hand.wake();
    assert_eq!(super::made_outside(t), [""; 0]);
    hand.end();
}

/// The same door for `args[0]`: the kernel finds the program before it closes what is
/// close-on-exec, and one of the host's would be open to the container by /proc/self/exe.
fn a_program_through_a_descriptor_is_refused(t: &Test) {
    // Seen to fail (a program of the host runs in the container, by a descriptor of the host's
    // /proc) without close_all_but in process/target.rs.
    let hand = Hand::new(t);
    // On the host alone; and in a folder, for PATH.
    let program = t.folder("bin").join("only-on-the-host");
    fs::copy("/bin/busybox", &program).unwrap();
    let way = format!("{}{}", "../".repeat(12), program.strip_prefix("/").unwrap().display());
    let ways: Vec<_> = (3..=255)
        .map(|n| match n % 3 {
            0 => vec![format!("/proc/self/fd/{n}/{way}"), "true".to_owned()],
            1 => vec![format!("/proc/thread-self/fd/{n}/{way}"), "true".to_owned()],
            _ => vec!["only-on-the-host".to_owned(), n.to_string()],
        })
        .collect();
    let env = |args: &[String]| {
        let dir = Path::new(&way).parent().unwrap().display();
        json!(["PATH=".to_owned() + &format!("/proc/self/fd/{}/{dir}", args[1])])
    };
    for args in &ways {
        let spec = hand.spec().with("/process/args", json!(args)).with("/process/env", env(args));
        let error = hand.run(&spec).expect_err(&args[0]);
        assert!(error.contains(&args[0]), "{args:?}: {error}");
    }
    hand.sleep();
    for args in &ways {
        let mut exec = process(&[]);
        exec["args"] = json!(args);
        exec["env"] = env(args);
        let error = hand.exec(&exec).expect_err(&args[0]);
        assert!(error.contains(&args[0]), "{args:?}: {error}");
    }
    hand.wake();
    hand.end();
}

/// Streams, its channel, and nothing that a path could begin with: not a folder of the host's.
fn a_process_before_its_execve_holds_nothing_but_its_channel(t: &Test) {
    // Seen to fail (the host's /proc and mount namespace are open too) without close_all_but in
    // process/target.rs.
    for name in ["init", "tenant"] {
        let hold = format!("{name}/Executing");
        let rig = deaths::Rig::new(t, name, &hold, |spec| spec.args(&["sleep", "3600"]));
        let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
        shim.create(&rig.bundle, &Stdio3::default()).unwrap();
        let exec = if name == "tenant" {
            shim.start(id, "").unwrap();
            shim.exec(id, "e", &process(&["true"]), &Stdio3::default()).unwrap();
            "e"
        } else {
            ""
        };
        let open = std::thread::scope(|scope| {
            let answer = scope.spawn(|| shim.start(id, exec));
            let pid = deaths::held(t, name);
            let open = descriptors(pid);
            deaths::let_go(pid);
            answer.join().unwrap().unwrap();
            open
        });
        let channels = open.iter().filter(|link| link.starts_with("socket:")).count();
        assert_eq!((open.len(), channels), (4, 1), "{name}: {open:#?}");
        crate::rpc::end(shim, &rig.bundle);
        rig.delete();
        t.finish();
    }
}

fn nothing_is_inheritable(t: &Test) {
    // CVE-2022-29162, CVE-2022-27650, CVE-2025-27612.
    let c = t.sleeper("web", &[]);
    c.exec_as("e", &["--detach"], &["sleep", "1000"]).ok();
    for pid in [c.pid(), facts::process(t, "sleep 1000")] {
        assert_eq!(status(pid, "CapInh").as_deref(), Some("0000000000000000"));
        assert_eq!(status(pid, "CapAmb").as_deref(), Some("0000000000000000"));
    }
    c.remove();
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

/// Looks into every process but its own that is named `tenant`, until there is /stop.
const PEEP: &str = "until [ -e /stop ]; do for p in /proc/[0-9]*; do \
     case $(cat $p/comm 2>/dev/null) in tenant*) echo seen; \
     for f in environ maps auxv mem; do head -c 1 $p/$f >/dev/null 2>&1 && echo READ $f; done; \
     ls $p/fd/ $p/cwd/ $p/root/ >/dev/null 2>&1 && echo READ fd; \
     readlink $p/exe && echo READ exe;; esac; done; done; echo over; exec sleep 3600";

/// A tenant that has become the user still has the shim's memory until its execve; the container
/// is root, as the tenant is, and looks at it.
fn peeped_at(t: &Test, edit: impl FnOnce(Spec) -> Spec) {
    let rig = deaths::Rig::new(t, "web", "tenant/Ready", |spec| edit(spec.shell(PEEP)));
    let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
    let out = t.dir.join("peep");
    shim.create(&rig.bundle, &Stdio3::to_file(&out)).unwrap();
    shim.start(id, "").unwrap();
    shim.exec(id, "e", &process(&["true"]), &Stdio3::default()).unwrap();
    let said = || fs::read_to_string(&out).unwrap_or_default();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| shim.start(id, "e"));
        let pid = deaths::held(t, "tenant");
        wait::until_true("the container has looked at it twice", || {
            said().matches("seen\n").count() > 1
        });
        // What it executes is the container's, and may be looked into.
        fs::write(t.rootfs().join("stop"), "").unwrap();
        wait::until_true("the container looks no more", || said().contains("over\n"));
        deaths::let_go(pid);
        answer.join().unwrap().unwrap();
    });
    fs::remove_file(t.rootfs().join("stop")).unwrap();
    assert!(!said().contains("READ"), "{}", said());
    crate::rpc::end(shim, &rig.bundle);
    rig.delete();
}

fn a_process_on_its_way_in_cannot_be_looked_into(t: &Test) {
    // Seen to fail ("READ environ", "READ exe") with the daemon's PR_SET_DUMPABLE set to 1.
    peeped_at(t, |spec| spec);
}

fn a_process_on_its_way_into_a_user_namespace_cannot_be_looked_into(t: &Test) {
    // With all capabilities there, CAP_SYS_PTRACE too: the shim's memory is of the host's user
    // namespace, and its owner is not the container's.
    peeped_at(t, |spec| {
        let all = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_SETPCAP"];
        crate::user_namespaces::mapped(t, spec.capabilities(&all))
    });
}
