//! containerd's CRI, as the kubelet sees it: a containerd of the test's own with the shipped
//! drop-in, a network for pods, and `crictl`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::command::{self, LIMIT, Output, Running};
use crate::containerd::{Daemon, Endpoint, Version, workspace};
use crate::host;
use crate::image::{self, Image};
use crate::pty::Terminal;
use crate::test::{Test, import, import_archive};

/// The handler that the drop-ins of config/ make.
pub const HANDLER: &str = "myshim";

/// The image of pods' sandboxes.
pub const PAUSE: &str = "myshim.test/pause:1";

/// Where Debian's containernetworking-plugins are.
pub const PLUGINS: &str = "/usr/lib/cni";

/// What pause does: it reaps, as the first process of a shared pid namespace has to.
const PAUSE_SCRIPT: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";

/// A containerd that serves CRI.
#[derive(Debug)]
pub struct Cri {
    /// The test on it.
    pub test: Test,
    /// The daemon itself.
    pub daemon: Daemon,
}

impl Cri {
    /// Starts one, with the drop-in as it is shipped.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(t: &Test) -> Self {
        Self::with_options(t, "")
    }

    /// Starts one; the file that the drop-in for 1.x names has `options` in it, and the one for
    /// 2.x, which has the options themselves, gets them in place of its own.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn with_options(t: &Test, options: &str) -> Self {
        Self::with_drop_in(t, &drop_in(t, options))
    }

    /// Starts one with this drop-in.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn with_drop_in(t: &Test, drop_in: &str) -> Self {
        let dir = t.dir.join("c");
        write_network(t, &dir);
        let daemon = Daemon::start_with_cri(t.version(), &dir, &tables(t.version(), &dir, drop_in));
        import(daemon.endpoint(), &t.dir);
        let archive = t.dir.join("pause.tar");
        Image::busybox().command(&["/bin/sh", "-c", PAUSE_SCRIPT]).archive(&archive, PAUSE);
        import_archive(daemon.endpoint(), &archive);
        Self { test: t.on(&daemon), daemon }
    }

    /// `crictl` with the socket of this containerd.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = crictl(&self.test.endpoint);
        command.args(args);
        command
    }

    /// Runs `crictl`.
    #[must_use]
    pub fn crictl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        command::run(self.command(args), LIMIT)
    }

    /// Starts `crictl`, with pipes on its standard streams.
    #[must_use]
    pub fn crictl_start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(command)
    }

    /// Starts `crictl` on a terminal.
    #[must_use]
    pub fn crictl_on_terminal<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Terminal {
        Terminal::start(self.command(args))
    }

    /// What `crictl` prints as JSON.
    ///
    /// # Panics
    /// When it prints something else.
    #[track_caller]
    #[must_use]
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Value {
        let output = self.crictl(args);
        serde_json::from_str(&output.ok()).unwrap_or_else(|error| panic!("{error}: {output}"))
    }

    /// Runs a pod with the handler of the drop-in; `edit` changes its configuration.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn pod(&self, name: &str, edit: impl FnOnce(&mut Value)) -> Pod<'_> {
        let (config, output) = self.try_pod(name, edit);
        Pod { cri: self, id: output.ok().trim().to_owned(), config }
    }

    /// [`Self::pod`], where that may fail: the configuration's file, and what `crictl` said.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn try_pod(&self, name: &str, edit: impl FnOnce(&mut Value)) -> (PathBuf, Output) {
        let mut config = json!({
            "metadata": {"name": name, "namespace": "default", "uid": self.test.id(name), "attempt": 0},
            "hostname": name,
            "log_directory": self.test.folder("logs"),
            "linux": {"cgroup_parent": self.cgroup()},
        });
        edit(&mut config);
        let file = self.test.file(&format!("{name}.pod.json"), &config.to_string());
        let output = self.crictl(["runp", "--runtime", HANDLER, &file.to_string_lossy()]);
        (file, output)
    }

    /// The cgroup of the pods, which the kubelet would have made and would remove.
    fn cgroup(&self) -> String {
        format!("/pods-{}", self.test.tag)
    }

    /// Compares the host with what it was.
    ///
    /// # Panics
    /// When something is left.
    #[track_caller]
    pub fn finish(self) {
        for root in host::cgroup_roots() {
            // Not empty: a container's is left in it, and the comparison says so.
            fs::remove_dir(root.join(self.cgroup().trim_start_matches('/'))).ok();
        }
        self.test.finish();
    }
}

