//! Moving bytes: with splice(2) from pipe to pipe, where no byte enters the daemon's memory, and
//! with small buffers where splice does not work: from terminals, and to files that are appended
//! to.
//!
//! A sink that is full stops its source (back-pressure); a sink that fails is written to no more,
//! but its source is read on: a process must not block for ever on output that nobody can take.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use runtime::{Call, Error, Result};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::fifo::{self, Between};
use crate::readiness;

/// As much as a pipe holds by default.
const SPLICE: usize = 64 * 1024;
/// What a terminal gives at once at most.
const BUFFER: usize = 4096;
/// So many moves in a row before other tasks get their turn: the daemon has one thread.
const TURN: u32 = 16;

/// Where bytes go to.
#[derive(Debug)]
pub(super) enum Sink {
    /// A pipe or fifo, non-blocking.
    Pipe(Arc<AsyncFd<OwnedFd>>),
    /// A file or device that takes everything at once.
    File(OwnedFd),
}

impl Sink {
    /// Over a pipe or fifo that is non-blocking.
    ///
    /// # Errors
    /// epoll_ctl(2).
    pub(super) fn pipe(fd: OwnedFd) -> Result<Sink> {
        Ok(Sink::Pipe(Arc::new(readiness::register(fd, Interest::WRITABLE)?)))
    }

    /// All has been written. A client that has not opened the fifo yet (it opens it beside the
    /// start, and a short process may be faster) finds it there all the same.
    async fn give_up(self) {
        let Sink::Pipe(pipe) = self else { return };
        // Who else looks at it does so for a moment, and not while this task runs.
        let Some(pipe) = Arc::into_inner(pipe) else { return };
        if let Err(error) = fifo::release(pipe.into_inner()).await {
            warn!(%error, "unread output is lost");
        }
    }
}

/// Moves a pipe's content until its end, whatever becomes of the sink.
pub(super) async fn drain_pipe(source: Arc<AsyncFd<OwnedFd>>, sink: Sink, drained: Drained) {
    let moved = match &sink {
        Sink::Pipe(pipe) => splice_all(&source, pipe).await,
        Sink::File(file) => append_all(&source, file).await,
    };
    match moved {
        Ok(()) => {
            drop(drained);
            sink.give_up().await;
        }
        Err(error) => {
            warn!(%error, "output is thrown away from here on");
            drop(sink);
            discard(&source).await;
        }
    }
}

/// Held until all output of a stream has been passed on. What may come after that is the wait for
/// a client that has not opened its end.
pub(super) type Drained = tokio::sync::oneshot::Sender<()>;

/// Moves from pipe to pipe until the source's end. May be dropped at any await without a loss.
///
/// # Errors
/// splice(2); EPIPE: nobody reads the sink.
pub(super) async fn splice_all(source: &AsyncFd<OwnedFd>, sink: &AsyncFd<OwnedFd>) -> Result<()> {
    let mut turn = Turn::default();
    loop {
        // Both are asked before the call, so that a change after it is not taken for one before.
        let mut readable = source.readable().await.call(wait)?;
        let mut writable = sink.writable().await.call(wait)?;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match rustix::pipe::splice(source.get_ref(), None, sink.get_ref(), None, SPLICE, flags) {
            Ok(0) => return Ok(()),
            Ok(_) => turn.end().await,
            Err(Errno::INTR) => {}
            // One of the two was not ready, and the errno does not tell which one. Both may be by
            // now: then neither will be announced again, and the next try tells.
            Err(Errno::AGAIN) => match fifo::between(source.get_ref(), sink.get_ref())? {
                Between::Ended => return Ok(()),
                Between::Both => turn.end().await,
                Between::Waiting { source_is_empty, sink_is_full } => {
                    if source_is_empty {
                        readable.clear_ready();
                    }
                    if sink_is_full {
                        writable.clear_ready();
                    }
                }
            },
            Err(errno) => return Err(Error::call("splice(pipe, pipe, 64 KiB)", errno)),
        }
    }
}

async fn append_all(source: &AsyncFd<OwnedFd>, file: &OwnedFd) -> Result<()> {
    let mut turn = Turn::default();
    loop {
        let mut readable = source.readable().await.call(wait)?;
        match append(source.get_ref(), file)? {
            Moved::End => return Ok(()),
            Moved::Some => turn.end().await,
            Moved::Nothing => readable.clear_ready(),
        }
    }
}

