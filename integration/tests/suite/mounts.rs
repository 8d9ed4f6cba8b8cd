//! The root, mounts and devices, seen from inside.

use std::fs;

use myshim_integration::claim::Claim;
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims};
use serde_json::json;

pub(crate) const CLAIMS: &[Claim] = claims![
    the_default_file_systems_are_there,
    the_default_devices_work,
    options_of_a_mount_are_kept,
    a_later_option_wins_over_an_earlier_one,
    a_read_only_bind_is_read_only_at_once,
    recursive_options_reach_submounts,
    propagation_of_a_mount_is_set,
    the_roots_propagation_is_set,
    a_tmpfs_copies_up,
    masked_paths_are_empty,
    read_only_paths_take_no_writes,
    a_file_is_bound_over_a_file_that_is_not_there,
    absolute_links_in_the_image_are_followed_inside,
    an_idmapped_mount_shows_other_owners,
    devices_are_made_with_mode_and_owner,
    the_hosts_mounts_are_not_to_be_seen,
    the_hosts_root_may_be_bound,
    mounts_do_not_reach_the_host,
    pseudo_terminals_are_private,
    standard_streams_have_their_links,
];

fn text(t: &Test, edit: impl FnOnce(Spec) -> Spec) -> String {
    t.run_spec(edit).ok()
}

/// The line of /proc/self/mountinfo in the container for the mount at `place`.
fn mount_line(t: &Test, place: &str, edit: impl FnOnce(Spec) -> Spec) -> String {
    let all = text(t, |spec| edit(spec).args(&["cat", "/proc/self/mountinfo"]));
    let line = all.lines().rev().find(|line| line.split(' ').nth(4) == Some(place));
    line.unwrap_or_else(|| panic!("nothing is mounted at {place}: {all}")).to_owned()
}

fn options(line: &str) -> Vec<&str> {
    line.split(' ').nth(5).unwrap().split(',').collect()
}

fn the_default_file_systems_are_there(t: &Test) {
    let all = t.shell(&[], "cat /proc/self/mountinfo");
    for (place, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        let line = all.lines().find(|line| line.split(' ').nth(4) == Some(place));
        let line = line.unwrap_or_else(|| panic!("no {place}: {all}"));
        assert!(line.contains(&format!(" - {kind} ")), "{line}");
    }
}

fn the_default_devices_work(t: &Test) {
    let script = "echo x >/dev/null; head -c 4 /dev/zero | od -An -tx1; \
                  head -c 8 /dev/urandom | wc -c; echo x >/dev/full; \
                  for d in null zero full random urandom tty; do stat -c '%a %t:%T' /dev/$d; done";
    let out = t.run(&[], &["sh", "-c", script]);
    let text = out.out();
    assert!(text.contains("00 00 00 00") && text.contains("8\n"), "{out}");
    assert!(out.err().contains("No space left"), "{out}");
    for number in ["666 1:3", "666 1:5", "666 1:7", "666 1:8", "666 1:9", "666 5:0"] {
        assert!(text.contains(number), "no {number}: {out}");
    }
}

fn options_of_a_mount_are_kept(t: &Test) {
    let wanted = ["nosuid", "nodev", "noexec", "noatime", "ro"];
    let given = ["nosuid", "nodev", "noexec", "noatime", "ro", "size=1m", "mode=750"];
    let line = mount_line(t, "/place", |spec| spec.mount("tmpfs", "tmpfs", "/place", &given));
    let seen = options(&line);
    assert!(wanted.iter().all(|option| seen.contains(option)), "{line}");
    assert!(line.contains("size=1024k") && line.contains("mode=750"), "{line}");
}

fn a_later_option_wins_over_an_earlier_one(t: &Test) {
    let given = ["nosuid", "nodev", "noexec", "ro", "suid", "dev", "exec", "rw"];
    let line = mount_line(t, "/place", |spec| spec.mount("tmpfs", "tmpfs", "/place", &given));
    let seen = options(&line);
    assert!(seen.contains(&"rw") && !seen.contains(&"nosuid"), "{line}");
    assert!(!seen.contains(&"nodev") && !seen.contains(&"noexec"), "{line}");
}

