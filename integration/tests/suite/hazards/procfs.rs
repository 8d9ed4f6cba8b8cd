//! /proc that is not /proc, labels and kernel parameters.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use myshim_integration::claim::Claim;
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims};
use serde_json::json;

use super::Hand;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_symlink_in_place_of_proc_is_not_followed,
    links_in_place_of_proc_and_sys_are_refused.once(),
    proc_takes_nothing_but_a_procfs.once(),
    nothing_is_mounted_over_a_file_that_is_written.once(),
    a_link_of_the_image_into_proc_is_no_way_around.once(),
    what_lxcfs_emulates_may_be_mounted.once(),
    a_faked_proc_swallows_nothing.once(),
    a_sysctl_with_a_path_in_it_is_refused.once(),
    the_core_pattern_cannot_be_written,
];

fn a_symlink_in_place_of_proc_is_not_followed(t: &Test) {
    let root = t.rootfs();
    fs::remove_dir(root.join("proc")).unwrap();
    symlink("/home", root.join("proc")).unwrap();
    let out = t.run_spec(|spec| spec.args(&["true"]));
    // CVE-2019-19921: proc belongs on a real directory, or nowhere.
    out.fails(&["at /proc", "ELOOP"]);
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: for every target that a link can have.
fn links_in_place_of_proc_and_sys_are_refused(t: &Test) {
    // Seen to fail with Links::Follow for proc and sysfs in apply/rootfs/build.rs.
    let hand = Hand::new(t);
    let root = t.rootfs();
    for name in ["proc", "sys"] {
        let place = root.join(name);
        fs::remove_dir(&place).unwrap();
        for to in ["/home", "home/app", "/", ".", "/proc/self/root", "../../../tmp", "/not/there"] {
            symlink(to, &place).unwrap();
            let error = hand.run(&hand.spec().args(&["true"])).expect_err(to);
            assert!(error.contains(&format!("at /{name}")), "/{name} to {to}: {error}");
            fs::remove_file(&place).unwrap();
        }
        assert!(!root.join("not").exists(), "the target of a link was made");
        fs::write(&place, "").unwrap();
        let error = hand.run(&hand.spec().args(&["true"])).unwrap_err();
        assert!(error.contains(&format!("at /{name}")), "{error}");
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
    }
    hand.end();
}

/// Without the mount at `place`.
fn without(mut spec: Spec, place: &str) -> Spec {
    let mounts = spec.0["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != place);
    spec
}

fn proc_takes_nothing_but_a_procfs(t: &Test) {
    // CVE-2019-16884. Seen to fail without check_proc in apply/rootfs/destination.rs.
    let hand = Hand::new(t);
    let fake = t.folder("fake");
    fs::create_dir_all(fake.join("self/attr")).unwrap();
    let fake = fake.to_string_lossy().into_owned();
    for place in ["/proc", "/proc/", "/./proc/.", "/home/../proc"] {
        for (kind, source, options) in [
            ("bind", fake.as_str(), &["bind"][..]),
            ("tmpfs", "tmpfs", &[]),
            ("sysfs", "sysfs", &[]),
        ] {
            for spec in [hand.spec(), without(hand.spec(), "/proc")] {
                let spec = spec.mount(kind, source, place, options).args(&["true"]);
                let error = hand.run(&spec).expect_err(place);
                assert!(error.contains("/proc takes nothing but a procfs"), "{place}: {error}");
            }
        }
    }
    hand.end();
}

/// CVE-2025-52881: a mount over one file redirects what the runtime writes there.
fn nothing_is_mounted_over_a_file_that_is_written(t: &Test) {
    let hand = Hand::new(t);
    let (file, folder) = (t.file("file", ""), t.folder("folder"));
    let (file, folder) = (file.to_string_lossy(), folder.to_string_lossy());
    for place in [
        "/proc/self/attr/exec",
        "/proc/thread-self/attr/apparmor/exec",
        "/proc/sys/kernel/domainname",
        "/proc/sysrq-trigger",
        "/proc/self/oom_score_adj",
    ] {
        let spec = hand.spec().mount("bind", &file, place, &["bind"]).args(&["true"]);
        let error = hand.run(&spec).expect_err(place);
        assert!(error.contains("is inside of /proc"), "{place}: {error}");
    }
    for place in ["/proc/self/attr", "/proc/sys", "/proc/sys/net", "/proc/1", "/proc/made"] {
        let bind = hand.spec().mount("bind", &folder, place, &["bind"]);
        for spec in [bind, hand.spec().mount("tmpfs", "tmpfs", place, &[])] {
            let error = hand.run(&spec.args(&["true"])).expect_err(place);
            assert!(error.contains("is inside of /proc"), "{place}: {error}");
        }
    }
    hand.end();
}

fn a_link_of_the_image_into_proc_is_no_way_around(t: &Test) {
    // Seen to fail without check_proc in apply/rootfs/destination.rs.
    let hand = Hand::new(t);
    let root = t.rootfs();
    for (link, to) in [("a", "/proc"), ("b", "proc/self/attr"), ("c", "/proc/sys"), ("d", "/")] {
        symlink(to, root.join(link)).unwrap();
    }
    for place in ["/a", "/b", "/c", "/a/sys", "/d/proc/sys", "/d/a/self/attr"] {
        let spec = hand.spec().mount("tmpfs", "tmpfs", place, &[]).args(&["true"]);
        let error = hand.run(&spec).expect_err(place);
        assert!(error.contains("proc"), "{place}: {error}");
    }
    // Nor one to the root itself, which would hide all that was mounted before.
    let spec = hand.spec().mount("tmpfs", "tmpfs", "/d", &[]).args(&["true"]);
    let error = hand.run(&spec).unwrap_err();
    assert!(error.contains("leads to the root itself"), "{error}");
    hand.end();
}

fn what_lxcfs_emulates_may_be_mounted(t: &Test) {
    let hand = Hand::new(t);
    let file = t.file("uptime", "1.00 1.00\n").to_string_lossy().into_owned();
    let spec = hand.spec().mount("bind", &file, "/proc/uptime", &["bind"]);
    assert_eq!(hand.run(&spec.args(&["cat", "/proc/uptime"])).unwrap().out, "1.00 1.00\n");
    hand.end();
}

/// An image with files where those of procfs are, and no mount on /proc: what is to be written is
/// written to the true one, and the files stay as they are.
fn a_faked_proc_swallows_nothing(t: &Test) {
    // Seen to fail (the image's file is written to) with what is at /proc taken for a procfs.
    let hand = Hand::new(t);
    let proc = t.rootfs().join("proc");
    let faked = ["self/oom_score_adj", "sys/kernel/msgmax", "sys/kernel/domainname", "uptime"];
    for file in faked {
        let file = proc.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "fake").unwrap();
    }
    let score = json!(777);
    let spec = without(hand.spec(), "/proc")
        .with("/linux/maskedPaths", json!([]))
        .with("/linux/readonlyPaths", json!([]))
        .with("/linux/sysctl", json!({"kernel.msgmax": "4242"}))
        .with("/process/oomScoreAdj", score)
        .args(&["sh", "-c", "mkdir /real && mount -t proc proc /real && cat /real/self/oom_score_adj /real/sys/kernel/msgmax"]);
    let ran = hand.run(&spec.capabilities(&["CAP_SYS_ADMIN"])).unwrap();
    assert_eq!(ran.out, "777\n4242\n");
    for file in faked {
        assert_eq!(fs::read_to_string(proc.join(file)).unwrap(), "fake", "{file}");
    }
    hand.end();
}

fn a_sysctl_with_a_path_in_it_is_refused(t: &Test) {
    let hand = Hand::new(t);
    for name in [
        "../kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4/../../kernel/core_pattern",
        "kernel/../kernel/core_pattern",
        "/kernel/core_pattern",
        "net..kernel",
        "net.ipv4.conf.../../../../kernel/core_pattern",
        "kernel.core_pattern",
        "",
    ] {
        let mut spec = hand.spec().args(&["true"]);
        spec.0["linux"]["sysctl"] = json!({name: "|/bin/evil"});
        let error = hand.run(&spec).expect_err(name);
        assert!(error.contains("sysctl"), "{name}: {error}");
    }
    let core_pattern = Path::new("/proc/sys/kernel/core_pattern");
    assert!(!fs::read_to_string(core_pattern).unwrap().contains("evil"));
    hand.end();
}

fn the_core_pattern_cannot_be_written(t: &Test) {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let out = t.run(&[], &["sh", "-c", "echo '|/bin/evil' >/proc/sys/kernel/core_pattern"]);
    assert!(!out.status.success(), "{out}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}
