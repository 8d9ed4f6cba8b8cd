//! docker: Debian's client, with two engines, each on a containerd of the test's own.
//!
//! Debian's engine, 20.10, on containerd 1.6, knows one name of a shim and no other,
//! io.containerd.runc.v2. So the shim stands on containerd's PATH under the name that docker asks
//! for. 28.5, on containerd 2, takes any name: there the shim has its own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use myshim_integration::claim::Claim;
use myshim_integration::command::{self, LIMIT, Output, Running};
use myshim_integration::containerd::{runtime, shim_binary, workspace};
use myshim_integration::image::{Image, NAME};
use myshim_integration::process::cgroup_dir;
use myshim_integration::pty::Terminal;
use myshim_integration::{Daemon, Test, Version, claims, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

pub(crate) const CLAIMS: &[Claim] = claims![
    docker_runs_its_containers.own_network().once().within(180),
    docker_28_takes_the_runtime_by_its_name.own_network().once().within(180),
    docker_28_takes_the_runtime_from_its_configuration.own_network().once().within(180),
];

/// Below `.tools`.
const DEBIAN: &str = "docker/usr/sbin/dockerd";
const V28: &str = "docker-28/dockerd";

struct Docker {
    dir: PathBuf,
    engine: Option<Running>,
}

impl Docker {
    fn start(t: &Test, program: &str, containerd: &Daemon, config: &Value) -> Self {
        let dir = t.folder("d");
        // dockerd looks for a runc for its builds when it starts, and does not start without. No
        // container runs by this one: it fails whoever calls it.
        let path = t.folder("path");
        fs::write(path.join("runc"), "#!/bin/sh\necho 'no runc here' >&2\nexit 1\n").unwrap();
        fs::set_permissions(path.join("runc"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "TERM", "--"]);
        command.arg(workspace().join(".tools").join(program));
        command.arg("--containerd").arg(containerd.endpoint().address());
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        command.arg("--pidfile").arg(dir.join("pid"));
        command.arg("--host").arg(format!("unix://{}", dir.join("s").display()));
        command.arg("--config-file").arg(t.file("daemon.json", &config.to_string()));
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.arg("--userland-proxy=false");
        command.arg("--cgroup-parent").arg(format!("/docker-{}", t.tag));
        command.env("PATH", format!("/usr/sbin:/usr/bin:/sbin:/bin:{}", path.display()));
        let log = fs::File::create(t.dir.join("dockerd.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let docker = Self { dir, engine: Some(Running::start(command)) };
        wait::until_true("dockerd answers", || docker.run(["version"]).status.success());
        docker
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(workspace().join(".tools/docker/usr/bin/docker"));
        command.env("DOCKER_HOST", format!("unix://{}", self.dir.join("s").display()));
        command.env("DOCKER_CONFIG", self.dir.join("cfg")).args(args);
        command
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        command::run(self.command(args), LIMIT)
    }

    fn inspect(&self, name: &str, template: &str) -> String {
        self.run(["inspect", "--format", template, name]).ok().trim().to_owned()
    }

    fn stop(mut self) {
        if let Some(engine) = self.engine.take() {
            engine.signal(Signal::TERM);
            drop(engine.finish(Duration::from_secs(30)));
        }
    }
}

/// Imports the image, as a root directory in an archive.
fn import(t: &Test, docker: &Docker) {
    let root = t.dir.join("image");
    Image::busybox().unpack(&root);
    let archive = t.dir.join("root.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(root).arg("-cf").arg(&archive).arg(".");
    command::run(tar, LIMIT).ok();
    let path = ["import", "--change", "ENV PATH=/bin", &archive.to_string_lossy(), NAME]
        .map(str::to_owned);
    docker.run(path).ok();
}

const READY: &str = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";

fn docker_runs_its_containers(t: &Test) {
    let bin = t.folder("bin");
    symlink(shim_binary(Version::V16), bin.join("containerd-shim-runc-v2")).unwrap();
    let containerd = Daemon::start_with_path(Version::V16, &t.dir.join("c"), "moby", &bin);
    let docker = Docker::start(t, DEBIAN, &containerd, &json!({}));
    import(t, &docker);
    runs_its_containers(&docker, &[]);
    stop(t, docker, containerd);
}

fn docker_28_takes_the_runtime_by_its_name(t: &Test) {
    let containerd = Daemon::start(Version::V2, &t.dir.join("c"), "moby");
    let docker = Docker::start(t, V28, &containerd, &json!({}));
    import(t, &docker);
    runs_its_containers(&docker, &["--runtime", &runtime()]);
    stop(t, docker, containerd);
}

/// `config/docker-daemon.json`, with `options` for the file that it names, and the runtime as the
/// default.
fn shipped(options: &Path) -> Value {
    let text = fs::read_to_string(workspace().join("config/docker-daemon.json")).unwrap();
    let path = "/etc/containerd/myshim.toml";
    assert!(text.contains(path), "{text}");
    let mut config: Value =
        serde_json::from_str(&text.replace(path, &options.to_string_lossy())).unwrap();
    config["default-runtime"] = json!("myshim");
    config
}

fn docker_28_takes_the_runtime_from_its_configuration(t: &Test) {
    let options = t.file("myshim.toml", "SystemdCgruop = true\n");
    let containerd = Daemon::start(Version::V2, &t.dir.join("c"), "moby");
    let docker = Docker::start(t, V28, &containerd, &shipped(&options));
    import(t, &docker);
    // The file is read: a mistake in it is told.
    for flags in [&["--runtime", "myshim"][..], &[]] {
        let run = ["run", "--rm", "--net", "none"].iter().chain(flags).chain(&[NAME, "true"]);
        docker.run(run).fails(&["myshim.toml line 1: ", "SystemdCgruop"]);
    }
    fs::copy(workspace().join("config/myshim.toml"), &options).unwrap();
    runs_its_containers(&docker, &["--runtime", "myshim"]);
    runs_its_containers(&docker, &[]);
    stop(t, docker, containerd);
}

fn stop(t: &Test, docker: Docker, containerd: Daemon) {
    docker.stop();
    for root in myshim_integration::host::cgroup_roots() {
        fs::remove_dir(root.join(format!("docker-{}", t.tag))).ok();
    }
    drop(containerd);
    t.finish();
}

/// `flags` say which runtime.
fn runs_its_containers(docker: &Docker, flags: &[&str]) {
    let run = |own: &[&str], program: &[&str]| {
        let net = ["--net", "none"];
        let words = ["run"].iter().chain(&net).chain(flags).chain(own).chain(&[NAME]);
        docker.run(words.chain(program))
    };
    assert_eq!(run(&["--rm"], &["sh", "-c", "echo out; exit 5"]).exits(5), "out\n");
    run(&["-d", "--name", "web", "--memory", "64m"], &["sh", "-c", READY]).ok();
    wait::until_true("the log has it", || docker.run(["logs", "web"]).ok() == "ready\n");
    executes(docker);
    changes_and_reports(docker);
    docker.run(["stop", "--time", "20", "web"]).ok();
    assert_eq!(docker.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    assert_eq!(docker.run(["logs", "web"]).ok(), "ready\nbye\n");
    docker.run(["rm", "web"]).ok();

    let limits = ["--name", "hungry", "--memory", "16m", "--memory-swap", "16m"];
    run(&limits, &["tail", "/dev/zero"]).exits(137);
    assert_eq!(docker.inspect("hungry", "{{.State.OOMKilled}}"), "true");
    docker.run(["rm", "hungry"]).ok();
}

fn executes(docker: &Docker) {
    assert_eq!(docker.run(["exec", "web", "echo", "hello"]).ok(), "hello\n");
    docker.run(["exec", "web", "sh", "-c", "exit 9"]).exits(9);
    let mut terminal = Terminal::start(docker.command(["exec", "-it", "web", "sh"]));
    // docker tells the size after the start.
    wait::until_true("the size arrives", || {
        terminal.send("stty size\n");
        terminal.shown().contains("24 80\n")
    });
    terminal.send("tty; exit 6\n");
    let (status, shown) = terminal.finish(LIMIT);
    assert!(status.code() == Some(6) && shown.contains("/dev/pts/0\n"), "{shown}");
}

fn changes_and_reports(docker: &Docker) {
    let memory = || {
        let pid = docker.inspect("web", "{{.State.Pid}}").parse().unwrap();
        let dir = cgroup_dir(pid, "memory").unwrap();
        let files = ["memory.limit_in_bytes", "memory.max"];
        files.iter().find_map(|file| fs::read_to_string(dir.join(file)).ok()).unwrap()
    };
    assert_eq!(memory(), "67108864\n");
    docker.run(["update", "--memory", "96m", "--memory-swap", "96m", "web"]).ok();
    assert_eq!(memory(), "100663296\n");
    let stats = docker.run(["stats", "--no-stream", "--format", "{{.MemUsage}}", "web"]).ok();
    assert!(stats.contains(" / 96MiB"), "{stats}");
    docker.run(["pause", "web"]).ok();
    assert_eq!(docker.inspect("web", "{{.State.Status}}"), "paused");
    docker.run(["unpause", "web"]).ok();
}
