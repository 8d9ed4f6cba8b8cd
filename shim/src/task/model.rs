//! The words in which a container's state machine is asked and answers.

use std::sync::Arc;
use std::time::SystemTime;

use runtime::{Error, Result};
use tokio::sync::oneshot;

use crate::io::Stdio;
use crate::reaper::Exit;

/// Where the answer to a command goes. That nobody waits for it any more changes nothing: the
/// command is carried out all the same.
#[derive(Debug)]
pub(crate) struct Reply<T>(pub(crate) oneshot::Sender<Result<T>>);

impl<T> Reply<T> {
    /// A reply and where to await it.
    pub(crate) fn channel() -> (Reply<T>, oneshot::Receiver<Result<T>>) {
        let (sender, receiver) = oneshot::channel();
        (Reply(sender), receiver)
    }

    /// Answers.
    pub(crate) fn send(self, answer: Result<T>) {
        // An error means that the client is gone.
        drop(self.0.send(answer));
    }

    /// Answers with a failure.
    pub(crate) fn fail(self, error: Error) {
        self.send(Err(error));
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

/// Which of a container's processes: 0 is init, execs are counted on. An exec's id may be used
/// again, its key is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) u64);

/// The container's init.
pub(crate) const INIT: Key = Key(0);

/// What a client may ask of a container. `exec` is None for init.
#[derive(Debug)]
pub(crate) enum Command {
    /// Executes the program; answers with the pid.
    Start { exec: Option<String>, reply: Reply<u32> },
    /// Adds an exec.
    Exec { exec: NewExec, reply: Reply<()> },
    /// Removes a process that has ended or was not started.
    Delete { exec: Option<String>, reply: Reply<Deleted> },
    /// What is known of a process.
    State { exec: Option<String>, reply: Reply<Snapshot> },
    /// The execs that have a pid.
    ExecPids { reply: Reply<Vec<(u32, String)>> },
    /// Stops all processes.
    Pause { reply: Reply<()> },
    /// Lets them run again.
    Resume { reply: Reply<()> },
    /// Sends a signal.
    Kill { exec: Option<String>, signal: i32, whom: Whom, reply: Reply<()> },
    /// Sets a terminal's size.
    Resize { exec: Option<String>, columns: u16, rows: u16, reply: Reply<()> },
    /// Ends stdin.
    CloseIo { exec: Option<String>, reply: Reply<()> },
    /// Changes limits; `linux.resources` as JSON.
    Update { resources: String, reply: Reply<()> },
    /// Waits for a process's end.
    Wait { exec: Option<String>, reply: Reply<Ended> },
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The process that is named.
    One,
    /// All processes of the container.
    All,
}

/// An exec that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewExec {
    /// Its id.
    pub(crate) id: String,
    /// `process` of the OCI spec, as JSON.
    pub(crate) process: String,
    /// Its streams.
    pub(crate) stdio: Stdio,
}

/// What the deletion of a process answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deleted {
    /// Its pid; None when it was never started.
    pub(crate) pid: Option<u32>,
    /// How it ended; None when it was never started.
    pub(crate) exit: Option<Exit>,
}

/// What a wait answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// As in [`Exit`], or 255 for an exec that could not be started.
    pub(crate) status: u32,
    /// None for an exec that could not be started.
    pub(crate) at: Option<SystemTime>,
}

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// None for an exec that was not started.
    pub(crate) pid: Option<u32>,
    /// Where it is in its life.
    pub(crate) status: Status,
    /// How it ended.
    pub(crate) exit: Option<Exit>,
    /// Its streams.
    pub(crate) stdio: Stdio,
}

/// Where a process is in its life, as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are containerd's")]
pub(crate) enum Status {
    Created,
    Running,
    Stopped,
    Paused,
    Pausing,
}

/// What the machine wants done. Nothing of it is waited for: what takes time comes back as a
/// [`Report`].
#[derive(Debug)]
pub(crate) enum Effect {
    /// Tell containerd. Events are published in the order of their effects.
    Publish(Event),
    /// Let init execute its program. Reports `Executed`, then `Started`; or `Started` alone.
    StartInit,
    /// Make a tenant and let it execute. Reports `ExecStarted`, then `Exited`.
    StartExec(Key, Arc<NewExec>),
    /// Signal a process.
    Signal { key: Key, signal: i32, reply: Option<Reply<()>> },
    /// Signal all processes of the cgroup.
    KillAll { signal: i32, reply: Reply<()> },
    /// Stop all processes. Reports `Paused`.
    Pause,
    /// Let them run. Reports `Resumed`.
    Resume,
    /// Thaw what SIGKILL must reach. No report.
    ThawForKill,
    /// Change limits. Reports `Updated`.
    Update(String),
    /// Init has ended: thaw, then kill what is left. Reports `Swept`.
    Sweep(Sweep),
    /// A process has been started: it gets its input.
    Feed(Key),
    /// A process has ended: its streams end.
    Release(Key),
    /// Keep how init ended for the `delete` command.
    Persist(Exit),
    /// Wait for a process's output, then close its streams. Reports `Drained`.
    Drain(Key),
    /// The same for init, then remove the container. Reports `Removed`.
    Remove,
    /// Set a terminal's size.
    Resize { key: Key, columns: u16, rows: u16, reply: Reply<()> },
    /// End stdin.
    CloseStdin(Key),
    /// The container is gone: so is the actor.
    Leave,
    /// Who deleted it has hung up, and will not end the daemon.
    EndWhenEmpty,
}

/// What is done to what is left of a container after its init's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// It may be frozen, and nothing that is frozen can end.
    pub(crate) thaw: bool,
    /// The kernel does not end it by itself.
    pub(crate) kill: bool,
}

/// What becomes of effects, and what processes do by themselves.
#[derive(Debug)]
pub(crate) enum Report {
    /// Init executes its program; its start may go on with hooks.
    Executed,
    /// Init's start is over.
    Started(Result<()>),
    /// An exec's start is over; its pid.
    ExecStarted(Key, Result<u32>),
    /// A process has ended.
    Exited(Key, Exit),
    /// See the effect.
    Paused(Result<()>),
    /// See the effect.
    Resumed(Result<()>),
    /// See the effect.
    Updated(Result<()>),
    /// See the effect.
    Swept,
    /// See the effect.
    Drained(Key),
    /// See the effect.
    Removed(Result<()>),
}

/// What containerd is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are containerd's")]
pub(crate) enum Event {
    Start { pid: u32 },
    ExecAdded { exec: String },
    ExecStarted { exec: String, pid: u32 },
    Exit { exec: Option<String>, pid: u32, exit: Exit },
    Delete { pid: u32, exit: Exit },
    Paused,
    Resumed,
}
