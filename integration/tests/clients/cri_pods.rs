//! Pods through containerd's CRI, with the handler of the shipped drop-ins.

use std::fs;
use std::time::{Duration, Instant};

use myshim_integration::claim::Claim;
use myshim_integration::cri::{Cri, HANDLER, PodContainer, exec};
use myshim_integration::process::Process;
use myshim_integration::{Test, Version, claims, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_pod_runs_with_the_handler_of_the_drop_in.own_network(),
    a_pods_containers_share_its_namespaces.own_network(),
    a_pod_on_the_hosts_network_has_the_hosts_namespaces.own_network(),
    a_stop_is_sigterm_and_after_its_grace_sigkill.own_network(),
    pods_survive_a_restart_of_containerd.own_network().within(120),
    a_wrong_key_of_the_options_is_named.own_network(),
    an_option_reaches_the_runtime.own_network(),
];

const SLEEP: &[&str] = &["sleep", "3600"];

/// A pod without a network: for what has nothing to do with one.
pub(crate) fn on_host_network(config: &mut Value) {
    config["linux"]["security_context"]["namespace_options"] = json!({"network": 2});
    // The kubelet gives no name to a pod that has the node's.
    config.as_object_mut().unwrap().remove("hostname");
}

fn namespace(pid: u32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_string_lossy().into_owned()
}

fn a_pod_runs_with_the_handler_of_the_drop_in(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("web", |_| ());
    let c = pod.container("app", &["sh", "-c", "echo out; echo err >&2; hostname; exit 7"], |_| ());
    c.wait_exited();
    assert_eq!((c.status("/exitCode").as_str(), c.status("/reason").as_str()), ("7", "Error"));
    c.wait_said("web\n");
    let lines = fs::read_to_string(&c.log).unwrap();
    let has = |end: &str| lines.lines().any(|line| line.ends_with(end));
    assert!(has(" stdout F out") && has(" stderr F err") && has(" stdout F web"), "{lines}");
    let inspected = cri.json(["inspectp", &pod.id]);
    assert_eq!(inspected["status"]["runtimeHandler"], HANDLER);
    assert_eq!(inspected["status"]["state"], "SANDBOX_READY");
    // One daemon serves the sandbox and the container: both are its children.
    let shims = cri.test.shims();
    assert_eq!(shims.len(), 1, "{shims:?}");
    let pause = inspected["info"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap();
    assert_eq!(Process::read(pause).unwrap().parent, shims[0].pid);
    // The address that CNI gave it, seen from inside and from the host's end of the wire.
    let ip = inspected["status"]["network"]["ip"].as_str().unwrap();
    let c2 = pod.container("net", SLEEP, unmasked);
    assert!(keyrings(&c2).contains(&format!("_ses.{}", c2.id)));
    let seen = c2.exec(&["ip", "-4", "addr", "show", "eth0"]).ok();
    assert!(ip.starts_with("10.88.0.") && seen.contains(ip), "{ip}: {seen}");
    c.remove();
    pod.remove();
    assert!(links().iter().all(|name| name == "lo"), "{:?}", links());
    cri.finish();
}

/// The network devices of this process's own network namespace.
fn links() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap();
    text.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect()
}

fn a_pods_containers_share_its_namespaces(t: &Test) {
    let cri = Cri::start(t);
    // 0 is POD: what the pod's spec calls shareProcessNamespace.
    let shared = |config: &mut Value| {
        config["linux"]["security_context"]["namespace_options"] = json!({"pid": 0});
    };
    let pod = cri.pod("shared", shared);
    let (a, b) = (pod.container("a", SLEEP, shared), pod.container("b", SLEEP, shared));
    for kind in ["pid", "ipc", "net", "uts"] {
        let (a, b) = (namespace(a.pid(), kind), namespace(b.pid(), kind));
        assert_eq!(a, b, "{kind}");
        assert_ne!(a, namespace(std::process::id(), kind), "{kind}");
    }
    assert_ne!(namespace(a.pid(), "mnt"), namespace(b.pid(), "mnt"));
    let seen = a.exec(&["ps"]).ok();
    assert_eq!(seen.matches("root     sleep 3600").count(), 3, "a, b and what pause runs: {seen}");
    a.exec(&["sh", "-c", "echo mail >/dev/shm/box"]).ok();
    assert_eq!(b.exec(&["cat", "/dev/shm/box"]).ok(), "mail\n");
    pod.remove();
    // 1 is CONTAINER, the default.
    let own = |config: &mut Value| {
        config["linux"]["security_context"]["namespace_options"] = json!({"pid": 1});
    };
    let pod = cri.pod("apart", own);
    let (a, b) = (pod.container("c", SLEEP, own), pod.container("d", SLEEP, own));
    assert_ne!(namespace(a.pid(), "pid"), namespace(b.pid(), "pid"));
    assert_eq!(namespace(a.pid(), "net"), namespace(b.pid(), "net"));
    assert_eq!(
        a.exec(&["sh", "-c", "echo $$ && cat /proc/1/comm"]).ok().lines().last(),
        Some("sleep")
    );
    pod.remove();
    cri.finish();
}

