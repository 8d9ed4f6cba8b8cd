//! Propagation, and roots that are not entered the usual way.

use super::*;
use crate::apply::base::Base;
use crate::plan::MountIdMap;
use crate::sys::process::SingleThreaded;

/// Mounts a tmpfs from the host's side, as `mount` in another terminal would.
fn mount_on_host(scene: &Scene, below: &str) {
    let status = std::process::Command::new("nsenter")
        .arg(format!("--mount=/proc/{}/ns/mnt", scene.witness))
        .args(["mount", "-t", "tmpfs", "late"])
        .arg(scene.path(below))
        .status();
    assert!(status.unwrap().success());
}

fn volume(scene: &Scene, propagation: Option<(Propagation, bool)>, destination: &str) -> Mount {
    Mount { propagation, ..rbind(&scene.path("volume"), destination) }
}

/// The optional fields of a mountinfo line.
fn peers(line: &str) -> Vec<&str> {
    let (fields, _) = line.split_once(" - ").unwrap();
    let fields = fields.split(' ').skip(6);
    fields.map(|field| field.split(':').next().unwrap()).collect()
}

#[test]
fn a_bind_mount_propagates_as_the_spec_says() {
    alone(module_path!(), "a_bind_mount_propagates_as_the_spec_says", |scene| {
        scene.make_directory("volume/below");
        mount_on_host(scene, "volume");
        let asked = |propagation, recursive| Some((propagation, recursive));
        let slave = scene.rootfs(vec![
            volume(scene, None, "/none"),
            volume(scene, asked(Propagation::Private, true), "/rprivate"),
            volume(scene, asked(Propagation::Slave, true), "/rslave"),
            volume(scene, asked(Propagation::Shared, true), "/rshared"),
            volume(scene, asked(Propagation::Unbindable, false), "/unbindable"),
        ]);
        let private = Rootfs { propagation: Propagation::Private, ..slave.clone() };
        let shared = Rootfs { propagation: Propagation::Shared, ..slave.clone() };
        let table: [(&Rootfs, [&[&str]; 5]); 3] = [
            (&slave, [&["master"], &[], &["master"], &["shared", "master"], &["unbindable"]]),
            (&private, [&[], &[], &[], &["shared"], &["unbindable"]]),
            (&shared, [&["shared"], &[], &["master"], &["shared"], &["unbindable"]]),
        ];
        for (rootfs, expected) in table {
            join(forked(|| {
                scene.enter(rootfs);
                for (mount, expected) in rootfs.mounts.iter().zip(expected) {
                    let line = scene.mount_at(mount.destination.to_str().unwrap());
                    assert_eq!(peers(&line), expected, "{:?} {line}", rootfs.propagation);
                }
            }));
        }
    });
}

#[test]
fn only_a_shared_volume_of_a_shared_root_reaches_the_host() {
    alone(module_path!(), "only_a_shared_volume_of_a_shared_root_reaches_the_host", |scene| {
        scene.make_directory("volume/below");
        let share = volume(scene, Some((Propagation::Shared, true)), "/share");
        let cut_off = volume(scene, Some((Propagation::Slave, true)), "/slave");
        let mount_inside = |propagation| {
            join(forked(|| {
                let mounts = vec![share.clone(), cut_off.clone()];
                scene.enter(&Rootfs { propagation, ..scene.rootfs(mounts) });
                for at in ["/slave/below", "/share/below"] {
                    let flags = rustix::mount::MountFlags::empty();
                    let data = None::<&std::ffi::CStr>;
                    rustix::mount::mount("inside", at, "tmpfs", flags, data).unwrap();
                }
            }));
        };
        let before = scene.host_mounts();
        mount_inside(Propagation::Slave);
        assert_eq!(scene.host_mounts(), before);
        mount_inside(Propagation::Shared);
        let after = scene.host_mounts();
        assert_eq!(after.lines().count(), before.lines().count() + 1);
        assert!(after.contains(" - tmpfs inside "));
    });
}

#[test]
fn the_roots_propagation_is_that_of_the_spec() {
    alone(module_path!(), "the_roots_propagation_is_that_of_the_spec", |scene| {
        for (propagation, expected) in [
            (Propagation::Private, &[][..]),
            (Propagation::Slave, &["master"]),
            (Propagation::Shared, &["shared"]),
            (Propagation::Unbindable, &["unbindable"]),
        ] {
            join(forked(|| {
                let before = scene.host_mounts();
                scene.enter(&Rootfs { propagation, ..scene.rootfs(default_mounts()) });
                assert_eq!(peers(&scene.mount_at("/")), expected);
                assert_eq!(scene.host_mounts(), before);
            }));
        }
    });
}

