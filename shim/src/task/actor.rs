//! A container's actor: carries out what its [`Machine`] wants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use runtime::cgroup::LimitHit;
use runtime::{At, Error, Kind, Result};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Container;
use super::machine::{Machine, finished, not_now};
use super::model::{Command, Effect, INIT, Key, NewExec, Reply, Report, Sweep};
use super::publish;
use super::registry::{Daemon, Handle};
use crate::bridge::{
    DeleteRequest, ExecRequest, ExtraFds, FreezeRequest, Freezer, KillAllRequest, PoststartRequest,
    Start, UpdateRequest, WhenPaused,
};
use crate::exit_file;
use crate::io::{self, ProcessIo, Role, Subject, Untaken};
use crate::oom;
use crate::reaper::{Exit, Process};

/// How long a deletion waits for output that something in the background may hold open, as Go's
/// shim does.
const DRAIN: Duration = Duration::from_secs(10);

const SIGKILL: i32 = 9;

/// What comes into an actor's mailbox.
#[derive(Debug)]
pub(crate) enum Message {
    /// A client asks.
    Command(Command),
    /// Something has come of an effect, or of a process.
    Report(Report),
    /// A process is there; before the report of its start.
    Made(Key, Held),
}

/// What the daemon holds of a process.
#[derive(Debug)]
pub(crate) struct Held {
    process: Process,
    io: Option<ProcessIo>,
}

/// A container that was just made.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) machine: Machine,
    pub(super) process: Process,
    pub(super) start: Start,
    pub(super) io: ProcessIo,
}

/// What the tasks of a container share.
#[derive(Debug, Clone)]
struct Context {
    daemon: Arc<Daemon>,
    container: Arc<Container>,
    mailbox: mpsc::UnboundedSender<Message>,
}

impl Context {
    /// After the container is gone nobody listens any more.
    fn report(&self, report: Report) {
        drop(self.mailbox.send(Message::Report(report)));
    }
}

#[derive(Debug)]
struct Actor {
    context: Context,
    machine: Machine,
    held: HashMap<Key, Held>,
    start: Option<Start>,
    oom: Option<oom::Watch>,
}

/// What an effect leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stay,
    Leave,
}

/// Starts a container's actor.
pub(super) fn start(daemon: Arc<Daemon>, container: Arc<Container>, init: Init) -> Handle {
    let (mailbox, inbox) = mpsc::unbounded_channel();
    let handle = Handle::new(Arc::clone(&container), mailbox.clone());
    let context = Context { daemon, container, mailbox };
    let process = init.process.clone();
    tokio::spawn(await_exit(context.clone(), INIT, process, init.io.untaken()));
    let oom = watch_oom(&context.container);
    let held = HashMap::from([(INIT, Held { process: init.process, io: Some(init.io) })]);
    let actor = Actor { context, machine: init.machine, held, start: Some(init.start), oom };
    tokio::spawn(actor.run(inbox));
    handle
}

/// Armed before the container can be started, so nothing is missed. A container without it is
/// still a container: Go's shim logs the failure as well.
fn watch_oom(container: &Container) -> Option<oom::Watch> {
    let watch = oom::Watch::start(&container.cgroup);
    let log = |error| warn!(container = container.id, %error, "no OOM events for this container");
    watch.map_err(log).ok()
}

/// Never without a watch.
async fn oom_ready(watch: &mut Option<oom::Watch>) {
    match watch {
        Some(watch) => watch.ready().await,
        None => std::future::pending().await,
    }
}

async fn await_exit(context: Context, key: Key, mut process: Process, output: Untaken) {
    let exit = process.exited().await;
    output.taken().await;
    context.report(Report::Exited(key, exit));
}

