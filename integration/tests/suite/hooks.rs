//! Hooks: each at its time, in its namespaces, with the state on standard input.

use std::fs;

use myshim_integration::claim::Claim;
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use serde_json::{Value, json};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    hooks_run_in_order_and_in_their_namespaces,
    a_hook_gets_the_state_its_arguments_and_environment,
    a_hook_sees_the_rootfs_on_the_host,
    a_poststop_that_fails_does_not_matter,
    a_poststart_runs_after_the_program,
];

fn hooks_run_in_order_and_in_their_namespaces(t: &Test) {
    let log = t.dir.join("log");
    // In the container the host's folders are not there: those two write to a bound one.
    let folder = t.folder("shared");
    let host = t.script(
        "host",
        &format!("echo \"$1 $(/bin/readlink /proc/self/ns/mnt)\" >>{}", log.display()),
    );
    let inside = t.rootfs().join("inside");
    fs::write(&inside, "#!/bin/sh\necho \"$1 $(/bin/readlink /proc/self/ns/mnt)\" >>/shared/log\n")
        .unwrap();
    fs::set_permissions(&inside, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let c = t.detached_spec("web", |spec| {
        let source = folder.to_string_lossy().into_owned();
        let hook = |kind: &str, path: &Value| json!({"path": path, "args": ["hook", kind]});
        let on_host = json!(host);
        spec.mount("bind", &source, "/shared", &["rbind"])
            .push("/hooks/prestart", hook("prestart", &on_host))
            .push("/hooks/createRuntime", hook("createRuntime", &on_host))
            .push("/hooks/startContainer", hook("startContainer", &json!("/inside")))
            .push("/hooks/poststart", hook("poststart", &on_host))
            .push("/hooks/poststop", hook("poststop", &on_host))
            .args(&["sleep", "3600"])
    });
    let own = facts::namespace("self", "mnt");
    let theirs = facts::namespace(&c.pid().to_string(), "mnt");
    c.remove();
    wait::until_true("poststop has run", || {
        fs::read_to_string(&log).unwrap_or_default().contains("poststop")
    });
    let seen = fs::read_to_string(&log).unwrap();
    let wanted: String = ["prestart", "createRuntime", "poststart", "poststop"]
        .map(|kind| format!("{kind} {own}\n"))
        .concat();
    assert_eq!(seen, wanted);
    let inside = fs::read_to_string(folder.join("log")).unwrap();
    assert_eq!(inside, format!("startContainer {theirs}\n"));
}

fn a_hook_gets_the_state_its_arguments_and_environment(t: &Test) {
    let file = t.dir.join("seen");
    let script = format!("/bin/cat >{0}; echo >>{0}; echo \"$0 $* $A\" >>{0}", file.display());
    let hook = t.script("hook", &script);
    let c = t.detached_spec("web", |spec| {
        let hook = json!({"path": hook, "args": ["name", "one", "two"], "env": ["A=three"]});
        spec.push("/hooks/createRuntime", hook).args(&["sleep", "3600"]).annotation("key", "value")
    });
    let text = fs::read_to_string(&file).unwrap();
    let (state, rest) = text.trim_end().rsplit_once('\n').unwrap();
    let state: Value = serde_json::from_str(state.trim()).unwrap();
    assert_eq!(state["id"], c.id.as_str());
    assert_eq!(state["status"], "creating");
    assert_eq!(state["pid"], c.pid());
    assert_eq!(state["annotations"]["key"], "value");
    assert!(state["bundle"].as_str().unwrap().ends_with(&c.id), "{state}");
    assert!(state["ociVersion"].is_string(), "{state}");
    assert!(rest.ends_with("one two three"), "{rest}");
    c.remove();
}

fn a_hook_sees_the_rootfs_on_the_host(t: &Test) {
    let file = t.dir.join("seen");
    let hook =
        t.script("hook", &format!("/bin/ls {}/etc >{}", t.rootfs().display(), file.display()));
    t.run_spec(|spec| spec.push("/hooks/createRuntime", json!({"path": hook})).args(&["true"]))
        .ok();
    assert!(fs::read_to_string(&file).unwrap().contains("passwd"));
}

fn a_poststop_that_fails_does_not_matter(t: &Test) {
    let hook = t.script("hook", "exit 7");
    let out = t.run_spec(|spec| {
        spec.push("/hooks/poststop", json!({"path": hook})).args(&["echo", "hello"])
    });
    assert_eq!(out.ok(), "hello\n");
}

fn a_poststart_runs_after_the_program(t: &Test) {
    let file = t.dir.join("seen");
    let script = format!("/bin/cat >{0}", file.display());
    let hook = t.script("hook", &script);
    let c = t.detached_spec("web", |spec| {
        spec.push("/hooks/poststart", json!({"path": hook})).args(&["sleep", "3600"])
    });
    wait::until_true("poststart has run", || file.exists());
    let text = wait::until("its state", || {
        fs::read_to_string(&file).ok().filter(|text| text.contains('}'))
    });
    let state: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(state["status"], "running");
    c.remove();
}
