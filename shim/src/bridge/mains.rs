//! The mains that wait for a request. One is ordered as soon as an operation has used one up, so
//! that the next operation finds it there and waits for no fork.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use runtime::process::{Child, Operation, Ordered, Request, Spawner, WaitingMain};
use runtime::{Call, Error, Kind, Result};
use tokio::io::Interest;
use tracing::warn;

use super::fork_spawner;
use crate::lost;
use crate::readiness;
use crate::reaper::{Process, Reaper};
use crate::room::Room;

/// A main may have been killed while it waited, and a spawner before it told of one: so many are
/// tried for one request.
const TRIES: u32 = 3;

/// A main comes with its pidfd and two channels.
const FDS_OF_MAIN: usize = 3;

/// The spawner, and what it has forked and nobody has used yet.
#[derive(Debug)]
pub(super) struct Mains {
    /// Held by who takes a main, and across its fork where none waits: the others get the next
    /// ones, in order.
    stock: tokio::sync::Mutex<Stock>,
    reaper: Arc<Reaper>,
}

#[derive(Debug)]
struct Stock {
    spawner: Spawner,
    /// It has looked after a container, and waits for the next request.
    idle: Option<(WaitingMain, Process)>,
    /// Ordered, and not taken from the spawner's socket yet.
    ordered: u32,
    /// Of every spawner.
    oom_score_adj: i32,
}

impl Mains {
    /// Takes the spawner over, and orders the first main. In tokio's context.
    pub(super) fn new(
        (spawner, child): (Spawner, Child),
        oom_score_adj: i32,
        reaper: Arc<Reaper>,
    ) -> Result<Mains> {
        drop(reaper.adopt(child)?);
        let stock = Stock { spawner, idle: None, ordered: 0, oom_score_adj };
        let mains = Mains { stock: tokio::sync::Mutex::new(stock), reaper };
        mains.replenish();
        Ok(mains)
    }

    /// Hands an operation to a main.
    pub(super) async fn submit(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Operation, Process)> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let (main, child) = self.stock.lock().await.take(&self.reaper).await?;
            let submitted = main.submit(request, fds);
            // Adopted behind the request: main works while the daemon does that.
            let process = match child {
                Taken::New(child) => self.reaper.adopt(child)?,
                Taken::Known(process) => process,
            };
            match submitted {
                Err(error) if is_gone(&error) && tries > 0 => {
                    warn!(%error, "a main has died while it waited: taking another");
                }
                other => return other.map(|operation| (operation, process)),
            }
        }
    }

    /// Orders a main for the next operation, unless there is one.
    pub(super) fn replenish(&self) {
        // Whoever holds it orders what is missing.
        let Ok(mut stock) = self.stock.try_lock() else { return };
        if stock.idle.is_none() && stock.ordered == 0 {
            // Failed: tried again when one is needed, and told then.
            drop(stock.order());
        }
    }

    /// Keeps a main that waits again. One is enough: a second one ends when it is dropped.
    pub(super) fn put_back(&self, main: WaitingMain, process: Process) {
        if let Ok(mut stock) = self.stock.try_lock() {
            stock.idle.get_or_insert((main, process));
        }
    }
}

/// The process of a main.
enum Taken {
    /// It was just forked.
    New(Child),
    /// It has served before.
    Known(Process),
}

impl Stock {
    async fn take(&mut self, reaper: &Arc<Reaper>) -> Result<(WaitingMain, Taken)> {
        if let Some((main, process)) = self.idle.take() {
            return Ok((main, Taken::Known(process)));
        }
        // One that was ordered earlier may have failed for want of what is there by now.
        let mut ordered_now = false;
        let mut spawners = TRIES;
        loop {
            if self.ordered == 0 {
                ordered_now = true;
                match self.order() {
                    Err(error) if is_gone(&error) => {
                        self.replace_spawner(error, &mut spawners, reaper)?;
                        continue;
                    }
                    other => other?,
                }
            }
            // One that came without its descriptors would be lost.
            drop(Room::make(FDS_OF_MAIN)?);
            match self.spawner.try_main()? {
                Ordered::Main(main, child) => {
                    self.ordered -= 1;
                    return Ok((main, Taken::New(child)));
                }
                Ordered::Failed(error) => {
                    self.ordered -= 1;
                    // It may have been forked, and could not be told of.
                    lost::adopt_mains(reaper);
                    if ordered_now {
                        return Err(error);
                    }
                }
                Ordered::Nothing => self.wait().await?,
                Ordered::Gone => self.replace_spawner(gone(), &mut spawners, reaper)?,
            }
        }
    }

    async fn wait(&self) -> Result<()> {
        // Registered only now: a main that comes ahead of its operation is to wake nobody up.
        let socket = readiness::register(self.spawner.as_fd(), Interest::READABLE)?;
        let ready = socket.readable().await;
        ready.call(|| "epoll_wait(spawner)".into()).map(|mut ready| ready.retain_ready())
    }

    /// A spawner that died is replaced by a new one: the daemon still has one thread. Not for ever:
    /// what has killed it may kill the next.
    fn replace_spawner(
        &mut self,
        error: Error,
        left: &mut u32,
        reaper: &Arc<Reaper>,
    ) -> Result<()> {
        // It may have died between the fork of a main and the word about it.
        lost::adopt_mains(reaper);
        *left = left.checked_sub(1).ok_or_else(gone)?;
        warn!(%error, "the spawner is gone: forking another");
        let (another, child) = fork_spawner(Some(self.oom_score_adj))?;
        self.spawner = another;
        self.ordered = 0;
        reaper.adopt(child).map(drop)
    }

    fn order(&mut self) -> Result<()> {
        self.spawner.order()?;
        self.ordered += 1;
        Ok(())
    }
}

fn gone() -> Error {
    Error::new(Kind::PeerDied { who: "spawner".into(), how: "its channel has ended".into() })
}

fn is_gone(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN))
}
