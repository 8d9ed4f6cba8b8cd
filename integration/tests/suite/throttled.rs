//! Main is killed while it lowers a memory limit on cgroup v2, with memory.high lowered as well.

use std::fs;
use std::path::Path;

use myshim_integration::claim::{Claim, Needs};
use myshim_integration::inject::{Fault, Place, Seen, Tracer};
use myshim_integration::process::{Process, cgroup_dir};
use myshim_integration::shim::{Bundle, Dialect, EventSink, Invocation, Shim, Stdio3};
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims, wait};
use serde_json::json;

pub(crate) const CLAIMS: &[Claim] =
    claims![a_main_killed_while_memory_shrinks_leaves_no_throttle.once().needs(Needs::CgroupV2)];

const MIB: u64 = 1 << 20;

/// Memory of tmpfs, which cannot be reclaimed without swap: each try to shrink goes all the way, and
/// leaves everything as it was.
fn full(spec: Spec) -> Spec {
    let script = "dd if=/dev/zero of=/t/data bs=1M count=32 2>/dev/null; echo >/ready; sleep 3600";
    let limit = json!({"limit": 64 * MIB});
    spec.mount("tmpfs", "tmpfs", "/t", &[]).shell(script).with("/linux/resources/memory", limit)
}

fn a_main_killed_while_memory_shrinks_leaves_no_throttle(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", full);
    let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
    let id = &bundle.id;
    let daemon = shim.connect(id).unwrap().shim_pid;
    let is = |p: &Process, name: &str| p.parent == daemon && p.comm == name;
    let spawner = wait::until("a spawner", || {
        Process::all().values().find(|p| is(p, "myshim:spawner")).map(|p| p.pid)
    });
    let tracer = Tracer::attach(spawner);
    shim.create(&bundle, &Stdio3::default()).unwrap();
    shim.start(id, "").unwrap();
    wait::until_true("the data is written", || t.rootfs().join("ready").exists());
    let cgroup = cgroup_dir(shim.state(id, "").unwrap().pid, "memory").unwrap();
    let rest = || {
        wait::until_true("one main waits", || {
            let all = Process::all();
            let count = |name| all.values().filter(|p| is(p, name)).count();
            count("myshim:waits") == 1 && count("myshim:main") == 0
        });
    };
    // The tracer knows those alone that are forked from here on.
    crate::spawner::use_up((&shim, id));
    rest();
    tracer.record();
    let error = shrink(&shim, id);
    assert!(error.contains("16777216 bytes are less"), "{error}");
    rest();
    let way = tracer.seen();
    tracer.disarm();
    for place in places(&way) {
        tracer.arm(place, Fault::Kills);
        let error = shrink(&shim, id);
        let struck = tracer.struck();
        tracer.disarm();
        assert!(struck.is_some(), "{place:?} was not reached: {error}");
        assert!(error.contains("main ended before it answered: killed by SIGKILL"), "{error}");
        assert_eq!(limits(&cgroup), ["max".to_owned(), (64 * MIB).to_string()], "{struck:?}");
        rest();
    }
    shim.update(id, &json!({"memory": {"limit": 60 * MIB}})).unwrap();
    crate::rpc::end(&shim, &bundle);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
    tracer.finish();
}

fn shrink(shim: &Shim, id: &str) -> String {
    shim.update(id, &json!({"memory": {"limit": 16 * MIB}})).unwrap_err().message
}

fn limits(cgroup: &Path) -> [String; 2] {
    ["memory.high", "memory.max"]
        .map(|file| fs::read_to_string(cgroup.join(file)).unwrap().trim().to_owned())
}

/// In front of the first reclaim, and of the restoration: the third time that memory.high is
/// opened, behind a look and a write.
fn places(way: &[Seen]) -> Vec<Place> {
    let opened = |file: &str| {
        way.iter()
            .filter(|seen| seen.place.process == 1 && seen.name.starts_with("open"))
            .filter(|seen| seen.what.ends_with(file))
            .map(|seen| seen.place)
            .collect::<Vec<_>>()
    };
    let (reclaim, high) = (opened("memory.reclaim"), opened("memory.high"));
    assert!(reclaim.len() == 1 && high.len() == 3, "{way:#?}");
    vec![reclaim[0], high[2]]
}
