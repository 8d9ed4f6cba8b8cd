//! Limits, their change, what is used of them, and what happens when they are reached.

use std::fs;

use myshim_integration::claim::Claim;
use myshim_integration::cri::Cri;
use myshim_integration::process::cgroup_dir;
use myshim_integration::{Test, claims, wait};
use serde_json::{Value, json};

use crate::cri_pods::on_host_network;

pub(crate) const CLAIMS: &[Claim] = claims![
    limits_are_set_changed_and_reported.own_network(),
    a_container_out_of_memory_is_reported_as_oom_killed.own_network(),
];

const MIB: u64 = 1 << 20;

fn limited(memory: u64) -> impl Fn(&mut Value) {
    move |config| {
        on_host_network(config);
        config["linux"]["resources"] = json!({
            "memory_limit_in_bytes": memory, "cpu_period": 100_000, "cpu_quota": 50_000,
            "cpu_shares": 512, "oom_score_adj": 500,
        });
    }
}

/// The first of these files of a cgroup that is there: v1's, v2's.
fn limit(pid: u32, controller: &str, names: [&str; 2]) -> String {
    let dir = cgroup_dir(pid, controller).unwrap();
    let texts = names.iter().find_map(|name| fs::read_to_string(dir.join(name)).ok());
    texts.unwrap().trim().to_owned()
}

fn limits_are_set_changed_and_reported(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("web", on_host_network);
    let c = pod.container(
        "app",
        &["sh", "-c", "head -c 8000000 /dev/zero | tail -c 1 >/dev/null; exec sleep 3600"],
        limited(64 * MIB),
    );
    let pid = c.pid();
    let memory = || limit(pid, "memory", ["memory.limit_in_bytes", "memory.max"]);
    let quota = || limit(pid, "cpu", ["cpu.cfs_quota_us", "cpu.max"]);
    assert_eq!(memory(), (64 * MIB).to_string());
    assert!(quota().starts_with("50000"), "{}", quota());
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "500\n");
    let more = (96 * MIB).to_string();
    cri.crictl([
        "update",
        "--memory",
        &more,
        "--cpu-quota",
        "70000",
        "--cpu-period",
        "100000",
        &c.id,
    ])
    .ok();
    assert_eq!(memory(), more);
    assert!(quota().starts_with("70000"), "{}", quota());
    let stats = wait::until("figures", || {
        let all = cri.json(["stats", "-o", "json", &c.id]);
        let stats = all["stats"][0].clone();
        let used = stats["memory"]["workingSetBytes"]["value"].as_str()?.parse::<u64>().ok()?;
        (used > 0).then_some(stats)
    });
    assert_eq!(stats["attributes"]["id"], json!(c.id));
    let cpu = stats["cpu"]["usageCoreNanoSeconds"]["value"].as_str().unwrap();
    assert!(cpu.parse::<u64>().unwrap() > 0, "{stats}");
    let pods = cri.json(["statsp", "-o", "json", &pod.id]);
    assert_eq!(pods["stats"][0]["attributes"]["id"], json!(pod.id), "{pods}");
    pod.remove();
    cri.finish();
}

fn a_container_out_of_memory_is_reported_as_oom_killed(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("web", on_host_network);
    // tail keeps all of what has no end of line.
    let c = pod.container("hungry", &["tail", "/dev/zero"], limited(16 * MIB));
    c.wait_exited();
    assert_eq!(
        (c.status("/exitCode").as_str(), c.status("/reason").as_str()),
        ("137", "OOMKilled")
    );
    // The pod and a neighbour with room go on.
    let neighbour = pod.container("neighbour", &["sleep", "3600"], limited(64 * MIB));
    assert_eq!(neighbour.exec(&["echo", "fine"]).ok(), "fine\n");
    pod.remove();
    cri.finish();
}
