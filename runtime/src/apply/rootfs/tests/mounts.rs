//! What is mounted, and with which attributes.

use std::path::Path;

use nix::errno::Errno;

use super::*;

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;

#[test]
fn a_default_container_gets_all_its_mounts() {
    alone(module_path!(), "a_default_container_gets_all_its_mounts", |scene| {
        let rootfs = Rootfs { devices: default_devices(), ..scene.rootfs(default_mounts()) };
        scene.enter(&rootfs);
        for (path, fstype) in [
            ("/proc", "proc"),
            ("/dev", "tmpfs"),
            ("/dev/pts", "devpts"),
            ("/dev/shm", "tmpfs"),
            ("/dev/mqueue", "mqueue"),
            ("/sys", "sysfs"),
            ("/run", "tmpfs"),
        ] {
            let line = scene.mount_at(path);
            assert!(line.contains(&format!(" - {fstype} {fstype} ")), "{line}");
        }
        assert!(scene.mount_at("/sys").contains("ro,nosuid,nodev,noexec"));
        assert_eq!(scene.mounts().lines().count(), 8);
        // Where the kernel has /proc/kcore there is a link to it.
        let names: Vec<_> = names("/dev").into_iter().filter(|name| name != "core").collect();
        assert_eq!(
            names,
            [
                "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
                "stdout", "tty", "urandom", "zero"
            ]
        );
    });
}

#[test]
fn the_hosts_mount_table_is_unchanged() {
    alone(module_path!(), "the_hosts_mount_table_is_unchanged", |scene| {
        scene.make_directory("volume");
        let before = scene.host_mounts();
        let mut mounts = default_mounts();
        mounts.push(rbind(&scene.path("volume"), "/volume"));
        for propagation in [Propagation::Slave, Propagation::Private, Propagation::Shared] {
            let prepared =
                scene.prepare(&Rootfs { propagation, ..scene.rootfs(mounts.clone()) }).unwrap();
            assert_eq!(scene.host_mounts(), before);
            drop(prepared);
        }
        scene.enter(&Rootfs { propagation: Propagation::Shared, ..scene.rootfs(mounts) });
        assert_eq!(scene.host_mounts(), before);
    });
}

#[test]
fn a_missing_source_is_named_in_the_error() {
    alone(module_path!(), "a_missing_source_is_named_in_the_error", |scene| {
        let rootfs = scene.rootfs(vec![bind(Path::new("/no/such/source"), "/data")]);
        let error = scene.prepare(&rootfs).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENOENT));
        let text = error.to_string();
        assert!(text.contains("mounts[0]"), "{text}");
        assert!(text.contains("/no/such/source"), "{text}");
        assert!(text.contains("/data"), "{text}");
    });
}

#[test]
fn the_kernels_own_words_are_in_the_error() {
    alone(module_path!(), "the_kernels_own_words_are_in_the_error", |scene| {
        let rootfs = scene.rootfs(vec![filesystem("/x", "tmpfs", &[("nonsense", "1")])]);
        let text = scene.build(&rootfs).unwrap_err().to_string();
        assert!(text.contains("mount 1 of 1 at /x"), "{text}");
        assert!(text.contains("Unknown parameter 'nonsense'"), "{text}");
    });
}

#[test]
fn a_bind_mount_takes_the_attributes_it_names_and_drops_the_others() {
    let name = "a_bind_mount_takes_the_attributes_it_names_and_drops_the_others";
    alone(module_path!(), name, |scene| {
        scene.make_directory("volume");
        let volume = scene.path("volume");
        let flags = rustix::mount::MountFlags::NODEV;
        rustix::mount::mount("v", &volume, "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
        let rootfs = scene.rootfs(vec![
            Mount {
                attr_set: RDONLY | NOSUID,
                attr_clear_unlocked: NODEV | NOEXEC,
                ..bind(&volume, "/named")
            },
            bind(&volume, "/unnamed"),
            Mount {
                attr_clear: RDONLY,
                attr_clear_unlocked: NOSUID | NODEV | NOEXEC,
                ..bind(&volume, "/rw")
            },
        ]);
        scene.enter(&rootfs);
        assert!(scene.mount_at("/named").contains(" ro,nosuid,relatime "));
        assert!(scene.mount_at("/unnamed").contains(" rw,nodev,relatime "));
        assert!(scene.mount_at("/rw").contains(" rw,relatime "));
    });
}

#[test]
fn a_recursive_attribute_reaches_the_mounts_below() {
    alone(module_path!(), "a_recursive_attribute_reaches_the_mounts_below", |scene| {
        scene.make_directory("volume/below");
        let tmpfs = |path: &str| {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("v", scene.path(path), "tmpfs", flags, None::<&std::ffi::CStr>)
                .unwrap();
        };
        tmpfs("volume/below");
        let volume = scene.path("volume");
        let rootfs = scene.rootfs(vec![
            Mount { rec_attr_set: RDONLY, ..rbind(&volume, "/rro") },
            Mount { attr_set: RDONLY, ..rbind(&volume, "/ro") },
        ]);
        scene.enter(&rootfs);
        assert!(scene.mount_at("/rro").contains(" ro,"));
        assert!(scene.mount_at("/rro/below").contains(" ro,"));
        assert!(scene.mount_at("/ro").contains(" ro,"));
        assert!(scene.mount_at("/ro/below").contains(" rw,"));
    });
}

#[test]
fn a_tmpfs_takes_the_mode_of_what_it_covers() {
    alone(module_path!(), "a_tmpfs_takes_the_mode_of_what_it_covers", |scene| {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        scene.make_directory("image/secret");
        let secret = scene.path("image/secret");
        std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o2710)).unwrap();
        let rootfs = scene.rootfs(vec![
            filesystem("/secret", "tmpfs", &[]),
            filesystem("/made", "tmpfs", &[]),
            filesystem("/given", "tmpfs", &[("mode", "0700")]),
        ]);
        scene.enter(&rootfs);
        assert_eq!(mode("/secret"), 0o2710);
        assert_eq!(mode("/made"), 0o1777);
        assert_eq!(mode("/given"), 0o700);
    });
}