/// A pod.
#[derive(Debug)]
pub struct Pod<'a> {
    cri: &'a Cri,
    /// Its id, which is that of its sandbox's container.
    pub id: String,
    config: PathBuf,
}

impl<'a> Pod<'a> {
    /// Starts a container in it; `edit` changes its configuration.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn container(
        &self,
        name: &str,
        args: &[&str],
        edit: impl FnOnce(&mut Value),
    ) -> PodContainer<'a> {
        let container = self.created(name, args, edit);
        self.cri.crictl(["start", &container.id]).ok();
        container
    }

    /// Makes a container in it.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    #[must_use]
    pub fn created(
        &self,
        name: &str,
        args: &[&str],
        edit: impl FnOnce(&mut Value),
    ) -> PodContainer<'a> {
        let mut config = json!({
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": image::NAME},
            "command": args,
            "log_path": format!("{name}.log"),
            "linux": {},
        });
        edit(&mut config);
        let file = self.cri.test.file(&format!("{name}.json"), &config.to_string());
        let file = file.to_string_lossy();
        let output = self.cri.crictl(["create", &self.id, &file, &self.config.to_string_lossy()]);
        let log = self.cri.test.dir.join("logs").join(format!("{name}.log"));
        PodContainer { cri: self.cri, id: output.ok().trim().to_owned(), log }
    }

    /// Stops and removes it and what is in it, as the kubelet does.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn remove(self) {
        self.cri.crictl(["stopp", &self.id]).ok();
        self.cri.crictl(["rmp", &self.id]).ok();
    }
}

/// A container in a pod.
#[derive(Debug)]
pub struct PodContainer<'a> {
    cri: &'a Cri,
    /// Its id.
    pub id: String,
    /// The file of its log, in the format of the kubelet.
    pub log: PathBuf,
}

impl PodContainer<'_> {
    /// `crictl exec --sync`.
    #[must_use]
    pub fn exec(&self, program: &[&str]) -> Output {
        exec(&self.cri.test.endpoint, &self.id, program)
    }

    /// What the runtime says of it.
    ///
    /// # Panics
    /// When it does not know it.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self) -> Value {
        self.cri.json(["inspect", &self.id])
    }

    /// A text in its status, as in `/state`.
    #[must_use]
    pub fn status(&self, pointer: &str) -> String {
        let all = self.inspect();
        let value = all["status"].pointer(pointer).cloned().unwrap_or_default();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    /// Its init's process id.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inspect()["info"]["pid"].as_u64().and_then(|pid| pid.try_into().ok()).unwrap()
    }

    /// Waits until its state is `CONTAINER_EXITED`.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn wait_exited(&self) {
        crate::wait::until_true("the container has exited", || {
            self.status("/state") == "CONTAINER_EXITED"
        });
    }

    /// What it wrote, without the times and streams of the log's format.
    #[must_use]
    pub fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let messages = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        messages.map(|line| format!("{line}\n")).collect()
    }

    /// Waits until it has written `text`.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn wait_said(&self, text: &str) {
        let said =
            crate::wait::within(crate::wait::SOON, || self.said().contains(text).then_some(()));
        assert!(said.is_some(), "{text:?} is not in the log: {:?}", self.said());
    }

    /// Stops it, with so many seconds between SIGTERM and SIGKILL.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn stop(&self, grace: Duration) {
        self.cri.crictl(["stop", "--timeout", &grace.as_secs().to_string(), &self.id]).ok();
    }

    /// Removes it.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn remove(self) {
        self.cri.crictl(["rm", &self.id]).ok();
    }
}

/// `crictl` with the socket of a containerd, and no file of the host's.
#[must_use]
pub fn crictl(endpoint: &Endpoint) -> Command {
    let mut command = Command::new(workspace().join(".tools/clients/crictl"));
    let address = format!("unix://{}", endpoint.address().display());
    command.args(["--config", "/dev/null", "--timeout", "20s"]);
    command.args(["--runtime-endpoint", &address, "--image-endpoint", &address]);
    command
}

