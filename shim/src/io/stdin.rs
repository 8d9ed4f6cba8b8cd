//! From a client's fifo to a process's stdin.
//!
//! The daemon holds a writing end of the client's fifo, so stdin does not end when the client goes
//! away (containerd or dockerd is being restarted). It ends when the client asks for it (CloseIO):
//! what is in the fifo by then still arrives; then the process gets its end of file, also when
//! somebody keeps the fifo open.
//!
//! A client may be through before the process has been started (`echo | ctr run`): it has closed
//! its end, and does not ask, because it has no task to ask of yet. So the daemon opens its own end
//! only when the process starts, and when a writer has come and gone by then, that was the end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use runtime::{Call, Error, Result};
use rustix::io::Errno;
use rustix::termios::{LocalModes, SpecialCodeIndex};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tracing::warn;

use super::copy::{self, Rest};
use super::fifo;
use crate::readiness;
use crate::room::Room;

/// After CloseIO, a client has so long to close its own end before silence counts as the end: some
/// clients call it from within the copy that has just come to its end.
const GRACE: Duration = Duration::from_secs(1);
/// Typed input comes in small pieces.
const BUFFER: usize = 1024;

/// The copy to a process's stdin. Dropping it ends the copy.
#[derive(Debug)]
pub(super) struct Stdin {
    close: Arc<Notify>,
    task: AbortHandle,
}

impl Stdin {
    /// The client will write no more.
    pub(super) fn close(&self) {
        self.close.notify_one();
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The client's fifo, and where its content goes.
#[derive(Debug)]
struct Feed {
    reader: AsyncFd<OwnedFd>,
    sink: To,
    rest: Rest,
    /// The last byte that was written.
    last: Option<u8>,
}

/// What a process has as its stdin.
#[derive(Debug)]
pub(super) enum To {
    /// A pipe: its writing end, non-blocking.
    Pipe(AsyncFd<OwnedFd>),
    /// A terminal: its master.
    Console(Arc<AsyncFd<OwnedFd>>),
}

/// A copy that has not begun.
#[derive(Debug)]
pub(super) struct Waiting {
    reader: OwnedFd,
    sink: To,
    closed: bool,
    /// For the daemon's end of the fifo: when the process runs it is too late to be refused.
    room: Room,
}

impl Waiting {
    /// From the reading end of the client's fifo, non-blocking.
    pub(super) fn new(reader: OwnedFd, sink: To, room: Room) -> Waiting {
        Waiting { reader, sink, closed: false, room }
    }

    /// The client will write no more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Starts the copy: the process has been started.
    ///
    /// # Errors
    /// open(2), epoll_ctl(2).
    pub(super) fn start(self) -> Result<Stdin> {
        drop(self.room);
        let closed = self.closed || fifo::was_left(&self.reader)?;
        let hold = if closed { None } else { Some(fifo::hold(&self.reader)?) };
        let reader = readiness::register(self.reader, Interest::READABLE)?;
        let feed = Feed { reader, sink: self.sink, rest: Rest::default(), last: None };
        let close = Arc::new(Notify::new());
        if closed {
            close.notify_one();
        }
        let task: JoinHandle<()> = tokio::spawn(run(feed, hold, Arc::clone(&close)));
        Ok(Stdin { close, task: task.abort_handle() })
    }
}

async fn run(mut feed: Feed, hold: Option<OwnedFd>, close: Arc<Notify>) {
    let fed = tokio::select! {
        biased;
        () = close.notified() => {
            drop(hold);
            feed.rest_of_it().await
        }
        fed = feed.all() => fed,
    };
    match fed.and_then(|()| feed.end_console()) {
        Ok(true) => drop(feed.rest.write(feed.sink.fd()).await),
        Ok(false) => {}
        // The process has closed its stdin: nobody misses what is left.
        Err(error) if error.errno() == Some(nix::errno::Errno::EPIPE) => {}
        Err(error) => warn!(%error, "stdin ends early"),
    }
}

impl Feed {
    /// Copies until the fifo's end. May be dropped at any await without a loss.
    async fn all(&mut self) -> Result<()> {
        match &self.sink {
            To::Pipe(pipe) => copy::splice_all(&self.reader, pipe).await,
            To::Console(_) => self.type_all().await,
        }
    }

    /// Copies what is left after CloseIO: until the end, or until the fifo is empty and its other
    /// holder silent.
    async fn rest_of_it(&mut self) -> Result<()> {
        loop {
            if let Ok(fed) = timeout(GRACE, self.all()).await {
                return fed;
            }
            if self.rest.is_empty() && fifo::unread(self.reader.get_ref())? == 0 {
                return Ok(());
            }
        }
    }

    async fn type_all(&mut self) -> Result<()> {
        let mut turn = copy::Turn::default();
        loop {
            self.rest.write(self.sink.fd()).await?;
            let mut readable =
                self.reader.readable().await.call(|| "epoll_wait(stdin)".to_owned())?;
            let mut buffer = [0; BUFFER];
            match rustix::io::read(self.reader.get_ref(), &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    let typed = buffer.get(..length).unwrap_or_default();
                    self.rest.replace(typed);
                    self.last = typed.last().copied();
                }
                Err(Errno::AGAIN) => readable.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::call("read(stdin)", errno)),
            }
            turn.end().await;
        }
    }

    /// A terminal has no end of file: its user types one (stty's `eof`), a second time when the
    /// line has begun. True when there is something left to write.
    fn end_console(&mut self) -> Result<bool> {
        let To::Console(master) = &self.sink else { return Ok(false) };
        let modes = rustix::termios::tcgetattr(master.get_ref())
            .call(|| "ioctl(console, TCGETS)".into())?;
        let eofs = [modes.special_codes[SpecialCodeIndex::VEOF]; 2];
        let begun = self.last.is_some_and(|last| last != b'\n')
            && modes.local_modes.contains(LocalModes::ICANON);
        self.rest.replace(if begun { &eofs } else { &eofs[..1] });
        Ok(true)
    }
}

impl To {
    fn fd(&self) -> &AsyncFd<OwnedFd> {
        match self {
            To::Pipe(pipe) => pipe,
            To::Console(master) => master,
        }
    }
}
