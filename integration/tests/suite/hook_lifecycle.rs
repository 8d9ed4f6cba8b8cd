//! The six hooks in the life of a container, and what becomes of it when one of them fails.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use myshim_integration::claim::Claim;
use myshim_integration::command::Output;
use myshim_integration::spec::Spec;
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use serde_json::{Value, json};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    each_hook_has_its_status_and_its_working_directory,
    the_containers_hooks_are_in_its_namespaces,
    a_failed_hook_ends_the_create_and_runs_poststop,
    a_create_that_fails_later_runs_poststop_when_all_is_gone,
    a_failed_start_container_hook_ends_in_poststop,
    a_failed_poststart_hook_stops_the_container,
    every_poststop_hook_runs,
    a_hook_that_hangs_is_ended_with_its_children,
    a_hundred_megabytes_of_words_are_cut,
    a_hooks_child_may_keep_its_pipes,
    a_hook_need_not_read_its_input,
    a_hook_that_is_no_program_is_refused,
];

const POINTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Hooks of `points` that run `script`, each with its point as `$1`. The test's folder is in the
/// container under the same path.
fn hooked(t: &Test, spec: Spec, points: &[&str], script: &str) -> Spec {
    let path = t.script("hook", script);
    let folder = t.dir.to_string_lossy().into_owned();
    let spec = spec.mount("bind", &folder, &folder, &["bind"]);
    points.iter().fold(spec, |spec, point| with_hook(spec, point, &path))
}

fn with_hook(spec: Spec, point: &str, path: &PathBuf) -> Spec {
    let hook = json!({"path": path, "args": ["hook", point], "env": ["PATH=/usr/bin:/bin"]});
    spec.push(&format!("/hooks/{point}"), hook)
}

fn log(t: &Test) -> PathBuf {
    t.dir.join("log")
}

