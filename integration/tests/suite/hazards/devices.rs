//! /dev of an image that wants something else to be there.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use myshim_integration::claim::Claim;
use myshim_integration::command::LIMIT;
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims};
use serde_json::json;

use super::{Hand, Ran};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_symlink_in_place_of_dev_is_not_followed,
    links_in_dev_are_not_followed_out.once(),
    dev_as_a_link_stays_inside.once(),
    a_masked_path_is_covered_by_the_null_device_or_not_at_all.once(),
    a_console_on_a_link_is_replaced_and_touches_nothing,
    a_console_is_of_the_containers_own_devpts.once(),
    hostile_devices_are_refused_by_their_field.once(),
];

/// The image without a mount on /dev: its own is used.
fn bare(mut spec: Spec) -> Spec {
    let mounts = spec.0["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| {
        !mount["destination"].as_str().is_some_and(|place| place.starts_with("/dev"))
    });
    spec
}

/// A file that links lead to: it must stay as it is.
struct Victim {
    path: PathBuf,
    before: (u64, u32, u32, u64, i64),
}

impl Victim {
    fn new(t: &Test) -> Self {
        let path = t.file("victim", "victim\n");
        let before = Self::look(&path);
        Self { path, before }
    }

    fn look(path: &Path) -> (u64, u32, u32, u64, i64) {
        let file = path.symlink_metadata().unwrap();
        (file.ino(), file.mode(), file.uid(), file.size(), file.ctime_nsec())
    }

    #[track_caller]
    fn is_unharmed(&self) {
        assert_eq!(Self::look(&self.path), self.before);
        let mounts = myshim_integration::host::mounts();
        let path = self.path.to_string_lossy();
        assert!(!mounts.iter().any(|mount| mount.contains(&*path)), "something is mounted on it");
    }
}

fn a_symlink_in_place_of_dev_is_not_followed(t: &Test) {
    let root = t.rootfs();
    fs::remove_dir(root.join("dev")).unwrap();
    symlink("/tmp", root.join("dev")).unwrap();
    // With masked paths it is refused: what would cover them is behind a link.
    let out = t.run_spec(|spec| spec.shell("echo x >/dev/null; stat -c %t:%T /dev/null"));
    out.fails(&["masked path", "dev/null"]);
    let out = t.run_spec(|spec| {
        spec.without("/linux/maskedPaths").shell("echo x >/dev/null; stat -c %t:%T /dev/null")
    });
    assert_eq!(out.ok(), "1:3\n");
    assert!(!Path::new("/tmp/null").exists());
}

const NODES: [(&str, &str); 6] = [
    ("null", "1:3"),
    ("zero", "1:5"),
    ("full", "1:7"),
    ("random", "1:8"),
    ("urandom", "1:9"),
    ("tty", "5:0"),
];

/// runc CVE-2026-41579, crun CVE-2026-47766 and their kin: every name that a container has in
/// /dev, as a link out of it, with a tmpfs on /dev and without one.
fn links_in_dev_are_not_followed_out(t: &Test) {
    let hand = Hand::new(t);
    let victim = Victim::new(t);
    let dev = t.rootfs().join("dev");
    let names =
        ["ptmx", "console", "null", "zero", "tty", "pts", "shm", "mqueue", "fd", "stdin", "core"];
    let script = "for d in null zero full random urandom tty; do stat -c '%n %F %t:%T' /dev/$d; done; \
                  echo x >/dev/null; readlink /dev/ptmx; true";
    for to in [victim.path.to_str().unwrap(), "/etc/plain", "/proc/self/fd/5", "null", "/not/there"]
    {
        for name in names {
            symlink(to, dev.join(name)).unwrap();
        }
        for spec in [hand.spec(), bare(hand.spec())] {
            let Ran { code, out } = hand.run(&spec.shell(script)).unwrap();
            assert_eq!(code, 0, "{to}: {out}");
            for (node, number) in NODES {
                let line = format!("/dev/{node} character special file {number}\n");
                assert!(out.contains(&line), "{to}: {node}: {out}");
            }
            assert!(out.ends_with("pts/ptmx\n"), "{to}: {out}");
            victim.is_unharmed();
        }
        empty(&dev);
    }
    assert_eq!(fs::read_to_string(t.rootfs().join("etc/plain")).unwrap(), "a file\n");
    // And with a mount on each of the links.
    for name in ["pts", "shm", "mqueue"] {
        symlink(&victim.path, dev.join(name)).unwrap();
    }
    let mounts = hand.spec().0["mounts"].clone();
    let mut spec = bare(hand.spec());
    let below = |mount: &&serde_json::Value| {
        mount["destination"].as_str().is_some_and(|place| place.starts_with("/dev/"))
    };
    for mount in mounts.as_array().unwrap().iter().filter(below) {
        spec = spec.push("/mounts", mount.clone());
    }
    match hand.run(&spec.args(&["true"])) {
        Ok(ran) => assert_eq!(ran.code, 0),
        Err(error) => assert!(error.contains("at /dev/"), "{error}"),
    }
    victim.is_unharmed();
    empty(&dev);
    hand.end();
}

