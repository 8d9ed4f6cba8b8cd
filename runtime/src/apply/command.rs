//! Runs a program of the host to its end: hooks, newuidmap, newgidmap.
//!
//! On entry descriptors 0, 1 and 2 are open, SIGPIPE is ignored and SIGCHLD is not, as everywhere
//! in the process chain. On exit the program is reaped; nothing is left of it but what it put
//! into the background on purpose.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as SignalName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::error::{Call, Error, Kind, Result};
use crate::sys::process::{self, CLONE_CLEAR_SIGHAND, Clone, CloseHow, Forked, SingleThreaded};

/// How much is kept of each output stream, in bytes: its end, where the cause mostly is.
const KEPT: usize = 4096;
/// How much a full pipe can hold (default of /proc/sys/fs/pipe-max-size): who is in the background
/// may write for ever, and is not read for longer than that after the program's end.
const LARGEST_PIPE: usize = 1 << 20;
/// How long a killed program may take to be gone (it may hang in the kernel).
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// A program, its arguments and its whole environment.
#[derive(Debug)]
pub(super) struct Command {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// How a program ended, and the last it printed.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) end: End,
    stdout: Capture,
    stderr: Capture,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Killed(i32),
    TimedOut(Duration),
}

impl Command {
    pub(super) fn new<S: AsRef<OsStr>>(path: &Path, args: &[S], env: &[S]) -> Result<Command> {
        let path = c_string(path.as_os_str())?;
        Ok(Command { path, args: c_strings(args)?, env: c_strings(env)? })
    }

    /// Runs it with `stdin` on its standard input, until it ends or `timeout` is over.
    ///
    /// # Errors
    /// What kept it from being started, execve(2) included.
    pub(super) fn run(
        &self,
        single: &SingleThreaded,
        stdin: &[u8],
        timeout: Option<Duration>,
    ) -> Result<Outcome> {
        let (mut running, started) = Running::start(single, self, stdin)?;
        let end = match running.attend(timeout)? {
            Some(end) => end,
            None => running.kill(timeout.unwrap_or_default())?,
        };
        running.stdout.drain()?;
        running.stderr.drain()?;
        match failure(&started)? {
            Some(error) => Err(error),
            None => Ok(Outcome { end, stdout: running.stdout, stderr: running.stderr }),
        }
    }
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes())
        .map_err(|_| Error::new(Kind::Corrupt(format!("{text:?} has a NUL byte"))))
}

fn c_strings<S: AsRef<OsStr>>(texts: &[S]) -> Result<Vec<CString>> {
    texts.iter().map(|text| c_string(text.as_ref())).collect()
}

/// A started program and our ends of its three pipes.
struct Running<'a> {
    pid: Pid,
    pidfd: OwnedFd,
    stdin: Option<(OwnedFd, &'a [u8])>,
    stdout: Capture,
    stderr: Capture,
}