fn a_read_only_bind_is_read_only_at_once(t: &Test) {
    let folder = t.folder("shared").to_string_lossy().into_owned();
    let line =
        mount_line(t, "/place", |s| s.mount("bind", &folder, "/place", &["bind", "ro", "nosuid"]));
    let seen = options(&line);
    assert!(seen.contains(&"ro") && seen.contains(&"nosuid"), "{line}");
}

fn recursive_options_reach_submounts(t: &Test) {
    let folder = t.folder("shared");
    let inner = folder.join("inner");
    fs::create_dir(&inner).unwrap();
    mount_tmpfs(&inner);
    let source = folder.to_string_lossy().into_owned();
    let line = mount_line(t, "/place/inner", |spec| {
        spec.mount("bind", &source, "/place", &["rbind", "rro", "rnosuid"])
    });
    let plain =
        mount_line(t, "/place/inner", |s| s.mount("bind", &source, "/place", &["rbind", "ro"]));
    umount(&inner);
    assert!(options(&line).contains(&"ro") && options(&line).contains(&"nosuid"), "{line}");
    assert!(options(&plain).contains(&"rw"), "{plain}");
}

fn mount_tmpfs(at: &std::path::Path) {
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "tmpfs"]).arg(at);
    myshim_integration::command::run(mount, myshim_integration::command::LIMIT).ok();
}

fn umount(at: &std::path::Path) {
    let mut umount = std::process::Command::new("umount");
    umount.arg(at);
    myshim_integration::command::run(umount, myshim_integration::command::LIMIT).ok();
}

fn propagation_of_a_mount_is_set(t: &Test) {
    for (option, wanted) in [("rshared", "shared:"), ("rprivate", ""), ("rslave", "")] {
        let given = ["nosuid", option];
        let line = mount_line(t, "/place", |s| s.mount("tmpfs", "tmpfs", "/place", &given));
        let tags = line.split_once(" - ").unwrap().0;
        assert_eq!(tags.contains("shared:"), wanted == "shared:", "{option}: {line}");
    }
}

fn the_roots_propagation_is_set(t: &Test) {
    for (option, wanted) in [("shared", true), ("private", false), ("rslave", false)] {
        let line = mount_line(t, "/", |s| s.with("/linux/rootfsPropagation", json!(option)));
        let tags = line.split_once(" - ").unwrap().0;
        assert_eq!(tags.contains("shared:"), wanted, "{option}: {line}");
    }
}

fn a_tmpfs_copies_up(t: &Test) {
    let out = text(t, |spec| {
        spec.mount("tmpfs", "tmpfs", "/etc", &["tmpcopyup", "mode=755"]).shell(
            "cat /etc/plain; echo new >/etc/plain; stat -f -c %T /etc; readlink /etc/absolute",
        )
    });
    assert_eq!(out, "a file\ntmpfs\n/etc/plain\n");
    assert_eq!(fs::read_to_string(t.rootfs().join("etc/plain")).unwrap(), "a file\n");
}

fn masked_paths_are_empty(t: &Test) {
    let out = text(t, |spec| {
        spec.with("/linux/maskedPaths", json!(["/etc/plain", "/home", "/not/there", "/proc/timer_list"]))
            .shell("stat -c %t:%T /etc/plain; wc -c </etc/plain; ls /home; touch /home/x 2>&1; cat /proc/timer_list")
    });
    assert!(out.starts_with("1:3\n0\n") && out.contains("Read-only file system"), "{out}");
    assert_eq!(out.lines().count(), 3, "{out}");
}

fn read_only_paths_take_no_writes(t: &Test) {
    let out = t.run_spec(|spec| {
        spec.with("/linux/readonlyPaths", json!(["/home", "/etc/plain", "/not/there"]))
            .shell("touch /home/x; echo x >/etc/plain; touch /tmp/x && echo ok")
    });
    assert_eq!(out.err().matches("Read-only file system").count(), 2, "{out}");
    assert_eq!(out.out(), "ok\n");
}

