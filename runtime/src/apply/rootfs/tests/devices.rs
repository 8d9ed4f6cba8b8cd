//! Device nodes, whatever the image has in /dev.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;

fn dev_tmpfs() -> Mount {
    filesystem("/dev", "tmpfs", &[("mode", "755")])
}

fn assert_null(path: &str) {
    let null = std::fs::symlink_metadata(path).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
}

#[test]
fn nodes_have_the_mode_and_owner_of_the_plan() {
    alone(module_path!(), "nodes_have_the_mode_and_owner_of_the_plan", |scene| {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let odd = |path: &str| Device { mode: 0o4612, uid: 7, gid: 8, ..char_device(path, 1, 5) };
        let fifo = Device { kind: DeviceKind::Fifo, ..odd("/tmp/deep/fifo") };
        let block = DeviceKind::Block { major: 7, minor: 200 };
        let rootfs = Rootfs {
            devices: vec![
                char_device("/dev/null", 1, 3),
                odd("/dev/odd"),
                odd("/dev/net/odd"),
                odd("/tmp/odd"),
                fifo,
                Device { kind: block, ..char_device("/dev/loop200", 0, 0) },
            ],
            ..scene.rootfs(vec![dev_tmpfs()])
        };
        scene.enter(&rootfs);
        let facts = |path: &str| {
            let stat = std::fs::symlink_metadata(path).unwrap();
            (stat.permissions().mode(), stat.uid(), stat.gid(), stat.rdev())
        };
        let zero = rustix::fs::makedev(1, 5);
        assert_eq!(facts("/dev/null"), (0o020_666, 0, 0, rustix::fs::makedev(1, 3)));
        assert_eq!(facts("/dev/odd"), (0o024_612, 7, 8, zero));
        assert_eq!(facts("/dev/net/odd"), (0o024_612, 7, 8, zero));
        assert_eq!(facts("/tmp/odd"), (0o024_612, 7, 8, zero));
        assert_eq!(facts("/tmp/deep/fifo"), (0o014_612, 7, 8, 0));
        assert_eq!(facts("/dev/loop200"), (0o060_666, 0, 0, rustix::fs::makedev(7, 200)));
    });
}

#[test]
fn links_of_an_image_in_the_place_of_devices_are_replaced() {
    alone(module_path!(), "links_of_an_image_in_the_place_of_devices_are_replaced", |scene| {
        scene.write("victim", "untouched");
        let victim = scene.path("victim");
        for name in ["null", "ptmx", "zero"] {
            scene.link(victim.to_str().unwrap(), &format!("image/dev/{name}"));
        }
        scene.write("image/dev/full", "a file");
        let rootfs = Rootfs { devices: default_devices(), ..scene.rootfs(vec![]) };
        scene.build(&rootfs).unwrap();
        let stat = std::fs::symlink_metadata(&victim).unwrap();
        assert_eq!(stat.permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        assert_null(scene.path("image/dev/null").to_str().unwrap());
        let full = std::fs::symlink_metadata(scene.path("image/dev/full")).unwrap();
        assert_eq!(full.rdev(), rustix::fs::makedev(1, 7));
        let ptmx = std::fs::read_link(scene.path("image/dev/ptmx")).unwrap();
        assert_eq!(ptmx, Path::new("pts/ptmx"));
    });
}

#[test]
fn a_linked_dev_directory_stays_inside_the_root() {
    alone(module_path!(), "a_linked_dev_directory_stays_inside_the_root", |scene| {
        std::fs::remove_dir(scene.path("image/dev")).unwrap();
        scene.make_directory("outside");
        scene.link(scene.path("outside").to_str().unwrap(), "image/dev");
        let rootfs = Rootfs { devices: default_devices(), ..scene.rootfs(vec![]) };
        scene.build(&rootfs).unwrap();
        assert_eq!(names(scene.path("outside").to_str().unwrap()).len(), 0);
        let inside = scene.path("image").join(scene.path("outside").strip_prefix("/").unwrap());
        assert_null(inside.join("null").to_str().unwrap());
    });
}

#[test]
fn what_the_spec_mounted_on_a_device_stays() {
    alone(module_path!(), "what_the_spec_mounted_on_a_device_stays", |scene| {
        scene.write("file", "mine");
        let rootfs = Rootfs {
            devices: default_devices(),
            ..scene.rootfs(vec![dev_tmpfs(), bind(&scene.path("file"), "/dev/full")])
        };
        scene.enter(&rootfs);
        assert_eq!(std::fs::read_to_string("/dev/full").unwrap(), "mine");
        assert_null("/dev/null");
    });
}

#[test]
fn a_bound_dev_is_left_as_it_is() {
    alone(module_path!(), "a_bound_dev_is_left_as_it_is", |scene| {
        scene.make_directory("dev");
        let rootfs = Rootfs {
            devices: default_devices(),
            ..scene.rootfs(vec![bind(&scene.path("dev"), "/dev")])
        };
        scene.enter(&rootfs);
        assert_eq!(names("/dev").len(), 0);
    });
}

#[test]
fn devices_are_bound_where_they_cannot_be_made() {
    alone(module_path!(), "devices_are_bound_where_they_cannot_be_made", |scene| {
        let rootfs = Rootfs {
            devices: default_devices(),
            in_new_user_namespace: true,
            ..scene.rootfs(vec![dev_tmpfs()])
        };
        scene.enter(&rootfs);
        assert_null("/dev/null");
        assert!(scene.mount_at("/dev/null").contains(" /null "));
        std::fs::write("/dev/null", "x").unwrap();
    });
}

#[test]
fn a_bound_device_is_the_one_of_the_plan() {
    alone(module_path!(), "a_bound_device_is_the_one_of_the_plan", |scene| {
        let rootfs = Rootfs {
            devices: vec![char_device("/dev/null", 1, 5)],
            in_new_user_namespace: true,
            ..scene.rootfs(vec![dev_tmpfs()])
        };
        let error = scene.build(&rootfs).unwrap_err().to_string();
        assert!(error.contains("devices: /dev/null: the host has another device"), "{error}");
    });
}
