//! Calls whose failure changes nothing, each with the reason, and by what other name a call is
//! told.

use myshim_integration::inject::{Fault, Seen};
use rustix::io::Errno;

/// Whether an operation may succeed though this call has failed.
pub(super) fn by(operation: &str, seen: &Seen, fault: Fault) -> bool {
    if fault == Fault::Kills {
        return is_in(DONE, seen);
    }
    // Begun again, as a call that was interrupted ought to be.
    fault == Fault::Fails(Errno::INTR)
        // A cgroup that cannot be frozen gets its signal in rounds.
        || operation == "kill all" && (seen.what.contains("/cgroup.") || seen.name == "ppoll")
        // The first is the root's: where its place cannot be reached, it goes onto the old root.
        || fault == Fault::Fails(Errno::PERM)
            && (seen.name.as_str(), seen.comm.as_str(), seen.place.nth)
                == ("move_mount", "init:rootfs", 0)
        || is_in(HARMLESS, seen)
        || fault == Fault::Fails(Errno::PERM) && (is_in(DENIED, seen) || may_differ(seen, fault))
}

/// Whether the process is another one then.
pub(super) fn may_differ(seen: &Seen, fault: Fault) -> bool {
    fault == Fault::Fails(Errno::PERM) && is_in(DENIED_AND_DIFFERENT, seen)
        || fault == Fault::Kills && seen.comm.ends_with(":ready")
}

/// Call, beginning of the process's name, what it is done to, reason.
type Reason = (&'static str, &'static str, &'static str, &'static str);

fn is_in(reasons: &[Reason], seen: &Seen) -> bool {
    reasons.iter().any(|(name, comm, what, _)| {
        seen.name == *name && seen.comm.starts_with(comm) && seen.what.contains(what)
    })
}

/// Who is killed there has done its work.
const DONE: &[Reason] = &[
    ("close", "", "", "it has answered, and is about to end"),
    ("munmap", "", "", "it has answered, and is about to end"),
    ("prctl", "myshim:main", "0xf", "it has answered, and is about to wait"),
    ("exit_group", "", "", "it has answered, and is about to end"),
    ("rt_sigaction", "init:ready", "", "it has said that it executes: its exit tells"),
    ("seccomp", "init:ready", "", "it has said that it executes: its exit tells"),
    ("execve", "init:ready", "", "it has said that it executes: its exit tells"),
    ("rt_sigaction", "tenant:ready", "", "it has said that it executes: its exit tells"),
    ("seccomp", "tenant:ready", "", "it has said that it executes: its exit tells"),
    ("execve", "tenant:ready", "", "it has said that it executes: its exit tells"),
];

/// What may be denied, as in a user namespace or by a security module.
const DENIED: &[Reason] = &[
    ("setgroups", "", "", "in a user namespace: an empty list of groups is empty already"),
    ("mount_setattr", "myshim:main", "", "a locked attribute that nobody has named stays"),
    ("faccessat2", "", "", "unknown to some profiles of seccomp: execve will tell"),
];
const DENIED_AND_DIFFERENT: &[Reason] = &[
    ("mkdirat", "myshim:main", "/unified/", "v2 beside v1 is left out: docs/cgroups.md"),
    ("open", "myshim:main", "/unified/", "v2 beside v1 is left out: docs/cgroups.md"),
    ("read", "myshim:main", "/unified/", "v2 beside v1 is left out: docs/cgroups.md"),
    ("openat", "", "/etc/passwd", "a passwd that may not be read is none"),
];

const HARMLESS: &[Reason] = &[
    ("munmap", "", "", "memory stays mapped until the process ends"),
    ("openat", "tenant:entry", "/proc", "a procfs of its own is as good"),
    ("fstat", "tenant:entry", "/proc", "a procfs of its own is as good"),
    ("fstatfs", "tenant:entry", "/proc", "a procfs of its own is as good"),
    ("prctl", "", "0xf", "PR_SET_NAME: a name is for those who look"),
    ("prctl", "", "0x41555856", "PR_GET_AUXV: the standard library asks for features"),
    ("prctl", "myshim", "0x1", "PR_SET_PDEATHSIG: the end of the daemon's channel says the same"),
    ("openat", "myshim:main", "/oom_score_adj", "main puts its own score back, or ends"),
    ("write", "myshim:main", "/oom_score_adj", "main puts its own score back, or ends"),
    ("openat", "myshim:main", "/seccomp/", "the cache of filters: the filter is compiled"),
    ("statx", "", "", "how long a file is: a hint for the read that follows"),
    ("read", "myshim:main", "/seccomp/", "the cache of filters: the filter is compiled"),
    ("open", "myshim:main", "/memory.oom_control", "a death would be told less exactly"),
    ("read", "myshim:main", "/memory.oom_control", "a death would be told less exactly"),
];

/// By which names errors tell of a call: its own, or that of the function that makes it.
pub(super) fn words_for(name: &str) -> Vec<&str> {
    let others: &[&str] = match name {
        // A file that is read or written is opened first.
        "openat" | "open" => {
            &["open", "openat", "read", "write", "opendir", "readdir", "getdents64"]
        }
        "ppoll" => &["poll"],
        // A directory is looked into, and a program is looked for.
        "newfstatat" | "faccessat2" | "statx" | "fstat" | "fstatfs" => {
            &["stat", "fstat", "fstatat", "statfs", "read", "write", "readdir"]
        }
        "lseek" => &["read"],
        "mkdirat" => &["mkdir"],
        "unlinkat" => &["rmdir", "unlink"],
        "prlimit64" => &["prlimit"],
        "rt_sigprocmask" => &["sigprocmask"],
        "getdents64" => &["readdir"],
        // A directory is read through a descriptor of its own.
        "fcntl" => &["getdents64"],
        _ => &[],
    };
    others.iter().copied().chain([name]).collect()
}

/// Errors that tell of a call in other words.
pub(super) fn told_otherwise(seen: &Seen, (errno, desc): (&str, &str), text: &str) -> bool {
    match seen.name.as_str() {
        // Of its own memory a process cannot do without: it ends, and that is told.
        "mmap" => errno == "ENOMEM" && text.contains("killed by SIGABRT"),
        // In runc's words, which clients look for.
        "execve" => text.contains("exec: \"") && text.contains(&desc.to_lowercase()),
        // A process that does not live to be started has exited, and that is its state.
        "read" if seen.comm.ends_with(":ready") => text == "cannot start a stopped process",
        _ => false,
    }
}