/// What one move came to.
enum Moved {
    Some,
    Nothing,
    End,
}

fn append(source: &OwnedFd, file: &OwnedFd) -> Result<Moved> {
    let mut buffer = [0; BUFFER];
    match rustix::io::read(source, &mut buffer) {
        Ok(0) => Ok(Moved::End),
        Ok(length) => {
            write_file(file, buffer.get(..length).unwrap_or_default())?;
            Ok(Moved::Some)
        }
        Err(Errno::INTR) => Ok(Moved::Some),
        Err(Errno::AGAIN) => Ok(Moved::Nothing),
        Err(errno) => Err(Error::call("read(pipe)", errno)),
    }
}

fn write_file(file: &OwnedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Error::call(format!("write(file, {} bytes)", bytes.len()), errno));
            }
        }
    }
    Ok(())
}

/// Reads a pipe to its end for nobody.
pub(super) async fn discard(source: &AsyncFd<OwnedFd>) {
    let mut turn = Turn::default();
    let mut buffer = Box::new([0; BUFFER]);
    loop {
        let Ok(mut readable) = source.readable().await else { return };
        match rustix::io::read(source.get_ref(), buffer.as_mut_slice()) {
            Ok(0) => return,
            Ok(_) => turn.end().await,
            Err(Errno::AGAIN) => readable.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => return warn!(%errno, "read of a stream failed"),
        }
    }
}

/// Moves a terminal's output until all its processes have closed it (EIO), whatever becomes of
/// the sink.
pub(super) async fn drain_console(
    master: &AsyncFd<OwnedFd>,
    mut sink: Option<Sink>,
    drained: Drained,
) {
    let mut turn = Turn::default();
    let mut buffer = Box::new([0; BUFFER]);
    loop {
        let Ok(mut readable) = master.readable().await else { return };
        let length = match rustix::io::read(master.get_ref(), buffer.as_mut_slice()) {
            Ok(0) | Err(Errno::IO) => break,
            Ok(length) => length,
            Err(Errno::AGAIN) => {
                readable.clear_ready();
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(errno) => return warn!(%errno, "read of a terminal failed"),
        };
        if let Some(open) = &sink
            && let Err(error) = write_all(open, buffer.get(..length).unwrap_or_default()).await
        {
            warn!(%error, "a terminal's output is thrown away from here on");
            sink = None;
        }
        turn.end().await;
    }
    drop(drained);
    if let Some(sink) = sink {
        sink.give_up().await;
    }
}

async fn write_all(sink: &Sink, bytes: &[u8]) -> Result<()> {
    match sink {
        Sink::File(file) => write_file(file, bytes),
        Sink::Pipe(pipe) => {
            let mut rest = Rest { bytes: bytes.to_vec(), done: 0 };
            rest.write(pipe).await
        }
    }
}

/// Bytes on their way to a descriptor that may take only some of them.
#[derive(Debug, Default)]
pub(super) struct Rest {
    bytes: Vec<u8>,
    done: usize,
}

impl Rest {
    /// Takes on more; all before them have been written.
    pub(super) fn replace(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.done = 0;
    }

    /// Whether there is nothing left to write.
    pub(super) fn is_empty(&self) -> bool {
        self.done >= self.bytes.len()
    }

    /// Writes what is left. May be dropped at any await and called again.
    ///
    /// # Errors
    /// write(2).
    pub(super) async fn write(&mut self, sink: &AsyncFd<OwnedFd>) -> Result<()> {
        while !self.is_empty() {
            let mut writable = sink.writable().await.call(wait)?;
            match rustix::io::write(sink.get_ref(), self.bytes.get(self.done..).unwrap_or_default())
            {
                Ok(length) => self.done += length,
                Err(Errno::AGAIN) => writable.clear_ready(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::call("write(stream)", errno)),
            }
        }
        Ok(())
    }
}

/// Counts the moves of a task's turn.
#[derive(Default)]
pub(super) struct Turn(u32);

impl Turn {
    /// After a move: lets others go first when it is time.
    pub(super) async fn end(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
}

fn wait() -> String {
    "epoll_wait(stream)".into()
}
