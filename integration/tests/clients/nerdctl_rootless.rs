//! nerdctl for an ordinary user, on that user's containerd.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use myshim_integration::claim::Claim;
use myshim_integration::command::{self, LIMIT, Output};
use myshim_integration::containerd::{runtime, workspace};
use myshim_integration::process::status;
use myshim_integration::rootless::{self, Place, USER};
use myshim_integration::test::import;
use myshim_integration::{Daemon, Test, claims, image, wait};

pub(crate) const CLAIMS: &[Claim] = claims![an_ordinary_user_has_nerdctl.once().within(120)];

struct Nerdctl {
    daemon: Daemon,
    /// A copy: the user need not be able to reach the checkout.
    program: PathBuf,
}

impl Nerdctl {
    fn start(t: &Test) -> Self {
        let dir = t.dir.join("c");
        let daemon =
            rootless::start(t.version(), &dir, &t.endpoint.namespace, Place::WithoutNetwork);
        import(daemon.endpoint(), &t.dir);
        let program = dir.join("nerdctl");
        fs::copy(workspace().join(".tools/clients/nerdctl"), &program).unwrap();
        Self { daemon, program }
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let endpoint = self.daemon.endpoint();
        let mut command: Command = rootless::as_user(&self.daemon, &self.program);
        command
            .arg("--address")
            .arg(endpoint.address())
            .arg("--namespace")
            .arg(&endpoint.namespace);
        command.arg("--data-root").arg(endpoint.dir.join("n")).args(args);
        command::run(command, LIMIT)
    }
}

fn an_ordinary_user_has_nerdctl(t: &Test) {
    let n = Nerdctl::start(t);
    let t = t.on(&n.daemon);
    let runtime = runtime();
    for net in ["none", "host"] {
        let args = ["run", "--runtime", &runtime, "--rm", "--net", net, image::NAME];
        let program = ["sh", "-c", "echo out; id -u; exit 5"];
        assert_eq!(n.run(args.iter().chain(&program)).exits(5), "out\n0\n", "{net}");
        let name = format!("{net}-{}", t.tag);
        let args = ["run", "-d", "--runtime", &runtime, "--net", net, "--name", &name, image::NAME];
        let program =
            ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"];
        n.run(args.iter().chain(&program)).ok();
        wait::until_true("the log has it", || n.run(["logs", &name]).ok() == "ready\n");
        assert_eq!(n.run(["exec", &name, "echo", "hello"]).ok(), "hello\n");
        // nerdctl ends with 1 and says which code it was.
        n.run(["exec", &name, "sh", "-c", "exit 9"]).fails(&["exec failed with exit code 9"]);
        let inspect = |template| n.run(["inspect", "--format", template, &name]).ok();
        let pid = inspect("{{.State.Pid}}").trim().parse().unwrap();
        assert_eq!(status(pid, "Uid"), Some(format!("{USER}\t{USER}\t{USER}\t{USER}")));
        n.run(["stop", "--time", "20", &name]).ok();
        assert_eq!(inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 3\n");
        n.run(["rm", &name]).ok();
    }
    t.finish();
}
