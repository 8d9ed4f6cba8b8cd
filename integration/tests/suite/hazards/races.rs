//! Somebody who exchanges names in a volume or an image while containers start on it, as fast as
//! renameat2(2) does. Each start works or says why not; nothing of the host is seen, touched or
//! made. `MYSHIM_RACE_STARTS` is how many starts each claim makes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use myshim_integration::claim::Claim;
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims};
use rustix::fs::{FileType, Mode, RenameFlags};
use serde_json::json;

use super::racer::{Decoy, PAUSE, RACE, Racer, Tally, open_folder, starts};
use super::root::with_init_hook;
use super::{Hand, Ran};

pub(crate) const CLAIMS: &[Claim] = claims![
    an_exchanged_mount_point_stays_inside.once().within(HOURS),
    a_folder_on_the_way_to_an_exchanged_mount_point_stays_inside.once().within(HOURS),
    an_exchanged_cwd_stays_inside.once().within(HOURS),
    an_exchanged_dev_null_covers_nothing.once().within(HOURS),
    what_is_masked_in_proc_is_masked_under_any_name.once().within(HOURS),
    a_volume_shared_by_two_containers_is_no_way_out.once().within(HOURS),
];

/// With `MYSHIM_RACE_STARTS` in the thousands; in CI a claim takes seconds.
const HOURS: u64 = 7200;

/// Creates containers of `spec` beside a racer; `check` sees what each printed, errors must have one
/// of `words` in them.
fn race(
    t: &Test,
    racer: impl FnOnce() -> Racer,
    words: &[&str],
    spec: impl Fn(Spec) -> Spec,
    check: impl Fn(&Ran),
) {
    let decoy = Decoy::new(t);
    let hand = Hand::new(t);
    let specs = [true, false].map(|hook| with_init_hook(spec(hand.spec()), hook));
    let mut tally = Tally::default();
    let racer = racer();
    for n in 0..starts() {
        specs[n % 2].write(&hand.config());
        let created = hand.create();
        // What has become of it is looked at in peace.
        racer.set(PAUSE);
        let ran = created.and_then(|()| hand.finish());
        racer.set(RACE);
        match ran {
            Ok(ran) => {
                check(&ran);
                tally.worked += 1;
            }
            Err(error) => {
                assert!(words.iter().any(|word| error.contains(word)), "{error}");
                tally.failed(&error);
            }
        }
    }
    tally.exchanges = racer.stop();
    decoy.is_untouched(t);
    hand.end();
    tally.close();
}

/// Makes room for another [`race`].
fn clear(t: &Test) {
    for name in ["decoy", "b"] {
        fs::remove_dir_all(t.dir.join(name)).unwrap();
    }
}

/// Ways out of a volume that is at /vol: to the decoy by its path on the host, and up from there.
fn ways_out(t: &Test) -> [String; 3] {
    let decoy = t.dir.join("decoy").to_string_lossy().into_owned();
    [decoy.clone(), format!("{}{decoy}", "../".repeat(16)), "/".to_owned()]
}

/// A volume with a folder `a`, and a link `b` that leads out.
fn volume(t: &Test, to: &str) -> PathBuf {
    let volume = t.folder("volume");
    fs::create_dir(volume.join("a")).unwrap();
    symlink(to, volume.join("b")).unwrap();
    volume
}

/// What is mounted, and whether anything of the host can be read.
const LOOK: &str =
    "cat /proc/self/mountinfo; cat /vol/*/secret /vol/*/etc/shadow 2>/dev/null; true";

/// CVE-2021-30465, CVE-2024-45310: what is mounted is in the container, as often as the spec says,
/// and nowhere else.
fn an_exchanged_mount_point_stays_inside(t: &Test) {
    // Seen to fail with plain openat(2) in sys/inside.rs `open` (the mount is on the decoy, or the
    // container has none).
    for to in ways_out(t) {
        let volume = volume(t, &to);
        let source = volume.to_string_lossy().into_owned();
        let spec = |spec: Spec| {
            spec.mount("bind", &source, "/vol", &["rbind"])
                .mount("tmpfs", &format!("one-{}", t.tag), "/vol/a", &[])
                .mount(
                    "tmpfs",
                    &format!("two-{}", t.tag),
                    &format!("/vol/a/{}", super::made(t)),
                    &[],
                )
                .shell(LOOK)
        };
        race(
            t,
            || Racer::exchange(&volume, "a", "b"),
            &[" at /vol/"],
            spec,
            |ran| {
                for name in ["one", "two"] {
                    let mounts = ran.out.matches(&format!(" - tmpfs {name}-{} ", t.tag)).count();
                    assert_eq!(mounts, 1, "{name}: {}", ran.out);
                }
                assert!(!ran.out.contains("SECRET"), "{}", ran.out);
            },
        );
        fs::remove_dir_all(&volume).unwrap();
        clear(t);
    }
}

