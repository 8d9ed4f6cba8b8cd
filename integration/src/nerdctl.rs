//! nerdctl on a containerd of the test's own, configured by the shipped nerdctl.toml.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::command::{self, LIMIT, Output, Running};
use crate::containerd::{Daemon, runtime, workspace};
use crate::cri::PLUGINS;
use crate::image;
use crate::pty::Terminal;
use crate::test::{Test, import};
use crate::wait;

/// A containerd, and nerdctl's own folders beside it.
#[derive(Debug)]
pub struct Nerdctl {
    /// The test on it.
    pub test: Test,
    _daemon: Daemon,
    config: PathBuf,
}

impl Nerdctl {
    /// Starts one. Networks need a claim with a network of its own.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(t: &Test) -> Self {
        let dir = t.dir.join("c");
        let daemon = Daemon::start_with_restarts(t.version(), &dir, &t.endpoint.namespace);
        import(daemon.endpoint(), &t.dir);
        let shipped = fs::read_to_string(workspace().join("config/nerdctl.toml")).unwrap();
        let own = format!(
            "address = {:?}\ndata_root = {:?}\nnamespace = {:?}\ncni_path = {PLUGINS:?}\n\
             cni_netconfpath = {:?}\ndisable_hc_systemd = true\n",
            daemon.endpoint().address(),
            t.dir.join("n"),
            t.endpoint.namespace,
            t.dir.join("net.d"),
        );
        let config = t.file("nerdctl.toml", &format!("{shipped}{own}"));
        Self { test: t.on(&daemon), _daemon: daemon, config }
    }

    /// `nerdctl` with this configuration and nothing of the host's.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(workspace().join(".tools/clients/nerdctl"));
        command.env_clear().env("NERDCTL_TOML", &self.config).env("HOME", &self.test.dir);
        // iptables and tini are Debian's; no runtime is in these folders.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(args);
        command
    }

    /// Runs it.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        command::run(self.command(args), LIMIT)
    }

    /// Starts it, with pipes on its standard streams.
    #[must_use]
    pub fn start_command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(command)
    }

    /// `nerdctl run --rm` with our runtime, no network, these flags and a shell script: its output.
    ///
    /// # Panics
    /// When it does not end with 0.
    #[track_caller]
    #[must_use]
    pub fn shell(&self, flags: &[&str], script: &str) -> String {
        let mut args = self.run_args(&["--rm", "--net", "none"]);
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        args.extend([image::NAME, "sh", "-c", script].map(str::to_owned));
        self.run(args).ok()
    }

    /// `run` with our runtime and these flags; image and program are to follow.
    #[must_use]
    pub fn run_args(&self, flags: &[&str]) -> Vec<String> {
        let mut args = vec!["run".to_owned(), "--runtime".to_owned(), runtime()];
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        args
    }

    /// `run --detach` under a name with the tag in it: that name.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn detached(&self, name: &str, flags: &[&str], script: &str) -> String {
        let name = format!("{name}-{}", self.test.tag);
        let mut args = self.run_args(&["--detach", "--name", &name]);
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        args.extend([image::NAME, "sh", "-c", script].map(str::to_owned));
        self.run(args).ok();
        name
    }

    /// `run -it` on a terminal.
    #[must_use]
    pub fn on_terminal<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Terminal {
        Terminal::start(self.command(args))
    }

    /// What `inspect` says of a container, by a Go template.
    ///
    /// # Panics
    /// When it is not known.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.run(["inspect", "--format", template, name]).ok().trim().to_owned()
    }

    /// Waits until `inspect` says so.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn wait_inspect(&self, name: &str, template: &str, value: &str) {
        let what = format!("{template} of {name} is {value}");
        wait::until_true(&what, || self.inspect(name, template) == value);
    }
}
