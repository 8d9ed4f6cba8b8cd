//! How long a plan takes, from the text of a config.json with a profile of the size that docker
//! and containerd have by default:
//!
//! ```text
//! cargo test --release -p myshim-runtime --lib timing -- --ignored --nocapture
//! ```

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libseccomp::{ScmpArch, ScmpSyscall};
use serde_json::{Value, json};

use super::{ExecTemplate, Host, Plan, ProcessPlan};
use crate::process::{CreateOptions, CreateRequest};
use crate::spec::Spec;

const ROUNDS: usize = 2000;

/// Every system call but a few, for three architectures, with a handful of conditions.
fn profile() -> Value {
    let name = |number| ScmpSyscall::from_raw_syscall(number).get_name_by_arch(ScmpArch::X8664);
    let names: Vec<_> =
        (0..450).filter(|number| number % 9 != 8).filter_map(|number| name(number).ok()).collect();
    let condition = |value: u32| json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
    let personalities = [0_u32, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];
    let mut rules: Vec<Value> = personalities
        .iter()
        .map(|value| {
            json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": condition(*value)})
        })
        .collect();
    rules.insert(0, json!({"names": names, "action": "SCMP_ACT_ALLOW"}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn config() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/testdata/ctr.config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    config["linux"]["seccomp"] = profile();
    config.to_string()
}

fn request() -> CreateRequest {
    CreateRequest {
        id: "c1".to_owned(),
        bundle: PathBuf::from("/run/bundles/c1"),
        state_dir: PathBuf::from("/run/state/c1"),
        rootfs: Vec::new(),
        options: CreateOptions::default(),
        pid_file: None,
    }
}

fn report<T>(what: &str, rounds: usize, mut run: impl FnMut() -> T) {
    let mut times: Vec<Duration> = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begin = Instant::now();
        let result = run();
        times.push(begin.elapsed());
        drop(result);
    }
    times.sort();
    println!("{what}: median {:?}, 99 % {:?}", times[rounds / 2], times[rounds * 99 / 100]);
}

#[test]
#[ignore = "measures; see the module"]
fn timing_of_a_plan() {
    let text = config();
    let cache = std::env::temp_dir().join(format!("myshim-timing-{}", std::process::id()));
    let host = Host { seccomp_cache: Some(cache.clone()), ..Host::example() };
    let uncached = Host::example();
    let spec = Spec::from_json(text.as_bytes()).unwrap();
    let plan = Plan::new(&request(), &spec, &host).unwrap();
    println!("{} bytes, {} instructions", text.len(), plan.seccomp.unwrap().bpf.len() / 8);
    report("facts of the host", ROUNDS, || Host::read(None).unwrap());
    report("parse", ROUNDS, || Spec::from_json(text.as_bytes()).unwrap());
    report("plan, filter from the cache", ROUNDS, || Plan::new(&request(), &spec, &host).unwrap());
    report("plan, filter compiled", 20, || Plan::new(&request(), &spec, &uncached).unwrap());
    report("parse and plan", ROUNDS, || {
        let spec = Spec::from_json(text.as_bytes()).unwrap();
        Plan::new(&request(), &spec, &host).unwrap()
    });
    std::fs::remove_dir_all(&cache).unwrap();
}

#[test]
#[ignore = "measures; see the module"]
fn timing_of_a_tenants_plan() {
    let text = config();
    let spec = Spec::from_json(text.as_bytes()).unwrap();
    let host = Host::example();
    let plan = Plan::new(&request(), &spec, &host).unwrap();
    let template = serde_json::to_string(&ExecTemplate::of(&plan)).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let process = config["process"].to_string();
    report("template from JSON", ROUNDS, || {
        serde_json::from_str::<ExecTemplate>(&template).unwrap()
    });
    let template = ExecTemplate::of(&plan);
    report("plan of a tenant", ROUNDS, || ProcessPlan::new(&process, &template, &host).unwrap());
}
