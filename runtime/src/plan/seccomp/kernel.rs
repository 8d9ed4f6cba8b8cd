//! Compiled filters in the kernel: each claim is looked at in a fork, which the filter binds.
#![cfg(target_arch = "x86_64")]

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use oci_spec::runtime::LinuxSeccomp;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdir, openat2};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use serde_json::{Value, json};

use super::plan;
use crate::plan::{Host, Seccomp};
use crate::sys::seccomp::load;
use crate::sys::testing::{end_of_fork, in_fork};

fn compiled(profile: Value) -> Seccomp {
    let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
    plan(&profile, &Host::example()).unwrap()
}

/// Every system call up to the number of rseq(2) but mkdir(2) and mkdirat(2), and sockets that are
/// not of the family 10 (AF_INET6).
fn restrictive() -> Seccomp {
    let name = |number| {
        let syscall = libseccomp::ScmpSyscall::from_raw_syscall(number);
        syscall.get_name_by_arch(libseccomp::ScmpArch::X8664).ok()
    };
    let names: Vec<_> = (0..=334)
        .filter_map(name)
        .filter(|name| !matches!(name.as_str(), "mkdir" | "mkdirat" | "socket"))
        .collect();
    compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 10, "op": "SCMP_CMP_NE"}]},
        ],
    }))
}

#[test]
fn the_kernel_takes_a_filter_of_full_size_and_answers_by_it() {
    let filter = restrictive();
    in_fork(|_| {
        assert!(load(&filter.bpf, filter.flags).unwrap().is_none());
        // Not in the profile.
        assert_eq!(mkdir("/tmp/never", Mode::RWXU), Err(Errno::PERM));
        // A condition.
        assert!(socket(AddressFamily::UNIX, SocketType::STREAM, None).is_ok());
        let refused = socket(AddressFamily::INET6, SocketType::STREAM, None);
        assert_eq!(refused.unwrap_err(), Errno::PERM);
        // Newer than the profile: openat2 is 437.
        let newer =
            openat2(CWD, "/", OFlags::RDONLY, Mode::empty(), ResolveFlags::empty()).unwrap_err();
        assert_eq!(newer, Errno::NOSYS);
    });
}

#[test]
fn a_filter_that_kills_kills() {
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }));
    let (status, _) = end_of_fork(|_| {
        load(&filter.bpf, filter.flags).unwrap();
        mkdir("/tmp/never", Mode::RWXU).unwrap_or_default();
    });
    assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{status:?}");
}

#[test]
fn a_filter_that_notifies_has_a_listener() {
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/agent",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }));
    in_fork(|_| assert!(load(&filter.bpf, filter.flags).unwrap().is_some()));
}

#[test]
fn every_flag_is_one_of_the_kernels() {
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC"],
    }));
    in_fork(|_| assert!(load(&filter.bpf, filter.flags).unwrap().is_none()));
}