fn empty(dir: &Path) {
    fs::remove_dir_all(dir).unwrap();
    fs::create_dir(dir).unwrap();
}

fn dev_as_a_link_stays_inside(t: &Test) {
    let hand = Hand::new(t);
    let outside = t.folder("outside");
    let dev = t.rootfs().join("dev");
    fs::remove_dir(&dev).unwrap();
    let up = format!("../../../../../..{}", outside.display());
    for to in [outside.to_str().unwrap(), &up, "/home", "/", "..", "/proc/self/root", "dev"] {
        symlink(to, &dev).unwrap();
        for spec in [hand.spec(), bare(hand.spec())] {
            match hand.run(&spec.shell("stat -c %t:%T /dev/null")) {
                Ok(ran) => assert_eq!((ran.code, ran.out.as_str()), (0, "1:3\n"), "{to}"),
                Err(error) => assert!(error.contains("dev"), "{to}: {error}"),
            }
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{to}");
        }
        fs::remove_file(&dev).unwrap();
    }
    hand.end();
}

/// CVE-2025-31133, CVE-2025-62161: what is in the place of /dev/null is bound over masked paths.
/// Here it is a mount of the spec, which no create of devices takes away.
fn a_masked_path_is_covered_by_the_null_device_or_not_at_all(t: &Test) {
    // Seen to fail without the comparison of rdev in apply/rootfs/masks.rs.
    let hand = Hand::new(t);
    let fake = t.file("fake", "fake\n").to_string_lossy().into_owned();
    let masked = |spec: Spec| {
        spec.with("/linux/maskedPaths", json!(["/etc/plain", "/proc/timer_list", "/home"]))
            .shell("cat /etc/plain; stat -c %t:%T /etc/plain; ls -A /home; echo x >/etc/plain")
    };
    for spec in [hand.spec(), bare(hand.spec())] {
        let wrong = spec.clone().mount("bind", &fake, "/dev/null", &["bind"]);
        let error = hand.run(&masked(wrong)).unwrap_err();
        assert!(error.contains("masked path /etc/plain"), "{error}");
        assert!(error.contains("/dev/null is not the null device"), "{error}");
        // Another device is no better.
        let zero = spec.clone().mount("bind", "/dev/zero", "/dev/null", &["bind"]);
        let error = hand.run(&masked(zero)).unwrap_err();
        assert!(error.contains("/dev/null is not the null device"), "{error}");
        assert_eq!(hand.run(&masked(spec)).unwrap().out, "1:3\n");
    }
    // In the image alone a file, a link or another node give way to the device.
    let null = t.rootfs().join("dev/null");
    let preparations: [&dyn Fn(); 3] = [
        &|| fs::write(&null, "fake\n").unwrap(),
        &|| symlink("/etc/passwd", &null).unwrap(),
        &|| symlink("/proc/sys/kernel/core_pattern", &null).unwrap(),
    ];
    for prepare in preparations {
        fs::remove_file(&null).ok();
        prepare();
        assert_eq!(hand.run(&masked(bare(hand.spec()))).unwrap().out, "1:3\n");
    }
    // A directory does not.
    fs::remove_file(&null).unwrap();
    fs::create_dir(&null).unwrap();
    let error = hand.run(&masked(bare(hand.spec()))).unwrap_err();
    assert!(error.contains("/dev/null"), "{error}");
    fs::remove_dir(&null).unwrap();
    hand.end();
}

