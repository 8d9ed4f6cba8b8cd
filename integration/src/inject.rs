//! Makes the n-th system call of a process of the chain fail, or kills the process there.
//!
//! A thread traces the spawner and all that it forks, as strace does, and counts the system calls
//! of each from the moment it is armed. At the wanted one it either puts a number that no call has
//! in place of the call's, so that nothing is done, and an errno in place of the result; or sends
//! SIGKILL, upon which the kernel does not begin the call. A process that executes a program is
//! let go: it is the user's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use libseccomp::ScmpSyscall;
use nix::libc::{
    PTRACE_EVENT_CLONE, PTRACE_EVENT_EXEC, PTRACE_EVENT_FORK, PTRACE_EVENT_STOP, PTRACE_EVENT_VFORK,
};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::io::Errno;

/// What happens at a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and has this result.
    Fails(Errno),
    /// The process is killed in front of it.
    Kills,
}

/// A system call, by who makes it and how many it has made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// 0 is the spawner, 1 the main that waits at [`Tracer::arm`], 2 the first process that is born
    /// after it, and so on.
    pub process: usize,
    /// The call's number.
    pub number: u64,
    /// How many of this number the process has made before.
    pub nth: usize,
}

/// A system call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub place: Place,
    /// The call's name, as in `openat`.
    pub name: String,
    /// The process's own, as in `init:rootfs`.
    pub comm: String,
    /// What it is done to: a path, what a descriptor stands for, or the first argument.
    pub what: String,
}

const SPAWNER: usize = 0;
const MAIN: usize = 1;
/// What is left of an earlier operation, and a main that waits for the next: none of their calls is
/// recorded, and none fails.
const UNCOUNTED: usize = usize::MAX;

/// The names of the spawner, and of a main that waits for a request.
const FORKS_MAINS: &str = "myshim:spawner";
const WAITS: &str = "myshim:waits";

/// What is known of a traced process.
#[derive(Debug, Clone, Default)]
struct Traced {
    number: usize,
    /// How many calls of each number it has made.
    calls: BTreeMap<u64, usize>,
    /// The result to be put in place of the one that its present call has.
    result: Option<Errno>,
}

#[derive(Debug, Default)]
struct State {
    wanted: Option<(Place, Fault)>,
    born: usize,
    traced: BTreeMap<Pid, Traced>,
    records: bool,
    seen: Vec<Seen>,
    struck: Option<Seen>,
}

/// A thread that traces a spawner. It ends when all of its processes have.
#[derive(Debug)]
pub struct Tracer {
    spawner: Pid,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Tracer {
    /// Attaches to the spawner.
    ///
    /// # Panics
    /// When that is not allowed.
    #[must_use]
    pub fn attach(spawner: u32) -> Self {
        let spawner = Pid::from_raw(i32::try_from(spawner).unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (attached, is_attached) = mpsc::channel();
        let thread = std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                let options = Options::PTRACE_O_TRACESYSGOOD
                    | Options::PTRACE_O_TRACECLONE
                    | Options::PTRACE_O_TRACEFORK
                    | Options::PTRACE_O_TRACEVFORK
                    | Options::PTRACE_O_TRACEEXEC;
                // A process that is seized runs on; from its first stop on its calls are counted.
                let seized = ptrace::seize(spawner, options)
                    .and_then(|()| ptrace::interrupt(spawner))
                    .map_err(|errno| format!("cannot trace {spawner}: {errno}"));
                let go = seized.is_ok();
                attached.send(seized).unwrap();
                if go {
                    serve(spawner, &state);
                }
            }
        });
        is_attached.recv().unwrap().unwrap();
        Self { spawner, state, thread: Some(thread) }
    }

    /// Begins to count anew, and keeps what is made in mind, for [`Self::seen`].
    pub fn record(&self) {
        self.reset(None).records = true;
    }

    /// Begins to count anew; `fault` strikes at `place`.
    pub fn arm(&self, place: Place, fault: Fault) {
        drop(self.reset(Some((place, fault))));
    }

    /// Lets all go on as they are.
    pub fn disarm(&self) {
        drop(self.reset(None));
    }

    fn reset(&self, wanted: Option<(Place, Fault)>) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        let numbered = |pid: Pid| match comm(pid).as_str() {
            _ if pid == self.spawner => SPAWNER,
            WAITS => MAIN,
            _ => UNCOUNTED,
        };
        let traced = std::mem::take(&mut state.traced).into_iter().map(|(pid, traced)| {
            (pid, Traced { number: numbered(pid), calls: BTreeMap::new(), ..traced })
        });
        *state = State { wanted, traced: traced.collect(), born: MAIN, ..State::default() };
        state
    }

    /// All calls since [`Self::record`], in the order in which they were made.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state).seen.clone()
    }

    /// The call at which the fault struck; None when none was made there.
    #[must_use]
    pub fn struck(&self) -> Option<Seen> {
        lock(&self.state).struck.clone()
    }

    /// Waits for the end of the processes, which somebody else causes.
    ///
    /// # Panics
    /// When the thread has.
    pub fn finish(mut self) {
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(spawner: Pid, state: &Mutex<State>) {
    lock(state).traced.insert(spawner, Traced::default());
    // The children of the test's other threads are not looked at.
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
        // A process may be gone before it is let go; its end is the next thing heard of it.
        step(&mut lock(state), status).unwrap_or_default();
    }
}

