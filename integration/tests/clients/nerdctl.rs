//! nerdctl, with the runtime named by a flag: what its users do.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use myshim_integration::claim::Claim;
use myshim_integration::command::{self, LIMIT};
use myshim_integration::image;
use myshim_integration::nerdctl::Nerdctl;
use myshim_integration::process::{cgroup_dir, status};
use myshim_integration::{Test, claims, wait};
use rustix::process::Signal;

pub(crate) const CLAIMS: &[Claim] = claims![
    run_and_its_streams.own_network().once().within(120),
    run_on_a_terminal.own_network().once(),
    the_life_of_a_detached_container.own_network().once().within(120),
    limits_are_set_updated_and_shown.own_network().once().within(120),
    what_a_process_may_do_is_what_the_flags_say.own_network().once().within(120),
    files_are_copied_and_an_image_is_made_of_a_container.own_network().once().within(120),
    a_port_is_published_on_a_bridge.own_network().once().within(120),
    a_container_is_started_again.own_network().once().within(120),
    compose_runs_two_services_that_find_each_other.own_network().once().within(180),
    a_remapped_container_is_not_the_hosts_root.own_network().once(),
];

const SLEEP: &str = "exec sleep 3600";
const READY: &str = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";

fn run_and_its_streams(t: &Test) {
    let n = Nerdctl::start(t);
    let mut args = n.run_args(&["--rm", "--net", "none", image::NAME]);
    args.extend(["sh", "-c", "echo out; echo err >&2; exit 5"].map(str::to_owned));
    let output = n.run(args);
    assert_eq!((output.exits(5).as_str(), output.err().contains("err\n")), ("out\n", true));
    let mut args = n.run_args(&["--rm", "-i", "--net", "none", image::NAME]);
    args.extend(["sh", "-c", "cat; echo end"].map(str::to_owned));
    let mut cat = n.start_command(args);
    cat.write(b"one\ntwo\n");
    cat.close_stdin();
    assert_eq!(cat.finish(LIMIT).ok(), "one\ntwo\nend\n");
    // The mistake is named by whoever made it: the runtime, through containerd and nerdctl.
    let mut args = n.run_args(&["--rm", "--net", "none", image::NAME]);
    args.push("no-such-program".to_owned());
    n.run(args).fails(&["init: exec:", "executable file not found in $PATH"]);
    n.test.finish();
}

fn run_on_a_terminal(t: &Test) {
    let n = Nerdctl::start(t);
    let mut args = n.run_args(&["--rm", "-it", "--net", "none", image::NAME]);
    args.push("sh".to_owned());
    let mut terminal = n.on_terminal(args);
    // nerdctl tells the size after the start.
    wait::until_true("the size arrives", || {
        terminal.send("stty size\n");
        terminal.shown().contains("24 80\n")
    });
    terminal.send("tty; exit 6\n");
    let (status, shown) = terminal.finish(LIMIT);
    assert_eq!(status.code(), Some(6), "{shown}");
    assert!(shown.contains("/dev/pts/0\n"), "{shown}");
    n.test.finish();
}

