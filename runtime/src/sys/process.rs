//! Making, joining and ending processes.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

use super::shared_pid::SharedPid;

/// Proof that this process has exactly one thread.
///
/// A fork of a process with several threads copies locks that other threads hold (malloc's among
/// them) and nobody will ever release; `setns(2)` and `unshare(2)` of user, mount and time
/// namespaces fail with EINVAL there. What needs this premise takes a witness as its argument.
#[derive(Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Looks at /proc/self/task, which has two links of its own and one per thread.
    ///
    /// None when there are several threads, or when /proc cannot tell.
    pub fn verify() -> Option<SingleThreaded> {
        let stat = rustix::fs::stat("/proc/self/task").ok()?;
        (stat.st_nlink == 3).then_some(SingleThreaded(()))
    }
}

/// Arguments of clone3(2). Threads and shared memory cannot be asked for.
#[derive(Debug, Default)]
pub struct Clone<'a> {
    /// CLONE_NEW* of the namespaces to make, or CLONE_PARENT, CLONE_CLEAR_SIGHAND.
    pub flags: u64,
    /// Signal for the parent when the child ends; 0 for none. With CLONE_PARENT it must be 0, and
    /// the child gets the caller's own.
    pub exit_signal: i32,
    /// cgroup v2 directory to be born in (CLONE_INTO_CGROUP, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Where the child's pid is to be found by others who share it, from the child's first moment.
    pub told: Option<&'a SharedPid>,
}

/// Who returns from [`clone3`].
#[derive(Debug)]
pub enum Forked {
    /// The caller: the child's pid in the caller's pid namespace, and its pidfd.
    Parent {
        /// The child's pid.
        pid: i32,
        /// Its pidfd (close-on-exec).
        pidfd: OwnedFd,
    },
    /// The child. It has one thread by construction.
    Child(SingleThreaded),
}

/// Forks through clone3(2) with CLONE_PIDFD (Linux 5.5 for CLONE_CLEAR_SIGHAND).
///
/// libc's atfork handlers do not run; with a single thread there is no lock they would protect.
///
/// # Errors
/// The errno of clone3(2).
pub fn clone3(_single: &SingleThreaded, clone: &Clone<'_>) -> Result<Forked, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero bytes are a valid clone_args, a struct of integers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = clone.flags | libc::CLONE_PIDFD as u64;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = clone.exit_signal as u64;
    if let Some(cgroup) = clone.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    if let Some(told) = clone.told {
        args.flags |= libc::CLONE_PARENT_SETTID as u64;
        args.parent_tid = told.address();
    }
    // SAFETY: no CLONE_VM, CLONE_THREAD or new stack is asked for (flags are namespaces,
    // CLONE_PARENT and those above), so the child goes on with its own copy of this memory;
    // `_single` says that no other thread can be in the middle of something.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(Errno::last()),
        0 => Ok(Forked::Child(SingleThreaded(()))),
        pid => Ok(Forked::Parent {
            pid: pid as i32,
            // SAFETY: the kernel has just opened this descriptor for us (CLONE_PIDFD).
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// CLONE_INTO_CGROUP of linux/sched.h; in libc it overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// CLONE_CLEAR_SIGHAND of linux/sched.h.
pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Joins namespaces: setns(2) with a pidfd (Linux 5.8) or an nsfs file.
///
/// # Errors
/// The errno of setns(2).
pub fn setns(_single: &SingleThreaded, fd: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    // SAFETY: setns reads its two integer arguments and touches no memory of ours.
    Errno::result(unsafe { libc::setns(fd.as_raw_fd(), flags as libc::c_int) }).map(drop)
}

/// Leaves namespaces for new ones: unshare(2).
///
/// # Errors
/// The errno of unshare(2).
pub fn unshare(_single: &SingleThreaded, flags: u64) -> Result<(), Errno> {
    // SAFETY: only CLONE_NEW* and CLONE_FS are ever passed, which touch no memory of ours.
    Errno::result(unsafe { libc::unshare(flags as libc::c_int) }).map(drop)
}

/// Ends this process at once, without running destructors or atexit handlers: a fork must not
/// flush or undo what belongs to the process it was forked from.
pub fn exit(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Replaces this process: execve(2).
///
/// # Errors
/// Returns only on failure, with the errno of execve(2).
pub fn execve(program: &CString, args: &[CString], env: &[CString]) -> Result<Infallible, Errno> {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer, and the strings they point to outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Err(Errno::last())
}

/// Sets every signal's disposition to the default but SIGPIPE's, which is ignored, and unblocks
/// all: ignored and blocked signals are inherited over fork and execve.
///
/// # Errors
/// The errno of sigprocmask(2). Signals that cannot be set (SIGKILL, SIGSTOP, libc's own) stay.
pub fn reset_signals() -> Result<(), Errno> {
    for signal in 1..=SIGNALS {
        let to = if signal == libc::SIGPIPE { libc::SIG_IGN } else { libc::SIG_DFL };
        set_disposition(signal, to);
    }
    // SAFETY: all-zero bytes are a valid sigset_t.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is a sigset_t that we own.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: `none` is initialised; the old mask is not asked for.
    Errno::result(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) })
        .map(drop)
}

/// _NSIG of the kernel's signal.h.
const SIGNALS: libc::c_int = 64;

/// struct sigaction as the kernel has it (asm-generic/signal.h).
#[repr(C)]
struct KernelSigaction {
    handler: libc::sighandler_t,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// By the bare system call: libc keeps 32 and 33 for itself and refuses to touch them, and who
/// started us may have had them ignored. SIGKILL and SIGSTOP fail, and are as they must be.
fn set_disposition(signal: libc::c_int, to: libc::sighandler_t) {
    let action = KernelSigaction { handler: to, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: SIG_DFL and SIG_IGN run no code of ours, so neither restorer nor mask is used; the
    // old action is not asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const action,
            ptr::null_mut::<KernelSigaction>(),
            size_of::<u64>(),
        )
    };
}

/// Gives SIGPIPE its default disposition back: the user's program must not inherit ours.
pub fn default_sigpipe() {
    set_disposition(libc::SIGPIPE, libc::SIG_DFL);
}

/// Closes every descriptor from `first` on: close_range(2), Linux 5.9.
///
/// # Errors
/// The errno of close_range(2).
pub fn close_from(_single: &SingleThreaded, first: u32, how: CloseHow) -> Result<(), Errno> {
    let flags = match how {
        CloseHow::Now => 0,
        CloseHow::OnExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: the callers have given up every owned descriptor from `first` on: they are about to
    // execve, or are a fresh fork that never looks at the values it inherited.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) }).map(drop)
}

/// Closes all descriptors but the standard streams and these.
///
/// # Errors
/// The errno of close_range(2).
pub fn close_all_but(_single: &SingleThreaded, kept: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut numbers: Vec<u32> =
        kept.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    numbers.sort_unstable();
    let mut first = FIRST_AFTER_STREAMS;
    for number in numbers.into_iter().chain([u32::MAX]) {
        if number > first {
            // SAFETY: what the callers own they have given, and what is owned by values of the
            // code that forked them is never looked at again: that code is not returned to.
            let closed = unsafe { libc::syscall(libc::SYS_close_range, first, number - 1, 0) };
            Errno::result(closed)?;
        }
        first = first.max(number.saturating_add(1));
    }
    Ok(())
}

/// The first descriptor that is none of the three standard streams.
const FIRST_AFTER_STREAMS: u32 = 3;

/// When [`close_from`] closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseHow {
    /// At once.
    Now,
    /// At the next execve.
    OnExec,
}
