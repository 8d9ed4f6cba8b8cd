//! The root, and mounts in it, of an image that wants out.

use std::fs;
use std::os::unix::fs::symlink;

use myshim_integration::claim::Claim;
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims, host};
use serde_json::json;

use super::{Hand, made, made_outside};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_mount_through_a_symlink_stays_inside,
    a_mount_point_behind_any_link_is_made_inside.once(),
    a_missing_cwd_behind_a_link_is_made_inside.once(),
    an_image_with_a_proc_of_its_own_cannot_keep_its_root_writable.once(),
    a_root_that_is_the_hosts_is_left_as_it_is.once(),
    a_root_behind_links_is_that_folder_and_no_other.once(),
    a_root_that_cannot_be_is_named.once(),
    a_container_without_a_mount_namespace_changes_no_propagation.once(),
    images_with_absolute_links_in_etc_work.once(),
];

fn a_mount_through_a_symlink_stays_inside(t: &Test) {
    let root = t.rootfs();
    let outside = t.folder("outside");
    symlink(&outside, root.join("link")).unwrap();
    let file = t.file("file", "words\n").to_string_lossy().into_owned();
    let out = t.run_spec(|spec| {
        spec.mount("bind", &file, "/link/made", &["bind"]).args(&["cat", "/link/made"])
    });
    assert_eq!(out.ok(), "words\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "made outside the root");
}

/// CVE-2021-30465, CVE-2024-45310 without a race: with the host's mounts in sight (a hook of init
/// keeps them) and without.
fn a_mount_point_behind_any_link_is_made_inside(t: &Test) {
    // Seen to fail with the plain path in place of the walk of sys/inside.rs (`make`, `open`).
    let hand = Hand::new(t);
    let root = t.rootfs();
    let outside = t.folder("outside");
    let up = format!("{}{}", "../".repeat(12), outside.display());
    let source = t.folder("source").to_string_lossy().into_owned();
    let file = t.file("file", "").to_string_lossy().into_owned();
    for to in [outside.to_str().unwrap(), &up, "/", "..", "/../../..", "/tmp", "/proc/self/root"] {
        symlink(to, root.join("link")).unwrap();
        for with_hook in [true, false] {
            for (kind, source) in [("bind", source.as_str()), ("bind", &file), ("tmpfs", "tmpfs")] {
                let place = format!("/link/{0}/{0}", made(t));
                let options: &[&str] = if kind == "bind" { &["bind"] } else { &[] };
                let spec = hand.spec().mount(kind, source, &place, options).args(&["true"]);
                match hand.run(&with_init_hook(spec, with_hook)) {
                    Ok(ran) => assert_eq!(ran.code, 0, "{to}"),
                    Err(error) => assert!(error.contains(" at /link/"), "{to}: {error}"),
                }
                assert_eq!(made_outside(t), [""; 0], "{to}");
            }
        }
        fs::remove_file(root.join("link")).unwrap();
    }
    hand.end();
}

/// A hook that runs in init's mount namespace: for it, init begins with a copy of the host's.
pub(super) fn with_init_hook(spec: Spec, wanted: bool) -> Spec {
    if !wanted {
        return spec;
    }
    spec.push("/hooks/createContainer", json!({"path": "/bin/true"}))
}

fn a_missing_cwd_behind_a_link_is_made_inside(t: &Test) {
    let hand = Hand::new(t);
    let root = t.rootfs();
    let outside = t.folder("outside");
    for to in [outside.to_str().unwrap(), "/", "../../../..", "/proc/self/cwd", "/proc/1/root"] {
        symlink(to, root.join("link")).unwrap();
        for with_hook in [true, false] {
            let cwd = format!("/link/{}/x", made(t));
            let spec = hand.spec().with("/process/cwd", json!(cwd)).args(&["pwd"]);
            match hand.run(&with_init_hook(spec, with_hook)) {
                Ok(ran) => assert_eq!(ran.code, 0, "{to}"),
                Err(error) => assert!(error.contains("working directory"), "{to}: {error}"),
            }
            assert_eq!(made_outside(t), [""; 0], "{to}");
        }
        fs::remove_file(root.join("link")).unwrap();
    }
    hand.end();
}

/// crun CVE-2026-115521: /proc/self/fd of the image led the read-only remount elsewhere.
fn an_image_with_a_proc_of_its_own_cannot_keep_its_root_writable(t: &Test) {
    let hand = Hand::new(t);
    let root = t.rootfs();
    fs::create_dir_all(root.join("proc/self/fd")).unwrap();
    fs::create_dir_all(root.join("proc/thread-self")).unwrap();
    symlink("../self/fd", root.join("proc/thread-self/fd")).unwrap();
    for n in 0..64 {
        symlink("/home", root.join(format!("proc/self/fd/{n}"))).unwrap();
    }
    let mut spec = hand.spec();
    let mounts = spec.0["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/proc");
    let script = "for d in / /home /etc /tmp /proc; do touch $d/x 2>/dev/null && echo WRITTEN $d; \
                  done; touch /dev/shm/x && echo done";
    for spec in [spec, hand.spec()] {
        let spec = spec.with("/root/readonly", json!(true)).shell(script);
        let ran = hand.run(&spec).unwrap();
        assert_eq!(ran.out, "done\n");
    }
    hand.end();
}

/// `root.path` that is the host's root, by itself and by links: with the usual mounts over it
/// nothing of the host changes, whoever wants that.
fn a_root_that_is_the_hosts_is_left_as_it_is(t: &Test) {
    let hand = Hand::new(t);
    let link = t.dir.join("link");
    symlink("/", &link).unwrap();
    let dev = || {
        let mut names: Vec<String> = fs::read_dir("/dev")
            .unwrap()
            .map(|entry| {
                format!(
                    "{:?} {:?}",
                    entry.as_ref().unwrap().file_name(),
                    entry.as_ref().unwrap().file_type().unwrap()
                )
            })
            .collect();
        names.sort();
        names
    };
    let before = dev();
    let up = format!("{}/../../../../..", t.dir.display());
    for path in ["/", link.to_str().unwrap(), &up, "/proc/self/root", "/."] {
        let spec = hand.spec().with("/root", json!({"path": path, "readonly": true}));
        let spec = spec.with("/process/env", json!(["PATH=/usr/bin:/bin"]));
        let spec = spec.args(&[
            "/bin/sh",
            "-c",
            "stat -c %t:%T /dev/null; ls /dev | wc -l >/dev/null; echo in",
        ]);
        let ran = hand.run(&spec).unwrap();
        assert_eq!(ran.out, "1:3\nin\n", "{path}");
    }
    assert_eq!(dev(), before);
    assert!(!host::mounts().iter().any(|mount| mount.contains(&t.tag)));
    hand.end();
}

fn a_root_behind_links_is_that_folder_and_no_other(t: &Test) {
    let hand = Hand::new(t);
    let root = t.rootfs();
    let link = t.dir.join("link");
    symlink(&root, &link).unwrap();
    let up = format!("{}/bin/..", root.display());
    let relative = "../../rootfs";
    for path in [link.to_str().unwrap(), &up, relative] {
        let spec = hand.spec().with("/root/path", json!(path)).args(&["cat", "/etc/plain"]);
        assert_eq!(hand.run(&spec).unwrap().out, "a file\n", "{path}");
    }
    hand.end();
}

fn a_root_that_cannot_be_is_named(t: &Test) {
    let hand = Hand::new(t);
    let around = t.dir.join("around");
    symlink(&around, &around).unwrap();
    let file = t.file("plain", "");
    for path in [around.to_str().unwrap(), file.to_str().unwrap(), "/dev/null", "/not/there", ""] {
        let spec = hand.spec().with("/root/path", json!(path)).args(&["true"]);
        let error = hand.run(&spec).expect_err(path);
        assert!(error.contains("root"), "{path}: {error}");
    }
    hand.end();
}

/// The propagation of every mount of the host that is there before and after.
fn propagation() -> std::collections::BTreeMap<String, String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = |line: &str| {
        let (head, _) = line.split_once(" - ").unwrap();
        let fields: Vec<&str> = head.split(' ').collect();
        (fields[0].to_owned(), fields[4..].join(" "))
    };
    text.lines().map(line).collect()
}