fn the_life_of_a_detached_container(t: &Test) {
    let n = Nerdctl::start(t);
    let c = n.detached("web", &["--net", "none"], READY);
    let logs = n.start_command(["logs", "-f", &c]);
    wait::until_true("the log is followed", || logs.out_so_far().contains("ready\n"));
    assert_eq!(n.run(["exec", &c, "echo", "hello"]).ok(), "hello\n");
    // nerdctl ends with 1 and says which code it was.
    n.run(["exec", &c, "sh", "-c", "exit 9"]).fails(&["exit code 9"]);
    let mut terminal = n.on_terminal(["exec", "-it", &c, "sh"]);
    terminal.send("tty; exit\n");
    let (status, shown) = terminal.finish(LIMIT);
    assert!(status.success() && shown.contains("/dev/pts/0"), "{shown}");

    n.run(["pause", &c]).ok();
    assert_eq!(n.inspect(&c, "{{.State.Status}}"), "paused");
    n.run(["unpause", &c]).ok();
    assert_eq!(n.inspect(&c, "{{.State.Status}}"), "running");
    assert!(n.run(["ps"]).ok().contains(&c));
    assert!(n.run(["top", &c]).ok().contains("echo ready"));

    n.run(["stop", "--time", "20", &c]).ok();
    assert_eq!(n.inspect(&c, "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    assert_eq!(logs.finish(LIMIT).ok(), "ready\nbye\n");
    n.run(["start", &c]).ok();
    n.wait_inspect(&c, "{{.State.Status}}", "running");
    n.run(["kill", &c]).ok();
    n.wait_inspect(&c, "{{.State.Status}} {{.State.ExitCode}}", "exited 137");
    n.run(["rm", &c]).ok();
    n.test.finish();
}

/// A container's cgroup, by the process id that nerdctl knows.
fn limit(n: &Nerdctl, name: &str, controller: &str, files: [&str; 2]) -> String {
    let pid = n.inspect(name, "{{.State.Pid}}").parse().unwrap();
    let dir = cgroup_dir(pid, controller).unwrap();
    files.iter().find_map(|file| fs::read_to_string(dir.join(file)).ok()).unwrap()
}

fn limits_are_set_updated_and_shown(t: &Test) {
    let n = Nerdctl::start(t);
    let flags = ["--net", "none", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "20"];
    let c = n.detached("web", &flags, SLEEP);
    let memory = ["memory.limit_in_bytes", "memory.max"];
    assert_eq!(limit(&n, &c, "memory", memory), "67108864\n");
    assert!(limit(&n, &c, "cpu", ["cpu.cfs_quota_us", "cpu.max"]).starts_with("50000"));
    assert_eq!(limit(&n, &c, "pids", ["pids.max", "pids.max"]), "20\n");
    let forks = "for i in $(seq 40); do sleep 1 >/dev/null 2>&1 & done";
    let output = n.run(["exec", &c, "sh", "-c", forks]);
    output.fails(&["can't fork"]);
    n.run(["update", "--memory", "96m", "--pids-limit", "30", &c]).ok();
    assert_eq!(limit(&n, &c, "memory", memory), "100663296\n");
    assert_eq!(limit(&n, &c, "pids", ["pids.max", "pids.max"]), "30\n");
    let stats = n.run(["stats", "--no-stream", "--format", "{{.MemUsage}}", &c]).ok();
    assert!(stats.contains(" / 96MiB"), "{stats}");
    n.run(["rm", "-f", &c]).ok();
    n.test.finish();
}

fn what_a_process_may_do_is_what_the_flags_say(t: &Test) {
    let n = Nerdctl::start(t);
    let said = n.shell(
        &["--read-only", "--tmpfs", "/scratch:size=1m"],
        "touch /no 2>&1; touch /scratch/yes && echo fine",
    );
    assert!(said.contains("Read-only file system") && said.ends_with("fine\n"), "{said}");
    let said = n.shell(
        &["--user", "1000:1000", "--ulimit", "nofile=123:456"],
        "id -u; ulimit -n; ulimit -Hn",
    );
    assert_eq!(said, "1000\n123\n456\n");
    let effective = "grep CapEff /proc/self/status | cut -f2";
    let said = n.shell(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], effective);
    assert_eq!(said, "0000000000001000\n");
    assert_eq!(n.shell(&[], "grep ^Seccomp: /proc/self/status | cut -f2"), "2\n");
    let profile = t.file("profile.json", PROFILE);
    let option = format!("seccomp={}", profile.display());
    let said = n.shell(&["--security-opt", &option], "chmod 600 /etc/plain 2>&1; echo done");
    assert!(said.contains("Inappropriate ioctl") && said.ends_with("done\n"), "{said}");
    let said =
        n.shell(&["--init", "--init-binary", "/usr/bin/tini-static"], "cat /proc/1/comm; echo $$");
    assert!(said.starts_with("tini") && !said.ends_with("\n1\n"), "{said}");
    n.test.finish();
}

/// Forbids chmod(2) with ENOTTY.
const PROFILE: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25}]}"#;

fn files_are_copied_and_an_image_is_made_of_a_container(t: &Test) {
    let n = Nerdctl::start(t);
    let c = n.detached("web", &["--net", "none"], SLEEP);
    let file = t.file("given", "from the host\n");
    n.run(["cp", &file.to_string_lossy(), &format!("{c}:/root/given")]).ok();
    assert_eq!(n.run(["exec", &c, "cat", "/root/given"]).ok(), "from the host\n");
    let back = t.dir.join("back");
    n.run(["cp", &format!("{c}:/etc/plain"), &back.to_string_lossy()]).ok();
    assert_eq!(fs::read_to_string(back).unwrap(), "a file\n");
    n.run(["commit", &c, "myshim.test/new:1"]).ok();
    let mut args = n.run_args(&["--rm", "--net", "none", "myshim.test/new:1"]);
    args.extend(["cat", "/root/given"].map(str::to_owned));
    assert_eq!(n.run(args).ok(), "from the host\n");
    n.run(["rm", "-f", &c]).ok();
    n.test.finish();
}

