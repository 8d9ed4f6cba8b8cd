//! What a parent does with its children: look for dead ones, signal one, start a program.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use rustix::process::{Pid, PidfdFlags};

use crate::process::Child;

/// The pid of a dead child, which stays a zombie; None when there is none at present.
///
/// Sees only children whose exit signal is SIGCHLD: programs that were executed, and orphans that
/// were handed to this process, but no process of the chain before its execve (no `__WALL`).
///
/// # Errors
/// The errno of waitid(2); ECHILD is none.
pub fn peek_zombie() -> Result<Option<i32>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a siginfo_t that we own, for the kernel to fill.
    match Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) }) {
        Ok(_) => {}
        Err(Errno::ECHILD) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    // SAFETY: all-zero bytes are a valid siginfo_t, and the kernel wrote at most over them.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills in the fields of SIGCHLD, or leaves the zeros when no child was dead.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then_some(pid))
}

/// Sends a signal of any number, also a real-time one: pidfd_send_signal(2), Linux 5.1.
///
/// # Errors
/// Its errno; ESRCH: the process has ended.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: without a siginfo the call reads its integer arguments only.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    Errno::result(result).map(drop)
}

/// Whether a child that has not been reaped has begun to end: PF_EXITING of linux/sched.h, in
/// field 9 of /proc/pid/stat. Its descriptors are closed after that, and its pidfd polls readable
/// only at the end. A child that cannot be read has ended.
pub fn is_ending(pid: i32) -> bool {
    const PF_EXITING: u64 = 0x4;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let flags = stat.ok().and_then(|stat| crate::container::stat_field::<u64>(&stat, 9));
    flags.is_none_or(|flags| flags & PF_EXITING != 0)
}

/// Starts a program with default signals, /dev/null as 0, 1 and 2, and `fds` from 3 on.
///
/// posix_spawn(3) shares memory until the execve (CLONE_VFORK): nothing is copied, and a program
/// that cannot be executed is an error here.
///
/// # Errors
/// The errno of the fork, of the execve, or of preparing them.
pub fn spawn(
    program: &CString,
    args: &[CString],
    env: &[CString],
    fds: &[BorrowedFd<'_>],
) -> Result<Child, Errno> {
    // Copies above all targets: a dup2 in the child must not overwrite a later one's source.
    let first_free = fds.len() + 3;
    let copies = fds
        .iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, first_free as i32))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    let mut actions = PosixSpawnFileActions::init()?;
    for standard in 0..3 {
        actions.add_open(standard, "/dev/null", OFlag::O_RDWR, Mode::empty())?;
    }
    for (copy, target) in copies.iter().zip(3..) {
        actions.add_dup2(copy.as_raw_fd(), target)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    let pid = posix_spawn(program.as_c_str(), &actions, &attributes, args, env)?.as_raw();
    // The number is the child's as long as nobody has waited for it, which only the caller may.
    let own = Pid::from_raw(pid).ok_or(Errno::ESRCH)?;
    let pidfd = rustix::process::pidfd_open(own, PidfdFlags::empty())
        .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    Ok(Child { pid, pidfd })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;
    use crate::sys::process::{self, CloseHow};
    use crate::sys::testing::in_fork;

    fn c(text: &str) -> CString {
        CString::new(text).unwrap()
    }

    #[test]
    fn a_program_is_started_with_its_descriptors_from_3_on_and_default_signals() {
        in_fork(|single| {
            // Whoever started the tests may have left signals ignored and descriptors open.
            process::reset_signals().unwrap();
            process::close_from(single, 3, CloseHow::OnExec).unwrap();
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let script = "echo $VALUE >&4; ls /proc/self/fd | tr '\\n' ' ' >&4; \
                          grep SigIgn /proc/self/status >&4";
            let env = [c("VALUE=given"), c("PATH=/usr/bin:/bin")];
            let args = [c("sh"), c("-c"), c(script)];
            let child =
                spawn(&c("/bin/sh"), &args, &env, &[reader.as_fd(), writer.as_fd()]).unwrap();
            drop(writer);
            let mut output = String::new();
            std::fs::File::from(reader).read_to_string(&mut output).unwrap();
            // glibc's posix_spawn(3) ignores 32 and 33, which it keeps for itself.
            assert_eq!(output, "given\n0 1 2 3 4 5 SigIgn:\t0000000180000000\n");
            let id = WaitId::PidFd(child.pidfd.as_fd());
            let status = waitid(id, WaitIdOptions::EXITED).unwrap();
            assert_eq!(status.unwrap().exit_status(), Some(0));
        });
    }

    #[test]
    fn a_child_that_has_ended_is_ending_and_one_that_runs_is_not() {
        let nothing: [CString; 0] = [];
        let args = [c("sleep"), c("100")];
        let child = spawn(&c("/bin/sleep"), &args, &nothing, &[]).unwrap();
        assert!(!is_ending(child.pid));
        pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL).unwrap();
        let id = WaitId::PidFd(child.pidfd.as_fd());
        waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert!(is_ending(child.pid));
        waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let nothing: [CString; 0] = [];
        assert_eq!(spawn(&c("/nope"), &nothing, &nothing, &[]).unwrap_err(), Errno::ENOENT);
    }
}
