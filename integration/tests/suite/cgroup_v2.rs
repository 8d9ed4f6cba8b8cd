//! A host with cgroup v2 alone: limits, device rules, namespaces, delegation, and containers that
//! manage cgroups of their own. Read back from the host's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use myshim_integration::claim::{Claim, Needs};
use myshim_integration::process::{Process, cgroup_dir};
use myshim_integration::shim::Stdio3;
use myshim_integration::shim::shell;
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims, command, host, wait};
use protobuf::Message;
use serde_json::{Value, json};

use crate::facts;
use crate::rpc::Rig;
use crate::user_namespaces::{BASE, mapped};

pub(crate) const CLAIMS: &[Claim] = claims![
    shares_are_weights_by_the_present_formula.once().needs(Needs::CgroupV2),
    swap_is_what_the_limit_leaves_of_it.once().needs(Needs::CgroupV2),
    every_other_limit_has_its_file.once().needs(Needs::CgroupV2),
    what_v2_does_not_have_is_refused.once().needs(Needs::CgroupV2),
    device_rules_are_one_program_and_change_in_one_step.within(120).once().needs(Needs::CgroupV2),
    a_cgroup_namespace_shows_the_containers_cgroup_as_root.once().needs(Needs::CgroupV2),
    a_writable_cgroup_belongs_to_the_containers_root.once().needs(Needs::CgroupV2),
    an_exec_goes_where_init_has_gone.once().needs(Needs::CgroupV2),
    an_exec_joins_a_threaded_container.once().needs(Needs::CgroupV2),
    a_parent_that_cannot_have_the_container_is_told.once().needs(Needs::CgroupV2),
    a_paused_container_is_frozen_as_a_whole.once().needs(Needs::CgroupV2),
    pressure_and_memory_events_are_in_the_metrics.once().needs(Needs::CgroupV2),
    nested_cgroups_with_processes_are_removed.once().needs(Needs::CgroupV2),
    a_process_that_does_not_die_delays_delete_for_a_bounded_time
        .within(120)
        .once()
        .needs(Needs::CgroupV2),
];

impl Rig<'_> {
    /// The container's cgroup on the host.
    fn cgroup(&self) -> PathBuf {
        cgroup_dir(self.shim.state(self.id(), "").unwrap().pid, "").unwrap()
    }

    /// What a script prints that is run by an exec.
    #[track_caller]
    fn says(&self, t: &Test, script: &str) -> String {
        let file = t.dir.join("said");
        let stdio = Stdio3::to_file(&file);
        self.shim.exec(self.id(), "say", &shell(script), &stdio).unwrap();
        self.shim.start(self.id(), "say").unwrap();
        let code = self.code("say");
        self.shim.delete(self.id(), "say").unwrap();
        let text = fs::read_to_string(&file).unwrap_or_default();
        fs::remove_file(&file).ok();
        assert_eq!(code, 0, "{script}: {text}");
        text
    }
}

fn limited<'a>(t: &'a Test, resources: &Value) -> Rig<'a> {
    running(t, |spec| {
        let fields = resources.as_object().unwrap();
        fields.iter().fold(spec.args(&["sleep", "3600"]), |spec, (key, value)| {
            spec.with(&format!("/linux/resources/{key}"), value.clone())
        })
    })
}

fn running<'a>(t: &'a Test, edit: impl FnOnce(Spec) -> Spec) -> Rig<'a> {
    let rig = Rig::created(t, edit);
    rig.shim.start(rig.id(), "").unwrap();
    rig
}