/// The same one folder further up, where folders and files are made on the way.
fn a_folder_on_the_way_to_an_exchanged_mount_point_stays_inside(t: &Test) {
    for to in ways_out(t) {
        let volume = volume(t, &to);
        let file = t.file("file", "words\n").to_string_lossy().into_owned();
        let source = volume.to_string_lossy().into_owned();
        let made = super::made(t);
        let spec = |spec: Spec| {
            spec.mount("bind", &source, "/vol", &["rbind"])
                .mount("bind", &file, &format!("/vol/a/x/{made}/file"), &["bind"])
                .mount("tmpfs", &format!("one-{}", t.tag), &format!("/vol/a/mnt/{made}"), &[])
                .shell(LOOK)
        };
        race(
            t,
            || Racer::exchange(&volume, "a", "b"),
            &[" at /vol/"],
            spec,
            |ran| {
                let mounts = ran.out.matches(&format!(" - tmpfs one-{} ", t.tag)).count();
                assert_eq!(mounts, 1, "{}", ran.out);
                assert!(!ran.out.contains("SECRET"), "{}", ran.out);
            },
        );
        // What is made inside the volume is the volume's.
        fs::remove_dir_all(&volume).unwrap();
        clear(t);
    }
}

fn an_exchanged_cwd_stays_inside(t: &Test) {
    let made = super::made(t);
    for to in [t.dir.join("decoy").to_string_lossy().into_owned(), "/proc/self/fd/5".to_owned()] {
        let volume = volume(t, &to);
        let source = volume.to_string_lossy().into_owned();
        let spec = |spec: Spec| {
            spec.mount("bind", &source, "/vol", &["rbind"])
                .with("/process/cwd", json!(format!("/vol/a/{made}")))
                .shell("pwd -P; ls -ld ../../../../../../../etc/shadow ../secret ../../secret 2>/dev/null; true")
        };
        race(
            t,
            || Racer::exchange(&volume, "a", "b"),
            &["working directory"],
            spec,
            |ran| {
                let mut lines = ran.out.lines();
                let cwd = lines.next().unwrap();
                assert!(cwd.ends_with(&made), "{}", ran.out);
                assert_eq!(lines.next(), None, "{}", ran.out);
            },
        );
        fs::remove_dir_all(&volume).unwrap();
        clear(t);
        fs::remove_dir_all(t.rootfs().join(t.dir.strip_prefix("/").unwrap())).ok();
    }
}

/// CVE-2025-31133: without a tmpfs on /dev the image's own is raced for. What covers a masked path
/// is the null device, or the start fails.
fn an_exchanged_dev_null_covers_nothing(t: &Test) {
    // Seen to fail (the link's target covers them) with the check by name and not by descriptor in
    // apply/rootfs/masks.rs.
    let dev = t.rootfs().join("dev");
    let evil = t.file("evil", "SECRET\n");
    let bind = evil.to_string_lossy().into_owned();
    for link in [true, false] {
        let spec = |mut spec: Spec| {
            let mounts = spec.0["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
            spec.mount("bind", &bind, "/evil", &["bind"])
                .with("/linux/maskedPaths", json!(["/etc/plain", "/proc/interrupts", "/proc/keys"]))
                .shell(
                    "cat /etc/plain /proc/interrupts /proc/keys | head -c 100; \
                        stat -c %t:%T /etc/plain /proc/interrupts /proc/keys",
                )
        };
        race(
            t,
            || null_or_not(&dev, link),
            &["dev", "masked path"],
            spec,
            |ran| {
                let lines: Vec<&str> = ran.out.lines().filter(|line| *line != "0:0").collect();
                assert!(lines.iter().all(|line| *line == "1:3") && lines.len() >= 2, "{}", ran.out);
            },
        );
        clear(t);
    }
}

/// Exchanges /dev/null and a link or file, and makes both again from time to time: the runtime
/// takes away what is not the device.
fn null_or_not(dev: &Path, link: bool) -> Racer {
    let dev = open_folder(dev);
    let mut times = 0_u64;
    Racer::start(move || {
        if times.rem_euclid(64) == 0 {
            let (mode, null) = (Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3));
            rustix::fs::mknodat(&dev, "new", FileType::CharacterDevice, mode, null).unwrap();
            rustix::fs::renameat(&dev, "new", &dev, "null").unwrap();
            if link {
                rustix::fs::symlinkat("/evil", &dev, "new").unwrap();
            } else {
                rustix::fs::mknodat(&dev, "new", FileType::RegularFile, mode, 0).unwrap();
            }
            rustix::fs::renameat(&dev, "new", &dev, "other").unwrap();
        } else {
            let flags = RenameFlags::EXCHANGE;
            // The runtime may have taken one of them away.
            rustix::fs::renameat_with(&dev, "null", &dev, "other", flags).ok();
        }
        times += 1;
    })
}