fn a_pod_on_the_hosts_network_has_the_hosts_namespaces(t: &Test) {
    let cri = Cri::start(t);
    // 2 is NODE.
    let host = |config: &mut Value| {
        config["linux"]["security_context"]["namespace_options"] =
            json!({"network": 2, "pid": 2, "ipc": 2});
    };
    let pod = cri.pod("node", |config| {
        on_host_network(config);
        host(config);
    });
    let c = pod.container("agent", SLEEP, host);
    for kind in ["net", "pid", "ipc"] {
        assert_eq!(namespace(c.pid(), kind), namespace(std::process::id(), kind), "{kind}");
    }
    pod.remove();
    cri.finish();
}

fn a_stop_is_sigterm_and_after_its_grace_sigkill(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("stop", on_host_network);
    let polite = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let c = pod.container("polite", &["sh", "-c", polite], on_host_network);
    c.wait_said("ready\n");
    let begin = Instant::now();
    c.stop(Duration::from_secs(30));
    assert!(begin.elapsed() < Duration::from_secs(15), "SIGTERM was enough");
    assert_eq!(c.status("/exitCode"), "3");
    c.wait_said("bye\n");

    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let d = pod.container("deaf", &["sh", "-c", deaf], on_host_network);
    d.wait_said("ready\n");
    let begin = Instant::now();
    d.stop(Duration::from_secs(1));
    assert!(begin.elapsed() >= Duration::from_secs(1), "it was killed before its grace was over");
    assert_eq!(
        (d.status("/exitCode").as_str(), d.status("/state").as_str()),
        ("137", "CONTAINER_EXITED")
    );
    // What has ended is stopped again without complaint, and a new attempt takes its place.
    d.stop(Duration::from_secs(1));
    d.remove();
    let again = pod.container("deaf", &["true"], |config| {
        on_host_network(config);
        config["metadata"]["attempt"] = json!(1);
    });
    again.wait_exited();
    assert_eq!(
        (again.status("/exitCode").as_str(), again.status("/reason").as_str()),
        ("0", "Completed")
    );
    pod.remove();
    cri.finish();
}

fn pods_survive_a_restart_of_containerd(t: &Test) {
    let mut cri = Cri::start(t);
    let pod = cri.pod("web", |_| ());
    let c = pod.container("app", SLEEP, |_| ());
    let (pod, container, pid) = (pod.id.clone(), c.id.clone(), c.pid());
    cri.daemon.down(Signal::KILL);
    cri.daemon.up();
    wait::until_true("CRI answers again", || cri.crictl(["info"]).status.success());
    let all = cri.json(["inspect", &container]);
    assert_eq!(
        (&all["status"]["state"], &all["info"]["pid"]),
        (&json!("CONTAINER_RUNNING"), &json!(pid))
    );
    assert_eq!(exec(&cri.test.endpoint, &container, &["echo", "hello"]).ok(), "hello\n");
    cri.crictl(["stop", "--timeout", "0", &container]).ok();
    assert_eq!(cri.json(["inspect", &container])["status"]["exitCode"], 137);
    cri.crictl(["stopp", &pod]).ok();
    cri.crictl(["rmp", &pod]).ok();
    cri.finish();
}

fn a_wrong_key_of_the_options_is_named(t: &Test) {
    let cri = Cri::with_options(t, "SystemdCgruop = true");
    let (_, output) = cri.try_pod("web", on_host_network);
    output.fails(&["SystemdCgruop"]);
    if t.version() == Version::V16 {
        output.fails(&["myshim.toml line "]);
    }
    // The sandbox's container is there and never ran; the kubelet removes it.
    for id in cri.crictl(["pods", "-q"]).ok().lines() {
        cri.crictl(["rmp", "-f", id]).ok();
    }
    cri.finish();
}

fn an_option_reaches_the_runtime(t: &Test) {
    let cri = Cri::with_options(t, "NoNewKeyring = true");
    let pod = cri.pod("web", on_host_network);
    let c = pod.container("app", SLEEP, |config| {
        on_host_network(config);
        unmasked(config);
    });
    assert!(!keyrings(&c).contains(&c.id));
    pod.remove();
    cri.finish();
}

/// Shows all of /proc.
fn unmasked(config: &mut Value) {
    config["linux"]["security_context"]["masked_paths"] = json!(["/proc/none"]);
}

/// What the container sees of keyrings: its own has its id in its name.
fn keyrings(c: &PodContainer<'_>) -> String {
    c.exec(&["grep", "keyring", "/proc/keys"]).ok()
}
