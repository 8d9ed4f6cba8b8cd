//! Standard streams: between a process and what the client named.
//!
//! ```text
//!                     stdin            stdout, stderr
//!  init, fifo         pipe ◀─ splice   the fifo itself; the daemon holds it open
//!  exec, fifo         pipe ◀─ splice   pipe ─ splice ▶ fifo
//!  terminal           pty  ◀─ copy     pty ─ copy ▶ fifo, file or logger
//!  file://            pipe ◀─ splice   pipe ─ copy ▶ file
//!  binary://          pipe ◀─ splice   pipe of the logger itself
//!  no path            /dev/null
//! ```
//!
//! On entry to [`prepare`] nothing is open; an error leaves nothing open and no logger running.
//! [`ProcessIo::started`] follows the process's start, [`ProcessIo::exited`] its end, [`ProcessIo::finish`] its deletion; dropping
//! a [`ProcessIo`] at any time closes everything at once. Why it is so:
//! docs/decisions/0003-standard-streams.md.

mod copy;
mod fifo;
mod logger;
mod process;
mod stdin;
mod untaken;
mod uri;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use uri::fuzz;

#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use runtime::{At, Call, Error, Kind, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

pub(crate) use fifo::Owner;
pub(crate) use process::ProcessIo;
pub(crate) use untaken::Untaken;

use crate::readiness;
use crate::reaper::Reaper;
use crate::room::Room;
use copy::Sink;
use fifo::{Blocking, Input, Opened};
use logger::Logger;
use stdin::{To, Waiting};
use uri::Target;

/// A process's streams, in the client's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    /// A path, or empty.
    pub(crate) stdin: String,
    /// A path, a URI, or empty.
    pub(crate) stdout: String,
    /// A path, or empty. Without meaning where stdout is a file or a logger.
    pub(crate) stderr: String,
    /// One terminal in place of the three.
    pub(crate) terminal: bool,
}

/// Whose streams they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The container's id, or the exec's.
    pub(crate) id: &'a str,
    /// containerd's namespace.
    pub(crate) namespace: &'a str,
    /// Who is to own what the process gets.
    pub(crate) owner: Owner,
    /// Which of the container's processes.
    pub(crate) role: Role,
}

/// A container's first process, or another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// When it ends, nothing of the container is left that could write.
    Init,
    /// Processes that it has started may outlive it, and hold its streams open.
    Exec,
}

/// Streams for a process that is about to be made.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// 0, 1 and 2; none with a terminal.
    ends: Vec<OwnedFd>,
    input: Option<PreparedInput>,
    outputs: Vec<Output>,
    logger: Option<Logger>,
}

#[derive(Debug)]
struct PreparedInput {
    reader: OwnedFd,
    /// The writing end of the process's pipe; None with a terminal.
    pipe: Option<OwnedFd>,
    /// See [`Waiting`].
    room: Room,
}

/// The daemon's part in an output.
#[derive(Debug)]
enum Output {
    /// Hold it until the process ends.
    Hold(OwnedFd),
    /// Copy the process's pipe.
    Copy { source: OwnedFd, sink: Sink },
    /// Copy the terminal.
    Console(Sink),
}

/// Opens a process's streams. Ready loggers are waited for, clients are not.
///
/// # Errors
/// A scheme or path that is not acceptable, or a logger that fails.
pub(crate) async fn prepare(
    stdio: &Stdio,
    subject: Subject<'_>,
    reaper: &Arc<Reaper>,
) -> Result<Prepared> {
    let mut prepared =
        Prepared { ends: Vec::new(), input: None, outputs: Vec::new(), logger: None };
    if stdio.terminal {
        prepared.console_input(stdio).at("stdin")?;
        prepared.console_output(stdio, subject, reaper).await.at("stdout")?;
    } else {
        prepared.input(stdio).at("stdin")?;
        prepared.output(stdio, subject, reaper).await?;
        for end in &prepared.ends {
            fifo::give(end, subject.owner)?;
        }
    }
    Ok(prepared)
}