/// CVE-2019-19921 and its kin, in a root that somebody else has too: what is masked in /proc is
/// masked in the procfs, wherever its mount point is called to; the program's /proc may be the
/// image's, as it may have been from the beginning.
fn what_is_masked_in_proc_is_masked_under_any_name(t: &Test) {
    // Seen to fail (not masked, and /proc/sys written to) with masks by their paths alone.
    let root = t.rootfs();
    for to in ["/home", "a folder"] {
        if to == "a folder" {
            fs::create_dir_all(root.join("other/self/attr")).unwrap();
            fs::write(root.join("other/self/oom_score_adj"), "fake").unwrap();
            fs::create_dir_all(root.join("other/sys/kernel")).unwrap();
            fs::write(root.join("other/interrupts"), "fake").unwrap();
        } else {
            symlink(to, root.join("other")).unwrap();
        }
        let script = "for p in /proc /other /home; do [ -e $p/sys/kernel/pid_max ] || continue; \
             stat -c 'masked %t:%T' $p/interrupts; \
             (echo 9999 >$p/sys/kernel/core_uses_pid) 2>/dev/null && echo WRITTEN; \
             cat $p/1/oom_score_adj $p/sys/kernel/msgmax; done; true";
        let spec = |spec: Spec| {
            spec.with("/linux/maskedPaths", json!(["/proc/interrupts", "/proc/keys"]))
                .with("/linux/readonlyPaths", json!(["/proc/sys"]))
                .with("/linux/sysctl", json!({"kernel.msgmax": "4242"}))
                .with("/process/oomScoreAdj", json!(777))
                .shell(script)
        };
        race(
            t,
            || Racer::exchange(&root, "proc", "other"),
            &["proc"],
            spec,
            |ran| {
                assert_eq!(ran.out, "masked 1:3\n777\n4242\n");
            },
        );
        clear(t);
        for name in ["other", "proc"] {
            let path = root.join(name);
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).unwrap();
        }
        fs::create_dir(root.join("proc")).unwrap();
    }
}

/// Two containers and a volume, as in the reports: the one that runs exchanges, with its own
/// program, and execs come into it meanwhile; the other starts again and again.
fn a_volume_shared_by_two_containers_is_no_way_out(t: &Test) {
    let decoy = Decoy::new(t);
    let volume = volume(t, &ways_out(t)[1]);
    let source = volume.to_string_lossy().into_owned();
    let hand = Hand::new(t);
    let shared = |spec: Spec| spec.mount("bind", &source, "/vol", &["rbind", "rshared"]);
    let attacker = t.detached_spec("attacker", |spec| shared(spec).args(&["sleep", "3600"]));
    let racer = Racer::exchange(Path::new(&format!("/proc/{}/root/vol", attacker.pid())), "a", "b");
    let mut tally = Tally::default();
    let place = format!("/vol/a/{}", super::made(t));
    for n in 0..starts() {
        let spec = shared(hand.spec()).mount("tmpfs", "tmpfs", &place, &[]).args(&["true"]);
        match hand.run(&with_init_hook(spec, n % 2 == 0)) {
            Ok(ran) => {
                assert_eq!(ran.code, 0);
                tally.worked += 1;
            }
            Err(error) => {
                assert!(error.contains(" at /vol/"), "{error}");
                tally.failed(&error);
            }
        }
        if n % 10 == 0 {
            let out = attacker.exec_as("e", &["--cwd", "/vol/a"], &["cat", "secret", "etc/shadow"]);
            assert!(!out.out().contains("SECRET"), "{out}");
        }
    }
    tally.exchanges = racer.stop();
    attacker.remove();
    decoy.is_untouched(t);
    hand.end();
    tally.close();
}
