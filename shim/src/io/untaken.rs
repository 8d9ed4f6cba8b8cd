//! Output of a process that no client has taken yet.
//!
//! A client opens the fifos in the background, beside its request to start. When it learns of the
//! exit it cancels an open that has not come to its end (containerd's cio), and what is in the
//! fifo is lost with it. A short process is faster than that open on a busy machine: so an exit
//! is told when the output has been taken, or when a client has had time enough.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::fifo;

/// Longer than an open takes on a machine that is not about to collapse. A reader that stalls, or
/// is not there (containerd is being restarted), delays an exit by no more than this.
const LIMIT: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The pipes and fifos between a process and its client. Keeps none of them open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Untaken {
    copied: Vec<Weak<AsyncFd<OwnedFd>>>,
    direct: Vec<Weak<OwnedFd>>,
}

impl Untaken {
    pub(super) fn copied(&mut self, pipe: &Arc<AsyncFd<OwnedFd>>) {
        self.copied.push(Arc::downgrade(pipe));
    }

    pub(super) fn direct(&mut self, fifo: &Arc<OwnedFd>) {
        self.direct.push(Arc::downgrade(fifo));
    }

    /// Waits until nothing is left in them, but not for long.
    pub(crate) async fn taken(&self) {
        let end = Instant::now() + LIMIT;
        let mut pause = FIRST_PAUSE;
        while self.is_left() && Instant::now() < end {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What cannot be asked (it is closed, or no pipe) has nothing to wait for.
    fn is_left(&self) -> bool {
        let left = |fd: &OwnedFd| fifo::unread(fd).is_ok_and(|bytes| bytes > 0);
        self.copied.iter().filter_map(Weak::upgrade).any(|pipe| left(pipe.get_ref()))
            || self.direct.iter().filter_map(Weak::upgrade).any(|fifo| left(&fifo))
    }
}