#[test]
fn a_read_only_tmpfs_is_filled_before_it_is_closed() {
    alone(module_path!(), "a_read_only_tmpfs_is_filled_before_it_is_closed", |scene| {
        let rootfs = Rootfs {
            devices: default_devices(),
            ..scene.rootfs(vec![
                Mount { attr_set: RDONLY | NOEXEC, ..filesystem("/dev", "tmpfs", &[]) },
                filesystem("/dev/shm", "tmpfs", &[]),
            ])
        };
        scene.enter(&rootfs);
        assert!(scene.mount_at("/dev").contains(" ro,noexec,relatime "));
        assert!(scene.mount_at("/dev/shm").contains(" rw,"));
        assert!(Path::new("/dev/null").exists());
    });
}

#[test]
fn tmpcopyup_starts_with_what_is_covered() {
    alone(module_path!(), "tmpcopyup_starts_with_what_is_covered", |scene| {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        scene.make_directory("image/data/sub");
        scene.write("image/data/sub/file", "content");
        scene.link("sub/file", "image/data/link");
        let file = scene.path("image/data/sub/file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4751)).unwrap();
        std::os::unix::fs::chown(&file, Some(12), Some(34)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4751)).unwrap();
        let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
        let rootfs =
            scene.rootfs(vec![Mount { tmpcopyup: true, ..filesystem("/data", "tmpfs", &[]) }]);
        scene.enter(&rootfs);
        assert!(scene.mount_at("/data").contains(" - tmpfs "));
        assert_eq!(std::fs::read_to_string("/data/link").unwrap(), "content");
        let file = std::fs::metadata("/data/sub/file").unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (12, 34, 0o4751));
        assert_eq!(file.modified().unwrap(), modified);
    });
}

#[test]
fn a_remount_changes_what_is_there() {
    alone(module_path!(), "a_remount_changes_what_is_there", |scene| {
        let rootfs = scene.rootfs(vec![
            filesystem("/scratch", "tmpfs", &[]),
            Mount { attr_set: RDONLY | NOSUID, ..mount("/scratch", MountKind::Remount) },
        ]);
        scene.enter(&rootfs);
        assert!(scene.mount_at("/scratch").contains(" ro,nosuid,relatime "));
    });
}

#[test]
fn a_read_only_root_keeps_its_other_attributes() {
    alone(module_path!(), "a_read_only_root_keeps_its_other_attributes", |scene| {
        let layer = Mount { attr_set: NOSUID, ..bind(&scene.path("image"), "/") };
        let rootfs = Rootfs {
            readonly: true,
            source: RootfsSource::Mounts(vec![layer]),
            ..scene.rootfs(vec![])
        };
        scene.enter(&rootfs);
        assert!(scene.mount_at("/").contains(" ro,nosuid,relatime "));
        assert_eq!(
            std::fs::write("/file", "").unwrap_err().kind(),
            std::io::ErrorKind::ReadOnlyFilesystem
        );
    });
}

#[test]
fn mounts_of_a_list_lie_on_top_of_each_other() {
    alone(module_path!(), "mounts_of_a_list_lie_on_top_of_each_other", |scene| {
        scene.make_directory("upper/sub");
        scene.make_directory("below");
        scene.write("below/mark", "");
        let rootfs = Rootfs {
            source: RootfsSource::Mounts(vec![
                bind(&scene.path("image"), "/"),
                bind(&scene.path("upper"), "/"),
                bind(&scene.path("below"), "/sub"),
            ]),
            ..scene.rootfs(vec![])
        };
        scene.enter(&rootfs);
        assert_eq!(names("/"), ["dev", "sub"]);
        assert_eq!(names("/sub"), ["mark"]);
    });
}
