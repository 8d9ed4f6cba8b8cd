//! That planning has no effect on the host: the kernel would not let it.

use std::path::Path;

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

use crate::sys::testing::in_fork;

/// Calls that change nothing outside of the process: memory, reading, looking, and files that have
/// no name, by which libseccomp hands out what it has compiled.
const HARMLESS: [&str; 29] = [
    "brk",
    "clock_gettime",
    "close",
    "dup",
    "exit_group",
    "fcntl",
    "fstat",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "lseek",
    "madvise",
    "memfd_create",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "pipe2",
    "pread64",
    "read",
    "readlink",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "statx",
    "uname",
    "write",
];

/// Any other call ends the process, and the test.
fn allow_harmless_calls_only() {
    let mut filter = ScmpFilterContext::new(ScmpAction::KillProcess).unwrap();
    for name in HARMLESS {
        filter.add_rule(ScmpAction::Allow, ScmpSyscall::from_name(name).unwrap()).unwrap();
    }
    let writes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    let reading = ScmpCompareOp::MaskedEqual(u64::try_from(writes).unwrap());
    let openat = ScmpSyscall::from_name("openat").unwrap();
    let condition = ScmpArgCompare::new(2, reading, u64::try_from(libc::O_RDONLY).unwrap());
    filter.add_rule_conditional(ScmpAction::Allow, openat, &[condition]).unwrap();
    filter.load().unwrap();
}

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/fuzz/corpus");
    let entries = std::fs::read_dir(corpus.join(target)).unwrap();
    entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn planning_has_no_effect_on_the_host() {
    let (specs, processes) = (inputs("spec"), inputs("process"));
    let resources = inputs("resources");
    in_fork(|_| {
        allow_harmless_calls_only();
        specs.iter().for_each(|input| super::spec(input));
        processes.iter().for_each(|input| super::process(input));
        resources.iter().for_each(|input| super::resources(input));
    });
}

#[test]
fn a_call_with_an_effect_would_be_noticed() {
    for effect in [
        || drop(std::fs::create_dir("/tmp/myshim-effect")),
        || drop(std::fs::File::options().append(true).open("/dev/null")),
    ] {
        let (status, _) = crate::sys::testing::end_of_fork(|_| {
            allow_harmless_calls_only();
            effect();
        });
        let nix::sys::wait::WaitStatus::Signaled(_, signal, _) = status else {
            panic!("not noticed: {status:?}")
        };
        assert_eq!(signal, nix::sys::signal::Signal::SIGSYS);
    }
}
