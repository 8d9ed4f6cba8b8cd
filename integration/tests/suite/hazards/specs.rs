//! Values of a spec that are odd: each is refused by its field, or does what it says.

use std::fs;

use myshim_integration::claim::Claim;
use myshim_integration::{Test, claims};
use serde_json::json;

use super::{Hand, made_outside};

pub(crate) const CLAIMS: &[Claim] = claims![
    names_and_tables_too_long_for_the_kernel_are_refused.once(),
    mount_options_are_no_way_to_another_option.once(),
    odd_mount_destinations_stay_inside.once(),
    a_hook_of_the_runtime_is_the_hosts_and_one_of_the_container_its_own.once(),
    a_nul_byte_is_refused_by_its_field.once(),
    an_id_map_cannot_be_made_of_pieces.once(),
];

/// CVE-2021-43784: a length that netlink's 16 bits cut off made one message into two.
fn names_and_tables_too_long_for_the_kernel_are_refused(t: &Test) {
    let hand = Hand::new(t);
    let refused = |pointer: &str, value: serde_json::Value, field: &str| {
        let error = hand.run(&hand.spec().with(pointer, value).args(&["true"])).expect_err(field);
        assert!(error.contains(field), "{error}");
        assert!(error.len() < 1500, "{} bytes to read", error.len());
    };
    for length in [16, 255, 65_535, 65_536, 65_540, 1 << 20] {
        let name = "e".repeat(length);
        let devices = json!({"lo": {"name": name}});
        refused("/linux/netDevices", devices, "linux.netDevices.lo.name");
    }
    refused("/linux/netDevices", json!({"e".repeat(66_000): {}}), "linux.netDevices.");
    for length in [65, 65_536, 1 << 20] {
        refused("/hostname", json!("h".repeat(length)), "hostname");
        refused("/domainname", json!("d".repeat(length)), "domainname");
    }
    let map = |n: u32| json!({"containerID": n, "hostID": 100_000 + n, "size": 1});
    let maps: Vec<_> = (0..341).map(map).collect();
    let spec = hand.spec().push("/linux/namespaces", json!({"type": "user"}));
    let spec = spec.with("/linux/gidMappings", json!([map(0)])).args(&["true"]);
    let error = hand.run(&spec.clone().with("/linux/uidMappings", json!(maps))).unwrap_err();
    assert!(error.contains("linux.uidMappings"), "{error}");
    let maps: Vec<_> = (0..20_000).map(map).collect();
    let error = hand.run(&spec.with("/linux/uidMappings", json!(maps))).unwrap_err();
    assert!(error.contains("linux.uidMappings"), "{error}");
    hand.end();
}

/// What an option says stays in its value: no comma, no newline begins another.
fn mount_options_are_no_way_to_another_option(t: &Test) {
    let hand = Hand::new(t);
    let long = format!("mode={}", "7".repeat(100_000));
    for option in [
        "mode=700,uid=5",
        "size=1m,mode=777",
        "mode=700\nsize=2m",
        "=",
        "=x",
        ",",
        "mode",
        "size=",
        "mode=99999999",
        "mode=-1",
        "uid=4294967296",
        "source=/etc",
        "lowerdir=/",
        "context=x,y",
        "fsopen=1",
        "ro,rw",
        " ro",
        "ro ",
        "RO",
        "bind,ro",
        "size=1m\\054mode=777",
        "\u{1f980}",
        &long,
    ] {
        let spec = hand.spec().mount("tmpfs", "tmpfs", "/place", &["nosuid", option]);
        match hand.run(&spec.args(&["grep", " /place ", "/proc/self/mountinfo"])) {
            Ok(ran) => panic!("{option:?} is taken: {}", ran.out),
            Err(error) => {
                assert!(error.contains("at /place") || error.contains("mounts["), "{error}");
                assert!(error.len() < 1500, "{option:?}: {} bytes to read", error.len());
            }
        }
    }
    hand.end();
}

