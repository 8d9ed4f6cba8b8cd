//! Forks for tests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Runs `body` in a fork, which has one thread, and tells its pid.
#[allow(clippy::unwrap_used, reason = "only for tests")]
pub(crate) fn forked(body: impl FnOnce()) -> Pid {
    // SAFETY: the test runner's other threads wait for this one, so that no lock of theirs is
    // held; the child ends by _exit.
    let forked = unsafe { fork() };
    match forked.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let outcome = catch_unwind(AssertUnwindSafe(body));
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
    }
}

/// Waits for a fork and fails if it failed.
#[allow(clippy::unwrap_used, reason = "only for tests")]
pub(crate) fn join(pid: Pid) {
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
}