#[test]
fn a_mount_of_the_host_appears_in_a_slave() {
    alone(module_path!(), "a_mount_of_the_host_appears_in_a_slave", |scene| {
        scene.make_directory("volume/below");
        let private = volume(scene, Some((Propagation::Private, true)), "/private");
        scene.enter(&scene.rootfs(vec![volume(scene, None, "/slave"), private]));
        // No program of the host's is in reach here.
        let volume = scene.path("volume/below");
        join(forked(|| {
            let host = format!("{}/ns/mnt", scene.witness);
            let host = rustix::fs::openat(
                std::os::fd::AsFd::as_fd(&scene.procfs),
                host.as_str(),
                rustix::fs::OFlags::RDONLY,
                rustix::fs::Mode::empty(),
            );
            nix::sched::setns(host.unwrap(), CloneFlags::CLONE_NEWNS).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            let data = None::<&std::ffi::CStr>;
            rustix::mount::mount("late", &volume, "tmpfs", flags, data).unwrap();
        }));
        assert!(scene.mount_at("/slave/below").contains(" - tmpfs late "));
        assert!(!scene.mounts().contains("/private/below"));
    });
}

#[test]
fn without_pivot_root_the_hosts_proc_and_sysfs_are_out_of_reach() {
    let name = "without_pivot_root_the_hosts_proc_and_sysfs_are_out_of_reach";
    alone(module_path!(), name, |scene| {
        let before = scene.host_mounts();
        scene.write("image/etc/mark", "image");
        scene.enter(&Rootfs { pivot: false, ..scene.rootfs(default_mounts()) });
        assert_eq!(std::fs::read_to_string("/etc/mark").unwrap(), "image");
        assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
        let mounts = scene.mounts();
        let views = mounts.lines().filter(|line| line.contains(" - proc "));
        assert_eq!(views.count(), 1, "{mounts}");
        assert_eq!(scene.host_mounts(), before);
    });
}

#[test]
fn a_site_that_is_not_there_is_not_needed() {
    alone(module_path!(), "a_site_that_is_not_there_is_not_needed", |scene| {
        for pivot in [true, false] {
            join(forked(|| {
                std::fs::remove_dir(scene.path("site")).ok();
                scene.write("image/etc/mark", "image");
                scene.enter(&Rootfs { pivot, ..scene.rootfs(default_mounts()) });
                assert_eq!(std::fs::read_to_string("/etc/mark").unwrap(), "image");
            }));
        }
    });
}

#[test]
fn a_container_that_starts_from_nothing_is_the_same() {
    alone(module_path!(), "a_container_that_starts_from_nothing_is_the_same", |scene| {
        scene.make_directory("volume");
        scene.write("volume/mark", "");
        let mut mounts = default_mounts();
        mounts.push(rbind(&scene.path("volume"), "/volume"));
        mounts.push(bind(&scene.path("volume/mark"), "/etc/mark"));
        let rootfs = Rootfs {
            devices: default_devices(),
            readonly: true,
            masked_paths: vec!["/proc/keys".into(), "/proc/fs".into()],
            readonly_paths: vec!["/proc/sys".into()],
            ..scene.rootfs(mounts)
        };
        let before = scene.host_mounts();
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let single = SingleThreaded::verify().unwrap();
        let base =
            Base::of(rustix::process::Pid::from_raw(scene.witness.as_raw()).unwrap()).unwrap();
        let empty = EmptyMountNamespace::make().unwrap();
        assert_eq!(std::fs::read_link("/proc/self/ns/mnt").unwrap(), own);
        assert_eq!(scene.host_mounts(), before);

        let seen = |old_tree| {
            let prepared = scene.prepare(&rootfs).unwrap();
            let (read, write) = rustix::pipe::pipe().unwrap();
            let visits = matches!(old_tree, OldTree::Empty);
            if visits {
                empty.enter().unwrap();
            }
            let init = forked(|| {
                scene.become_init();
                let around = Surroundings {
                    namespaces: &scene.namespaces,
                    cgroups: &scene.cgroups,
                    cgroup_path: Path::new("/"),
                    old_tree,
                };
                let root = build(&rootfs, prepared, &around).unwrap();
                root.enter(&rootfs).unwrap();
                root.seal(&rootfs).unwrap();
                root.hide(&rootfs).unwrap();
                assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
                assert_eq!(names("/volume"), ["mark"]);
                rustix::io::write(&write, without_ids(&scene.mounts()).as_bytes()).unwrap();
            });
            if visits {
                base.back(&single, crate::apply::namespaces::MOUNT.flag).unwrap();
            }
            join(init);
            let mut seen = vec![0; 1 << 16];
            let length = rustix::io::read(&read, &mut seen).unwrap();
            String::from_utf8(seen[..length].to_vec()).unwrap()
        };
        let site = scene.path("site");
        assert_eq!(seen(OldTree::Empty), seen(OldTree::Host { site: &site }));
        assert_eq!(std::fs::read_link("/proc/self/ns/mnt").unwrap(), own);
        assert_eq!(scene.host_mounts(), before);
    });
}