fn odd_mount_destinations_stay_inside(t: &Test) {
    let hand = Hand::new(t);
    let made = super::made(t);
    let long = format!("/{}", vec![made.as_str(); 300].join("/"));
    let longest = format!("/{}{}", made, "x".repeat(300));
    for (place, works) in [
        (format!("/../../../../{made}"), true),
        (format!("//{made}//a/./b"), true),
        (format!("/home/../../../{made}"), true),
        (format!("/{made} with\tblanks\n"), true),
        (format!("/{made}\\040"), true),
        (long, false),
        (longest, false),
        ("/".to_owned(), false),
        ("/..".to_owned(), false),
        (format!("/etc/plain/{made}"), false),
    ] {
        let spec = hand.spec().mount("tmpfs", "tmpfs", &place, &[]).args(&["true"]);
        let answer = hand.run(&spec);
        assert_eq!(answer.is_ok(), works, "{place:?}: {answer:?}");
        if let Err(error) = answer {
            assert!(error.contains("mount") && error.len() < 1500, "{place:?}: {error}");
        }
        assert_eq!(made_outside(t), [""; 0], "{place:?}");
    }
    hand.end();
}

/// An image with a program at the path of a hook: it runs only where the specification says so,
/// and what is not there is told.
fn a_hook_of_the_runtime_is_the_hosts_and_one_of_the_container_its_own(t: &Test) {
    let hand = Hand::new(t);
    let seen = t.folder("seen");
    // The same path on the host and in the image.
    let hook = t.script("hook", &format!("echo host >>{}/log", seen.display()));
    let inside = t.rootfs().join(hook.strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    fs::write(&inside, "#!/bin/sh\necho image >>/log\n").unwrap();
    fs::set_permissions(&inside, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (kind, by_host) in [
        ("prestart", true),
        ("createRuntime", true),
        ("createContainer", true),
        ("startContainer", false),
        ("poststart", true),
        ("poststop", true),
    ] {
        let spec = hand.spec().push(&format!("/hooks/{kind}"), json!({"path": hook}));
        hand.run(&spec.args(&["true"])).unwrap();
        let (host, image) = (seen.join("log"), t.rootfs().join("log"));
        assert_eq!((host.exists(), image.exists()), (by_host, !by_host), "{kind}");
        fs::remove_file(if by_host { host } else { image }).unwrap();
    }
    for path in ["/proc/self/fd/5", "/proc/self/exe", "/proc/self/fd/5/../bin/sh", "/etc"] {
        let hook = json!({"path": path, "timeout": 5});
        let spec = hand.spec().push("/hooks/startContainer", hook).args(&["true"]);
        let error = hand.run(&spec).expect_err(path);
        assert!(error.contains("startContainer hook 1 of 1"), "{path}: {error}");
    }
    hand.end();
}

fn a_nul_byte_is_refused_by_its_field(t: &Test) {
    let hand = Hand::new(t);
    for (pointer, value, field) in [
        ("/process/args", json!(["true\u{0}x"]), "process.args[0]"),
        ("/process/cwd", json!("/\u{0}"), "process.cwd"),
        ("/process/env", json!(["A=\u{0}"]), "process.env[0]"),
        ("/hostname", json!("a\u{0}b"), "hostname"),
        ("/root/path", json!("/\u{0}"), "root.path"),
        ("/mounts", json!([{"destination": "/a\u{0}"}]), "mounts[0].destination"),
        ("/linux/maskedPaths", json!(["/a\u{0}"]), "linux.maskedPaths[0]"),
        ("/linux/cgroupsPath", json!("/a\u{0}"), "linux.cgroupsPath"),
    ] {
        let error = hand.run(&hand.spec().with(pointer, value)).expect_err(field);
        assert!(error.contains(&format!("{field}: contains a NUL byte")), "{error}");
    }
    hand.end();
}

fn an_id_map_cannot_be_made_of_pieces(t: &Test) {
    let hand = Hand::new(t);
    let (max, over) = (u64::from(u32::MAX), 1_u64 << 32);
    for map in [
        json!({"containerID": 0, "hostID": 0, "size": 0}),
        json!({"containerID": 0, "hostID": 0, "size": over}),
        json!({"containerID": 0, "hostID": max, "size": 2}),
        json!({"containerID": max, "hostID": 0, "size": 2}),
        json!({"containerID": -1, "hostID": 0, "size": 1}),
        json!({"containerID": "0 0 1\n1", "hostID": 0, "size": 1}),
    ] {
        let spec = hand.spec().push("/linux/namespaces", json!({"type": "user"}));
        let spec = spec.with("/linux/uidMappings", json!([map])).args(&["true"]);
        let good = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        let error = hand.run(&spec.with("/linux/gidMappings", good)).expect_err("a refusal");
        assert!(error.contains("linux.uidMappings"), "{map}: {error}");
    }
    hand.end();
}
