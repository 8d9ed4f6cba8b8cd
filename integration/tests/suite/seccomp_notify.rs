//! Seccomp notify: an agent decides system calls of a container, from its first to its last.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use myshim_integration::agent::Agent;
use myshim_integration::claim::Claim;
use myshim_integration::command::Output;
use myshim_integration::spec::Spec;
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use serde_json::{Value, json};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    an_agent_makes_the_folder_that_a_container_asks_for,
    an_agent_refuses_a_connection,
    an_agent_serves_without_no_new_privileges,
    an_agent_is_told_of_the_process_and_the_container,
    an_exec_has_an_agent_of_its_own,
    without_an_agent_the_container_is_refused,
    without_an_agent_an_exec_is_refused,
    an_agent_that_closes_is_an_error,
    a_deaf_agent_is_an_error_after_a_while.within(90),
    a_filter_that_notifies_of_its_own_hand_over_is_refused,
];

fn profile(agent: &Path, names: &[&str]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": agent,
        "listenerMetadata": "for the test",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
    })
}

const CALLS: [&str; 3] = ["mkdir", "mkdirat", "connect"];

fn watched(agent: &Path) -> impl Fn(Spec) -> Spec {
    let profile = profile(agent, &CALLS);
    move |spec| spec.with("/linux/seccomp", profile.clone())
}

fn agent(t: &Test) -> Agent {
    Agent::listen(&t.dir.join("agent"))
}

const MAKE: &str = "mkdir /made && stat -c %a /made";

fn an_agent_makes_the_folder_that_a_container_asks_for(t: &Test) {
    let agent = agent(t);
    let edit = watched(&agent.path);
    assert_eq!(t.run_spec(|spec| edit(spec).shell(MAKE)).ok(), "701\n");
    assert_eq!(agent.calls(), ["mkdir /made"]);
    t.run_spec(|spec| edit(spec).shell("mkdir /etc/plain")).fails(&["File exists"]);
}

fn an_agent_refuses_a_connection(t: &Test) {
    let agent = agent(t);
    let edit = watched(&agent.path);
    let out = t.run_spec(|spec| edit(spec).args(&["nc", "127.0.0.1", "1"]));
    out.fails(&["Permission denied"]);
    assert_eq!(agent.calls(), ["connect"]);
}

fn an_agent_serves_without_no_new_privileges(t: &Test) {
    let agent = agent(t);
    let edit = watched(&agent.path);
    for set in [true, false] {
        let out = t.run_spec(|spec| {
            edit(spec)
                .with("/process/noNewPrivileges", json!(set))
                .with("/process/user", json!({"uid": 1000, "gid": 1000}))
                .shell(&format!("mkdir /tmp/{set}; stat -c %a /tmp/{set}"))
        });
        assert_eq!(out.ok(), "701\n", "no_new_privs {set}");
    }
}

fn an_agent_is_told_of_the_process_and_the_container(t: &Test) {
    let agent = agent(t);
    let edit = watched(&agent.path);
    let c = t.detached_spec("web", |spec| {
        edit(spec).annotation("key", "value").args(&["sleep", "3600"])
    });
    let told = agent.states(1).remove(0);
    assert_eq!(told["fds"], json!(["seccompFd"]));
    assert_eq!(told["pid"], c.pid());
    assert_eq!(told["metadata"], "for the test");
    assert!(told["ociVersion"].is_string(), "{told}");
    let state = &told["state"];
    assert_eq!((&state["status"], &state["pid"]), (&json!("creating"), &json!(c.pid())), "{told}");
    assert_eq!(state["id"], c.id.as_str());
    assert!(state["bundle"].as_str().unwrap().ends_with(&c.id), "{told}");
    assert_eq!(state["annotations"]["key"], "value");
    c.remove();
}