/// `crictl exec --sync` in the container `id`, without the empty lines that `crictl` adds: it ends
/// both the program's output and its errors with one of its own, on standard output.
#[must_use]
pub fn exec(endpoint: &Endpoint, id: &str, program: &[&str]) -> Output {
    let mut command = crictl(endpoint);
    command.args(["exec", "--sync", id]).args(program);
    let mut output = command::run(command, LIMIT);
    while output.stdout.ends_with(b"\n\n") || output.stdout == b"\n" {
        output.stdout.pop();
    }
    output
}

/// Two ends of a wire and an address: a network that needs no packet filter.
fn write_network(t: &Test, dir: &Path) {
    let folder = dir.join("net.d");
    fs::create_dir_all(&folder).unwrap();
    let range = [{ json!([{"subnet": "10.88.0.0/24"}]) }];
    let config = json!({
        "cniVersion": "0.4.0",
        "name": format!("pods-{}", t.tag),
        "plugins": [{
            "type": "ptp",
            "ipam": {"type": "host-local", "dataDir": dir.join("ipam"), "ranges": range},
        }],
    });
    fs::write(folder.join("10-pods.conflist"), config.to_string()).unwrap();
}

/// The shipped drop-in for this containerd; only the path of the options' file is another.
fn drop_in(t: &Test, options: &str) -> String {
    let config = workspace().join("config");
    match t.version() {
        Version::V16 => {
            let shipped = fs::read_to_string(config.join("myshim.toml")).unwrap();
            let file = t.file("myshim.toml", &format!("{shipped}\n{options}"));
            let text = fs::read_to_string(config.join("containerd-1.x.toml")).unwrap();
            text.replace("/etc/containerd/myshim.toml", &file.to_string_lossy())
        }
        Version::V2 => {
            let text = fs::read_to_string(config.join("containerd-2.x.toml")).unwrap();
            if options.is_empty() {
                return text;
            }
            // The table that is there as a comment.
            let table =
                "# [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.myshim.options]";
            let uncommented = format!("{}\n{options}\n", table.trim_start_matches("# "));
            assert!(text.contains(table), "{text}");
            text.replace(table, &uncommented)
        }
    }
}

/// The drop-in, and what makes the rest of CRI private to `dir`.
fn tables(version: Version, dir: &Path, drop_in: &str) -> String {
    // A version is said once in a file.
    let drop_in: String =
        drop_in.split_inclusive('\n').filter(|line| !line.starts_with("version = ")).collect();
    let (runtime, image) = match version {
        Version::V16 => ("io.containerd.grpc.v1.cri", format!("sandbox_image = {PAUSE:?}\n")),
        Version::V2 => ("io.containerd.cri.v1.runtime", String::new()),
    };
    let bins = match version {
        Version::V16 => format!("bin_dir = {PLUGINS:?}"),
        Version::V2 => format!("bin_dirs = [{PLUGINS:?}]"),
    };
    // The machines of the tests need not have CAP_SYS_RESOURCE, without which no score is lowered.
    let own = format!(
        "\n[plugins.\"{runtime}\"]\n{image}netns_mounts_under_state_dir = true\n\
         disable_apparmor = true\nrestrict_oom_score_adj = true\n{stream}\n[plugins.\"{runtime}\".cni]\n{bins}\nconf_dir = {:?}\n",
        dir.join("net.d"),
        stream = if version == Version::V16 { "stream_server_port = \"0\"\n" } else { "" },
    );
    let images = match version {
        Version::V16 => String::new(),
        Version::V2 => format!(
            "\n[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = {PAUSE:?}\n"
        ),
    };
    // As soon as 1.6 finds a handler in the file, it forgets its built-in one for runc, and will
    // not serve without its default handler.
    let default = match version {
        Version::V16 => format!(
            "\n[plugins.\"{runtime}\".containerd.runtimes.runc]\n\
             runtime_type = \"io.containerd.runc.v2\"\n"
        ),
        Version::V2 => String::new(),
    };
    format!("\n{drop_in}{own}{images}{default}")
}