impl<'a> Running<'a> {
    /// The second value is the pipe that tells what failed between fork and execve.
    fn start(
        single: &SingleThreaded,
        command: &Command,
        stdin: &'a [u8],
    ) -> Result<(Running<'a>, OwnedFd)> {
        let (in_theirs, in_ours) = new_pipe(PipeFlags::CLOEXEC)?;
        let (out_ours, out_theirs) = new_pipe(PipeFlags::CLOEXEC)?;
        let (err_ours, err_theirs) = new_pipe(PipeFlags::CLOEXEC)?;
        let (started, failed) = new_pipe(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        for ours in [&in_ours, &out_ours, &err_ours] {
            rustix::io::ioctl_fionbio(ours, true).call(|| "ioctl(<pipe>, FIONBIO, 1)".into())?;
        }
        let parent = rustix::process::getpid();
        let clone = Clone {
            flags: CLONE_CLEAR_SIGHAND,
            exit_signal: Signal::CHILD.as_raw(),
            ..Clone::default()
        };
        match process::clone3(single, &clone).call(|| "clone3(CLONE_CLEAR_SIGHAND)".into())? {
            Forked::Child(child) => {
                let stdio = [in_theirs.as_fd(), out_theirs.as_fd(), err_theirs.as_fd()];
                let Err(error) = become_command(&child, command, stdio, parent);
                report(&failed, &error);
                process::exit(127)
            }
            Forked::Parent { pid, pidfd } => {
                let pid = Pid::from_raw(pid).ok_or_else(|| Error::call("clone3", Errno::INVAL))?;
                let stdin = (!stdin.is_empty()).then_some((in_ours, stdin));
                let (stdout, stderr) = (Capture::of(out_ours), Capture::of(err_ours));
                Ok((Running { pid, pidfd, stdin, stdout, stderr }, started))
            }
        }
    }

    /// Feeds and reads until the program has ended, or the time is over (None).
    fn attend(&mut self, timeout: Option<Duration>) -> Result<Option<End>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let Some(ready) = self.wait(left)? else { return Ok(None) };
            if ready.stdin {
                self.feed()?;
            }
            if ready.stdout {
                self.stdout.read()?;
            }
            if ready.stderr {
                self.stderr.read()?;
            }
            if ready.ended {
                return self.reap().map(Some);
            }
            // A program that never stops printing is ready at every look.
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<Option<Ready>> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let stdin = self.stdin.as_ref().map(|(pipe, _)| pipe.as_fd());
        let sources = [
            (Some(self.pidfd.as_fd()), PollFlags::IN),
            (stdin, PollFlags::OUT),
            (self.stdout.pipe(), PollFlags::IN),
            (self.stderr.pipe(), PollFlags::IN),
        ];
        let mut fds: Vec<PollFd<'_>> = sources
            .iter()
            .filter_map(|(fd, flags)| fd.map(|fd| PollFd::from_borrowed_fd(fd, *flags)))
            .collect();
        let count = rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))
            .call(|| format!("poll({} fds, {timeout:?})", fds.len()))?;
        let mut answers = fds.iter().map(|fd| !fd.revents().is_empty());
        let [ended, stdin, stdout, stderr] =
            sources.map(|(fd, _)| fd.is_some() && answers.next().unwrap_or(false));
        Ok((count > 0).then_some(Ready { ended, stdin, stdout, stderr }))
    }

    /// A program that does not want to read all of its input is free to close it.
    fn feed(&mut self) -> Result<()> {
        let Some((pipe, bytes)) = &mut self.stdin else { return Ok(()) };
        match rustix::io::write(&*pipe, bytes) {
            Ok(written) => *bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::PIPE) => *bytes = &[],
            Err(errno) => return Err(Error::call("write(<stdin>)", errno)),
        }
        if bytes.is_empty() {
            self.stdin = None;
        }
        Ok(())
    }

    /// Ends the program and its process group: its children may hold what it has locked or
    /// mounted. The pid is not reaped yet, so that it cannot be another's.
    fn kill(&mut self, after: Duration) -> Result<End> {
        rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL)
            .call(|| "pidfd_send_signal(<program>, SIGKILL)".into())?;
        match rustix::process::kill_process_group(self.pid, Signal::KILL) {
            // It has not come to its setsid(2) yet.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(Error::call(format!("kill(-{}, SIGKILL)", self.pid), errno)),
        }
        // Where even SIGKILL does not end it in time, it is left to the child subreaper.
        self.stdin = None;
        self.attend(Some(KILLED_WITHIN))?;
        Ok(End::TimedOut(after))
    }

    fn reap(&self) -> Result<End> {
        let status = rustix::io::retry_on_intr(|| {
            waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        })
        .call(|| format!("waitid(P_PIDFD, <{}>, WEXITED)", self.pid))?
        .ok_or_else(|| Error::call("waitid(P_PIDFD)", Errno::CHILD))?;
        Ok(match status.exit_status() {
            Some(code) => End::Exited(code),
            None => End::Killed(status.terminating_signal().unwrap_or_default()),
        })
    }
}

fn new_pipe(flags: PipeFlags) -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(flags).call(|| format!("pipe2({flags:?})"))
}