fn lines(t: &Test) -> Vec<String> {
    fs::read_to_string(log(t)).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn bundle(t: &Test, id: &str) -> String {
    t.endpoint.bundles().join(id).to_string_lossy().into_owned()
}

fn each_hook_has_its_status_and_its_working_directory(t: &Test) {
    let script = format!("echo \"$1 $(pwd) $(cat)\" >>{}", log(t).display());
    let c = t.detached_spec("web", |spec| {
        hooked(t, spec, &POINTS, &script).annotation("key", "value").args(&["sleep", "3600"])
    });
    let (pid, bundle) = (c.pid(), bundle(t, &c.id));
    let id = c.id.clone();
    c.remove();
    let seen = wait::until("six hooks", || Some(lines(t)).filter(|lines| lines.len() == 6));
    let stati = ["creating", "creating", "creating", "created", "running", "stopped"];
    for ((line, point), status) in seen.iter().zip(POINTS).zip(stati) {
        let mut words = line.splitn(3, ' ');
        assert_eq!(words.next(), Some(point), "{seen:#?}");
        let folder = words.next().unwrap();
        let state: Value = serde_json::from_str(words.next().unwrap()).unwrap();
        assert_eq!(state["status"], status, "{line}");
        assert_eq!(state["id"], id.as_str(), "{line}");
        assert_eq!(state["bundle"], bundle.as_str(), "{line}");
        assert_eq!(state["annotations"]["key"], "value", "{line}");
        let inside = ["createContainer", "startContainer"].contains(&point);
        let wanted = match status {
            "stopped" => Value::Null,
            // In the container's pid namespace.
            _ if inside => json!(1),
            _ => json!(pid),
        };
        assert_eq!(state["pid"], wanted, "{line}");
        assert!(inside || folder == bundle, "not in the bundle: {line}");
    }
}

fn the_containers_hooks_are_in_its_namespaces(t: &Test) {
    let script = format!(
        "n=/proc/self/ns; echo $1 $(readlink $n/mnt) $(readlink $n/net) $(readlink $n/uts) >>{}",
        log(t).display()
    );
    let c = t.detached_spec("web", |spec| {
        hooked(t, spec, &["createRuntime", "createContainer", "startContainer"], &script)
            .args(&["sleep", "3600"])
    });
    let of = |pid: &str| ["mnt", "net", "uts"].map(|kind| facts::namespace(pid, kind)).join(" ");
    let (own, theirs) = (of("self"), of(&c.pid().to_string()));
    let wanted = [
        format!("createRuntime {own}"),
        format!("createContainer {theirs}"),
        format!("startContainer {theirs}"),
    ];
    assert_eq!(lines(t), wanted);
    c.remove();
}

fn refused(t: &Test, words: &[&str], edit: impl FnOnce(Spec) -> Spec) -> Output {
    let out = t.run_spec(|spec| edit(spec.args(&["true"])));
    let text = out.fails(words);
    assert!(text.len() < 12_000, "too much to read: {} bytes", text.len());
    out
}

fn a_failed_hook_ends_the_create_and_runs_poststop(t: &Test) {
    let poststop = t.script("after", &format!("echo \"$1 $(cat)\" >>{}", log(t).display()));
    for point in ["prestart", "createRuntime", "createContainer"] {
        fs::remove_file(log(t)).ok();
        refused(t, &[&format!("{point} hook 2 of 2"), "exit status 3", "the cause"], |spec| {
            let script = "[ -e /fail ] || { cd $(dirname $0); [ -e first ] && { echo the cause >&2; \
                          exit 3; }; echo >first; }";
            let spec = hooked(t, spec, &[point, point], script);
            with_hook(spec, "poststop", &poststop)
        });
        fs::remove_file(t.dir.join("first")).unwrap();
        let seen = lines(t);
        assert_eq!(seen.len(), 1, "{point}: {seen:#?}");
        assert!(seen[0].starts_with("poststop ") && seen[0].contains("\"stopped\""), "{seen:?}");
    }
}

fn a_create_that_fails_later_runs_poststop_when_all_is_gone(t: &Test) {
    let id = t.id("run");
    let place = format!("/{}/{id}", t.endpoint.namespace);
    let script = format!(
        "ls -d /sys/fs/cgroup/*{place} >>{0} 2>/dev/null; echo end >>{0}",
        log(t).display()
    );
    refused(t, &["no-such-program", "executable file not found"], |spec| {
        hooked(t, spec, &["poststop"], &script).args(&["no-such-program"])
    });
    assert_eq!(lines(t), ["end"]);
}

fn a_failed_start_container_hook_ends_in_poststop(t: &Test) {
    let poststop = t.script("after", &format!("echo $1 >>{}", log(t).display()));
    refused(t, &["startContainer hook 1 of 1", "exit status 4", "words"], |spec| {
        let spec = hooked(t, spec, &["startContainer"], "echo words; exit 4");
        with_hook(spec, "poststop", &poststop)
    });
    wait::until_true("poststop has run", || lines(t) == ["poststop"]);
}

fn a_failed_poststart_hook_stops_the_container(t: &Test) {
    let poststop = t.script("after", &format!("echo $1 >>{}", log(t).display()));
    let id = t.id("web");
    let spec = hooked(t, t.spec(&id), &["poststart"], "echo words >&2; exit 5");
    let spec = with_hook(spec, "poststop", &poststop).args(&["sleep", "3600"]);
    let out = t.ctr(t.spec_args(&id, &spec, &["--detach"]));
    out.fails(&["poststart hook 1 of 1", "exit status 5", "words"]);
    let c = t.container("web");
    wait::until_true("the program is ended", || {
        !myshim_integration::process::Process::tagged(&t.tag).values().any(|p| p.comm == "sleep")
    });
    assert!(["STOPPED", ""].contains(&c.status().as_str()), "{}", c.status());
    c.remove();
    wait::until_true("poststop has run", || lines(t) == ["poststop"]);
}

fn every_poststop_hook_runs(t: &Test) {
    let script = format!("echo $1 >>{}; exit 1", log(t).display());
    let out = t.run_spec(|spec| {
        hooked(t, spec, &["poststop", "poststop"], &script).args(&["echo", "hello"])
    });
    assert_eq!(out.ok(), "hello\n");
    wait::until_true("both have run", || lines(t).len() == 2);
}

fn a_hook_that_hangs_is_ended_with_its_children(t: &Test) {
    // That nothing of it is left is what the comparison of the host shows.
    let path = t.script("hang", "sleep 1000 & sleep 1000");
    let folder = t.dir.to_string_lossy().into_owned();
    for point in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let hook = json!({
            "path": path, "timeout": 1, "args": ["hook", t.tag], "env": ["PATH=/usr/bin:/bin"],
        });
        let begin = Instant::now();
        refused(t, &[point, "timed out after 1 s"], |spec| {
            spec.mount("bind", &folder, &folder, &["bind"]).push(&format!("/hooks/{point}"), hook)
        });
        assert!(
            begin.elapsed() < wait::scaled(Duration::from_secs(20)),
            "{point}: {:?}",
            begin.elapsed()
        );
    }
}

fn a_hundred_megabytes_of_words_are_cut(t: &Test) {
    let script = "head -c 100000000 /dev/zero | tr '\\0' x; echo the end; exit 1";
    refused(t, &["createRuntime", "xxxxthe end", "…"], |spec| {
        hooked(t, spec, &["createRuntime"], script)
    });
}

fn a_hooks_child_may_keep_its_pipes(t: &Test) {
    let [lives, limit] = [12, 10].map(|seconds| wait::scaled(Duration::from_secs(seconds)));
    let script = format!("sleep {} & echo >&2", lives.as_secs());
    let begin = Instant::now();
    let out =
        t.run_spec(|spec| hooked(t, spec, &["createRuntime"], &script).args(&["echo", "hello"]));
    assert_eq!(out.ok(), "hello\n");
    assert!(begin.elapsed() < limit, "{:?}", begin.elapsed());
}

fn a_hook_need_not_read_its_input(t: &Test) {
    let big = "x".repeat(300_000);
    let out = t.run_spec(|spec| {
        hooked(t, spec, &["createRuntime", "createContainer", "startContainer"], "exec <&-")
            .annotation("big", &big)
            .args(&["echo", "hello"])
    });
    assert_eq!(out.ok(), "hello\n");
}

fn a_hook_that_is_no_program_is_refused(t: &Test) {
    let file = t.file("plain", "text");
    refused(t, &["createRuntime hook 1 of 1", "plain", "EACCES"], |spec| {
        with_hook(spec, "createRuntime", &file)
    });
}
