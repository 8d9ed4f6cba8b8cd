//! Hooks of the OCI runtime spec (config.md, "POSIX-platform Hooks").
//!
//! They run in order, in the caller's namespaces, working directory and cgroup, with the state on
//! standard input, as root with exactly their environment. On exit all of them are reaped.

use std::fmt;
use std::time::Duration;

use super::command::{Command, End};
use super::oci_state::OciState;
use crate::error::{Error, Kind, Result};
use crate::plan::Hook;
use crate::sys::process::SingleThreaded;

/// When hooks run. Displays as the spec names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the spec's")]
pub enum HookPoint {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HookPoint::Prestart => "prestart",
            HookPoint::CreateRuntime => "createRuntime",
            HookPoint::CreateContainer => "createContainer",
            HookPoint::StartContainer => "startContainer",
            HookPoint::Poststart => "poststart",
            HookPoint::Poststop => "poststop",
        })
    }
}

/// Runs the hooks until one fails.
///
/// # Errors
/// [`Kind::Hook`] with the hook's place in its list, how it ended and what it printed.
pub fn run(
    single: &SingleThreaded,
    point: HookPoint,
    hooks: &[Hook],
    state: &OciState<'_>,
) -> Result<()> {
    each(single, point, hooks, state)?.next().map_or(Ok(()), Err)
}

/// Runs all of the hooks, whatever becomes of them (poststop), and returns what failed.
pub fn run_all(
    single: &SingleThreaded,
    point: HookPoint,
    hooks: &[Hook],
    state: &OciState<'_>,
) -> Vec<Error> {
    each(single, point, hooks, state).map_or_else(|error| vec![error], Iterator::collect)
}

/// The errors, found while it is iterated over: each step runs hooks up to the next failure.
fn each<'a>(
    single: &'a SingleThreaded,
    point: HookPoint,
    hooks: &'a [Hook],
    state: &OciState<'_>,
) -> Result<impl Iterator<Item = Error> + use<'a>> {
    let state = if hooks.is_empty() { Vec::new() } else { state.to_json()? };
    Ok(hooks.iter().zip(1..).filter_map(move |(hook, number): (&Hook, usize)| {
        let outcome = run_one(single, hook, &state)?;
        let path = hook.path.display();
        let hook = format!("{point} hook {number} of {} ({path})", hooks.len());
        Some(Error::new(Kind::Hook { hook, outcome }))
    }))
}

