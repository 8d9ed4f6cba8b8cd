//! The mount of type `cgroup`, over real cgroups.

use super::*;
use crate::cgroup::{CgroupDirectory, Version};

/// A cgroup of this test's own in some hierarchies of the machine, which goes with the value.
struct Cgroups {
    name: String,
    directories: Vec<CgroupDirectory>,
}

impl Cgroups {
    /// `hierarchies`: mount point, version, controllers.
    fn make(hierarchies: &[(PathBuf, Version, &[&str])]) -> Cgroups {
        let name = format!("myshim-rootfs-{}", std::process::id());
        let directories = hierarchies.iter().map(|(mount_point, version, controllers)| {
            let path = mount_point.join(&name);
            std::fs::create_dir(&path).unwrap();
            let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
            CgroupDirectory { version: *version, controllers, path }
        });
        Cgroups { directories: directories.collect(), name }
    }

    /// Joins the cgroups, and enters a root with a mount of them.
    fn enter(&self, scene: &Scene, namespace: &Namespace) {
        for directory in &self.directories {
            std::fs::write(directory.path.join("cgroup.procs"), "0").unwrap();
        }
        let rootfs = scene.rootfs(mounts());
        let prepared = self.prepare(scene, &rootfs);
        scene.become_init();
        if *namespace == Namespace::New {
            nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).unwrap();
        }
        self.build_prepared(scene, &rootfs, prepared, namespace.clone());
    }

    fn prepare(&self, scene: &Scene, rootfs: &Rootfs) -> PreparedRootfs {
        let mut prepared = scene.prepare(rootfs).unwrap();
        let cgroups = CgroupPaths { directories: self.directories.clone(), unit: None };
        prepared.copy_cgroups(rootfs, &cgroups).unwrap();
        prepared
    }

    fn build_prepared(
        &self,
        scene: &Scene,
        rootfs: &Rootfs,
        prepared: PreparedRootfs,
        namespace: Namespace,
    ) {
        let namespaces = Namespaces { cgroup: namespace, ..namespaces() };
        let around = Surroundings {
            namespaces: &namespaces,
            cgroups: &CgroupPaths { directories: self.directories.clone(), unit: None },
            cgroup_path: &Path::new("/").join(&self.name),
            old_tree: OldTree::Host { site: &scene.path("site") },
        };
        let root = build(rootfs, prepared, &around).unwrap();
        root.enter(rootfs).unwrap();
        root.seal(rootfs).unwrap();
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for directory in &self.directories {
            std::fs::remove_dir(&directory.path).unwrap();
        }
    }
}

fn on_machine(name: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(name)
}

fn has(name: &str) -> bool {
    on_machine(name).join("cgroup.procs").exists()
}

fn mounts() -> Vec<Mount> {
    let mut mounts = default_mounts();
    mounts.push(Mount { attr_set: 0xf, ..mount("/sys/fs/cgroup", MountKind::Cgroup) });
    mounts
}

/// The fields of a mountinfo line: root, mount point, attributes.
fn facts(line: &str) -> (&str, &str, &str) {
    let fields: Vec<_> = line.split(' ').collect();
    (fields[3], fields[4], fields[5])
}

#[test]
fn each_v1_hierarchy_shows_the_containers_own_directory() {
    alone(module_path!(), "each_v1_hierarchy_shows_the_containers_own_directory", |scene| {
        if !(has("pids") && has("cpu") && has("systemd")) {
            eprintln!("skipped: no cgroup v1 here");
            return;
        }
        // As distributions mount it.
        let combined = scene.path("cpu,cpuacct");
        scene.make_directory("cpu,cpuacct");
        let flags = rustix::mount::MountFlags::BIND;
        let data = None::<&std::ffi::CStr>;
        rustix::mount::mount(on_machine("cpu"), &combined, "", flags, data).unwrap();
        let cgroups = Cgroups::make(&[
            (on_machine("pids"), Version::V1, &["pids"]),
            (combined, Version::V1, &["cpu", "cpuacct"]),
            (on_machine("systemd"), Version::V1, &[]),
        ]);
        for namespace in [Namespace::Host, Namespace::New] {
            join(forked(|| {
                cgroups.enter(scene, &namespace);
                let at = "/sys/fs/cgroup";
                assert_eq!(names(at), ["cpu", "cpu,cpuacct", "cpuacct", "pids", "systemd"]);
                let cpu = std::fs::read_link("/sys/fs/cgroup/cpu").unwrap();
                assert_eq!(cpu, Path::new("cpu,cpuacct"));
                assert!(Path::new("/sys/fs/cgroup/cpuacct/cpu.shares").exists());
                assert!(scene.mount_at(at).contains(" ro,nosuid,nodev,noexec,"));
                let line = scene.mount_at("/sys/fs/cgroup/pids");
                let root = match namespace {
                    Namespace::New => "/".to_owned(),
                    _ => format!("/{}", cgroups.name),
                };
                let expected = "ro,nosuid,nodev,noexec,relatime";
                assert_eq!(facts(&line), (root.as_str(), "/sys/fs/cgroup/pids", expected));
                let own = std::process::id().to_string();
                let procs = std::fs::read_to_string("/sys/fs/cgroup/systemd/cgroup.procs").unwrap();
                assert!(procs.lines().any(|pid| pid == own), "{procs}");
            }));
        }
    });
}

#[test]
fn cgroup_v2_shows_the_cgroup_namespaces_root() {
    alone(module_path!(), "cgroup_v2_shows_the_cgroup_namespaces_root", |scene| {
        let mount_point = if has("unified") { on_machine("unified") } else { on_machine("") };
        if !mount_point.join("cgroup.controllers").exists() {
            eprintln!("skipped: no cgroup v2 here");
            return;
        }
        let cgroups = Cgroups::make(&[(mount_point, Version::V2, &[])]);
        for namespace in [Namespace::Host, Namespace::New] {
            join(forked(|| {
                cgroups.enter(scene, &namespace);
                let line = scene.mount_at("/sys/fs/cgroup");
                assert!(line.contains(" - cgroup2 cgroup "), "{line}");
                assert!(facts(&line).2.starts_with("ro,nosuid,nodev,noexec"), "{line}");
                let own = Path::new("/sys/fs/cgroup").join(match namespace {
                    Namespace::New => "",
                    _ => cgroups.name.as_str(),
                });
                let procs = std::fs::read_to_string(own.join("cgroup.procs")).unwrap();
                let pid = std::process::id().to_string();
                assert!(procs.lines().any(|line| line == pid), "{procs}");
            }));
        }
    });
}

#[test]
fn a_user_namespace_without_a_cgroup_namespace_gets_a_copy() {
    let name = "a_user_namespace_without_a_cgroup_namespace_gets_a_copy";
    alone(module_path!(), name, |scene| {
        let mount_point = if has("unified") { on_machine("unified") } else { on_machine("") };
        if !mount_point.join("cgroup.controllers").exists() {
            eprintln!("skipped: no cgroup v2 here");
            return;
        }
        let cgroups = Cgroups::make(&[(mount_point, Version::V2, &[])]);
        super::namespaces::give_away(&scene.path("image"));
        let rootfs = scene.rootfs(mounts());
        let prepared = cgroups.prepare(scene, &rootfs);
        super::namespaces::in_user_namespace(super::namespaces::ALL, || {
            cgroups.build_prepared(scene, &rootfs, prepared, Namespace::Host);
            assert!(Path::new("/sys/fs/cgroup").join(&cgroups.name).exists());
        });
    });
}
