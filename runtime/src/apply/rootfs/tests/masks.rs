//! Masked and read-only paths.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::*;

fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

fn scene_with(scene: &Scene, masked: &[&str], readonly: &[&str]) -> Rootfs {
    let dev = filesystem("/dev", "tmpfs", &[("mode", "755")]);
    Rootfs {
        devices: default_devices(),
        masked_paths: paths(masked),
        readonly_paths: paths(readonly),
        ..scene.rootfs(vec![filesystem("/proc", "proc", &[]), dev])
    }
}

#[test]
fn a_masked_file_is_covered_by_dev_null() {
    alone(module_path!(), "a_masked_file_is_covered_by_dev_null", |scene| {
        scene.write("image/etc/secret", "secret");
        scene.link("secret", "image/etc/alias");
        scene.write("image/etc/other", "secret");
        let masked = ["/etc/alias", "/etc/other", "/proc/keys", "/missing", "/etc/other/below"];
        scene.enter(&scene_with(scene, &masked, &[]));
        for path in ["/etc/secret", "/etc/other", "/proc/keys"] {
            let stat = std::fs::metadata(path).unwrap();
            assert!(stat.file_type().is_char_device(), "{path}");
            assert_eq!(stat.rdev(), rustix::fs::makedev(1, 3));
        }
        assert!(!Path::new("/missing").exists());
    });
}

/// CVE-2025-31133.
#[test]
fn a_faked_dev_null_masks_nothing() {
    alone(module_path!(), "a_faked_dev_null_masks_nothing", |scene| {
        scene.write("image/etc/secret", "secret");
        let rootfs = scene_with(scene, &["/etc/secret"], &[]);
        let root = scene.build(&rootfs).unwrap();
        root.enter(&rootfs).unwrap();
        std::fs::remove_file("/dev/null").unwrap();
        std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", "/dev/null").unwrap();
        let error = root.hide(&rootfs).unwrap_err();
        assert!(error.to_string().contains("masked path /etc/secret"), "{error}");
        std::fs::remove_file("/dev/null").unwrap();
        std::fs::write("/dev/null", "").unwrap();
        let error = root.hide(&rootfs).unwrap_err().to_string();
        assert!(error.contains("not the null device"), "{error}");
    });
}

#[test]
fn masked_directories_share_one_tmpfs() {
    alone(module_path!(), "masked_directories_share_one_tmpfs", |scene| {
        scene.write("image/etc/secret", "secret");
        scene.make_directory("image/secret");
        scene.enter(&scene_with(scene, &["/etc", "/secret", "/proc/scsi", "/proc/fs"], &[]));
        assert_eq!(names("/etc").len(), 0);
        let device = |path: &str| std::fs::metadata(path).unwrap().dev();
        assert_eq!(device("/etc"), device("/secret"));
        assert_eq!(device("/etc"), device("/proc/fs"));
        assert!(scene.mount_at("/secret").contains(" ro,"));
        assert!(scene.mount_at("/proc/fs").contains(" ro,"));
    });
}

#[test]
fn a_mask_is_put_inside_the_root() {
    alone(module_path!(), "a_mask_is_put_inside_the_root", |scene| {
        scene.link("../../../../../../../../../../etc", "image/tmp/up");
        scene.write("image/etc/hostname", "of the image");
        let rootfs = scene_with(scene, &["/tmp/up/hostname"], &[]);
        let before = scene.host_mounts();
        scene.enter(&rootfs);
        assert!(std::fs::metadata("/etc/hostname").unwrap().file_type().is_char_device());
        assert_eq!(scene.host_mounts(), before);
    });
}

#[test]
fn a_read_only_path_keeps_the_other_attributes() {
    alone(module_path!(), "a_read_only_path_keeps_the_other_attributes", |scene| {
        scene.make_directory("image/data");
        let mut rootfs = scene_with(scene, &[], &["/proc/sys", "/data", "/missing", "/etc"]);
        rootfs.mounts.push(Mount { attr_set: 0xe, ..filesystem("/data", "tmpfs", &[]) });
        rootfs.mounts.push(filesystem("/data/below", "tmpfs", &[]));
        scene.enter(&rootfs);
        assert!(scene.mount_at("/data").contains(" ro,nosuid,nodev,noexec,relatime "));
        assert!(scene.mount_at("/data/below").contains(" rw,"));
        assert!(scene.mount_at("/proc/sys").contains(" ro,"));
        assert!(std::fs::write("/proc/sys/kernel/domainname", "x").is_err());
        assert!(std::fs::write("/etc/file", "x").is_err());
        std::fs::write("/tmp/file", "x").unwrap();
    });
}