impl Actor {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        loop {
            let message = tokio::select! {
                message = inbox.recv() => message,
                () = oom_ready(&mut self.oom) => {
                    self.publish_ooms();
                    continue;
                }
            };
            let effects = match message {
                Some(Message::Command(command)) => self.machine.command(command),
                Some(Message::Report(report)) => {
                    if matches!(report, Report::Exited(..)) {
                        // What it may have died of is told before.
                        self.publish_ooms();
                    }
                    self.machine.report(report)
                }
                Some(Message::Made(key, held)) => {
                    self.held.insert(key, held);
                    continue;
                }
                // The actor itself has a sender.
                None => return,
            };
            let mut next = Next::Stay;
            for effect in effects {
                if self.carry_out(effect) == Next::Leave {
                    next = Next::Leave;
                }
            }
            if next == Next::Leave {
                return;
            }
        }
    }

    fn publish_ooms(&mut self) {
        let Some(kills) = self.oom.as_mut().and_then(oom::Watch::take) else {
            self.oom = None;
            return;
        };
        if kills.count == 0 {
            return;
        }
        let container = &self.context.container.id;
        let (count, limit) = (kills.count, &kills.limit);
        info!(container, count, %limit, "killed by the kernel for want of memory");
        // A cgroup that the container has made and limited is its own affair.
        if kills.limit != LimitHit::Below {
            (0..count).for_each(|_| publish::oom(&self.context.daemon.publisher, container));
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Next {
        match effect {
            Effect::Publish(event) => {
                let publisher = &self.context.daemon.publisher;
                publish::publish(publisher, &self.context.container.id, event);
            }
            Effect::StartInit => self.start_init(),
            Effect::StartExec(key, new) => self.start_exec(key, new),
            Effect::Signal { key, signal, reply } => self.signal(key, signal, reply),
            Effect::KillAll { signal, reply } => {
                self.spawn(move |context| async move {
                    reply.send(context.kill_all(signal).await);
                });
            }
            Effect::Pause => self.spawn(|context| async move {
                let paused = context.freeze(Freezer::Frozen).await;
                context.report(Report::Paused(paused));
            }),
            Effect::Resume => self.spawn(|context| async move {
                let resumed = context.freeze(Freezer::Thawed).await;
                context.report(Report::Resumed(resumed));
            }),
            Effect::ThawForKill => self.spawn(|context| async move { context.thaw().await }),
            Effect::Update(resources) => self.spawn(|context| async move {
                let state_dir = context.container.state_dir.clone();
                let request = UpdateRequest { state_dir, resources };
                let updated = context.daemon.runtime.update(request).await;
                context.report(Report::Updated(updated));
            }),
            Effect::Sweep(what) => self.spawn(move |context| sweep(context, what)),
            Effect::Feed(key) => {
                if let Some(Err(error)) = self.io(key).map(ProcessIo::started) {
                    warn!(container = self.context.container.id, %error, "no input");
                }
            }
            Effect::Release(key) => self.release(key),
            Effect::Persist(exit) => self.persist(exit),
            Effect::Drain(key) => self.drain(key),
            Effect::Remove => self.remove(),
            Effect::Resize { key, columns, rows, reply } => {
                let io = self.held.get(&key).and_then(|held| held.io.as_ref());
                reply.send(io.map_or(Ok(()), |io| io.resize(columns, rows)));
            }
            Effect::CloseStdin(key) => {
                if let Some(io) = self.io(key) {
                    io.close_stdin();
                }
            }
            Effect::EndWhenEmpty => {
                self.context.daemon.shut_down();
            }
            Effect::Leave => {
                self.context.daemon.remove(&self.context.container.id);
                return Next::Leave;
            }
        }
        Next::Stay
    }

    fn spawn<F>(&self, work: impl FnOnce(Context) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(work(self.context.clone()));
    }

    fn start_init(&mut self) {
        let process = self.held.get(&INIT).map(|held| held.process.clone());
        let Some((start, mut process)) = self.start.take().zip(process) else {
            let error = not_now("its start was tried before, and failed");
            return self.context.report(Report::Started(Err(error)));
        };
        self.spawn(|context| async move {
            let title = format!("start {}", context.container.id);
            let journal = context.daemon.runtime.journal();
            if let Err(error) = start.run(&title, &mut process, journal).await {
                let error = error.at("OCI runtime start failed");
                return context.report(Report::Started(Err(error)));
            }
            context.report(Report::Executed);
            let started = if context.container.has_poststart {
                let state_dir = context.container.state_dir.clone();
                context.daemon.runtime.poststart(PoststartRequest { state_dir }).await
            } else {
                Ok(())
            };
            context.report(Report::Started(started.at("OCI runtime start failed")));
        });
    }

    fn start_exec(&mut self, key: Key, new: Arc<NewExec>) {
        let Some(init) = self.held.get(&INIT).map(|held| held.process.clone()) else {
            let error = not_now("container's init process is not running");
            return self.context.report(Report::ExecStarted(key, Err(error)));
        };
        self.spawn(|context| async move {
            match make_exec(&context, &init, &new).await {
                Ok((process, io)) => {
                    let pid = process.pid();
                    let output = io.untaken();
                    let held = Held { process: process.clone(), io: Some(io) };
                    drop(context.mailbox.send(Message::Made(key, held)));
                    context.report(Report::ExecStarted(key, Ok(pid)));
                    await_exit(context, key, process, output).await;
                }
                Err(error) => context.report(Report::ExecStarted(key, Err(error))),
            }
        });
    }

    fn signal(&self, key: Key, signal: i32, reply: Option<Reply<()>>) {
        let sent = match self.held.get(&key) {
            Some(held) => held.process.signal(signal),
            None => Err(finished()),
        };
        let sent = sent.map_err(|error| match error.errno() {
            Some(Errno::ESRCH) => finished(),
            Some(Errno::EINVAL) => Error::argument("signal", format!("{signal} is no signal")),
            _ => error,
        });
        match (reply, sent) {
            (Some(reply), sent) => reply.send(sent),
            // Whom the daemon kills of its own accord may have ended.
            (None, Err(error)) if matches!(error.kind(), Kind::NotFound(_)) => {}
            (None, Err(error)) => warn!(container = self.context.container.id, %error, "kill"),
            (None, Ok(())) => {}
        }
    }

    fn io(&mut self, key: Key) -> Option<&mut ProcessIo> {
        self.held.get_mut(&key)?.io.as_mut()
    }

    fn release(&mut self, key: Key) {
        if let Some(io) = self.io(key) {
            io.exited();
        }
        if key == INIT {
            self.oom = None;
        }
    }

    fn persist(&self, exit: Exit) {
        let container = &self.context.container;
        let kept =
            exit_file::Exit::new(container.pid, exit.status, exit.at).write(&container.state_dir);
        if let Err(error) = kept {
            warn!(container = container.id, %error, "the exit status is not kept");
        }
    }

    fn drain(&mut self, key: Key) {
        let io = self.held.remove(&key).and_then(|held| held.io);
        self.spawn(move |context| async move {
            if let Some(io) = io {
                io.finish(DRAIN).await;
            }
            context.report(Report::Drained(key));
        });
    }

    fn remove(&mut self) {
        let io = self.held.get_mut(&INIT).and_then(|held| held.io.take());
        self.spawn(|context| async move {
            if let Some(io) = io {
                io.finish(DRAIN).await;
            }
            let state_dir = context.container.state_dir.clone();
            let removed = context.daemon.runtime.delete(DeleteRequest { state_dir }).await;
            context.report(Report::Removed(removed));
        });
    }
}

async fn make_exec(
    context: &Context,
    init: &Process,
    new: &NewExec,
) -> Result<(Process, ProcessIo)> {
    let subject = Subject {
        id: &new.id,
        namespace: &context.daemon.namespace,
        owner: context.container.owner,
        role: Role::Exec,
    };
    let runtime = &context.daemon.runtime;
    let prepared = io::prepare(&new.stdio, subject, runtime.reaper())
        .await
        .at("failed to create exec process I/O")?;
    let mut made = {
        let mut fds = vec![std::os::fd::AsFd::as_fd(init.pidfd())];
        fds.extend(prepared.ends());
        let request = ExecRequest {
            exec_id: new.id.clone(),
            state_dir: context.container.state_dir.clone(),
            process: new.process.clone(),
            pid_file: None,
            extra_fds: ExtraFds::default(),
            when_paused: WhenPaused::Refuse,
        };
        runtime.exec(request, &fds).await?
    };
    let io = prepared.attach(made.console.take()).at("start to copy streams")?;
    // On failure it ends by itself, and is reaped.
    let title = format!("start {} of {}", new.id, context.container.id);
    made.start.run(&title, &mut made.process, runtime.journal()).await?;
    Ok((made.process, io))
}

async fn sweep(context: Context, what: Sweep) {
    if what.thaw {
        context.thaw().await;
    }
    if what.kill
        && let Err(error) = context.kill_all(SIGKILL).await
    {
        warn!(container = context.container.id, %error, "failed to kill init's children");
    }
    context.report(Report::Swept);
}

impl Context {
    async fn freeze(&self, freezer: Freezer) -> Result<()> {
        let state_dir = self.container.state_dir.clone();
        self.daemon.runtime.freeze(FreezeRequest { state_dir, freezer }).await
    }

    async fn thaw(&self) {
        if let Err(error) = self.freeze(Freezer::Thawed).await {
            warn!(container = self.container.id, %error, "a frozen container is not thawed");
        }
    }

    async fn kill_all(&self, signal: i32) -> Result<()> {
        let state_dir = self.container.state_dir.clone();
        self.daemon.runtime.kill_all(KillAllRequest { state_dir, signal }).await
    }
}
