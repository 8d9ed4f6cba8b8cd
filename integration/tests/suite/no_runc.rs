//! No other runtime takes part: none is to be found, and no program is started but the shim's
//! own, the hooks' and the container's.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use myshim_integration::claim::Claim;
use myshim_integration::command::{LIMIT, Running};
use myshim_integration::containerd::shim_dir;
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use serde_json::json;

pub(crate) const CLAIMS: &[Claim] = claims![
    no_other_runtime_is_on_containerds_path,
    only_the_shim_hooks_and_the_container_are_executed.within(120),
];

const OTHERS: [&str; 4] = ["runc", "crun", "youki", "runsc"];

fn no_other_runtime_is_on_containerds_path(t: &Test) {
    let config = t.endpoint.dir.join("config.toml").to_string_lossy().into_owned();
    let all = myshim_integration::process::Process::all();
    let containerd = all.values().find(|p| p.line.ends_with(&config)).unwrap();
    let environ = fs::read(format!("/proc/{}/environ", containerd.pid)).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let path = environ.split('\0').find_map(|entry| entry.strip_prefix("PATH=")).unwrap();
    assert_eq!(Path::new(path), shim_dir(t.version()), "the shim's folder and nothing else");
    for entry in fs::read_dir(path).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(!OTHERS.contains(&name.as_str()), "{name} is in {path}");
    }
    t.run(&[], &["true"]).ok();
}

fn only_the_shim_hooks_and_the_container_are_executed(t: &Test) {
    let (own, daemon) = t.with_own_daemon();
    let trace = own.dir.join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=execve,execveat", "-o"]).arg(&trace);
    strace.args(["-p", &daemon.pid().unwrap().to_string()]);
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let strace = Running::start(strace);
    let pid = daemon.pid().unwrap();
    wait::until_true("strace is attached", || {
        myshim_integration::process::status(pid, "TracerPid").is_some_and(|tracer| tracer != "0")
    });
    let hook = own.script("hook", "exit 0").to_string_lossy().into_owned();
    let c = own.detached_spec("web", |spec| {
        let spec = spec.args(&["/bin/sleep", "3600"]);
        ["createRuntime", "createContainer", "poststart", "poststop"]
            .iter()
            .fold(spec, |spec, kind| spec.push(&format!("/hooks/{kind}"), json!({"path": hook})))
    });
    c.exec(&["/bin/true"]).ok();
    c.task("pause").ok();
    c.task("resume").ok();
    c.remove();
    wait::until_true("the shim has ended", || own.shims().is_empty());
    strace.signal(rustix::process::Signal::INT);
    drop(strace.finish(LIMIT));
    let programs = executed(&trace);
    let shim = myshim_integration::containerd::shim_binary(own.version());
    let strange: Vec<_> = programs
        .iter()
        .filter(|program| !is_shim(program, &shim))
        .filter(|program| {
            !["/bin/sleep", "/bin/true", "/bin/sh", &hook].contains(&program.as_str())
        })
        .collect();
    assert!(strange.is_empty(), "executed besides: {strange:?} of {programs:?}");
    assert!(programs.contains("/bin/sleep") && programs.contains("/bin/true"), "{programs:?}");
    own.finish();
}

/// The shim's binary, or a sealed copy of it that is known by descriptor only.
fn is_shim(program: &str, shim: &Path) -> bool {
    Path::new(program) == shim || program.is_empty() || program.starts_with("/proc/self/")
}

/// The programs of all successful execve in an strace, in its quoting.
fn executed(trace: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(trace).unwrap();
    let calls = text.lines().filter(|line| !line.contains(" = -1 "));
    calls
        .filter_map(|line| Some(line.split_once("exec")?.1.split('"').nth(1)?.to_owned()))
        .collect()
}
