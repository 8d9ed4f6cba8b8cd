//! Programs with deadlines: nothing a test starts can hang it.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn as spawn_thread};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::wait;

/// How long any `ctr` may take unless a test says otherwise; [`wait::scaled`], as every limit here.
pub const LIMIT: Duration = Duration::from_secs(40);

/// What a program left: its status and all it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// The command line, for messages.
    pub line: String,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text, without containerd 2's complaint about hosts with cgroup v1.
    #[must_use]
    pub fn err(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        text.split_inclusive('\n').filter(|line| !line.contains("DEPRECATION")).collect()
    }

    /// The exit code; `None` when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output of a program that must have succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(&self) -> String {
        self.exits(0)
    }

    /// Standard output of a program that must have ended with `code`.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn exits(&self, code: i32) -> String {
        assert_eq!(self.code(), Some(code), "{self}");
        self.out()
    }

    /// Standard error of a program that must have failed with all of `words` in its message.
    ///
    /// # Panics
    /// When it succeeded, or a word is missing.
    #[track_caller]
    pub fn fails(&self, words: &[&str]) -> String {
        assert!(!self.status.success(), "ought to have failed: {self}");
        let err = self.err();
        for word in words {
            assert!(err.contains(word), "the message lacks {word:?}: {self}");
        }
        err
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("code {code}"),
            (None, signal) => format!("signal {signal:?}"),
        };
        let (out, err) = (self.out(), self.err());
        write!(f, "`{}` ended with {code}\nstdout: {out}\nstderr: {err}", self.line)
    }
}

/// Bytes that a thread reads from a pipe until its end.
#[derive(Debug)]
struct Collector {
    seen: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    fn new(pipe: Option<impl Read + Send + 'static>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let thread = pipe.map(|mut pipe| {
            let seen = Arc::clone(&seen);
            spawn_thread(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                    seen.lock().unwrap().extend_from_slice(&buffer[..n]);
                }
            })
        });
        Self { seen, thread }
    }

    fn so_far(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }

    /// The rest, once every writer is gone.
    fn finish(&self, line: &str) -> Vec<u8> {
        if let Some(thread) = &self.thread {
            wait::until_true(&format!("`{line}` has ended, its output is still open"), || {
                thread.is_finished()
            });
        }
        self.so_far()
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: Collector,
    err: Collector,
    line: String,
}

impl Running {
    /// Starts `command`; its output is collected unless the command sends it elsewhere.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let line = line_of(&command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start `{line}`: {e}"));
        let (out, err) = (Collector::new(child.stdout.take()), Collector::new(child.stderr.take()));
        Self { child, out, err, line }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// When it was not started with a pipe there, or does not read.
    pub fn write(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().expect("a piped stdin").write_all(bytes).unwrap();
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// What it has written to standard output until now.
    #[must_use]
    pub fn out_so_far(&self) -> String {
        String::from_utf8_lossy(&self.out.so_far()).into_owned()
    }

    /// What it has written to standard error until now.
    #[must_use]
    pub fn err_so_far(&self) -> String {
        String::from_utf8_lossy(&self.err.so_far()).into_owned()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the kernel cannot tell.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        pid.and_then(|pid| kill_process(pid, signal).ok());
    }

    /// Waits for its end, or gives it back after `limit`.
    ///
    /// # Errors
    /// Itself, when it still runs after `limit`.
    ///
    /// # Panics
    /// When it has ended and its output stays open.
    pub fn end_within(mut self, limit: Duration) -> Result<Output, Self> {
        self.close_stdin();
        if !ends_within(&mut self.child, limit) {
            return Err(self);
        }
        let status = self.child.wait().unwrap();
        let (stdout, stderr) = (self.out.finish(&self.line), self.err.finish(&self.line));
        Ok(Output { status, stdout, stderr, line: self.line })
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `limit`; it is killed then.
    #[must_use]
    pub fn finish(self, limit: Duration) -> Output {
        match self.end_within(limit) {
            Ok(output) => output,
            Err(mut late) => {
                let (out, err) = (late.out_so_far(), late.err_so_far());
                late.child.kill().and_then(|()| late.child.wait()).ok();
                let limit = wait::scaled(limit);
                panic!("`{}` did not end in {limit:?}\nstdout: {out}\nstderr: {err}", late.line)
            }
        }
    }
}

/// Runs `command` to its end.
///
/// # Panics
/// When that takes longer than `limit`.
#[must_use]
pub fn run(mut command: Command, limit: Duration) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command).finish(limit)
}

/// Whether `child` ends within `limit`; it is not reaped.
fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a child that is not reaped");
    let end = Instant::now() + wait::scaled(limit);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap();
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(n) => return n > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("poll on a pidfd: {e}"),
        }
    }
}

/// A command as one would type it.
fn line_of(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}
