//! The demonstration behind `make demo`: a private containerd, an image made on the spot, a
//! container that says hello, and what a second one costs while it sleeps.

#![allow(clippy::expect_used, reason = "a demonstration that cannot go on says so and ends")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use myshim_integration::containerd::runtime;
use myshim_integration::host;
use myshim_integration::image::NAME;
use myshim_integration::process::Process;
use myshim_integration::test::import;
use myshim_integration::{Daemon, Endpoint, Version, wait};

/// What the first container runs.
const HELLO: &str = r#"
echo "hello from $(hostname), pid $$ of $(ls -d /proc/[0-9]* | wc -l) processes, as $(id -un)"
echo "kernel $(uname -r), root $(mount | grep ' on / ' | cut -d' ' -f5), devices: $(ls /dev | tr '\n' ' ')"
"#;

fn main() -> ExitCode {
    let tag = format!("{:08x}", std::process::id());
    let dir = PathBuf::from(format!("/tmp/md-{tag}"));
    let daemon = Daemon::start(Version::V2, &dir, &format!("demo-{tag}"));
    println!("containerd {} is up in {}", version(daemon.endpoint()), dir.display());
    import(daemon.endpoint(), &dir);
    println!("image {NAME} is made from /bin/busybox and imported\n");

    let fine = hello(daemon.endpoint()) & sleeper(daemon.endpoint(), &tag);
    drop(daemon);
    clean(&dir, &tag);
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn hello(endpoint: &Endpoint) -> bool {
    let runtime = runtime();
    ctr(endpoint, &["run", "--rm", "--runtime", &runtime, NAME, "hello", "sh", "-c", HELLO])
}

fn sleeper(endpoint: &Endpoint, tag: &str) -> bool {
    let runtime = runtime();
    let id = format!("sleeper-{tag}");
    let run = ["run", "--detach", "--runtime", &runtime, NAME, &id, "sleep", "3600"];
    let mut fine = ctr(endpoint, &run);
    println!("\nits processes (private: written to, and shared with no other process):");
    for process in Process::tagged(&id).values() {
        println!("  {}", described(process));
    }
    println!();
    fine &= ctr(endpoint, &["tasks", "exec", "--exec-id", "e", &id, "echo", "hello from an exec"]);
    fine &= ctr(endpoint, &["tasks", "kill", "--signal", "SIGKILL", &id]);
    wait::until_true("the container has ended", || !Process::tagged(&id).values().any(is_sleep));
    fine &= ctr(endpoint, &["tasks", "delete", &id]);
    fine &= ctr(endpoint, &["containers", "delete", &id]);
    wait::until_true("the shim has ended", || Process::tagged(&id).is_empty());
    println!("\nthe container and its shim are gone");
    fine
}

fn is_sleep(process: &Process) -> bool {
    process.comm == "sleep" && process.state != 'Z'
}

/// Runs `ctr` in the open; whether it succeeded. 137 is how a killed container is deleted.
fn ctr(endpoint: &Endpoint, args: &[&str]) -> bool {
    println!("$ ctr {}", args.join(" ").replace('\n', " ").trim());
    let mut command: Command = endpoint.ctr();
    command.args(args).stderr(std::process::Stdio::piped());
    let output = command.spawn().and_then(std::process::Child::wait_with_output).expect("ctr");
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| !line.contains("DEPRECATION")).for_each(|line| println!("{line}"));
    output.status.success()
}

fn version(endpoint: &Endpoint) -> String {
    let output = endpoint.ctr_run(["version"], wait::SOON);
    let text = output.out();
    let mut versions = text.lines().filter_map(|line| line.trim().strip_prefix("Version:"));
    versions.next_back().unwrap_or_default().trim().to_owned()
}

/// One line about a process: pids, memory, name.
fn described(process: &Process) -> String {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid));
    let rollup = rollup.unwrap_or_default();
    let kib = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    let private = kib("Private_Dirty");
    let name: String = process.line.chars().take(60).collect();
    let (pid, parent, rss) = (process.pid, process.parent, kib("Rss"));
    format!(
        "pid {pid:>7}  parent {parent:>7}  resident {rss:>6} KiB  private {private:>5} KiB  {name}"
    )
}

fn clean(dir: &Path, tag: &str) {
    host::sweep(tag);
    for root in host::cgroup_roots() {
        host::remove_tree(&root.join(format!("demo-{tag}")));
    }
    fs::remove_dir_all(dir).ok();
}