/// CVE-2025-52565: /dev/console as a link would have the terminal bound where it leads.
fn a_console_on_a_link_is_replaced_and_touches_nothing(t: &Test) {
    let victim = Victim::new(t);
    let dev = t.rootfs().join("dev");
    for to in [victim.path.to_str().unwrap(), "/etc/plain", "/proc/self/attr/exec", "pts/5"] {
        fs::remove_file(dev.join("console")).ok();
        symlink(to, dev.join("console")).unwrap();
        for with_tmpfs in [true, false] {
            let id = t.id("tty");
            let spec = t.spec(&id);
            // A terminal takes a devpts.
            let kept = if with_tmpfs { spec } else { only_pts(spec) };
            let spec = kept.with("/process/terminal", json!(true)).shell(
                "stat -c '%F %a' /dev/console; stat -c %F /etc/plain; readlink /dev/console; exit 5",
            );
            let args = t.spec_args(&id, &spec, &["--rm", "--tty"]);
            let (status, shown) = t.ctr_on_terminal(args).finish(LIMIT);
            assert_eq!(status.code(), Some(5), "{to}: {shown}");
            assert!(shown.contains("character special file"), "{to}: {shown}");
            assert!(shown.contains("regular file"), "{to}: {shown}");
            victim.is_unharmed();
        }
    }
}

fn only_pts(spec: Spec) -> Spec {
    let pts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]});
    bare(spec).push("/mounts", pts)
}

/// A devpts of the image's choice: a folder, a link, and a file over its ptmx.
fn a_console_is_of_the_containers_own_devpts(t: &Test) {
    use myshim_integration::shim::{Stdio3, make_fifo};
    let hand = Hand::new(t);
    let fake = t.folder("pts");
    fs::write(fake.join("ptmx"), "").unwrap();
    let ptmx = fake.join("ptmx").to_string_lossy().into_owned();
    let fake = fake.to_string_lossy().into_owned();
    let out = hand.bundle.dir.join("tty");
    make_fifo(&out);
    let io =
        Stdio3 { terminal: true, stdout: out.to_string_lossy().into_owned(), ..Stdio3::default() };
    let create = |spec: Spec| {
        spec.with("/process/terminal", json!(true)).args(&["true"]).write(&hand.config());
        let _reader = myshim_integration::shim::open_fifo(&out);
        hand.shim.create(&hand.bundle, &io).unwrap_err().message
    };
    let error = create(hand.spec().mount("bind", &fake, "/dev/pts", &["bind"]));
    assert!(error.contains("needs a devpts"), "{error}");
    let error = create(hand.spec().mount("bind", &ptmx, "/dev/pts/ptmx", &["bind"]));
    assert!(error.contains("ptmx") && error.contains("EXDEV"), "{error}");
    let error = create(bare(hand.spec()));
    assert!(error.contains("devpts"), "{error}");
    symlink("/etc", t.rootfs().join("dev/pts")).unwrap();
    let error = create(bare(hand.spec()));
    assert!(error.contains("needs a devpts"), "{error}");
    hand.end();
}

fn hostile_devices_are_refused_by_their_field(t: &Test) {
    let hand = Hand::new(t);
    let node = |path: &str, major: i64, minor: i64| json!({"path": path, "type": "c", "major": major, "minor": minor});
    for (device, field) in [
        (node("/dev/../../etc/x", 1, 3), "path"),
        (node("dev/x", 1, 3), "path"),
        (node("", 1, 3), "path"),
        (node("/dev/x", -1, 3), "major"),
        (node("/dev/x", 1, 1 << 40), "minor"),
        (json!({"path": "/dev/x", "type": "a"}), "type"),
        (json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": u32::MAX}), "uid"),
    ] {
        let spec = hand.spec().push("/linux/devices", device.clone()).args(&["true"]);
        let error = hand.run(&spec).expect_err(field);
        let field = format!("linux.devices[0].{field}");
        assert!(error.contains(&field), "{device}: {error}");
    }
    // Where there can be no node, and through a link, which stays inside.
    for path in ["/", "/proc/x", "/sys/x", "/dev/pts/x", "/etc/plain/x"] {
        let spec = hand.spec().push("/linux/devices", node(path, 1, 3)).args(&["true"]);
        let error = hand.run(&spec).expect_err(path);
        assert!(error.contains("devices"), "{path}: {error}");
    }
    let outside = t.folder("outside");
    symlink(&outside, t.rootfs().join("link")).unwrap();
    let spec = hand.spec().push("/linux/devices", node("/link/x", 1, 3));
    assert_eq!(hand.run(&spec.args(&["stat", "-c", "%t:%T", "/link/x"])).unwrap().out, "1:3\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // A node with the setuid bit of a file that is there before: the file goes.
    fs::write(t.rootfs().join("etc/node"), "text").unwrap();
    let spec = hand.spec().push("/linux/devices", node("/etc/node", 1, 3)).args(&["true"]);
    hand.run(&spec).unwrap();
    let made = fs::symlink_metadata(t.rootfs().join("etc/node")).unwrap();
    assert!(made.file_type().is_char_device());
    hand.end();
}