fn step(state: &mut State, status: WaitStatus) -> nix::Result<()> {
    match status {
        WaitStatus::PtraceSyscall(pid) => {
            on_call(state, pid)?;
            ptrace::syscall(pid, None)
        }
        WaitStatus::PtraceEvent(pid, _, event) => on_event(state, pid, event),
        WaitStatus::Stopped(pid, signal) => ptrace::syscall(pid, signal),
        WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
            state.traced.remove(&pid);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn on_event(state: &mut State, pid: Pid, event: i32) -> nix::Result<()> {
    match event {
        PTRACE_EVENT_EXEC => {
            state.traced.remove(&pid);
            return ptrace::detach(pid, None);
        }
        // Either is heard of first: the child's own first stop, or what its parent did.
        PTRACE_EVENT_STOP => state.born(pid),
        PTRACE_EVENT_CLONE | PTRACE_EVENT_FORK | PTRACE_EVENT_VFORK => {
            let child = i32::try_from(ptrace::getevent(pid)?).unwrap_or_default();
            state.born(Pid::from_raw(child));
        }
        _ => {}
    }
    ptrace::syscall(pid, None)
}

impl State {
    fn born(&mut self, pid: Pid) {
        if !self.traced.contains_key(&pid) {
            // A main for the next operation comes at any time, and has its parent's name.
            if comm(pid) == FORKS_MAINS {
                self.traced.insert(pid, Traced { number: UNCOUNTED, ..Traced::default() });
                return;
            }
            self.born += 1;
            self.traced.insert(pid, Traced { number: self.born, ..Traced::default() });
        }
    }
}

/// Of linux/ptrace.h, `struct ptrace_syscall_info`.
const ENTRY: u8 = 1;

fn on_call(state: &mut State, pid: Pid) -> nix::Result<()> {
    let is_entry = ptrace::syscall_info(pid)?.op == ENTRY;
    let wanted = state.wanted;
    let Some(traced) = state.traced.get_mut(&pid) else { return Ok(()) };
    if !is_entry {
        return traced.result.take().map_or(Ok(()), |errno| answer(pid, errno));
    }
    let mut registers = ptrace::getregs(pid)?;
    let calls = traced.calls.entry(registers.orig_rax).or_default();
    let place = Place { process: traced.number, number: registers.orig_rax, nth: *calls };
    *calls += 1;
    let fault = wanted.filter(|(there, _)| *there == place).map(|(_, fault)| fault);
    if place.process == UNCOUNTED || !state.records && fault.is_none() {
        return Ok(());
    }
    let name = name_of(registers.orig_rax);
    let what = what_of(pid, &name, registers.rdi, registers.rsi);
    if let Some(Fault::Fails(errno)) = fault {
        traced.result = Some(errno);
        // The kernel gives a descriptor up before close(2) can fail.
        if name != "close" {
            registers.orig_rax = u64::MAX;
            ptrace::setregs(pid, registers)?;
        }
    }
    let seen = Seen { place, name, comm: comm(pid), what };
    if fault.is_some() {
        state.struck = Some(seen.clone());
    }
    if state.records {
        state.seen.push(seen);
    }
    if fault == Some(Fault::Kills) { kill(pid, Signal::SIGKILL) } else { Ok(()) }
}

/// At the exit of a call: its result.
fn answer(pid: Pid, errno: Errno) -> nix::Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    let raw = i64::from(errno.raw_os_error());
    registers.rax = (-raw).cast_unsigned();
    ptrace::setregs(pid, registers)
}

/// Calls whose second argument is a path, and those whose first is one.
const PATH_IS_SECOND: [&str; 15] = [
    "openat",
    "openat2",
    "mkdirat",
    "mknodat",
    "newfstatat",
    "statx",
    "faccessat",
    "faccessat2",
    "unlinkat",
    "readlinkat",
    "fchmodat",
    "fchownat",
    "utimensat",
    "open_tree",
    "symlinkat",
];
const PATH_IS_FIRST: [&str; 15] = [
    "open", "mkdir", "stat", "lstat", "access", "chdir", "chroot", "unlink", "rmdir", "rename",
    "readlink", "statfs", "umount2", "execve", "mount",
];
const NUMBER_IS_FIRST: [&str; 10] = [
    "prctl",
    "mmap",
    "munmap",
    "clone3",
    "unshare",
    "prlimit64",
    "rt_sigaction",
    "setresuid",
    "setresgid",
    "poll",
];

fn what_of(pid: Pid, name: &str, first: u64, second: u64) -> String {
    if PATH_IS_SECOND.contains(&name) {
        let path = text_at(pid, second);
        // An empty path is the descriptor itself.
        if !path.is_empty() {
            return path;
        }
    }
    if PATH_IS_FIRST.contains(&name) {
        return text_at(pid, first);
    }
    let descriptor = i32::try_from(first).ok().filter(|_| !NUMBER_IS_FIRST.contains(&name));
    let link = descriptor.and_then(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok());
    link.map_or_else(|| format!("{first:#x}"), |link| link.to_string_lossy().into_owned())
}

/// A text of another process that ends with a zero byte, or what can be had of it.
fn text_at(pid: Pid, address: u64) -> String {
    let mut bytes = [0; 256];
    let memory = fs::File::open(format!("/proc/{pid}/mem"));
    // Behind the end of a page there may be nothing.
    let in_page = usize::try_from(4096 - address % 4096).map_or(256, |left| left.min(256));
    let read = memory.and_then(|memory| {
        memory
            .read_exact_at(&mut bytes, address)
            .map(|()| bytes.len())
            .or_else(|_| memory.read_at(&mut bytes[..in_page], address))
    });
    let text = bytes[..read.unwrap_or(0)].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn comm(pid: Pid) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim_end().to_owned()
}

fn name_of(number: u64) -> String {
    let number = i32::try_from(number).unwrap_or(-1);
    ScmpSyscall::from(number).get_name().unwrap_or_else(|_| format!("call {number}"))
}