/// A mount table without the numbers of mounts, devices and peer groups.
fn without_ids(mounts: &str) -> String {
    let lines = mounts.lines().map(|line| {
        let fields = line.split(' ').skip(3);
        fields.map(|field| field.trim_end_matches(|c: char| c.is_ascii_digit())).collect::<Vec<_>>()
    });
    lines.map(|fields| fields.join(" ") + "\n").collect()
}

#[test]
fn a_root_on_the_host_is_for_hooks_and_goes() {
    alone(module_path!(), "a_root_on_the_host_is_for_hooks_and_goes", |scene| {
        scene.make_directory("image/late");
        let before = scene.host_mounts();
        let rootfs = scene.rootfs(default_mounts());
        let mut prepared = scene.prepare(&rootfs).unwrap();
        prepared.attach_on_host(&scene.path("site")).unwrap();
        assert_eq!(scene.host_mounts().lines().count(), before.lines().count() + 1);
        assert!(scene.path("site/late").exists());
        join(forked(|| {
            scene.become_init();
            let root = scene.build_prepared(&rootfs, prepared).unwrap();
            mount_on_host(scene, "site/late");
            root.enter(&rootfs).unwrap();
            assert!(scene.mount_at("/late").contains(" - tmpfs late "));
        }));
        let now = scene.host_mounts();
        assert_eq!(now.lines().count(), before.lines().count() + 2, "{now}");
        detach_from_host(&scene.path("site")).unwrap();
        detach_from_host(&scene.path("site")).unwrap();
        assert_eq!(scene.host_mounts(), before);
    });
}

/// Becomes init in a new user namespace that maps 0 to 100000, and runs `body` there.
pub(super) fn in_user_namespace(flags: CloneFlags, body: impl FnOnce()) {
    let (asks, told) = (rustix::pipe::pipe().unwrap(), rustix::pipe::pipe().unwrap());
    let child = forked(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        rustix::io::write(&asks.1, b"?").unwrap();
        assert_eq!(rustix::io::read(&told.0, &mut [0; 1]).unwrap(), 1);
        nix::unistd::setgid(nix::unistd::Gid::from_raw(0)).unwrap();
        nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).unwrap();
        nix::sched::unshare(flags).unwrap();
        join(forked(body));
    });
    assert_eq!(rustix::io::read(&asks.0, &mut [0; 1]).unwrap(), 1);
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{child}/{map}"), "0 100000 65536").unwrap();
    }
    rustix::io::write(&told.1, b"!").unwrap();
    join(child);
}

pub(super) fn give_away(path: &Path) {
    let status =
        std::process::Command::new("chown").args(["-R", "100000:100000"]).arg(path).status();
    assert!(status.unwrap().success());
}

pub(super) const ALL: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWNET);

fn user_namespaced(scene: &Scene) -> Rootfs {
    give_away(&scene.path("image"));
    Rootfs {
        devices: default_devices(),
        in_new_user_namespace: true,
        readonly: true,
        masked_paths: vec!["/proc/keys".into(), "/proc/fs".into(), "/sys/firmware".into()],
        readonly_paths: vec!["/proc/sys".into()],
        ..scene.rootfs(default_mounts())
    }
}

