//! The daemon.
//!
//! The order in which it comes up matters: it becomes a subreaper, so that what the chain forks
//! cannot get lost; it makes itself not dumpable, so that nothing inside a container can look at
//! what is forked from it before its execve; it forks the spawner while it is small and has one
//! thread; then its OOM score, which the spawner must not inherit; and only then tokio.
//!
//! It has one thread for its whole life: no worker, no blocking pool.

use std::sync::Arc;
use std::time::Duration;

use runtime::process::Spawner;
use runtime::sys::process::SingleThreaded;
use runtime::{At, Call, Error, Kind, Result};
use rustix::process::DumpableBehavior;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, info, warn};
use ttrpc::r#async::Server;

use crate::bridge::{self, Child, Runtime};
use crate::events::Publisher;
use crate::reaper::Reaper;
use crate::serve_args::{Sealed, ServeArgs};
use crate::service::Service;
use crate::task::Daemon;
use crate::{oom_score, server};

/// What Go's shim gives its last events.
const FLUSH: Duration = Duration::from_secs(5);
/// The last answers are on their way when the daemon ends.
const HANG_UP: Duration = Duration::from_millis(500);

/// Serves containers until the last one is gone.
///
/// # Errors
/// When the daemon cannot come up.
pub(crate) fn run(args: ServeArgs) -> Result<()> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own))
        .call(|| "prctl(PR_SET_CHILD_SUBREAPER, 1)".into())?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .call(|| "prctl(PR_SET_DUMPABLE, 0)".into())?;
    // Of the spawner, and of containers that want no other.
    let inherited = oom_score::own()?;
    let spawner = bridge::fork_spawner(None).at("fork the spawner")?;
    if let Some(score) = args.oom_score_adj
        && let Err(error) = oom_score::set_own(score)
    {
        // Without CAP_SYS_RESOURCE the score cannot be lowered.
        info!(%error, "the daemon keeps its OOM score");
    }
    if let Sealed::Memfd { because } = &args.sealed {
        info!(because, "the daemon runs from a copy in memory");
    }
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .call(|| "epoll_create1()".into())?;
    let served = tokio.block_on(serve(args, spawner, inherited));
    // Whatever still runs waits for something that does not matter any more.
    tokio.shutdown_background();
    served
}

async fn serve(args: ServeArgs, spawner: (Spawner, Child), oom_score_adj: i32) -> Result<()> {
    let reaper = Arc::new(Reaper::default());
    let runtime = Runtime::new(spawner, oom_score_adj, Arc::clone(&reaper))?;
    let mut terminate = signal(SignalKind::terminate()).call(|| "sigaction(SIGTERM)".into())?;
    let ask = signal(SignalKind::user_defined2()).call(|| "sigaction(SIGUSR2)".into())?;
    tokio::spawn(tell_on_request(ask, Arc::clone(&runtime)));
    let mut interrupt = signal(SignalKind::interrupt()).call(|| "sigaction(SIGINT)".into())?;
    let publisher = Publisher::start(&args.containerd.ttrpc_address, &args.namespace);
    let daemon = Arc::new(Daemon::new(Arc::clone(&runtime), publisher.clone(), args.namespace));
    let address = args.address;
    let service = Arc::new(Service::new(Arc::clone(&daemon), address.clone()));
    let server = server::start(args.listener, daemon.clone(), || service.clone()).await?;
    one_thread()?;
    debug!(id = args.id, "the daemon serves");
    tokio::select! {
        () = daemon.ended() => {}
        _ = terminate.recv() => info!("SIGTERM: the daemon ends"),
        _ = interrupt.recv() => info!("SIGINT: the daemon ends"),
        swept = reaper.sweep_on_sigchld() => return swept,
    }
    if let Err(error) = address.remove_own() {
        warn!(%error, "the socket stays");
    }
    end(server, &publisher).await;
    one_thread()
}

/// Where the time went, into the log, on each SIGUSR2.
async fn tell_on_request(mut ask: Signal, runtime: Arc<Runtime>) {
    while ask.recv().await.is_some() {
        runtime.journal().tell();
    }
}

/// Events first: when the answer to the shutdown is there, containerd may look for them.
async fn end(mut server: Server, publisher: &Publisher) {
    match publisher.flush(FLUSH).await {
        0 => {}
        lost => warn!(lost, "events that containerd did not take are lost"),
    }
    if tokio::time::timeout(HANG_UP, server.shutdown()).await.is_err() {
        debug!("a client holds its connection");
    }
}

/// What must hold for the spawner to be forked again, and for the memory budget.
fn one_thread() -> Result<()> {
    match SingleThreaded::verify() {
        Some(_) => Ok(()),
        None => Err(Error::new(Kind::State("the daemon has more than one thread".into()))),
    }
}