fn an_exec_has_an_agent_of_its_own(t: &Test) {
    let agent = agent(t);
    let edit = watched(&agent.path);
    let c = t.detached_spec("web", |spec| edit(spec).args(&["sleep", "3600"]));
    assert_eq!(c.exec(&["sh", "-c", MAKE]).ok(), "701\n");
    c.exec(&["nc", "127.0.0.1", "1"]).fails(&["Permission denied"]);
    c.exec_as("long", &["--detach"], &["sleep", "1000"]).ok();
    let told = agent.states(4).remove(3);
    let tenant = facts::process(t, "sleep 1000");
    assert_eq!(told["pid"], tenant, "{told}");
    assert_eq!(told["state"]["pid"], c.pid(), "{told}");
    assert_eq!(told["state"]["status"], "running", "{told}");
    assert_eq!(agent.calls(), ["mkdir /made", "connect"]);
    c.remove();
}

fn refused(t: &Test, listener: &Path, words: &[&str]) -> Output {
    let edit = watched(listener);
    let out = t.run_spec(|spec| edit(spec).args(&["true"]));
    out.fails(words);
    out
}

fn without_an_agent_the_container_is_refused(t: &Test) {
    let path = t.dir.join("agent");
    refused(t, &path, &["seccomp agent", &path.to_string_lossy(), "No such file"]);
    drop(UnixListener::bind(&path).unwrap());
    refused(t, &path, &["seccomp agent", &path.to_string_lossy(), "Connection refused"]);
}

fn without_an_agent_an_exec_is_refused(t: &Test) {
    let agent = agent(t);
    let edit = watched(&agent.path);
    let c = t.detached_spec("web", |spec| edit(spec).args(&["sleep", "3600"]));
    std::fs::remove_file(&agent.path).unwrap();
    let path = agent.path.to_string_lossy().into_owned();
    c.exec(&["true"]).fails(&["seccomp agent", &path, "No such file"]);
    assert_eq!(c.status(), "RUNNING");
    c.remove();
}

/// Does `act` with each connection at `path`.
fn misbehave(path: &Path, act: fn(std::os::unix::net::UnixStream)) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || listener.incoming().filter_map(Result::ok).for_each(act));
}

fn an_agent_that_closes_is_an_error(t: &Test) {
    let path = t.dir.join("agent");
    misbehave(&path, drop);
    refused(t, &path, &["seccomp agent", &path.to_string_lossy()]);
}

fn a_deaf_agent_is_an_error_after_a_while(t: &Test) {
    let path = t.dir.join("agent");
    misbehave(&path, |stream| {
        std::thread::sleep(Duration::from_secs(60));
        drop(stream);
    });
    let begin = Instant::now();
    refused(t, &path, &["seccomp agent", "reading of the container's state", "10000 ms"]);
    assert!(begin.elapsed() < wait::scaled(Duration::from_secs(25)), "{:?}", begin.elapsed());
}

fn a_filter_that_notifies_of_its_own_hand_over_is_refused(t: &Test) {
    let agent = agent(t);
    for name in ["write", "sendmsg"] {
        let profile = profile(&agent.path, &[name]);
        let out = t.run_spec(|spec| spec.with("/linux/seccomp", profile).args(&["true"]));
        out.fails(&["linux.seccomp", name]);
    }
    let profile = json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": agent.path});
    let out = t.run_spec(|spec| spec.with("/linux/seccomp", profile).args(&["true"]));
    out.fails(&["linux.seccomp.defaultAction"]);
    // Without a listener nobody could decide.
    let profile = profile_without_listener();
    let out = t.run_spec(|spec| spec.with("/linux/seccomp", profile).args(&["true"]));
    out.fails(&["linux.seccomp"]);
    assert_eq!(agent.calls(), [""; 0]);
}

fn profile_without_listener() -> Value {
    let mut profile = profile(Path::new("/"), &CALLS);
    profile.as_object_mut().unwrap().remove("listenerPath");
    profile.as_object_mut().unwrap().remove("listenerMetadata");
    profile
}