#[test]
fn a_user_namespaced_container_gets_all_its_mounts() {
    alone(module_path!(), "a_user_namespaced_container_gets_all_its_mounts", |scene| {
        use std::os::unix::fs::PermissionsExt;
        // Sources and the bundle itself are out of reach for the container's root.
        scene.make_directory("private/volume");
        scene.write("private/volume/mark", "");
        give_away(&scene.path("private/volume"));
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(scene.path("private"), closed.clone()).unwrap();
        let mut rootfs = user_namespaced(scene);
        rootfs.mounts.push(rbind(&scene.path("private/volume"), "/volume"));
        let before = scene.host_mounts();
        for (site, mode) in [(true, 0o755), (false, 0o700)] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&scene.directory, mode).unwrap();
            let prepared = scene.prepare(&rootfs).unwrap();
            in_user_namespace(ALL, || {
                let root = scene.build_prepared(&rootfs, prepared).unwrap();
                assert_eq!(matches!(root.attached, Attached::At(_)), site);
                root.enter(&rootfs).unwrap();
                root.seal(&rootfs).unwrap();
                root.hide(&rootfs).unwrap();
                let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
                for fstype in ["proc", "sysfs", "tmpfs", "devpts", "mqueue"] {
                    assert!(mounts.contains(&format!(" - {fstype} {fstype} ")), "{mounts}");
                }
                assert_eq!(std::fs::read_link("/proc/self").unwrap(), Path::new("1"));
                assert_eq!(names("/volume"), ["mark"]);
                std::fs::write("/volume/mark", "").unwrap();
                std::fs::write("/dev/null", "x").unwrap();
                assert!(std::fs::write("/made", "").is_err());
            });
        }
        assert_eq!(scene.host_mounts(), before);
    });
}

#[test]
fn the_hosts_views_are_bound_where_its_namespaces_are_shared() {
    let name = "the_hosts_views_are_bound_where_its_namespaces_are_shared";
    alone(module_path!(), name, |scene| {
        let mut rootfs = user_namespaced(scene);
        rootfs.mounts.retain(|mount| !mount.destination.ends_with("mqueue"));
        rootfs.readonly_paths.clear();
        let prepared = scene.prepare(&rootfs).unwrap();
        let mut namespaces = namespaces();
        namespaces.user = Namespace::New;
        namespaces.net = Namespace::Host;
        let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
        in_user_namespace(flags, || {
            let around = Surroundings {
                namespaces: &namespaces,
                cgroups: &scene.cgroups,
                cgroup_path: Path::new("/"),
                old_tree: OldTree::Host { site: &scene.path("site") },
            };
            let root = build(&rootfs, prepared, &around).unwrap();
            root.enter(&rootfs).unwrap();
            root.hide(&rootfs).unwrap();
            assert!(Path::new("/sys/class/net/lo").exists());
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let sys = mounts.lines().find(|line| line.contains(" / /sys "));
            assert!(sys.unwrap().contains(" ro,nosuid,nodev,noexec,"), "{mounts}");
        });
    });
}

#[test]
fn a_view_of_a_namespace_of_its_own_is_never_the_hosts() {
    alone(module_path!(), "a_view_of_a_namespace_of_its_own_is_never_the_hosts", |scene| {
        let mut rootfs = user_namespaced(scene);
        rootfs.mounts.retain(|mount| mount.destination.ends_with("sys"));
        let prepared = scene.prepare(&rootfs).unwrap();
        scene.write("mark", "");
        // The network namespace is said to be the container's, but it is the host's.
        in_user_namespace(CloneFlags::CLONE_NEWNS, || {
            let error = scene.build_prepared(&rootfs, prepared).unwrap_err();
            assert_eq!(error.errno(), Some(nix::errno::Errno::EPERM), "{error}");
        });
    });
}

