//! Where mounts go, whatever the image says.

use std::path::Path;

use nix::errno::Errno;

use super::*;

#[test]
fn a_symlinked_proc_is_refused() {
    alone(module_path!(), "a_symlinked_proc_is_refused", |scene| {
        std::fs::remove_dir(scene.path("image/proc")).unwrap();
        scene.link("tmp", "image/proc");
        let rootfs = scene.rootfs(vec![filesystem("/proc", "proc", &[])]);
        let error = scene.build(&rootfs).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ELOOP), "{error}");
    });
}

#[test]
fn a_symlinked_sys_is_refused() {
    alone(module_path!(), "a_symlinked_sys_is_refused", |scene| {
        std::fs::remove_dir(scene.path("image/sys")).unwrap();
        scene.link("/nowhere", "image/sys");
        let rootfs = scene.rootfs(vec![filesystem("/sys", "sysfs", &[])]);
        let error = scene.build(&rootfs).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ELOOP), "{error}");
        assert!(!scene.path("image/nowhere").exists());
    });
}

#[test]
fn only_a_procfs_goes_onto_proc() {
    alone(module_path!(), "only_a_procfs_goes_onto_proc", |scene| {
        scene.link("proc", "image/alias");
        scene.make_directory("image/proc/self");
        for (destination, words) in [
            ("/proc", "nothing but a procfs"),
            ("/alias", "nothing but a procfs"),
            ("/tmp/../proc", "nothing but a procfs"),
            ("/proc/self", "inside of /proc"),
            ("/alias/self", "inside of /proc"),
        ] {
            let rootfs = scene.rootfs(vec![filesystem(destination, "tmpfs", &[])]);
            let error = scene.build(&rootfs).unwrap_err().to_string();
            assert!(error.contains(words), "{destination}: {error}");
        }
        scene.write("meminfo", "");
        scene.build(&scene.rootfs(vec![bind(Path::new("/proc"), "/proc")])).unwrap();
        let lxcfs =
            vec![filesystem("/proc", "proc", &[]), bind(&scene.path("meminfo"), "/proc/meminfo")];
        scene.build(&scene.rootfs(lxcfs)).unwrap();
    });
}

#[test]
fn a_destination_symlink_resolves_inside_the_root() {
    alone(module_path!(), "a_destination_symlink_resolves_inside_the_root", |scene| {
        scene.make_directory("image/var");
        scene.make_directory("image/run");
        scene.make_directory("volume");
        scene.write("volume/mark", "");
        scene.write("file", "content");
        scene.link("/run", "image/var/run");
        scene.link("../../../../../../etc", "image/up");
        scene.link("/run/stub.conf", "image/etc/resolv.conf");
        let rootfs = scene.rootfs(vec![
            bind(&scene.path("volume"), "/var/run/volume"),
            bind(&scene.path("volume"), "/up/volume"),
            bind(&scene.path("file"), "/etc/resolv.conf"),
        ]);
        scene.enter(&rootfs);
        assert_eq!(names("/run"), ["stub.conf", "volume"]);
        assert_eq!(names("/run/volume"), ["mark"]);
        assert_eq!(names("/etc/volume"), ["mark"]);
        assert_eq!(std::fs::read_to_string("/etc/resolv.conf").unwrap(), "content");
        assert_eq!(std::fs::read_link("/etc/resolv.conf").unwrap(), Path::new("/run/stub.conf"));
    });
}

#[test]
fn endless_links_are_an_error() {
    alone(module_path!(), "endless_links_are_an_error", |scene| {
        scene.link("b", "image/a");
        scene.link("a", "image/b");
        let rootfs = scene.rootfs(vec![filesystem("/a/x", "tmpfs", &[])]);
        let error = scene.build(&rootfs).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ELOOP), "{error}");
    });
}

#[test]
fn the_root_itself_is_no_destination() {
    alone(module_path!(), "the_root_itself_is_no_destination", |scene| {
        scene.link("/", "image/slash");
        for destination in ["/", "/tmp/..", "/slash"] {
            let rootfs = scene.rootfs(vec![filesystem(destination, "tmpfs", &[("mode", "755")])]);
            let error = scene.build(&rootfs).unwrap_err().to_string();
            assert!(error.contains("the root itself"), "{destination}: {error}");
        }
    });
}

#[test]
fn a_directory_on_a_file_is_said_to_be_that() {
    alone(module_path!(), "a_directory_on_a_file_is_said_to_be_that", |scene| {
        scene.write("image/file", "");
        scene.write("source", "");
        let both = [
            filesystem("/file", "tmpfs", &[("mode", "755")]),
            bind(&scene.path("source"), "/etc"),
            bind(&scene.path("source"), "/etc/."),
        ];
        for mount in both {
            let error = scene.build(&scene.rootfs(vec![mount])).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ENOTDIR), "{error}");
        }
    });
}

#[test]
fn a_mount_on_a_mount_goes_on_top() {
    alone(module_path!(), "a_mount_on_a_mount_goes_on_top", |scene| {
        scene.make_directory("volume/sub");
        let rootfs = scene.rootfs(vec![
            filesystem("/data", "tmpfs", &[]),
            bind(&scene.path("volume"), "/data"),
            filesystem("/data/sub", "tmpfs", &[]),
            filesystem("/data/made", "tmpfs", &[]),
        ]);
        scene.enter(&rootfs);
        assert_eq!(names("/data"), ["made", "sub"]);
        assert!(scene.mount_at("/data/sub").contains(" - tmpfs "));
    });
}

/// CVE-2021-30465: somebody exchanges a directory of a volume for a link to the outside.
#[test]
fn a_swapped_mount_target_never_escapes() {
    alone(module_path!(), "a_swapped_mount_target_never_escapes", |scene| {
        scene.make_directory("volume/target");
        scene.make_directory("outside");
        let (volume, outside) = (scene.path("volume"), scene.path("outside"));
        scene.link(&format!("{}{}", "../".repeat(16), outside.display()), "volume/link");
        let before = scene.host_mounts();
        let _racer = Racer::start(&volume);
        let rootfs = scene.rootfs(vec![
            bind(&volume, "/volume"),
            filesystem("/volume/target", "tmpfs", &[("mode", "755")]),
            filesystem("/volume/target/deeper/made", "tmpfs", &[("mode", "755")]),
        ]);
        for _ in 0..200 {
            join(forked(|| {
                // Losing the race is an error, not an escape.
                drop(scene.build(&rootfs));
                let table = scene.mounts();
                let mut points = table.lines().filter_map(|line| line.split(' ').nth(4));
                assert!(!points.any(|point| Path::new(point).starts_with(&outside)), "{table}");
            }));
            assert_eq!(names(outside.to_str().unwrap()).len(), 0);
        }
        assert_eq!(scene.host_mounts(), before);
    });
}

/// Exchanges `target` and `link` in a directory, until it is dropped.
struct Racer(Pid);

impl Racer {
    fn start(directory: &Path) -> Racer {
        let (one, other) = (directory.join("target"), directory.join("link"));
        Racer(forked(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            let cwd = rustix::fs::CWD;
            loop {
                rustix::fs::renameat_with(cwd, &one, cwd, &other, exchange).unwrap();
            }
        }))
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        nix::sys::signal::kill(self.0, Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(self.0, None).unwrap();
    }
}