/// A container that sees its own cgroup only, and may write there.
pub(crate) fn manages_itself(spec: Spec, script: &str) -> Spec {
    let mount = json!({
        "type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup",
        "options": ["rw", "nosuid", "nodev", "noexec"],
    });
    let mut spec = spec.shell(script).host_namespace("cgroup");
    spec.0["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
    spec.push("/linux/namespaces", json!({"type": "cgroup"})).push("/mounts", mount)
}

#[track_caller]
fn reads(dir: &Path, files: &[(&str, &str)]) {
    for (file, wanted) in files {
        assert_eq!(facts::first_of(dir, &[file]), *wanted, "{file}");
    }
}

fn shares_are_weights_by_the_present_formula(t: &Test) {
    let rig = limited(t, &json!({"cpu": {"shares": 2}}));
    let mut seen = vec![facts::first_of(&rig.cgroup(), &["cpu.weight"])];
    // The linear formula of before gave 39 for the default, 1024.
    for shares in [512, 1024, 2048, 262_144] {
        rig.shim.update(rig.id(), &json!({"cpu": {"shares": shares}})).unwrap();
        seen.push(facts::first_of(&rig.cgroup(), &["cpu.weight"]));
    }
    assert_eq!(seen, ["1", "59", "100", "174", "10000"]);
    rig.end();
}

fn swap_is_what_the_limit_leaves_of_it(t: &Test) {
    let rig = limited(t, &json!({"memory": {"limit": 67_108_864, "swap": 100_663_296}}));
    let dir = rig.cgroup();
    reads(&dir, &[("memory.max", "67108864"), ("memory.swap.max", "33554432")]);
    for (memory, max, swap) in [
        (json!({"limit": 67_108_864, "swap": 67_108_864}), "67108864", "0"),
        (json!({"limit": 33_554_432, "swap": -1}), "33554432", "max"),
        (json!({"limit": -1}), "max", "max"),
    ] {
        rig.shim.update(rig.id(), &json!({"memory": memory})).unwrap();
        reads(&dir, &[("memory.max", max), ("memory.swap.max", swap)]);
    }
    rig.end();
}

fn every_other_limit_has_its_file(t: &Test) {
    let disk = fs::read_to_string("/sys/block/nvme0n1/dev").unwrap();
    let (major, minor) = disk.trim().split_once(':').unwrap();
    let (major, minor): (u32, u32) = (major.parse().unwrap(), minor.parse().unwrap());
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let rig = limited(
        t,
        &json!({
            "cpu": {"quota": 20_000, "period": 50_000, "burst": 10_000, "cpus": "0", "mems": "0"},
            "memory": {"limit": 134_217_728, "reservation": 33_554_432},
            "pids": {"limit": 0},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
            "blockIO": {
                "weight": 500,
                "throttleReadBpsDevice": rate(1_048_576),
                "throttleWriteIOPSDevice": rate(100),
            },
            "unified": {"memory.high": "100663296", "cpu.weight.nice": "5"},
        }),
    );
    let dir = rig.cgroup();
    reads(
        &dir,
        &[
            ("cpu.max", "20000 50000"),
            ("cpu.max.burst", "10000"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
            ("memory.low", "33554432"),
            ("memory.high", "100663296"),
            ("cpu.weight.nice", "5"),
            // The process itself, and no fork.
            ("pids.max", "1"),
            ("hugetlb.2MB.max", "4194304"),
            ("hugetlb.2MB.rsvd.max", "4194304"),
            ("io.max", &format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=100")),
        ],
    );
    // 500 of the spec's 10…1000, in the 1…10000 of io.weight, or as it is with bfq.
    match fs::read_to_string(dir.join("io.bfq.weight")) {
        Ok(weight) => assert_eq!(weight, "default 500\n"),
        Err(_) => reads(&dir, &[("io.weight", "default 4950")]),
    }
    rig.shim.update(rig.id(), &json!({"cpu": {"idle": 1}, "pids": {"limit": -1}})).unwrap();
    reads(&dir, &[("cpu.idle", "1"), ("pids.max", "max")]);
    rig.end();
}

fn what_v2_does_not_have_is_refused(t: &Test) {
    for (resources, words) in [
        (json!({"cpu": {"realtimeRuntime": 1000}}), ["linux.resources.cpu.realtimeRuntime", "v2"]),
        (json!({"network": {"classID": 1}}), ["linux.resources.network.classID", "net_cls"]),
        (json!({"blockIO": {"leafWeight": 100}}), ["linux.resources.blockIO.leafWeight", "v2"]),
        // The controller is there, the device is not.
        (
            json!({"rdma": {"mlx5_0": {"hcaHandles": 3}}}),
            ["linux.resources.rdma[\"mlx5_0\"]", "rdma.max"],
        ),
        (
            json!({"unified": {"memory.nonsense": "1"}}),
            ["linux.resources.unified[\"memory.nonsense\"]", "ENOENT"],
        ),
    ] {
        let out =
            t.run_spec(|spec| spec.args(&["true"]).with("/linux/resources", resources.clone()));
        out.fails(&words);
    }
}

/// The device programs attached to a cgroup, as bpftool lists them.
fn programs(cgroup: &Path) -> Vec<String> {
    let mut bpftool = std::process::Command::new("/usr/sbin/bpftool");
    bpftool.args(["cgroup", "list"]).arg(cgroup);
    let list = command::run(bpftool, command::LIMIT).ok();
    list.lines().filter(|line| line.contains("device")).map(str::to_owned).collect()
}

fn device_rules_are_one_program_and_change_in_one_step(t: &Test) {
    // /full is /dev/full, which stays allowed; /mem is memory, which is always refused.
    let script = "mknod /full c 1 7; mknod /mem c 1 1; : >/ready; \
                  while [ -e /ready ]; do : </full || echo lost; (: </mem) 2>/dev/null && echo leak; \
                  echo . >>/rounds; done";
    let rig = running(t, |spec| spec.capabilities(&["CAP_MKNOD"]).shell(script));
    let root = t.rootfs();
    wait::until_true("it tries", || root.join("rounds").exists());
    let rule = |allow: bool, minor: u32| json!({"allow": allow, "type": "c", "major": 1, "minor": minor, "access": "rwm"});
    let all = json!({"allow": false, "access": "rwm"});
    for round in 0..20 {
        // 1:8 is /dev/random: a rule that changes nothing of the two.
        let rules = json!([all, rule(round % 2 == 0, 8)]);
        rig.shim.update(rig.id(), &json!({"devices": rules})).unwrap();
        let list = programs(&rig.cgroup());
        assert!(list.len() == 1 && list[0].contains("myshim_devices"), "{list:?}");
    }
    let rounds = fs::metadata(root.join("rounds")).unwrap().len();
    wait::until_true("it has tried since", || {
        fs::metadata(root.join("rounds")).is_ok_and(|file| file.len() > rounds)
    });
    assert_eq!(
        rig.says(t, "(: </mem) 2>&1; : </full && echo full"),
        "sh: can't open /mem: Operation not permitted\nfull\n"
    );
    fs::remove_file(root.join("ready")).unwrap();
    assert_eq!(rig.code(""), 0);
    rig.end();
}

fn a_cgroup_namespace_shows_the_containers_cgroup_as_root(t: &Test) {
    let script = "cat /proc/self/cgroup; grep -x 1 /sys/fs/cgroup/cgroup.procs; \
                  cat /sys/fs/cgroup/pids.max; mkdir /sys/fs/cgroup/x 2>&1; :";
    let out = t.run_spec(|spec| {
        let spec = manages_itself(spec, script).with("/linux/resources/pids", json!({"limit": 7}));
        let mounts = spec.0["mounts"].as_array().unwrap().len();
        spec.with(
            &format!("/mounts/{}/options", mounts - 1),
            json!(["ro", "nosuid", "nodev", "noexec"]),
        )
    });
    let refused = "mkdir: can't create directory '/sys/fs/cgroup/x': Read-only file system\n";
    assert_eq!(out.ok(), format!("0::/\n1\n7\n{refused}"));
    let rig = running(t, |spec| manages_itself(spec, "exec sleep 3600"));
    assert_eq!(rig.says(t, "cat /proc/self/cgroup"), "0::/\n");
    rig.end();
}

fn a_writable_cgroup_belongs_to_the_containers_root(t: &Test) {
    let script = "cd /sys/fs/cgroup; mkdir own; echo 1 >own/cgroup.procs; \
                  echo +memory +pids >cgroup.subtree_control && : >/ready; exec sleep 3600";
    let rig = running(t, |spec| mapped(t, manages_itself(spec, script)));
    wait::until_true("the container has arranged itself", || t.rootfs().join("ready").exists());
    let dir = rig.cgroup().parent().unwrap().to_path_buf();
    assert_eq!(facts::first_of(&dir, &["cgroup.subtree_control"]), "memory pids");
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    for file in listed.lines().filter(|file| dir.join(file).exists()) {
        assert_eq!(owner(&dir.join(file)), BASE, "{file}");
    }
    // Its own limits stay the host's.
    assert_eq!((owner(&dir), owner(&dir.join("memory.max"))), (BASE, 0));
    assert_eq!(rig.says(t, "cat /proc/self/cgroup"), "0::/own\n");
    rig.end();
}

fn an_exec_goes_where_init_has_gone(t: &Test) {
    let script = "cd /sys/fs/cgroup; mkdir -p system/init; echo 1 >system/init/cgroup.procs; \
                  echo +memory >cgroup.subtree_control && : >/ready; exec sleep 3600";
    let rig = running(t, |spec| manages_itself(spec, script));
    wait::until_true("init has moved", || t.rootfs().join("ready").exists());
    assert_eq!(rig.says(t, "cat /proc/self/cgroup"), "0::/system/init\n");
    rig.end();
}

fn an_exec_joins_a_threaded_container(t: &Test) {
    let script = "cd /sys/fs/cgroup; mkdir threads; echo threaded >threads/cgroup.type; \
                  echo +cpu >cgroup.subtree_control; : >/first; \
                  while [ ! -e /go ]; do sleep 0.1; done; \
                  echo 1 >threads/cgroup.procs && : >/second; exec sleep 3600";
    let rig = running(t, |spec| manages_itself(spec, script));
    wait::until_true("it is a threaded domain", || t.rootfs().join("first").exists());
    reads(&rig.cgroup(), &[("cgroup.type", "domain threaded")]);
    assert_eq!(rig.says(t, "cat /proc/self/cgroup; : >/go"), "0::/\n");
    wait::until_true("init is in the threaded cgroup", || t.rootfs().join("second").exists());
    assert_eq!(rig.says(t, "cat /proc/self/cgroup"), "0::/threads\n");
    rig.end();
}

/// A cgroup of the test's own on the host.
struct Parent(PathBuf);

impl Parent {
    fn new(t: &Test) -> Self {
        let dir = Path::new("/sys/fs/cgroup").join(t.id("parent"));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn path(&self) -> Value {
        json!(format!("/{}/web", self.0.file_name().unwrap().to_string_lossy()))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        host::remove_tree(&self.0);
    }
}

fn a_parent_that_cannot_have_the_container_is_told(t: &Test) {
    let parent = Parent::new(t);
    let mut sleep = std::process::Command::new("sleep");
    sleep.arg("3600");
    let sleep = command::Running::start(sleep);
    fs::write(parent.0.join("cgroup.procs"), sleep.pid().to_string()).unwrap();
    let out = t.run_spec(|spec| {
        spec.args(&["true"])
            .with("/linux/cgroupsPath", parent.path())
            .with("/linux/resources", json!({"memory": {"limit": 67_108_864}}))
    });
    out.fails(&["the cgroup above has processes of its own", "no internal processes", "EBUSY"]);
    // Nor has it become the root of a threaded subtree, which no container could be in.
    reads(&parent.0, &[("cgroup.type", "domain"), ("cgroup.subtree_control", "")]);
    sleep.signal(rustix::process::Signal::KILL);
    drop(sleep.finish(wait::SOON));

    fs::create_dir(parent.0.join("first")).unwrap();
    fs::write(parent.0.join("first/cgroup.type"), "threaded").unwrap();
    let out = t.run_spec(|spec| {
        spec.args(&["true"]).with("/linux/cgroupsPath", parent.path()).without("/linux/resources")
    });
    out.fails(&["domain invalid", "a parent is threaded", "linux.cgroupsPath"]);
    assert!(!parent.0.join("web").exists());
}

fn a_paused_container_is_frozen_as_a_whole(t: &Test) {
    let script = "mkdir /sys/fs/cgroup/x; (echo 0 >/sys/fs/cgroup/x/cgroup.procs; \
                  while :; do echo . >>/count; done) & sleep 3600";
    let rig = running(t, |spec| manages_itself(spec, script));
    let count = t.rootfs().join("count");
    let counted = || fs::metadata(&count).map_or(0, |file| file.len());
    wait::until_true("it counts", || counted() > 0);
    rig.shim.pause(rig.id()).unwrap();
    let dir = rig.cgroup();
    reads(&dir, &[("cgroup.freeze", "1")]);
    let frozen = |dir: &Path| facts::first_of(dir, &["cgroup.events"]).contains("frozen 1");
    assert!(frozen(&dir) && frozen(&dir.join("x")));
    // The freezer had said that it is done before pause answered.
    let before = counted();
    rig.shim.resume(rig.id()).unwrap();
    wait::until_true("it counts on", || counted() > before);
    rig.end();
}

fn pressure_and_memory_events_are_in_the_metrics(t: &Test) {
    let rig = limited(t, &json!({"memory": {"limit": 33_554_432}}));
    let code = {
        rig.exec("hog", "exec dd if=/dev/zero of=/dev/null bs=64M count=1");
        rig.shim.start(rig.id(), "hog").unwrap();
        rig.code("hog")
    };
    assert_eq!(code, 137);
    let stats = rig.shim.stats(rig.id()).unwrap().stats.unwrap();
    assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
    let metrics = Metrics::parse_from_bytes(&stats.value).unwrap();
    let events = &metrics.memory_events;
    assert_eq!((events.oom, events.oom_kill), (1, 1), "{events:?}");
    // Pages could not be had for a while.
    assert!(metrics.memory.psi.full.total > 0, "{:?}", metrics.memory.psi);
    assert!(metrics.cpu.psi.some.is_some() && metrics.io.psi.full.is_some(), "{metrics:?}");
    rig.end();
}

fn nested_cgroups_with_processes_are_removed(t: &Test) {
    // In the host's pid namespace nothing ends them with init.
    let script = "cd /sys/fs/cgroup; for a in a a/b a/b/c d; do mkdir $a; \
                  (echo 0 >$a/cgroup.procs; exec sleep 3600) & done; sleep 0.1; \
                  mkdir empty; : >/ready; exec sleep 3600";
    let rig = running(t, |spec| manages_itself(spec, script).host_namespace("pid"));
    wait::until_true("the container has arranged itself", || t.rootfs().join("ready").exists());
    let dir = rig.cgroup();
    let sleepers =
        || Process::tagged(&t.tag).values().filter(|process| process.line == "sleep 3600").count();
    wait::until_true("all sleep", || sleepers() == 5);
    rig.end();
    assert!(!dir.exists());
    assert_eq!(sleepers(), 0);
}

/// A file system on which every write waits, beyond the reach of signals.
struct Frozen(PathBuf);

impl Frozen {
    fn new(t: &Test) -> Self {
        let (image, point) = (t.dir.join("image"), t.folder("frozen"));
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let script =
            "mke2fs -q -t ext4 \"$0\" && mount -o loop \"$0\" \"$1\" && fsfreeze -f \"$1\"";
        run("sh", &["-c", script, &image.to_string_lossy(), &point.to_string_lossy()]);
        Self(point)
    }

    fn thaw(&self) {
        run("fsfreeze", &["-u", &self.0.to_string_lossy()]);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Thawed already, unless the claim has failed half way.
        let mut thaw = std::process::Command::new("/usr/sbin/fsfreeze");
        thaw.arg("-u").arg(&self.0);
        drop(command::run(thaw, command::LIMIT));
        run("umount", &["-l", &self.0.to_string_lossy()]);
    }
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    let mut command = std::process::Command::new(program);
    command.args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command::run(command, command::LIMIT).ok();
}

fn a_process_that_does_not_die_delays_delete_for_a_bounded_time(t: &Test) {
    let frozen = Frozen::new(t);
    let point = frozen.0.to_string_lossy().into_owned();
    let rig = running(t, |spec| {
        spec.host_namespace("pid")
            .mount("bind", &point, "/frozen", &["bind", "rw"])
            .shell("/bin/touch /frozen/file & exec sleep 3600")
    });
    let stuck = facts::process(t, "/bin/touch /frozen/file");
    let waits = || Process::read(stuck).is_some_and(|process| process.state == 'D');
    wait::until_true("it waits for the disk", waits);
    rig.shim.kill(rig.id(), "", 9).unwrap();
    rig.shim.wait(rig.id(), "").unwrap();
    let begin = Instant::now();
    let error = rig.shim.delete(rig.id(), "").unwrap_err();
    assert!(begin.elapsed() < wait::scaled(Duration::from_secs(5)), "{:?}", begin.elapsed());
    assert!(error.message.contains(&format!("{stuck} (touch)")), "{error:?}");
    frozen.thaw();
    wait::until_true("it dies now", || Process::read(stuck).is_none());
    rig.end();
}