/// Flags of a mount are locked when it comes into a mount namespace of another user namespace.
#[test]
fn a_locked_flag_is_kept_by_a_read_only_root() {
    alone(module_path!(), "a_locked_flag_is_kept_by_a_read_only_root", |scene| {
        scene.make_directory("inner");
        let image = scene.path("image");
        let flags = rustix::mount::MountFlags::BIND;
        rustix::mount::mount(&image, &image, "", flags, None::<&std::ffi::CStr>).unwrap();
        let locked = flags | rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NOEXEC;
        rustix::mount::mount_remount(&image, locked, "").unwrap();
        give_away(&image);
        let rootfs = Rootfs {
            readonly: true,
            readonly_paths: vec!["/etc".into()],
            source: RootfsSource::Mounts(vec![Mount { attr_clear: 0x2, ..bind(&image, "/") }]),
            ..scene.rootfs(vec![
                Mount {
                    attr_set: 0x1,
                    attr_clear_unlocked: 0xe,
                    ..bind(&scene.path("image/tmp"), "/tmp")
                },
                filesystem("/proc", "proc", &[]),
            ])
        };
        in_user_namespace(ALL, || {
            // Here the copies of main, too, are of locked mounts.
            let named = scene.prepare(&rootfs).unwrap_err();
            assert_eq!(named.errno(), Some(nix::errno::Errno::EPERM), "{named}");
            let source = RootfsSource::Mounts(vec![bind(&image, "/")]);
            let rootfs = Rootfs { source, ..rootfs };
            let prepared = scene.prepare(&rootfs).unwrap();
            let root = scene.build_prepared(&rootfs, prepared).unwrap();
            root.enter(&rootfs).unwrap();
            root.seal(&rootfs).unwrap();
            root.hide(&rootfs).unwrap();
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            for at in ["/", "/tmp", "/etc"] {
                let line = mounts.lines().find(|line| line.contains(&format!(" {at} ro,")));
                assert!(line.unwrap().contains(" ro,nosuid,noexec,relatime "), "{mounts}");
            }
        });
    });
}

/// A user namespace that maps 0 to 70000.
fn user_namespace() -> std::os::fd::OwnedFd {
    let (asks, told) = (rustix::pipe::pipe().unwrap(), rustix::pipe::pipe().unwrap());
    let child = forked(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        rustix::io::write(&asks.1, b"?").unwrap();
        rustix::io::read(&told.0, &mut [0; 1]).unwrap();
    });
    rustix::io::read(&asks.0, &mut [0; 1]).unwrap();
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{child}/{map}"), "0 70000 100").unwrap();
    }
    let namespace = std::fs::File::open(format!("/proc/{child}/ns/user")).unwrap();
    rustix::io::write(&told.1, b"!").unwrap();
    join(child);
    namespace.into()
}

#[test]
fn an_idmapped_mount_shows_the_owners_of_its_map() {
    alone(module_path!(), "an_idmapped_mount_shows_the_owners_of_its_map", |scene| {
        use std::os::unix::fs::MetadataExt;
        scene.make_directory("volume/below");
        std::os::unix::fs::chown(scene.path("volume/below"), Some(5), Some(6)).unwrap();
        // Root of the host is not mapped the other way round: it cannot make the destination.
        scene.make_directory("image/volume");
        for directory in ["upper", "work"] {
            scene.make_directory(directory);
            std::os::unix::fs::chown(scene.path(directory), Some(70000), Some(70000)).unwrap();
        }
        let path = |below: &str| scene.path(below).display().to_string();
        let overlay =
            [("lowerdir", path("image")), ("upperdir", path("upper")), ("workdir", path("work"))];
        let overlay = overlay.each_ref().map(|(key, value)| (*key, value.as_str()));
        let map = |mount: Mount, recursive| Mount {
            idmap: Some((MountIdMap::Container, recursive)),
            ..mount
        };
        for layer in [bind(&scene.path("image"), "/"), filesystem("/", "overlay", &overlay)] {
            join(forked(|| {
                let source = RootfsSource::Mounts(vec![map(layer, false)]);
                let dev = filesystem("/dev", "tmpfs", &[("mode", "755")]);
                let volume = map(rbind(&scene.path("volume"), "/volume"), true);
                let rootfs = Rootfs { source, ..scene.rootfs(vec![dev, volume]) };
                let prepared = prepare(&rootfs, &scene.path("site"), &mut |_| Ok(user_namespace()));
                let prepared = prepared.unwrap();
                scene.become_init();
                let root = scene.build_prepared(&rootfs, prepared).unwrap();
                root.enter(&rootfs).unwrap();
                let below = std::fs::metadata("/volume/below").unwrap();
                assert_eq!((below.uid(), below.gid()), (70005, 70006));
                assert_eq!(std::fs::metadata("/etc").unwrap().uid(), 70000);
            }));
        }
    });
}