struct Ready {
    ended: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// In the child: a session of its own (so that a timeout ends the whole of it), the default
/// umask, default signals, and no descriptor but the three.
fn become_command(
    child: &SingleThreaded,
    command: &Command,
    [stdin, stdout, stderr]: [BorrowedFd<'_>; 3],
    parent: Pid,
) -> Result<Infallible> {
    // A program must not outlive a main or init that was killed while it waited for it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .call(|| "prctl(PR_SET_PDEATHSIG, SIGKILL)".into())?;
    if rustix::process::getppid() != Some(parent) {
        process::exit(127);
    }
    rustix::process::setsid().call(|| "setsid()".into())?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    process::reset_signals().call(|| "sigprocmask(SIG_SETMASK, [])".into())?;
    process::default_sigpipe();
    rustix::stdio::dup2_stdin(stdin).call(|| "dup2(<pipe>, 0)".into())?;
    rustix::stdio::dup2_stdout(stdout).call(|| "dup2(<pipe>, 1)".into())?;
    rustix::stdio::dup2_stderr(stderr).call(|| "dup2(<pipe>, 2)".into())?;
    process::close_from(child, 3, CloseHow::OnExec)
        .call(|| "close_range(3, ~0, CLOSE_RANGE_CLOEXEC)".into())?;
    process::execve(&command.path, &command.args, &command.env)
        .call(|| format!("execve({:?})", command.path))
}

/// In the child: tells the parent why it ends. Nobody is left to be told where that fails.
fn report(pipe: &OwnedFd, error: &Error) {
    if let Ok(bytes) = serde_json::to_vec(error) {
        rustix::io::write(pipe, &bytes).ok();
    }
}

/// What [`report`] wrote: nothing, when execve(2) closed the pipe.
fn failure(pipe: &OwnedFd) -> Result<Option<Error>> {
    let mut bytes = [0; 4096];
    match rustix::io::read(pipe, &mut bytes) {
        // EAGAIN: it was killed before it came to execve, or is about to be.
        Ok(0) | Err(Errno::AGAIN) => Ok(None),
        Ok(length) => {
            let error = serde_json::from_slice(bytes.get(..length).unwrap_or_default());
            error
                .map(Some)
                .map_err(|error| Error::new(Kind::Corrupt(format!("a child's error: {error}"))))
        }
        Err(errno) => Err(Error::call("read(<errors>)", errno)),
    }
}

/// The end of what a program prints on one stream.
struct Capture {
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
    cut: bool,
}

impl Capture {
    fn of(pipe: OwnedFd) -> Capture {
        Capture { pipe: Some(pipe), kept: Vec::new(), cut: false }
    }

    fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads once; how much it was.
    fn read(&mut self) -> Result<usize> {
        let Some(pipe) = &self.pipe else { return Ok(0) };
        let mut bytes = [0; 16 * 1024];
        match rustix::io::read(pipe, &mut bytes) {
            Ok(0) => {
                self.pipe = None;
                Ok(0)
            }
            Ok(length) => {
                self.keep(bytes.get(..length).unwrap_or_default());
                Ok(length)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(Error::call("read(<output>)", errno)),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let excess = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..excess);
        self.cut |= excess > 0;
    }

    /// After the program's end: what is in the pipe, but not what is still to come from those
    /// it left in the background.
    fn drain(&mut self) -> Result<()> {
        let mut left = LARGEST_PIPE;
        loop {
            match self.read()? {
                0 => return Ok(()),
                length => match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return Ok(()),
                },
            }
        }
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One line: control characters are escaped, so that no program writes lines into our log.
impl fmt::Display for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cut {
            f.write_str("…")?;
        }
        for c in String::from_utf8_lossy(&self.kept).trim().chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// For example `exit status 3; stderr: no such bridge`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Exited(status) => write!(f, "exit status {status}")?,
            End::Killed(signal) => match SignalName::try_from(signal) {
                Ok(name) => write!(f, "killed by {name}")?,
                Err(_) => write!(f, "killed by signal {signal}")?,
            },
            End::TimedOut(after) => write!(f, "timed out after {} s", after.as_secs_f64())?,
        }
        for (name, output) in [("stderr", &self.stderr), ("stdout", &self.stdout)] {
            if !output.kept.is_empty() {
                write!(f, "; {name}: {output}")?;
            }
        }
        Ok(())
    }
}