/// What went wrong, in words; None when nothing did.
fn run_one(single: &SingleThreaded, hook: &Hook, state: &[u8]) -> Option<String> {
    let timeout = hook.timeout_secs.map(Duration::from_secs);
    let outcome = Command::new(&hook.path, &hook.args, &hook.env)
        .and_then(|command| command.run(single, state, timeout));
    match outcome {
        Ok(outcome) if outcome.end == End::Exited(0) => None,
        Ok(outcome) => Some(outcome.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Instant;

    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::wait::{WaitStatus, waitpid};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{PidfdFlags, pidfd_open};

    use super::super::oci_state::Status;
    use super::*;
    use crate::sys::testing::{end_of_fork, in_fork};

    fn shell(script: &str) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["PATH=/usr/bin:/bin".into()],
            timeout_secs: Some(20),
        }
    }

    fn with_state<T>(
        annotations: BTreeMap<String, String>,
        f: impl FnOnce(&OciState<'_>) -> T,
    ) -> T {
        f(&OciState {
            oci_version: "1.2.0",
            id: "web",
            status: Status::Creating,
            pid: Some(42),
            bundle: Path::new("/bundle"),
            annotations: &annotations,
        })
    }

    /// The error's text of running these hooks in a fork of their own; empty without an error.
    fn failure_of(hooks: &[Hook]) -> String {
        let (mut reader, writer) = std::io::pipe().unwrap();
        in_fork(|single| {
            let result = with_state(BTreeMap::new(), |state| {
                run(single, HookPoint::CreateRuntime, hooks, state)
            });
            if let Err(error) = result {
                std::io::Write::write_all(&mut &writer, error.to_string().as_bytes()).unwrap();
            }
        });
        drop(writer);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        text
    }

    fn assert_succeeds(script: &str) {
        assert_eq!(failure_of(&[shell(script)]), "");
    }

    #[test]
    fn a_hook_reads_the_state_to_its_end_on_standard_input() {
        assert_succeeds(
            r#"test "$(cat)" = '{"ociVersion":"1.2.0","id":"web","status":"creating","pid":42,"bundle":"/bundle"}'"#,
        );
    }

    #[test]
    fn a_hook_has_exactly_its_arguments_and_its_environment() {
        let mut hook = shell("");
        hook.args = vec![
            "zero".into(),
            "-c".into(),
            r#"test "$0 $1" = "a b c" && test "$(tr '\0' '|' </proc/$$/environ)" = 'Z=1|A=2|Z=3|'"#
                .into(),
            "a b".into(),
            "c".into(),
        ];
        hook.env = vec!["Z=1".into(), "A=2".into(), "Z=3".into()];
        assert_eq!(failure_of(&[hook]), "");
    }

    #[test]
    fn a_failing_hook_is_named_with_its_place_its_status_and_what_it_printed() {
        let failing = shell("echo said; echo cause >&2; exit 3");
        assert_eq!(
            failure_of(&[failing, shell("true")]),
            "createRuntime hook 1 of 2 (/bin/sh): exit status 3; stderr: cause; stdout: said"
        );
    }

    #[test]
    fn hooks_run_in_order_until_one_fails() {
        let directory = std::env::temp_dir().join(format!("hooks-order-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let line = |text: &str, status: u8| {
            shell(&format!("echo {text} >> {}/log; exit {status}", directory.display()))
        };
        let error = failure_of(&[line("one", 0), line("two", 1), line("three", 0)]);
        let log = std::fs::read_to_string(directory.join("log")).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(log, "one\ntwo\n");
        assert_eq!(error, "createRuntime hook 2 of 3 (/bin/sh): exit status 1");
    }

    #[test]
    fn poststop_hooks_all_run_and_every_failure_is_returned() {
        in_fork(|single| {
            let hooks = [shell("exit 1"), shell("true"), shell("kill -9 $$")];
            let errors = with_state(BTreeMap::new(), |state| {
                run_all(single, HookPoint::Poststop, &hooks, state)
            });
            let texts: Vec<String> = errors.iter().map(Error::to_string).collect();
            assert_eq!(
                texts,
                [
                    "poststop hook 1 of 3 (/bin/sh): exit status 1",
                    "poststop hook 3 of 3 (/bin/sh): killed by SIGKILL"
                ]
            );
        });
    }

    #[test]
    fn a_hook_that_is_not_there_is_named_with_the_errno() {
        let mut hook = shell("");
        hook.path = "/no/such/hook".into();
        assert_eq!(
            failure_of(&[hook]),
            "createRuntime hook 1 of 1 (/no/such/hook): execve(\"/no/such/hook\"): ENOENT: \
             No such file or directory"
        );
    }

    #[test]
    fn a_hook_that_is_not_executable_is_named_with_the_errno() {
        let mut hook = shell("");
        hook.path = "/etc/passwd".into();
        let error = failure_of(&[hook]);
        assert!(error.ends_with("execve(\"/etc/passwd\"): EACCES: Permission denied"), "{error}");
    }

    #[test]
    fn a_timeout_kills_the_hooks_whole_group_and_reaps_it() {
        let directory = std::env::temp_dir().join(format!("hooks-timeout-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let pids = directory.join("pids");
        let mut hook =
            shell(&format!("sleep 1000 & echo $$ $! > {}; echo waiting; wait", pids.display()));
        hook.timeout_secs = Some(1);
        let started = Instant::now();
        let error = failure_of(&[hook]);
        let pids = std::fs::read_to_string(&pids).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(
            error,
            "createRuntime hook 1 of 1 (/bin/sh): timed out after 1 s; stdout: waiting"
        );
        assert!(started.elapsed() < Duration::from_secs(15));
        for pid in pids.split_whitespace() {
            assert_ends(pid.parse().unwrap());
        }
    }

    /// A killed process may take a moment.
    fn assert_ends(pid: i32) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        // ESRCH: it has been reaped already.
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
            assert_eq!(poll(&mut ended, Some(&timeout)), Ok(1));
        }
    }

    #[test]
    fn a_hook_that_prints_without_end_still_times_out() {
        let mut hook = shell("exec yes");
        hook.timeout_secs = Some(1);
        let error = failure_of(&[hook]);
        assert!(error.contains(": timed out after 1 s; stdout: …"), "{error}");
    }

    #[test]
    fn a_hundred_megabytes_are_drained_and_only_their_end_is_kept() {
        in_fork(|single| {
            let before = peak_memory_kib();
            let script = "head -c 100000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1";
            let error = with_state(BTreeMap::new(), |state| {
                run(single, HookPoint::Prestart, &[shell(script)], state).unwrap_err().to_string()
            });
            assert!(error.ends_with("xxxthe end"), "{}", &error[error.len() - 40..]);
            assert!(error.len() < 5000, "{}", error.len());
            // What the fork touches of the test program counts as well.
            assert!(peak_memory_kib() < before + 16 * 1024);
        });
    }

    fn peak_memory_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_background_process_that_keeps_the_pipes_does_not_hold_us_up() {
        let started = Instant::now();
        let error = failure_of(&[shell("sleep 10 & echo printed before; exit 1")]);
        assert_eq!(
            error,
            "createRuntime hook 1 of 1 (/bin/sh): exit status 1; stdout: printed before"
        );
        assert!(started.elapsed() < Duration::from_secs(8));
    }

    #[test]
    fn a_hook_that_closes_its_input_early_is_no_error() {
        in_fork(|single| {
            let annotations = BTreeMap::from([("big".to_owned(), "x".repeat(1_000_000))]);
            with_state(annotations, |state| {
                run(single, HookPoint::Prestart, &[shell("exec <&-; sleep 0.2")], state).unwrap();
            });
        });
    }

    #[test]
    fn a_state_larger_than_a_pipe_arrives_whole_while_the_hook_prints() {
        in_fork(|single| {
            let annotations = BTreeMap::from([("big".to_owned(), "x".repeat(1_000_000))]);
            with_state(annotations, |state| {
                let length = state.to_json().unwrap().len();
                let script = format!("test $(tee /dev/stderr | wc -c) = {length}");
                run(single, HookPoint::Prestart, &[shell(&script)], state).unwrap();
            });
        });
    }

    #[test]
    fn a_hook_starts_with_three_descriptors_default_signals_and_its_own_session() {
        let file = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        let mut hook = shell("");
        hook.path = "/usr/bin/python3".into();
        let script = r#"
fds = os.listdir("/proc/self/fd")
assert len(fds) == 4, fds
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
# Python itself ignores SIGPIPE and SIGXFSZ; 32 and 33 belong to libc.
assert int(status["SigIgn"], 16) & ~0x181001000 == 0, status["SigIgn"]
assert int(status["SigBlk"], 16) == 0, status["SigBlk"]
assert os.getsid(0) == os.getpgid(0) == os.getpid()
assert os.umask(0) == 0o022
"#;
        if !hook.path.exists() {
            return;
        }
        hook.args = vec!["python3".into(), "-c".into(), format!("import os{script}")];
        in_fork(|single| {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let mut all = SigSet::all();
            all.remove(Signal::SIGALRM);
            all.thread_block().unwrap();
            with_state(BTreeMap::new(), |state| {
                run(single, HookPoint::Prestart, &[hook], state).unwrap();
            });
        });
    }

    #[test]
    fn a_hook_leaves_no_process_and_no_descriptor_behind() {
        in_fork(|single| {
            let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let before = descriptors();
            with_state(BTreeMap::new(), |state| {
                run(single, HookPoint::Prestart, &[shell("true"), shell("true")], state).unwrap();
            });
            assert_eq!(descriptors(), before);
            let children = waitpid(None, None);
            assert_eq!(children, Err(nix::errno::Errno::ECHILD));
        });
    }

    #[test]
    fn a_hook_dies_with_the_process_that_waits_for_it() {
        let file = std::env::temp_dir().join(format!("hooks-orphan-{}", std::process::id()));
        let script = format!("echo $$ > {}; kill -9 $PPID; exec sleep 1000", file.display());
        let (end, _) = end_of_fork(|single| {
            with_state(BTreeMap::new(), |state| {
                run(single, HookPoint::Prestart, &[shell(&script)], state).unwrap();
            });
        });
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGKILL, _)), "{end:?}");
        let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_ends(pid);
    }

    #[test]
    fn output_cannot_write_lines_into_a_log() {
        let error = failure_of(&[shell("printf 'a\\033[31m\\nb'; exit 1")]);
        assert!(error.ends_with(r"stdout: a\u{1b}[31m\nb"), "{error}");
    }
}
