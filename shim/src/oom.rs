//! OOM kills in a container, as they happen.

use std::os::fd::{AsFd, BorrowedFd};

use runtime::Result;
use runtime::cgroup::{Cgroup, Kills, OomWatch, Readiness};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::readiness::{self, Polled};

/// Watches one container.
#[derive(Debug)]
pub(crate) struct Watch {
    source: AsyncFd<Polled<Source>>,
    interest: Interest,
}

#[derive(Debug)]
struct Source(OomWatch);

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// There is no memory controller, or the kernel refuses.
    pub(crate) fn start(cgroup: &Cgroup) -> Result<Watch> {
        let watch = OomWatch::new(cgroup.paths())?;
        let interest = match watch.readiness() {
            Readiness::Readable => Interest::READABLE,
            Readiness::Priority => Interest::PRIORITY,
        };
        Ok(Watch { source: readiness::register(Polled(Source(watch)), interest)?, interest })
    }

    /// Waits until there may be news. Loses none when it is dropped.
    pub(crate) async fn ready(&mut self) {
        match self.source.ready_mut(self.interest).await {
            Ok(mut ready) => ready.clear_ready(),
            // The event loop ends, and the daemon with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// What was killed since the last time; None: there will be no more news.
    pub(crate) fn take(&mut self) -> Option<Kills> {
        match self.source.get_mut().0.0.drain() {
            Ok(kills) => kills,
            Err(error) => {
                warn!(%error, "no more OOM events for a container");
                None
            }
        }
    }
}
