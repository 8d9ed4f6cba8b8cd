//! What the daemon may ask of main, and what it is answered.
//!
//! ```text
//!  daemon --order--> spawner             ahead of the operation
//!         <--Forked (+ fds)--            main exists and waits: its pidfd, its two channels
//!
//!  daemon --Request (+ fds)--> main
//!         <--Created | Done | Failed--   exactly one; then main ends, or waits for another
//!         <==Forked (+ pidfd)==          what it has made, on the other channel
//!
//!  daemon --Start--> init                the channel that came with Created
//!         <--Failed | end of stream--    the end of the stream is the execve
//! ```

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupPaths;
use crate::error::{Error, Result};
use crate::plan::Mount;

/// One operation for main.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Makes a container up to the point where its init waits for start.
    /// Fds: the three of [`Stdio`], unless a terminal is asked for; then those of [`ExtraFds`].
    Create(CreateRequest),
    /// Makes a tenant of a container, up to the same point.
    /// Fds: the container's init as pidfd, then as for create.
    Exec(ExecRequest),
    /// Kills what is left, runs the poststop hooks, removes cgroup and state.
    /// Fds: pidfds of processes to be killed with it, of a create whose main died.
    Delete(DeleteRequest),
    /// Changes limits.
    Update(UpdateRequest),
    /// Freezes or thaws all processes, and waits until it is so.
    Freeze(FreezeRequest),
    /// Sends a signal to all processes of the container's cgroup.
    KillAll(KillAllRequest),
    /// Runs the poststart hooks (after the user's program runs).
    Poststart(PoststartRequest),
}

impl Request {
    /// What it is, and of what, for the log: `exec probe of web`.
    pub fn title(&self) -> String {
        let of = |state_dir: &Path| {
            let bundle = state_dir.parent().and_then(Path::file_name).unwrap_or_default();
            bundle.to_string_lossy().into_owned()
        };
        match self {
            Request::Create(create) => format!("create {}", create.id),
            Request::Exec(exec) => format!("exec {} of {}", exec.exec_id, of(&exec.state_dir)),
            Request::Delete(delete) => format!("delete {}", of(&delete.state_dir)),
            Request::Update(update) => format!("update {}", of(&update.state_dir)),
            Request::Freeze(freeze) => format!("{:?} {}", freeze.freezer, of(&freeze.state_dir)),
            Request::KillAll(kill) => format!("kill all of {}", of(&kill.state_dir)),
            Request::Poststart(hooks) => format!("poststart of {}", of(&hooks.state_dir)),
        }
    }
}

/// See [`Request::Create`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateRequest {
    /// The container's id.
    pub id: String,
    /// The bundle; config.json is read from it. Absolute.
    pub bundle: PathBuf,
    /// Where the state goes: made with mode 0700 when it is not there. Absolute.
    pub state_dir: PathBuf,
    /// Mounts that make the root, already parsed; empty: `root.path` is used as it is.
    pub rootfs: Vec<Mount>,
    /// What the client wants otherwise than by default.
    pub options: CreateOptions,
    /// Written atomically after success, when given: init's pid in decimal.
    pub pid_file: Option<PathBuf>,
}

/// Descriptors that come with a request, after the standard streams, and which the program gets
/// as 3, 4, … in the same order. No others are ever open in a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraFds {
    /// How many there are.
    pub count: usize,
    /// How many of them, the first ones, are told of in `LISTEN_FDS` (sd_listen_fds(3)).
    pub listen: usize,
}

impl ExtraFds {
    /// Takes them from the end of a request's descriptors.
    pub(super) fn split_off(self, fds: &mut Vec<OwnedFd>) -> Result<Vec<OwnedFd>> {
        match fds.len().checked_sub(self.count) {
            Some(first) => Ok(fds.split_off(first)),
            None => Err(Error::argument(
                "extra fds",
                format!("{} descriptors came with the request, not {}", fds.len(), self.count),
            )),
        }
    }

    /// What sd_listen_fds(3) looks for. The program is pid 1, as with runc.
    pub(super) fn environment(self) -> Vec<String> {
        match self.listen {
            0 => Vec::new(),
            count => vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".into()],
        }
    }
}

/// Who lets a container's init execute the user's program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartedBy {
    /// The holder of [`Created::start`]: the container does not outlive it unstarted.
    #[default]
    Daemon,
    /// Any process that may open the state directory, by [`super::start_container`].
    Anyone,
}

