//! Limits and figures.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::Bench;

/// The container's limits, wherever the host has them.
fn limit(bench: &Bench, files: &[&str]) -> String {
    let paths =
        files.iter().map(|file| format!("/sys/fs/cgroup/{}", file.replace("TAG", &bench.tag)));
    let mut found = paths.filter_map(|path| fs::read_to_string(path).ok());
    found.next().expect("a hierarchy with the controller").trim().to_owned()
}

#[test]
fn update_changes_what_it_names() {
    let bench = Bench::new();
    bench.change(|config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({"limit": 64 << 20});
        config["linux"]["resources"]["pids"] = serde_json::json!({"limit": 50});
    });
    let memory = || limit(&bench, &["memory/TAG/memory.limit_in_bytes", "TAG/memory.max"]);
    let pids = || limit(&bench, &["pids/TAG/pids.max", "TAG/pids.max"]);
    bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    assert_eq!((memory(), pids()), ((64 << 20).to_string(), "50".into()));
    bench.oci(&["update", "--memory", "32M", "c"]).ok();
    assert_eq!((memory(), pids()), ((32 << 20).to_string(), "50".into()));
    let line = bench.line(&["update", "-r", "-", "c"]);
    let mut update = Command::new(&line[0]).args(&line[1..]).stdin(Stdio::piped()).spawn().unwrap();
    update.stdin.take().unwrap().write_all(br#"{"pids":{"limit":20}}"#).unwrap();
    assert!(update.wait().unwrap().success());
    assert_eq!((memory(), pids()), ((32 << 20).to_string(), "20".into()));
    bench.oci(&["update", "--pids-limit", "many", "c"]).fails("is not a number");
    bench.oci(&["delete", "-f", "c"]).ok();
    bench.finish();
}

#[test]
fn events_tells_what_a_container_uses() {
    let bench = Bench::new();
    bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    let event: Value = serde_json::from_str(&bench.oci(&["events", "--stats", "c"]).ok()).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&"stats".into(), &"c".into()));
    assert_eq!(event["data"]["pids"]["current"], 1);
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{event}");
    bench.oci(&["delete", "-f", "c"]).ok();
    bench.finish();
}

#[test]
fn features_are_those_of_the_library() {
    let bench = Bench::new();
    let features: Value = serde_json::from_str(&bench.oci(&["features"]).ok()).unwrap();
    assert_eq!(features["ociVersionMax"], "1.3.0");
    assert!(bench.oci(&["--version"]).ok().contains("spec: 1.3.0"));
    bench.finish();
}