impl Prepared {
    /// What the process gets: three descriptors, or none when it gets a terminal.
    pub(crate) fn ends(&self) -> Vec<BorrowedFd<'_>> {
        self.ends.iter().map(AsFd::as_fd).collect()
    }

    fn input(&mut self, stdio: &Stdio) -> Result<()> {
        if stdio.stdin.is_empty() {
            self.ends.push(fifo::open_null()?);
            return Ok(());
        }
        match fifo::open_input(Path::new(&stdio.stdin))? {
            Input::File(file) => self.ends.push(file),
            Input::Fifo(reader) => {
                let (end, pipe) = fifo::pipe(Blocking::Reader)?;
                self.ends.push(end);
                self.input = Some(PreparedInput { reader, pipe: Some(pipe), room: Room::make(1)? });
            }
        }
        Ok(())
    }

    async fn output(
        &mut self,
        stdio: &Stdio,
        subject: Subject<'_>,
        reaper: &Arc<Reaper>,
    ) -> Result<()> {
        match uri::parse(&stdio.stdout)? {
            Target::File(path) => self.file(&path).at("stdout"),
            Target::Logger(program) => {
                let source = logger::Source { id: subject.id, namespace: subject.namespace };
                let (logger, pipes) = logger::start(&program, source, reaper).await?;
                self.logger = Some(logger);
                for end in [pipes.stdout, pipes.stderr] {
                    self.ends.push(duplicate(&end)?);
                    self.outputs.push(Output::Hold(end));
                }
                Ok(())
            }
            stdout @ (Target::Null | Target::Path(_)) => {
                self.stream(&stdout, subject.role).at("stdout")?;
                self.stream(&uri::parse(&stdio.stderr)?, subject.role).at("stderr")
            }
        }
    }

    /// One of stdout and stderr, with a path of its own.
    fn stream(&mut self, target: &Target, role: Role) -> Result<()> {
        let path = match target {
            Target::Null => {
                self.ends.push(fifo::open_null()?);
                return Ok(());
            }
            Target::Path(path) => path,
            Target::File(_) | Target::Logger(_) => {
                return Err(Error::argument("stderr", "is a URI where stdout is a path"));
            }
        };
        let sink = match fifo::open_output(path)? {
            Opened::Fifo(fifo) if role == Role::Init => {
                self.ends.push(fifo::open_for_process(path)?);
                self.outputs.push(Output::Hold(fifo));
                return Ok(());
            }
            Opened::Fifo(fifo) => Sink::pipe(fifo)?,
            Opened::File(file) => Sink::File(file),
        };
        let (source, end) = fifo::pipe(Blocking::Writer)?;
        self.ends.push(end);
        self.outputs.push(Output::Copy { source, sink });
        Ok(())
    }

    /// Both streams through one pipe: lines stay in the order in which they were written. The
    /// process does not get the file: it could truncate or give away what is the host's.
    fn file(&mut self, path: &Path) -> Result<()> {
        let sink = Sink::File(append_to(path)?);
        let (source, end) = fifo::pipe(Blocking::Writer)?;
        self.ends.push(duplicate(&end)?);
        self.ends.push(end);
        self.outputs.push(Output::Copy { source, sink });
        Ok(())
    }

    fn console_input(&mut self, stdio: &Stdio) -> Result<()> {
        if stdio.stdin.is_empty() {
            return Ok(());
        }
        let path = Path::new(&stdio.stdin);
        match fifo::open_input(path)? {
            Input::File(_) => Err(fifo::not_a_fifo(path)),
            Input::Fifo(reader) => {
                self.input = Some(PreparedInput { reader, pipe: None, room: Room::make(1)? });
                Ok(())
            }
        }
    }

    async fn console_output(
        &mut self,
        stdio: &Stdio,
        subject: Subject<'_>,
        reaper: &Arc<Reaper>,
    ) -> Result<()> {
        let sink = match uri::parse(&stdio.stdout)? {
            Target::Null => return Ok(()),
            Target::File(path) => Sink::File(append_to(&path)?),
            Target::Path(path) => match fifo::open_output(&path)? {
                Opened::Fifo(fifo) => Sink::pipe(fifo)?,
                Opened::File(file) => Sink::File(file),
            },
            Target::Logger(program) => {
                let source = logger::Source { id: subject.id, namespace: subject.namespace };
                let (logger, pipes) = logger::start(&program, source, reaper).await?;
                self.logger = Some(logger);
                fifo::set_nonblocking(&pipes.stdout)?;
                Sink::pipe(pipes.stdout)?
            }
        };
        self.outputs.push(Output::Console(sink));
        Ok(())
    }

    /// The process exists: its ends are its own from here, and the copies begin.
    ///
    /// # Errors
    /// epoll_ctl(2), or no console where the client asked for a terminal.
    pub(crate) fn attach(self, console: Option<OwnedFd>) -> Result<ProcessIo> {
        drop(self.ends);
        let console = console.map(open_console).transpose()?;
        let mut io = ProcessIo {
            untaken: Untaken::default(),
            console: console.clone(),
            waiting: None,
            stdin: None,
            holds: Vec::new(),
            copies: JoinSet::new(),
            drained: Vec::new(),
            releases: JoinSet::new(),
            logger: self.logger,
        };
        if let Some(input) = self.input {
            let to = match (input.pipe, &console) {
                (Some(pipe), _) => To::Pipe(readiness::register(pipe, Interest::WRITABLE)?),
                (None, Some(console)) => To::Console(Arc::clone(console)),
                (None, None) => return Err(no_console()),
            };
            io.waiting = Some(Waiting::new(input.reader, to, input.room));
        }
        let mut console_sink = None;
        for output in self.outputs {
            match output {
                Output::Hold(fd) => {
                    let fd = Arc::new(fd);
                    io.untaken.direct(&fd);
                    io.holds.push(fd);
                }
                Output::Copy { source, sink } => {
                    let source = Arc::new(readiness::register(source, Interest::READABLE)?);
                    io.untaken.copied(&source);
                    io.untaken_in(&sink);
                    let drained = io.drained();
                    io.copies.spawn(copy::drain_pipe(source, sink, drained));
                }
                Output::Console(sink) => {
                    io.untaken_in(&sink);
                    console_sink = Some(sink);
                }
            }
        }
        if let Some(master) = console {
            io.untaken.copied(&master);
            // Without a sink it is read all the same: a process that writes must not block.
            let drained = io.drained();
            io.copies.spawn(async move {
                copy::drain_console(&master, console_sink, drained).await;
            });
        }
        Ok(io)
    }
}

fn no_console() -> Error {
    Error::new(Kind::Corrupt("a process with a terminal came without its console".into()))
}

fn open_console(master: OwnedFd) -> Result<Arc<AsyncFd<OwnedFd>>> {
    fifo::set_nonblocking(&master)?;
    Ok(Arc::new(readiness::register(master, Interest::READABLE | Interest::WRITABLE)?))
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    fd.try_clone().call(|| "fcntl(pipe, F_DUPFD_CLOEXEC)".into())
}

fn append_to(path: &Path) -> Result<OwnedFd> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .call(|| format!("mkdir -p {parent:?}"))?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
    Ok(file.call(|| format!("open({path:?}, O_WRONLY|O_APPEND|O_CREAT, 0644)"))?.into())
}
