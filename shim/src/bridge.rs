//! The bridge between async and the runtime: it alone, with its folder, names both tokio and the
//! process chain. What it calls does not block; what it awaits is a descriptor.

mod mains;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::process::{
    Answer, Operation, Request, Spawner, StartChannel, StartOutcome, describe_status,
};
use runtime::sys::process::SingleThreaded;
use runtime::{Call, Error, Kind, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use self::mains::Mains;
use crate::journal::Journal;
use crate::lost;
use crate::readiness::{self, Polled};
use crate::reaper::{Process, Reaper};
use crate::room::Room;

pub(crate) use runtime::process::{
    Child, CreateOptions, CreateRequest, DeleteRequest, ExecRequest, ExtraFds, Facts,
    FreezeRequest, Freezer, KillAllRequest, PoststartRequest, UpdateRequest, WhenPaused,
};

/// The process chain, as seen by tasks.
#[derive(Debug)]
pub(crate) struct Runtime {
    mains: Mains,
    reaper: Arc<Reaper>,
    journal: Journal,
}

/// Compiled seccomp filters, shared by all daemons of a host: a profile is compiled once a boot.
const SECCOMP_CACHE: &str = "/run/containerd-shim-myshim/seccomp";

const SIGKILL: i32 = 9;
/// The end of a channel comes a little before the end of its process.
const UNTIL_REAPED: Duration = Duration::from_secs(5);

/// A process that waits for start.
#[derive(Debug)]
pub(crate) struct Made {
    /// The init or tenant.
    pub(crate) process: Process,
    /// To start it.
    pub(crate) start: Start,
    /// The master of its terminal, when it has one.
    pub(crate) console: Option<OwnedFd>,
    /// What the daemon needs to know of the container.
    pub(crate) facts: Facts,
}

/// Forks the spawner: before tokio, while the daemon is small and nothing is open that it should
/// not inherit. One that takes another's place gets the `oom_score_adj` that the first one had.
///
/// # Errors
/// Several threads, or clone3(2).
pub(crate) fn fork_spawner(oom_score_adj: Option<i32>) -> Result<(Spawner, Child)> {
    let single = SingleThreaded::verify()
        .ok_or_else(|| Error::new(Kind::State("the daemon has more than one thread".into())))?;
    Spawner::fork(&single, Some(SECCOMP_CACHE.into()), oom_score_adj)
}

impl Runtime {
    /// Takes the spawner over, which has this `oom_score_adj`. In tokio's context.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub(crate) fn new(
        spawner: (Spawner, Child),
        oom_score_adj: i32,
        reaper: Arc<Reaper>,
    ) -> Result<Arc<Runtime>> {
        let mains = Mains::new(spawner, oom_score_adj, Arc::clone(&reaper))?;
        Ok(Arc::new(Runtime { mains, reaper, journal: Journal::default() }))
    }

    /// What operations have lately spent their time on.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Who reaps what the chain forks.
    pub(crate) fn reaper(&self) -> &Arc<Reaper> {
        &self.reaper
    }

    /// Makes a container up to the point where its init waits for start; see
    /// [`Request::Create`] for `fds`.
    ///
    /// # Errors
    /// The chain's; nothing is left then.
    pub(crate) async fn create(
        &self,
        request: CreateRequest,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Made> {
        let state_dir = request.state_dir.clone();
        match self.ask(&Request::Create(request), fds).await? {
            Asked::Answered(answer) => self.made(answer),
            Asked::Orphaned(orphans) => {
                // Main could undo nothing itself.
                let delete = Request::Delete(DeleteRequest { state_dir });
                let failed = self.run(&delete, &orphans.pidfds()).await.err();
                Err(orphans.end().await.with_undo(failed.into_iter().collect()))
            }
        }
    }

    /// Makes a tenant; see [`Request::Exec`] for `fds`.
    ///
    /// # Errors
    /// The chain's; nothing is left then.
    pub(crate) async fn exec(&self, request: ExecRequest, fds: &[BorrowedFd<'_>]) -> Result<Made> {
        let answer = self.answer(&Request::Exec(request), fds).await?;
        self.made(answer)
    }

    /// Kills what is left of a container, runs its poststop hooks, removes its cgroup and state.
    ///
    /// # Errors
    /// The chain's.
    pub(crate) async fn delete(&self, request: DeleteRequest) -> Result<()> {
        self.run(&Request::Delete(request), &[]).await
    }

    /// Changes limits.
    ///
    /// # Errors
    /// The chain's.
    pub(crate) async fn update(&self, request: UpdateRequest) -> Result<()> {
        let state_dir = request.state_dir.clone();
        match self.ask(&Request::Update(request), &[]).await? {
            Asked::Answered(answer) => done(answer),
            Asked::Orphaned(orphans) => {
                let restore = orphans.memory_high.as_deref();
                let restore = restore.map(|high| UpdateRequest::restoring(state_dir, high));
                let failed = match restore {
                    Some(restore) => self.run(&Request::Update(restore), &[]).await.err(),
                    None => None,
                };
                Err(orphans.end().await.with_undo(failed.into_iter().collect()))
            }
        }
    }

    /// Freezes or thaws.
    ///
    /// # Errors
    /// The chain's.
    pub(crate) async fn freeze(&self, request: FreezeRequest) -> Result<()> {
        self.run(&Request::Freeze(request), &[]).await
    }

    /// Sends a signal to all processes of a container's cgroup.
    ///
    /// # Errors
    /// The chain's.
    pub(crate) async fn kill_all(&self, request: KillAllRequest) -> Result<()> {
        self.run(&Request::KillAll(request), &[]).await
    }

    /// Runs the poststart hooks.
    ///
    /// # Errors
    /// The chain's.
    pub(crate) async fn poststart(&self, request: PoststartRequest) -> Result<()> {
        self.run(&Request::Poststart(request), &[]).await
    }

    fn made(&self, answer: Answer) -> Result<Made> {
        let created = match answer {
            Answer::Created(created) => created,
            other => return Err(unexpected(&other)),
        };
        Ok(Made {
            process: self.reaper.adopt(created.process)?,
            start: Start(polled(created.start)?),
            console: created.console,
            facts: created.facts,
        })
    }

    async fn run(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        done(self.answer(request, fds).await?)
    }

    async fn answer(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        match self.ask(request, fds).await? {
            Asked::Answered(answer) => Ok(answer),
            Asked::Orphaned(orphans) => Err(orphans.end().await),
        }
    }

    /// The one answer of an operation.
    async fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Asked> {
        let begin = Instant::now();
        let mut room = Some(Room::make(to_come(request))?);
        let (operation, main) = self.mains.submit(request, fds).await?;
        let mut operation = polled(operation)?;
        let mut made = Vec::new();
        let answer = loop {
            match next(&mut operation, &mut room).await? {
                Answer::Forked(child) => made.push(self.reaper.adopt(child)?),
                answer => break answer,
            }
        };
        let operation = operation.into_inner().0;
        let memory_high = operation.memory_high().map(str::to_owned);
        let failed = matches!(answer, Answer::Failed(_));
        self.journal.note(&request.title(), begin.elapsed(), operation.phases(), failed);
        match operation.into_waiting() {
            Some(waiting) => self.mains.put_back(waiting, main.clone()),
            None => self.mains.replenish(),
        }
        match answer {
            Answer::End => {
                made.extend(lost::adopt(&self.reaper).await);
                Ok(Asked::Orphaned(Orphans { main, made, told: None, memory_high }))
            }
            Answer::Failed(error) if error.is_death_of_main() => {
                made.extend(lost::adopt(&self.reaper).await);
                Ok(Asked::Orphaned(Orphans { main, made, told: Some(error), memory_high }))
            }
            Answer::Failed(error) => Err(error),
            answer => Ok(Asked::Answered(answer)),
        }
    }
}

/// What came of a request.
enum Asked {
    Answered(Answer),
    Orphaned(Orphans),
}

/// What main has left that died without an answer, or could do no more than tell of its end.
struct Orphans {
    main: Process,
    made: Vec<Process>,
    told: Option<Error>,
    /// What memory.high is to be again.
    memory_high: Option<String>,
}

impl Orphans {
    fn pidfds(&self) -> Vec<BorrowedFd<'_>> {
        self.made.iter().map(|process| process.pidfd().as_fd()).collect()
    }

    /// Ends what main had made, and says what main died of.
    async fn end(mut self) -> Error {
        let count = self.made.len();
        for mut process in self.made {
            // ESRCH: it has ended by itself, as it does when it finds main gone.
            drop(process.signal(SIGKILL));
            process.exited().await;
        }
        if let Some(error) = self.told {
            return error;
        }
        let how = describe_status(wait_form(self.main.exited().await.status));
        let how = format!("{how}, after it had made {count} processes");
        Error::death_of_main(how)
    }
}

/// A status in the form of wait(2). What has not executed a program ends with 0 or 1: above 128 it
/// is a signal's number.
fn wait_form(status: u32) -> i32 {
    let status = i32::try_from(status).unwrap_or(i32::MAX);
    if status > 128 { status - 128 } else { status << 8 }
}

/// The answer of an operation that makes nothing.
fn done(answer: Answer) -> Result<()> {
    match answer {
        Answer::Done { warnings } => {
            for warning in warnings {
                warn!(%warning, "the runtime");
            }
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::new(Kind::Corrupt(format!("main answered with what was not asked for: {answer:?}")))
}

/// How many descriptors a request may bring: of an intermediate and of an init or tenant their
/// pidfds, a start channel, a console, a memfd with an answer that is large; and what the daemon
/// opens to watch a new container for OOM kills. What ends and removes containers needs none: it may
/// be the cure.
fn to_come(request: &Request) -> usize {
    const WATCH: usize = 3;
    match request {
        Request::Create(_) => 5 + WATCH,
        Request::Exec(_) => 5,
        _ => 0,
    }
}

async fn next(
    operation: &mut AsyncFd<Polled<Operation>>,
    room: &mut Option<Room>,
) -> Result<Answer> {
    loop {
        let mut ready = operation.readable_mut().await.call(|| "epoll_wait(operation)".into())?;
        // The answer comes once, with all that it brings.
        drop(room.take());
        match ready.get_inner_mut().0.try_next()? {
            Some(answer) => return Ok(answer),
            None => ready.clear_ready(),
        }
    }
}

/// A process that waits for start. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Start(AsyncFd<Polled<StartChannel>>);

impl Start {
    /// Lets the process execute the user's program, and waits until it has. `title` is for the
    /// journal.
    ///
    /// # Errors
    /// It could not, and is dead or about to be.
    pub(crate) async fn run(
        self,
        title: &str,
        process: &mut Process,
        journal: &Journal,
    ) -> Result<()> {
        let begin = Instant::now();
        let outcome = self.until_executed(process).await;
        journal.note(title, begin.elapsed(), "", outcome.is_err());
        outcome
    }

    async fn until_executed(mut self, process: &mut Process) -> Result<()> {
        if let Err(error) = self.0.get_ref().0.start() {
            // It is gone; its last words may still be there.
            return self.outcome(process).await.and(Err(error));
        }
        self.outcome(process).await
    }

    async fn outcome(&mut self, process: &mut Process) -> Result<()> {
        loop {
            let mut ready = self.0.readable_mut().await.call(|| "epoll_wait(start)".into())?;
            match ready.get_inner_mut().0.try_outcome()? {
                Some(StartOutcome::Executed) => return Ok(()),
                Some(StartOutcome::Failed(error)) => return Err(error),
                Some(StartOutcome::Died(death)) => {
                    let exit = tokio::time::timeout(UNTIL_REAPED, process.exited()).await;
                    let status = exit.ok().map(|exit| wait_form(exit.status));
                    return Err(death.explain(status));
                }
                None => ready.clear_ready(),
            }
        }
    }
}

fn polled<T: AsFd>(inner: T) -> Result<AsyncFd<Polled<T>>> {
    readiness::register(Polled(inner), Interest::READABLE)
}
