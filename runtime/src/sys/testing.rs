//! For tests: a claim that is looked at in a process of its own.

use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::process::{self, SingleThreaded};

/// Runs `claim` in a fork, which has one thread and may change its namespaces, limits and
/// signals as it likes; a panic there is a panic here, with the same message. Ends after 60 s.
pub(crate) fn in_fork(claim: impl FnOnce(&SingleThreaded)) {
    let (status, text) = end_of_fork(claim);
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "in the fork: {status:?}: {text}");
}

/// The same, for a claim that ends its process: how it ended, and the panic's text.
pub(crate) fn end_of_fork(claim: impl FnOnce(&SingleThreaded)) -> (WaitStatus, String) {
    HOOKED.call_once(report_panics_of_forks);
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: glibc's fork takes malloc's locks and gives them back in the child, and the child
    // uses no other lock of the test runner's threads.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // SAFETY: the default action of SIGALRM ends this process, nothing else.
            unsafe { libc::alarm(60) };
            drop(reader);
            REPORT.store(writer.as_raw_fd(), Ordering::Relaxed);
            let single = SingleThreaded::verify().unwrap();
            let result = catch_unwind(AssertUnwindSafe(|| claim(&single)));
            process::exit(i32::from(result.is_err()));
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            (waitpid(child, None).unwrap(), text)
        }
    }
}

/// A descriptor that a foreign library owns and keeps open until the process ends.
pub(crate) fn borrow(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: the caller says so, in a test.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// In a fork: the pipe to the test that made it.
static REPORT: AtomicI32 = AtomicI32::new(-1);
static HOOKED: Once = Once::new();

/// The test runner's own panic hook needs locks that its threads may have held at the fork.
fn report_panics_of_forks() {
    let inherited = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match REPORT.load(Ordering::Relaxed) {
        -1 => inherited(info),
        pipe => {
            // SAFETY: the fork that stored it keeps it open until it ends.
            let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
            rustix::io::write(pipe, info.to_string().as_bytes()).unwrap();
        }
    }));
}

/// A fork that runs beside the test, for one that has several at once: its pid, for [`join`].
pub(crate) fn forked(body: impl FnOnce()) -> Pid {
    HOOKED.call_once(report_panics_of_forks);
    // SAFETY: as in `end_of_fork`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let outcome = catch_unwind(AssertUnwindSafe(body));
            process::exit(i32::from(outcome.is_err()))
        }
    }
}

/// Waits for a fork and fails if it failed.
pub(crate) fn join(pid: Pid) {
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
}
