//! User namespaces: new and joined, with idmapped mounts, as Kubernetes and `ctr` use them.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::path::{Path, PathBuf};

use myshim_integration::claim::{Claim, Needs};
use myshim_integration::process::status;
use myshim_integration::shim::{Bundle, Dialect, EventSink, Invocation, Stdio3, mount};
use myshim_integration::spec::Spec;
use myshim_integration::{Container, Test, claims};
use serde_json::{Value, json};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    ctrs_flags_map_ids,
    a_snapshot_is_idmapped_by_labels.once().needs(Needs::IdmappedLayers),
    several_ranges_map_ids,
    an_exec_is_in_the_user_namespace,
    kernel_file_systems_are_mounted_inside,
    devices_and_rlimits_are_as_outside,
    a_pods_namespaces_are_joined,
    a_user_namespace_alone_is_joined,
    a_terminal_works,
    an_idmapped_bind_shows_the_containers_owners.once().needs(Needs::IdmappedTmpfs),
    an_idmapped_bind_is_recursive_only_if_asked.once().needs(Needs::IdmappedTmpfs),
    an_idmapped_overlay_root_shows_the_containers_owners.once().needs(Needs::IdmappedLayers),
    a_map_that_cannot_be_is_refused,
];

pub(crate) const BASE: u32 = 300_000;

fn map(container: u32, host: u32, size: u32) -> Value {
    json!({"containerID": container, "hostID": host, "size": size})
}

/// Maps 0 to 65535 to [`BASE`] and on, with a root that the ids own.
pub(crate) fn mapped(t: &Test, spec: Spec) -> Spec {
    own(&t.rootfs(), BASE);
    spec.push("/linux/namespaces", json!({"type": "user"}))
        .with("/linux/uidMappings", json!([map(0, BASE, 65_536)]))
        .with("/linux/gidMappings", json!([map(0, BASE, 65_536)]))
}

/// Gives a folder and all in it to `id`.
fn own(path: &Path, id: u32) {
    lchown(path, Some(id), Some(id)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path(), id);
        }
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let file = path.symlink_metadata().unwrap();
    (file.uid(), file.gid())
}

fn sleeper<'a>(t: &'a Test, name: &str, edit: impl FnOnce(Spec) -> Spec) -> Container<'a> {
    t.detached_spec(name, |spec| edit(mapped(t, spec)).args(&["sleep", "3600"]))
}

fn ctrs_flags_map_ids(t: &Test) {
    let flags = ["--uidmap", "0:200000:65536", "--gidmap", "0:210000:65536"];
    let script = "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; touch /file; \
                  stat -c %u:%g /file /bin/busybox";
    let out = t.shell(&flags, script);
    let words: Vec<&str> = out.split_whitespace().collect();
    let wanted = ["0", "0", "0", "200000", "65536", "0", "210000", "65536", "0:0", "0:0"];
    assert_eq!(words, wanted);
    let c = t.sleeper("web", &flags);
    assert_eq!(status(c.pid(), "Uid").unwrap(), "200000\t200000\t200000\t200000");
    assert_eq!(status(c.pid(), "Gid").unwrap(), "210000\t210000\t210000\t210000");
    c.remove();
}

/// containerd 2's overlayfs snapshotter gives `uidmap=` and `gidmap=`, the older one copies.
fn a_snapshot_is_idmapped_by_labels(t: &Test) {
    let flags = ["--remap-labels", "--uidmap", "0:200000:65536", "--gidmap", "0:210000:65536"];
    let script = "stat -c %u:%g /bin/busybox /etc; touch /file && stat -c %u:%g /file; id -u";
    assert_eq!(t.shell(&flags, script), "0:0\n0:0\n0:0\n0\n");
}