/// runc 1.5.3: the host's `/` was made a slave or private. Here such a container is refused; what
/// has a mount namespace changes nothing either, whatever it says about propagation.
fn a_container_without_a_mount_namespace_changes_no_propagation(t: &Test) {
    let hand = Hand::new(t);
    let before = propagation();
    for option in ["private", "rprivate", "slave", "shared", "rshared", "unbindable"] {
        let spec = hand.spec().with("/linux/rootfsPropagation", json!(option)).args(&["true"]);
        let error = hand.run(&spec.clone().host_namespace("mount")).unwrap_err();
        assert!(error.contains("linux.namespaces"), "{error}");
        for with_hook in [true, false] {
            assert_eq!(hand.run(&with_init_hook(spec.clone(), with_hook)).unwrap().code, 0);
        }
    }
    let after = propagation();
    // Mounts of others come and go; those that stayed are what they were.
    let changed: Vec<_> =
        before.iter().filter(|(id, line)| after.get(*id).is_some_and(|now| now != *line)).collect();
    assert_eq!(changed, vec![], "the host's mounts are not what they were");
    hand.end();
}

/// The trap of all this: such images are many, and have to work.
fn images_with_absolute_links_in_etc_work(t: &Test) {
    let hand = Hand::new(t);
    let etc = t.rootfs().join("etc");
    // As systemd-resolved's images, Nix's and Alpine's: to a file that is there, to one that is
    // not, through a folder that is a link, and through two of them.
    fs::create_dir_all(t.rootfs().join("var/lib/etc")).unwrap();
    fs::write(t.rootfs().join("var/lib/etc/hosts"), "image\n").unwrap();
    symlink("/var/lib/etc", etc.join("static")).unwrap();
    symlink("/etc/static/hosts", etc.join("hosts")).unwrap();
    symlink("/run/systemd/resolve/stub-resolv.conf", etc.join("resolv.conf")).unwrap();
    symlink("../var/lib/etc/zone", etc.join("localtime")).unwrap();
    let mut spec = hand.spec();
    for name in ["hosts", "resolv.conf", "localtime", "hostname"] {
        let file = t.file(name, &format!("{name} of the client\n"));
        spec =
            spec.mount("bind", &file.to_string_lossy(), &format!("/etc/{name}"), &["rbind", "ro"]);
    }
    let spec =
        spec.args(&["cat", "/etc/hosts", "/etc/resolv.conf", "/etc/localtime", "/etc/hostname"]);
    for with_hook in [true, false] {
        let ran = hand.run(&with_init_hook(spec.clone(), with_hook)).unwrap();
        let wanted = "hosts of the client\nresolv.conf of the client\nlocaltime of the client\n\
                      hostname of the client\n";
        assert_eq!(ran.out, wanted);
    }
    hand.end();
}