/// Options of a create that are not in the spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "containerd.runc.v1.Options has them as flags")]
pub struct CreateOptions {
    /// MS_MOVE + chroot(2) in place of pivot_root(2).
    pub no_pivot_root: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// cgroupsPath is `slice:prefix:name` and systemd makes the cgroup.
    pub systemd_cgroup: bool,
    /// What the program inherits beyond its standard streams.
    pub extra_fds: ExtraFds,
    /// Who may start it.
    pub started_by: StartedBy,
}

/// See [`Request::Exec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The exec's id, for messages.
    pub exec_id: String,
    /// The container's state.
    pub state_dir: PathBuf,
    /// `process` of the OCI spec, as JSON.
    pub process: String,
    /// Written atomically after success, when given: the tenant's pid in decimal.
    pub pid_file: Option<PathBuf>,
    /// What the program inherits beyond its standard streams.
    pub extra_fds: ExtraFds,
    /// What to do when the container is paused.
    pub when_paused: WhenPaused,
}

/// What an exec does in a paused container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenPaused {
    /// Fails.
    #[default]
    Refuse,
    /// Makes a process that is paused with the others, and waits until all are resumed.
    Wait,
}

/// See [`Request::Delete`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRequest {
    /// The container's state. That it is gone already is no error.
    pub state_dir: PathBuf,
}

/// See [`Request::Update`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateRequest {
    /// The container's state.
    pub state_dir: PathBuf,
    /// `linux.resources` of the OCI spec, as JSON; what it does not name stays.
    pub resources: String,
}

impl UpdateRequest {
    /// What restores memory.high after a main that has died: see
    /// [`Operation::memory_high`](super::Operation::memory_high).
    pub fn restoring(state_dir: PathBuf, memory_high: &str) -> UpdateRequest {
        let resources = serde_json::json!({ "unified": { "memory.high": memory_high } });
        UpdateRequest { state_dir, resources: resources.to_string() }
    }
}

/// See [`Request::Freeze`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeRequest {
    /// The container's state.
    pub state_dir: PathBuf,
    /// Which way.
    pub freezer: Freezer,
}

/// The freezer's two positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freezer {
    /// Stop all processes.
    Frozen,
    /// Let them run.
    Thawed,
}

/// See [`Request::KillAll`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillAllRequest {
    /// The container's state.
    pub state_dir: PathBuf,
    /// The signal's number.
    pub signal: i32,
}

/// See [`Request::Poststart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoststartRequest {
    /// The container's state.
    pub state_dir: PathBuf,
}

/// A child of the daemon, held by pidfd: the number cannot be reused while it is not reaped.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the daemon's pid namespace.
    pub pid: i32,
    /// Polls readable when the process ends; waitid(P_PIDFD, …, WEXITED | __WALL) reaps it.
    pub pidfd: OwnedFd,
}

/// What an operation answers.
#[derive(Debug)]
pub enum Answer {
    /// Main has made a process, which the operation is not about, or which it has lost.
    Forked(Child),
    /// Create and exec: the process waits for start.
    Created(Created),
    /// Any other operation: it is done.
    Done {
        /// What went wrong and does not matter to the outcome: for the log.
        warnings: Vec<String>,
    },
    /// It failed; nothing is left of it.
    Failed(Error),
    /// Main is gone. Without an answer before it, main died.
    End,
}

/// A process that waits for start.
#[derive(Debug)]
pub struct Created {
    /// The container's init or the tenant.
    pub process: Child,
    /// To start it, unless that is left to [`StartedBy::Anyone`].
    pub start: super::StartChannel,
    /// The master of its pseudo terminal, when it has one.
    pub console: Option<OwnedFd>,
    /// Facts about the container that the daemon needs later; the same for a tenant.
    pub facts: Facts,
}

/// Facts about a container that the daemon needs after create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Where its cgroups are, for stats and OOM watches.
    pub cgroup: CgroupPaths,
    /// It has a pid namespace of its own: when init ends the kernel ends all the rest.
    pub private_pid_namespace: bool,
    /// There are poststart hooks to be run after start.
    pub has_poststart: bool,
    /// Warnings for the log: what the spec asked for and the kernel takes as best effort.
    pub warnings: Vec<String>,
}