fn several_ranges_map_ids(t: &Test) {
    own(&t.rootfs(), BASE);
    fs::set_permissions(t.rootfs(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let ranges = [map(0, BASE, 1000), map(1000, 401_000, 1), map(1001, 501_001, 60_000)];
    let run = |uid: u32, script: &str| {
        t.run_spec(|spec| {
            mapped(t, spec)
                .with("/linux/uidMappings", json!(ranges))
                .with("/linux/gidMappings", json!(ranges))
                .with("/process/user", json!({"uid": uid, "gid": uid, "additionalGids": [7, 2000]}))
                .shell(script)
        })
        .ok()
    };
    let out =
        run(1000, "id -u; id -G; touch /a; wc -l </proc/self/uid_map; cat /proc/self/setgroups");
    assert_eq!(out, "1000\n1000 7 2000\n3\nallow\n");
    assert_eq!(owner(&t.rootfs().join("a")), (401_000, 401_000));
    run(1500, "touch /b");
    assert_eq!(owner(&t.rootfs().join("b")), (501_500, 501_500));
    run(0, "touch /c; chown 1500:1000 /c");
    assert_eq!(owner(&t.rootfs().join("c")), (501_500, 401_000));
}

fn an_exec_is_in_the_user_namespace(t: &Test) {
    let c = sleeper(t, "web", |spec| spec);
    let out = c.exec(&["sh", "-c", "id -u; readlink /proc/self/ns/user; touch /e; chown 5:6 /e"]);
    let user = facts::namespace(&c.pid().to_string(), "user");
    assert_eq!(out.ok(), format!("0\n{user}\n"));
    assert_ne!(user, facts::namespace("self", "user"));
    assert_eq!(owner(&t.rootfs().join("e")), (BASE + 5, BASE + 6));
    c.exec_as("user", &["--user", "1000:1000", "--detach"], &["sleep", "1000"]).ok();
    let tenant = facts::process(t, "sleep 1000");
    let id = BASE + 1000;
    assert_eq!(status(tenant, "Uid").unwrap(), format!("{id}\t{id}\t{id}\t{id}"));
    for field in ["CapBnd", "NoNewPrivs", "Seccomp"] {
        assert_eq!(status(tenant, field), status(c.pid(), field), "{field}");
    }
    c.exec(&["no-such-program"]).fails(&["no-such-program", "executable file not found in $PATH"]);
    c.remove();
}

fn kernel_file_systems_are_mounted_inside(t: &Test) {
    let out = t.run_spec(|spec| {
        mapped(t, spec)
            .mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"])
            .with("/hostname", json!("box"))
            .with("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "777"}))
            .shell(
                "for d in /proc /sys /dev /dev/pts /dev/shm /dev/mqueue; do \
                 grep -q \" $d \" /proc/self/mountinfo || echo no $d; done; \
                 ls -d /sys/class/net/lo /sys/fs/cgroup/*/ | head -n2 | wc -l; hostname; \
                 cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni; \
                 echo 1 >/proc/sys/kernel/panic || echo refused",
            )
    });
    assert_eq!(out.ok(), "2\nbox\n1\n777\nrefused\n");
}

fn devices_and_rlimits_are_as_outside(t: &Test) {
    let out = t.run_spec(|spec| {
        mapped(t, spec)
            .with(
                "/process/rlimits",
                json!([
                    {"type": "RLIMIT_NOFILE", "soft": 1500, "hard": 2000},
                    {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                ]),
            )
            .with("/process/oomScoreAdj", json!(321))
            .shell(
                "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; \
                 for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done; \
                 echo x >/dev/null && head -c 4 /dev/zero | wc -c; \
                 mknod /made c 1 3 2>/dev/null || echo refused",
            )
    });
    assert_eq!(out.ok(), "1500\n2000\n321\n4\nrefused\n");
}

/// The shape of Kubernetes' `hostUsers: false`: one container makes the namespaces, the next
/// joins them and repeats their maps.
fn a_pods_namespaces_are_joined(t: &Test) {
    let pause = sleeper(t, "pause", |spec| spec.with("/hostname", json!("pod")));
    let pid = pause.pid().to_string();
    let kinds = [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    let join = |spec: Spec| {
        kinds.iter().fold(mapped(t, spec), |spec, (kind, name)| {
            spec.join(kind, &format!("/proc/{pid}/ns/{name}"))
        })
    };
    let c = t.detached_spec("web", |spec| {
        join(spec)
            .mount("cgroup", "cgroup", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"])
            .args(&["sleep", "3600"])
    });
    let own = c.pid().to_string();
    for (_, name) in kinds {
        assert_eq!(facts::namespace(&own, name), facts::namespace(&pid, name), "{name}");
    }
    for name in ["pid", "mnt"] {
        assert_ne!(facts::namespace(&own, name), facts::namespace(&pid, name), "{name}");
    }
    let script = "id -u; hostname; touch /f; chown 3:4 /f; ls /sys/class/net; cat /proc/1/comm";
    assert_eq!(c.exec(&["sh", "-c", script]).ok(), "0\npod\nlo\nsleep\n");
    assert_eq!(owner(&t.rootfs().join("f")), (BASE + 3, BASE + 4));
    c.remove();
    // The pod's pid namespace too, as with shareProcessNamespace.
    let out = t.run_spec(|spec| {
        join(spec).join("pid", &format!("/proc/{pid}/ns/pid")).shell("cat /proc/1/comm; id -u")
    });
    assert_eq!(out.ok(), "sleep\n0\n");
    pause.remove();
}

fn a_user_namespace_alone_is_joined(t: &Test) {
    let first = sleeper(t, "first", |spec| spec);
    let path = format!("/proc/{}/ns/user", first.pid());
    let out = t.run_spec(|spec| {
        spec.join("user", &path).shell("id -u; readlink /proc/self/ns/user; mount -t tmpfs x /tmp")
    });
    // Without CAP_SYS_ADMIN in the spec, the mount is refused.
    let user = facts::namespace(&first.pid().to_string(), "user");
    assert_eq!(out.out(), format!("0\n{user}\n"));
    assert!(!out.status.success(), "{out}");
    first.remove();
}

fn a_terminal_works(t: &Test) {
    let id = t.id("tty");
    let spec = mapped(t, t.spec(&id))
        .with("/process/terminal", json!(true))
        .shell("tty; stat -c %u:%a $(tty); test -t 0 && echo terminal");
    let terminal = t.ctr_on_terminal(t.spec_args(&id, &spec, &["--rm", "-t"]));
    let (status, text) = terminal.finish(myshim_integration::command::LIMIT);
    assert!(status.success(), "{text}");
    assert!(text.contains("/dev/pts/0") && text.contains("0:620"), "{text}");
    assert!(text.contains("terminal"), "{text}");
}

/// A folder in memory, whose file system can be idmapped; gone with the value.
struct Memory(PathBuf);

impl Memory {
    fn new(t: &Test) -> Self {
        let path = Path::new("/dev/shm").join(&t.tag);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, id: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "text\n").unwrap();
        chown(&path, Some(id), Some(id)).unwrap();
        path
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-q").arg(self.0.join("sub")).status().ok();
        fs::remove_dir_all(&self.0).ok();
    }
}

fn bind(folder: &Path, options: &[&str]) -> Value {
    let options: Vec<&str> = ["rbind", "rw"].iter().chain(options).copied().collect();
    json!({"type": "bind", "source": folder, "destination": "/data", "options": options})
}

fn an_idmapped_bind_shows_the_containers_owners(t: &Test) {
    let memory = Memory::new(t);
    memory.file("root", 0);
    memory.file("user", 1000);
    let folder = memory.0.clone();
    chown(&folder, Some(0), Some(0)).unwrap();
    let script = "stat -c %u:%g /data/root /data/user; touch /data/new; stat -c %u:%g /data/new";
    // By the container's own maps, and by maps of the mount.
    let mut own = bind(&folder, &["idmap"]);
    let out = t.run_spec(|spec| mapped(t, spec).push("/mounts", own.clone()).shell(script));
    assert_eq!(out.ok(), "0:0\n1000:1000\n0:0\n");
    assert_eq!(owner(&folder.join("new")), (0, 0));
    fs::remove_file(folder.join("new")).unwrap();
    own["options"] = json!(["rbind", "rw"]);
    for key in ["uidMappings", "gidMappings"] {
        own[key] = json!([map(0, BASE, 10_000)]);
    }
    let out = t.run_spec(|spec| mapped(t, spec).push("/mounts", own.clone()).shell(script));
    assert_eq!(out.ok(), "0:0\n1000:1000\n0:0\n");
    assert_eq!(owner(&folder.join("new")), (0, 0));
    // Without an idmap nobody is there.
    let out = t.run_spec(|spec| {
        mapped(t, spec).push("/mounts", bind(&folder, &[])).shell("stat -c %u:%g /data/user")
    });
    assert_eq!(out.ok(), "65534:65534\n");
    // The joined namespace's maps, in a pod.
    let pause = sleeper(t, "pause", |spec| spec);
    let path = format!("/proc/{}/ns/user", pause.pid());
    let out = t.run_spec(|spec| {
        let spec = mapped(t, spec).join("user", &path).push("/mounts", bind(&folder, &["idmap"]));
        spec.shell("stat -c %u:%g /data/user")
    });
    assert_eq!(out.ok(), "1000:1000\n");
    pause.remove();
}

fn an_idmapped_bind_is_recursive_only_if_asked(t: &Test) {
    let memory = Memory::new(t);
    memory.file("user", 1000);
    let sub = memory.0.join("sub");
    fs::create_dir(&sub).unwrap();
    let mut tmpfs = std::process::Command::new("mount");
    tmpfs.args(["-t", "tmpfs", "none"]).arg(&sub);
    assert!(tmpfs.status().unwrap().success());
    memory.file("sub/deep", 1000);
    for (option, deep) in [("idmap", "65534:65534"), ("ridmap", "1000:1000")] {
        let out = t.run_spec(|spec| {
            let spec = mapped(t, spec).push("/mounts", bind(&memory.0, &[option]));
            spec.shell("stat -c %u:%g /data/user /data/sub/deep")
        });
        assert_eq!(out.ok(), format!("1000:1000\n{deep}\n"), "{option}");
    }
}

/// What containerd's overlayfs snapshotter gives for a container with maps.
fn an_idmapped_overlay_root_shows_the_containers_owners(t: &Test) {
    let memory = Memory::new(t);
    let of = |name: &str| memory.0.join(name);
    let lower = of("lower");
    myshim_integration::image::Image::busybox().unpack(&lower);
    chown(lower.join("etc/plain"), Some(1000), Some(1000)).unwrap();
    for name in ["upper", "work"] {
        fs::create_dir(of(name)).unwrap();
        chown(of(name), Some(BASE), Some(BASE)).unwrap();
    }
    let sink = EventSink::listen(t);
    let file = t.dir.join("out");
    let bundle = Bundle::new(t, "web", |spec| {
        mapped(t, spec).with("/root/path", json!("rootfs")).shell(
            "stat -c %u:%g /bin/busybox /etc/plain; touch /new; echo x >>/etc/plain; echo ok",
        )
    });
    let mut invocation = Invocation::new(t, &bundle, &sink);
    let shim = invocation.start(Dialect::Bootstrap);
    let dir = |key: &str, name: &str| format!("{key}={}", of(name).display());
    let options = [
        format!("uidmap=0:{BASE}:65536"),
        format!("gidmap=0:{BASE}:65536"),
        dir("workdir", "work"),
        dir("upperdir", "upper"),
        dir("lowerdir", "lower"),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    shim.create_with(&bundle, &Stdio3::to_file(&file), |request| {
        request.rootfs.push(mount("overlay", "overlay", &options));
    })
    .unwrap();
    shim.start(&bundle.id, "").unwrap();
    let code = shim.wait(&bundle.id, "").unwrap().exit_status;
    let said = fs::read_to_string(&file).unwrap();
    crate::rpc::end(&shim, &bundle);
    invocation.run("delete", b"").ok();
    assert_eq!((code, said.as_str()), (0, "0:0\n1000:1000\nok\n"));
    assert_eq!(owner(&of("upper").join("new")), (BASE, BASE));
    assert_eq!(owner(&of("upper").join("etc/plain")), (BASE + 1000, BASE + 1000));
}

fn a_map_that_cannot_be_is_refused(t: &Test) {
    let run = |edit: &dyn Fn(Spec) -> Spec, words: &[&str]| {
        t.run_spec(|spec| edit(mapped(t, spec)).args(&["true"])).fails(words);
    };
    run(
        &|s| s.with("/linux/uidMappings", json!([map(1, BASE, 10)])),
        &["linux.uidMappings", "id 0"],
    );
    run(&|s| s.with("/linux/gidMappings", json!([])), &["linux.gidMappings"]);
    run(
        &|s| s.with("/linux/uidMappings", json!([map(0, BASE, 10), map(5, 9000, 10)])),
        &["linux.uidMappings[1]", "overlaps"],
    );
    run(&|s| s.with("/process/user", json!({"uid": 70_000, "gid": 0})), &["uid"]);
    run(&|s| s.host_namespace("user"), &["linux.uidMappings"]);
}
