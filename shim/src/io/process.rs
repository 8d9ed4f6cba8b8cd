//! The streams of a process from its creation to its end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use runtime::{At, Call, Result};
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use super::Untaken;
use super::copy::{self, Sink};
use super::fifo;
use super::logger::Logger;
use super::stdin::{Stdin, Waiting};

/// The streams of a process that exists.
#[derive(Debug)]
pub(crate) struct ProcessIo {
    pub(super) untaken: Untaken,
    pub(super) console: Option<Arc<AsyncFd<OwnedFd>>>,
    /// Until the process is started.
    pub(super) waiting: Option<Waiting>,
    pub(super) stdin: Option<Stdin>,
    pub(super) holds: Vec<Arc<OwnedFd>>,
    pub(super) copies: JoinSet<()>,
    /// End when the output of each stream has been passed on.
    pub(super) drained: Vec<oneshot::Receiver<()>>,
    pub(super) releases: JoinSet<()>,
    pub(super) logger: Option<Logger>,
}

impl ProcessIo {
    /// What a client may still have to take when the process ends.
    pub(crate) fn untaken(&self) -> Untaken {
        self.untaken.clone()
    }

    pub(super) fn drained(&mut self) -> copy::Drained {
        let (held, ended) = oneshot::channel();
        self.drained.push(ended);
        held
    }

    pub(super) fn untaken_in(&mut self, sink: &Sink) {
        if let Sink::Pipe(pipe) = sink {
            self.untaken.copied(pipe);
        }
    }

    /// Sets the terminal's size. Nothing happens without one.
    ///
    /// # Errors
    /// ioctl(2).
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let Some(console) = &self.console else { return Ok(()) };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(console.get_ref(), size)
            .call(|| format!("ioctl(console, TIOCSWINSZ, {columns} x {rows})"))
    }

    /// The process has been started: it gets its input.
    ///
    /// # Errors
    /// open(2), epoll_ctl(2).
    pub(crate) fn started(&mut self) -> Result<()> {
        if let Some(waiting) = self.waiting.take() {
            self.stdin = Some(waiting.start().at("start to copy stdin")?);
        }
        Ok(())
    }

    /// The client writes no more to stdin.
    pub(crate) fn close_stdin(&mut self) {
        match (&mut self.waiting, &self.stdin) {
            (Some(waiting), _) => waiting.close(),
            (None, Some(stdin)) => stdin.close(),
            (None, None) => {}
        }
    }

    /// The process has ended: whoever reads what was passed to it gets to the end.
    pub(crate) fn exited(&mut self) {
        self.waiting = None;
        self.stdin = None;
        self.console = None;
        for hold in self.holds.drain(..) {
            // A logger's pipe has its reader, and is closed at once.
            let Some(hold) = Arc::into_inner(hold) else { continue };
            self.releases.spawn(async move {
                if let Err(error) = fifo::release(hold).await {
                    warn!(%error, "unread output is lost");
                }
            });
        }
    }

    /// Waits until all output has been passed on, but no longer than `limit`: a process in the
    /// background may hold the streams for ever. Then closes everything and ends the logger.
    pub(crate) async fn finish(mut self, limit: Duration) {
        self.exited();
        let drained = timeout(limit, async {
            for drained in &mut self.drained {
                // It is dropped, never sent.
                drained.await.unwrap_or_default();
            }
        });
        if drained.await.is_err() {
            warn!("output is still held open by some process: closing it");
        }
        self.copies.shutdown().await;
        self.releases.shutdown().await;
        if let Some(logger) = self.logger.take() {
            logger.stop().await;
        }
    }
}
