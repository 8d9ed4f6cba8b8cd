//! A container, as its client sees it.

use crate::command::Output;
use crate::process::Process;
use crate::test::Test;
use crate::wait;

/// A container that a test has made with `--detach`; the test removes it.
#[derive(Debug)]
pub struct Container<'a> {
    pub(crate) test: &'a Test,
    /// Its id.
    pub id: String,
}

impl Container<'_> {
    /// The status that containerd reports: CREATED, RUNNING, PAUSED, STOPPED; empty when there is
    /// no task.
    #[must_use]
    pub fn status(&self) -> String {
        self.column(2)
    }

    /// Its init's process id.
    ///
    /// # Panics
    /// When there is no task.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.column(1).parse().unwrap_or_else(|_| panic!("{} has no task", self.id))
    }

    fn column(&self, n: usize) -> String {
        let list = self.test.ctr(["tasks", "list"]).ok();
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(&self.id));
        line.and_then(|line| line.split_whitespace().nth(n)).unwrap_or_default().to_owned()
    }

    /// Waits until containerd reports `status`.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn wait_status(&self, status: &str) {
        let end = wait::within(wait::SOON, || (self.status() == status).then_some(()));
        assert!(end.is_some(), "{} ought to be {status}, is {:?}", self.id, self.status());
    }

    /// `ctr tasks exec`.
    #[must_use]
    pub fn exec(&self, program: &[&str]) -> Output {
        self.exec_as("e", &[], program)
    }

    /// `ctr tasks exec` with an id and flags of its own.
    #[must_use]
    pub fn exec_as(&self, exec: &str, flags: &[&str], program: &[&str]) -> Output {
        self.test.ctr(self.exec_args(exec, flags, program))
    }

    /// The arguments of `ctr tasks exec`.
    #[must_use]
    pub fn exec_args(&self, exec: &str, flags: &[&str], program: &[&str]) -> Vec<String> {
        let fifos = self.test.dir.join("fifo").to_string_lossy().into_owned();
        let mut args: Vec<String> =
            ["tasks", "exec", "--fifo-dir", &fifos, "--exec-id", exec].map(str::to_owned).into();
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        args.push(self.id.clone());
        args.extend(program.iter().map(|&word| word.to_owned()));
        args
    }

    /// `ctr tasks kill`.
    #[must_use]
    pub fn kill(&self, signal: &str) -> Output {
        self.test.ctr(["tasks", "kill", "--signal", signal, &self.id])
    }

    /// A command of `ctr tasks` on it.
    #[must_use]
    pub fn task(&self, command: &str) -> Output {
        self.test.ctr(["tasks", command, &self.id])
    }

    /// Kills what runs and removes task and container, as a user would.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn remove(self) {
        let status = self.status();
        if !status.is_empty() {
            if status != "STOPPED" {
                self.kill("SIGKILL").ok();
                self.wait_status("STOPPED");
            }
            // The exit code of `delete` is that of the task.
            let out = self.task("delete");
            assert!(out.code().is_some() && !out.err().contains("level=error"), "{out}");
        }
        self.test.ctr(["containers", "delete", &self.id]).ok();
    }

    /// The daemon that serves it.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[must_use]
    pub fn shim(&self) -> Process {
        let shims = self.test.shims();
        assert_eq!(shims.len(), 1, "{shims:?}");
        shims[0].clone()
    }
}