fn a_file_is_bound_over_a_file_that_is_not_there(t: &Test) {
    let file = t.file("file", "words\n").to_string_lossy().into_owned();
    let out = text(t, |spec| {
        spec.mount("bind", &file, "/new/folder/file", &["bind"]).args(&["cat", "/new/folder/file"])
    });
    assert_eq!(out, "words\n");
}

fn absolute_links_in_the_image_are_followed_inside(t: &Test) {
    let file = t.file("file", "words\n").to_string_lossy().into_owned();
    let out = text(t, |spec| {
        // /etc/absolute points to /etc/plain: the image's, not the host's.
        spec.mount("bind", &file, "/etc/absolute", &["bind"]).args(&["cat", "/etc/plain"])
    });
    assert_eq!(out, "words\n");
    assert!(!std::path::Path::new("/etc/plain").exists());
}

fn an_idmapped_mount_shows_other_owners(t: &Test) {
    let folder = t.folder("shared");
    fs::write(folder.join("file"), "").unwrap();
    let map = json!([{"containerID": 0, "hostID": 3000, "size": 1000}]);
    let out = text(t, |spec| {
        let mount = json!({
            "type": "bind", "source": folder, "destination": "/place", "options": ["bind"],
            "uidMappings": map, "gidMappings": map,
        });
        spec.push("/mounts", mount).args(&["stat", "-c", "%u:%g", "/place/file"])
    });
    assert_eq!(out, "3000:3000\n");
}

fn devices_are_made_with_mode_and_owner(t: &Test) {
    let device = json!({
        "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640,
        "uid": 1000, "gid": 1001,
    });
    let out = text(t, |spec| {
        spec.push("/linux/devices", device).args(&["stat", "-c", "%a %u:%g %t:%T", "/dev/mine"])
    });
    assert_eq!(out, "640 1000:1001 1:3\n");
}

fn the_hosts_mounts_are_not_to_be_seen(t: &Test) {
    let out = t.shell(&[], "cat /proc/self/mountinfo");
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = host.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    let source = root.split_once(" - ").unwrap().1.split(' ').nth(1).unwrap();
    assert!(!out.contains(&format!(" {source} ")), "{out}");
    assert!(out.lines().count() < 40, "{out}");
}

fn the_hosts_root_may_be_bound(t: &Test) {
    let before = myshim_integration::host::mounts().len();
    let out = text(t, |spec| {
        spec.mount("bind", "/", "/host", &["rbind", "rslave", "ro"]).shell("ls -d /host/etc/passwd")
    });
    assert_eq!(out, "/host/etc/passwd\n");
    assert!(myshim_integration::host::mounts().len() <= before + 16, "others' at most");
}

fn mounts_do_not_reach_the_host(t: &Test) {
    let folder = t.folder("shared");
    let flag = format!("type=bind,src={},dst=/place,options=rbind:rw", folder.display());
    let out = t.run(
        &["--privileged", "--mount", &flag],
        &["sh", "-c", "mount -t tmpfs tmpfs /place && touch /place/x && echo done"],
    );
    assert_eq!(out.ok(), "done\n");
    assert!(!folder.join("x").exists());
    assert!(!myshim_integration::host::mounts().iter().any(|m| m.contains(&t.tag)));
}

fn pseudo_terminals_are_private(t: &Test) {
    let out = t.shell(&[], "ls /dev/pts; readlink /dev/ptmx");
    assert_eq!(out, "ptmx\npts/ptmx\n");
}

fn standard_streams_have_their_links(t: &Test) {
    let script = "for l in fd stdin stdout stderr core; do readlink /dev/$l; done; true";
    let out = t.shell(&[], script);
    let links = ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"];
    assert_eq!(out.lines().take(4).collect::<Vec<_>>(), links, "{out}");
}
