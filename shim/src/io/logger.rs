//! `binary://`: a program that reads a container's output.
//!
//! It gets the reading ends of stdout and stderr as fds 3 and 4, and closes (`binary`) or writes
//! to (`binary-v2`) fd 5 when it is ready. The process has the writing ends themselves, so nothing
//! is copied. The daemon holds all four ends: the writing ends until the process has ended, so that
//! the logger's end of file means that; the reading ends so that a logger that dies takes no
//! process with it: what comes after its death is thrown away.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use runtime::{At, Call, Error, Kind, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::warn;

use super::copy;
use super::fifo::{self, Blocking};
use super::uri::{Program, Ready};
use crate::readiness;
use crate::reaper::{Process, Reaper};

/// A logger has so long to get ready.
const READY: Duration = Duration::from_secs(30);
/// And so long to end after SIGTERM, as with containerd's own shim.
const TERM: Duration = Duration::from_secs(12);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// A logger that runs.
#[derive(Debug)]
pub(super) struct Logger {
    process: Process,
    survivor: AbortHandle,
}

/// The writing ends for the process.
#[derive(Debug)]
pub(super) struct Pipes {
    /// What the logger reads at fd 3.
    pub(super) stdout: OwnedFd,
    /// What it reads at fd 4.
    pub(super) stderr: OwnedFd,
}

/// Whose output it is, for the logger's environment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// The container's id, or the exec's.
    pub(super) id: &'a str,
    /// containerd's namespace.
    pub(super) namespace: &'a str,
}

/// Starts a logger and waits until it is ready.
///
/// # Errors
/// It cannot be started, ends with a failure before it is ready, or does not get ready in time.
pub(super) async fn start(
    program: &Program,
    source: Source<'_>,
    reaper: &Arc<Reaper>,
) -> Result<(Logger, Pipes)> {
    let (out_reader, stdout) = fifo::pipe(Blocking::Both)?;
    let (err_reader, stderr) = fifo::pipe(Blocking::Both)?;
    let (ready_reader, ready_writer) = fifo::pipe(Blocking::Writer)?;
    let child = spawn(program, source, [&out_reader, &err_reader, &ready_writer])
        .at_with(|| format!("start logger {}", program.path.display()))?;
    drop(ready_writer);
    let process = reaper.adopt(child)?;
    let survivor = tokio::spawn(outlive(process.clone(), out_reader, err_reader)).abort_handle();
    // From here on its drop kills it.
    let logger = Logger { process, survivor };
    logger
        .ready(ready_reader, program.ready)
        .await
        .at_with(|| format!("logger {}", program.path.display()))?;
    Ok((logger, Pipes { stdout, stderr }))
}

fn spawn(
    program: &Program,
    source: Source<'_>,
    fds: [&OwnedFd; 3],
) -> Result<crate::bridge::Child> {
    let c_string = |text: &OsStr| {
        CString::new(text.as_bytes()).map_err(|_| Error::argument("stdout", "has a NUL byte"))
    };
    let path = c_string(program.path.as_os_str())?;
    let mut args = vec![path.clone()];
    for arg in &program.args {
        args.push(c_string(arg)?);
    }
    let env = [
        c_string(OsStr::new(&format!("CONTAINER_ID={}", source.id)))?,
        c_string(OsStr::new(&format!("CONTAINER_NAMESPACE={}", source.namespace)))?,
    ];
    runtime::sys::child::spawn(&path, &args, &env, &fds.map(AsFd::as_fd))
        .call(|| format!("posix_spawn({:?})", program.path))
}

impl Logger {
    async fn ready(&self, reader: OwnedFd, how: Ready) -> Result<()> {
        let reader = readiness::register(reader, Interest::READABLE)?;
        let length = match timeout(READY, read_byte(&reader)).await {
            Ok(length) => length?,
            Err(_) => {
                let after_ms = u64::try_from(READY.as_millis()).unwrap_or(u64::MAX);
                return Err(Error::new(Kind::Deadline { awaited: "readiness".into(), after_ms }));
            }
        };
        let died = || {
            let why =
                "logging binary did not call ready (it may have crashed or exited prematurely)";
            Error::new(Kind::State(why.into()))
        };
        match (length, how) {
            (0, Ready::Byte) => Err(died()),
            // A close may be the kernel's, for a process that is about to end.
            (0, Ready::Close) if self.is_ending() => Err(died()),
            _ => Ok(()),
        }
    }

    fn is_ending(&self) -> bool {
        let pid = i32::try_from(self.process.pid()).unwrap_or_default();
        self.process.has_ended() || runtime::sys::child::is_ending(pid)
    }

    /// Ends it: the process's ends of the pipes are closed by now. Returns when it is gone.
    pub(super) async fn stop(mut self) {
        // Fails only when it has ended already.
        if self.process.signal(SIGTERM).is_ok()
            && timeout(TERM, self.process.exited()).await.is_err()
        {
            warn!(pid = self.process.pid(), "a logger does not end after SIGTERM: killing it");
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.survivor.abort();
        // ESRCH: it has ended. There is no other error for a child of ours.
        drop(self.process.signal(SIGKILL));
    }
}

/// Keeps a logger's pipes open, and reads them in its place when it dies.
async fn outlive(mut process: Process, stdout: OwnedFd, stderr: OwnedFd) {
    let status = process.exited().await.status;
    // Nobody else has them now, so their flags are the daemon's to change.
    let polled = |fd: OwnedFd| {
        fifo::set_nonblocking(&fd)?;
        readiness::register(fd, Interest::READABLE)
    };
    let (stdout, stderr) = match (polled(stdout), polled(stderr)) {
        (Ok(stdout), Ok(stderr)) => (stdout, stderr),
        (Err(error), _) | (_, Err(error)) => {
            return warn!(%error, "a logger's output cannot be read in its place");
        }
    };
    tokio::join!(copy::discard(&stdout), copy::discard(&stderr));
    tracing::debug!(status, "a logger's pipes have ended");
}

async fn read_byte(reader: &AsyncFd<OwnedFd>) -> Result<usize> {
    loop {
        let mut readable = reader.readable().await.call(|| "epoll_wait(fd 5)".into())?;
        match rustix::io::read(reader.get_ref(), &mut [0; 1]) {
            Err(rustix::io::Errno::AGAIN) => readable.clear_ready(),
            Err(rustix::io::Errno::INTR) => {}
            other => return other.call(|| "read(fd 5, 1)".into()),
        }
    }
}