fn a_port_is_published_on_a_bridge(t: &Test) {
    let n = Nerdctl::start(t);
    let serve = "while :; do echo hello from the bridge | nc -l -p 80; done";
    let c = n.detached("web", &["-p", "127.0.0.1:18080:80"], serve);
    let answer = wait::until("an answer", || {
        let mut stream = TcpStream::connect("127.0.0.1:18080").ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    });
    assert_eq!(answer, "hello from the bridge\n");
    let ip = n.inspect(&c, "{{.NetworkSettings.IPAddress}}");
    assert!(n.run(["exec", &c, "ip", "-4", "addr"]).ok().contains(&ip), "{ip}");
    // The hooks of nerdctl run with an end of the container as well: the rules are gone with it.
    n.run(["rm", "-f", &c]).ok();
    let mut rules = Command::new("/usr/sbin/iptables");
    rules.args(["-t", "nat", "-S"]);
    let rules = command::run(rules, LIMIT).ok();
    assert!(!rules.contains("18080"), "{rules}");
    n.test.finish();
}

fn a_container_is_started_again(t: &Test) {
    let n = Nerdctl::start(t);
    let c = n.detached("web", &["--net", "none", "--restart", "always"], SLEEP);
    let pid: u32 = n.inspect(&c, "{{.State.Pid}}").parse().unwrap();
    let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(raw, Signal::KILL).unwrap();
    let again = wait::within(Duration::from_secs(60), || {
        let now: u32 = n.inspect(&c, "{{.State.Pid}}").parse().ok()?;
        (now != pid && now != 0).then_some(now)
    });
    assert!(status(again.expect("it is started again"), "Pid").is_some());
    n.run(["rm", "-f", &c]).ok();
    n.test.finish();
}

fn compose_runs_two_services_that_find_each_other(t: &Test) {
    let n = Nerdctl::start(t);
    let runtime = myshim_integration::containerd::runtime();
    let file = t.file("compose.yaml", &format!(
        "services:\n\
         \x20 server:\n    image: {image}\n    runtime: {runtime}\n    hostname: server\n\
         \x20   command: [\"sh\", \"-c\", \"while :; do echo hello from the server | nc -l -p 80; done\"]\n\
         \x20 asker:\n    image: {image}\n    runtime: {runtime}\n    depends_on: [server]\n\
         \x20   command: [\"sh\", \"-c\", \"while :; do nc server 80 </dev/null; sleep 0.2; done\"]\n",
        image = image::NAME,
    ));
    let project = format!("p{}", t.tag);
    let file = file.to_string_lossy().into_owned();
    let compose = |args: &[&str]| {
        let mut all = vec!["compose", "-f", file.as_str(), "-p", project.as_str()];
        all.extend(args);
        n.run(all)
    };
    compose(&["up", "--detach", "--pull", "never"]).ok();
    let shims = n.test.shims();
    assert_eq!(shims.len(), 2, "{shims:?}");
    wait::until_true("the asker hears the server", || {
        compose(&["logs", "--no-color", "asker"]).ok().contains("hello from the server")
    });
    let listed = compose(&["ps"]).ok();
    assert!(listed.contains("server") && listed.contains("asker"), "{listed}");
    compose(&["down"]).ok();
    assert!(n.run(["ps", "-a", "-q"]).ok().trim().is_empty());
    n.test.finish();
}

fn a_remapped_container_is_not_the_hosts_root(t: &Test) {
    let n = Nerdctl::start(t);
    // The ids of the host's file are the machine's; root has those of the test, for this call.
    let ids = t.file("ids", "root:655360:65536\n");
    let name = format!("web-{}", t.tag);
    let script =
        "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && exec \"$@\"";
    let mut args =
        n.run_args(&["--detach", "--net", "none", "--userns-remap", "root", "--name", &name]);
    args.extend([image::NAME, "sh", "-c", SLEEP].map(str::to_owned));
    let mut run = Command::new("/usr/bin/unshare");
    let nerdctl = n.command(args);
    run.args(["--mount", "--propagation", "private", "/bin/sh", "-c", script]).arg(ids);
    run.arg(nerdctl.get_program()).args(nerdctl.get_args()).env_clear();
    run.envs(nerdctl.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command::run(run, LIMIT).ok();
    let pid = n.inspect(&name, "{{.State.Pid}}").parse().unwrap();
    assert_eq!(status(pid, "Uid").unwrap().split_whitespace().next(), Some("655360"));
    assert_eq!(n.run(["exec", &name, "sh", "-c", "id -u; stat -c %u /etc/plain"]).ok(), "0\n0\n");
    n.run(["rm", "-f", &name]).ok();
    n.test.finish();
}
