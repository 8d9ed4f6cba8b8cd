//! `linux.seccomp`: a profile becomes a BPF program, before anything is forked.
//!
//! libseccomp makes the program of the rules ([`compile`]); a prologue of our own makes system
//! calls that are newer than the profile answer ENOSYS ([`prologue`]); what was compiled once is
//! kept by the hash of what it was compiled from ([`cache`]).

mod cache;
mod compile;
mod names;
mod prologue;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag, LinuxSyscall,
};

use super::host::Host;
use super::{Seccomp, SeccompListener};
use crate::error::{Error, Kind, Result};
pub(crate) use names::{ACTIONS, FLAGS, OPERATORS, known_architectures};

/// SECCOMP_FILTER_FLAG_* (include/uapi/linux/seccomp.h).
const FLAG_LOG: u64 = 1 << 1;
const FLAG_SPEC_ALLOW: u64 = 1 << 2;
const FLAG_NEW_LISTENER: u64 = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: u64 = 1 << 5;

/// System calls that a process of the chain makes between the load of the filter and the moment
/// its listener is in the agent's hands: with a notification for one of them it would wait for
/// an agent that waits for it.
const NEVER_NOTIFY: [&str; 2] = ["write", "sendmsg"];

/// The largest errno the kernel hands out (MAX_ERRNO); it cuts off what is above.
const MAX_ERRNO: u32 = 4095;

/// Parameters of a system call.
const MAX_ARGUMENTS: usize = 6;

/// The version of the library that is linked.
pub(super) fn library_version() -> Result<(u32, u32, u32)> {
    let version = libseccomp::ScmpVersion::current()
        .map_err(|error| Error::new(Kind::Unsupported(format!("libseccomp: {error}"))))?;
    Ok((version.major, version.minor, version.micro))
}

/// Compiles a profile, or takes the program from the cache.
pub(super) fn plan(profile: &LinuxSeccomp, host: &Host) -> Result<Seccomp> {
    check_default(profile)?;
    for (index, rule) in rules(profile).iter().enumerate() {
        check_rule(index, rule)?;
    }
    let listener = listener(profile)?;
    let flags = flags(profile, listener.is_some(), host)?;
    let cache = host.seccomp_cache.as_deref();
    let cache = cache.and_then(|directory| Some((directory, cache::Key::of(profile, host)?)));
    let kept = cache.as_ref().and_then(|(directory, key)| cache::load(directory, key));
    let bpf = match kept {
        Some(bpf) => bpf,
        None => {
            let bpf = compile::compile(profile)?;
            if let Some((directory, key)) = &cache {
                cache::store(directory, key, &bpf);
            }
            bpf
        }
    };
    Ok(Seccomp { bpf, flags, listener })
}

fn rules(profile: &LinuxSeccomp) -> &[LinuxSyscall] {
    profile.syscalls().as_deref().unwrap_or_default()
}

fn check_default(profile: &LinuxSeccomp) -> Result<()> {
    if profile.default_action() == Action::ScmpActNotify {
        // It would hold for those of NEVER_NOTIFY too.
        let why = "SCMP_ACT_NOTIFY cannot be the default";
        return Err(Error::field("linux.seccomp.defaultAction", why));
    }
    check_errno(profile.default_action(), profile.default_errno_ret())
        .map_err(|why| Error::field("linux.seccomp.defaultErrnoRet", why))
}

fn check_rule(index: usize, rule: &LinuxSyscall) -> Result<()> {
    let path = |rest: String| format!("linux.seccomp.syscalls[{index}].{rest}");
    check_errno(rule.action(), rule.errno_ret())
        .map_err(|why| Error::field(path("errnoRet".to_owned()), why))?;
    for (place, name) in rule.names().iter().enumerate() {
        if name.is_empty() {
            return Err(Error::field(path(format!("names[{place}]")), "is empty"));
        }
        if rule.action() == Action::ScmpActNotify && NEVER_NOTIFY.contains(&name.as_str()) {
            let why = format!("SCMP_ACT_NOTIFY cannot be used for {name}");
            return Err(Error::field(path(format!("names[{place}]")), why));
        }
    }
    for (place, argument) in rule.args().as_deref().unwrap_or_default().iter().enumerate() {
        if argument.index() >= MAX_ARGUMENTS {
            let path = path(format!("args[{place}].index"));
            return Err(Error::field(path, "system calls have 6 arguments, counted from 0"));
        }
    }
    Ok(())
}

/// config-linux.md: a return value beside an action that has none is an error.
fn check_errno(action: Action, errno: Option<u32>) -> std::result::Result<(), String> {
    match (action, errno) {
        (_, None) => Ok(()),
        (Action::ScmpActErrno, Some(0..=MAX_ERRNO)) => Ok(()),
        (Action::ScmpActErrno, Some(errno)) => Err(format!("{errno} is more than {MAX_ERRNO}")),
        (Action::ScmpActTrace, Some(data)) if u16::try_from(data).is_ok() => Ok(()),
        (Action::ScmpActTrace, Some(data)) => Err(format!("{data} is more than 65535")),
        (action, Some(_)) => Err(format!("{action} returns no value")),
    }
}

fn listener(profile: &LinuxSeccomp) -> Result<Option<SeccompListener>> {
    let path = profile.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    if path.is_none() && !metadata.is_empty() {
        return Err(Error::field("linux.seccomp.listenerMetadata", "needs a listenerPath"));
    }
    if !rules(profile).iter().any(|rule| rule.action() == Action::ScmpActNotify) {
        return Ok(None);
    }
    match path {
        Some(path) if path.is_absolute() => {
            Ok(Some(SeccompListener { path: path.clone(), metadata }))
        }
        Some(path) => {
            Err(Error::field("linux.seccomp.listenerPath", format!("{path:?} is not absolute")))
        }
        None => Err(Error::field("linux.seccomp.listenerPath", "SCMP_ACT_NOTIFY needs one")),
    }
}

fn flags(profile: &LinuxSeccomp, has_listener: bool, host: &Host) -> Result<u64> {
    let new_listener = if has_listener { FLAG_NEW_LISTENER } else { 0 };
    let Some(listed) = profile.flags() else {
        // Not even an empty list: the mitigation that a filter once implied is not wanted.
        return Ok(FLAG_SPEC_ALLOW | new_listener);
    };
    let mut bits = new_listener;
    for (index, flag) in listed.iter().enumerate() {
        let refuse = |why: &str| Err(Error::field(format!("linux.seccomp.flags[{index}]"), why));
        bits |= match flag {
            // A process has one thread when it loads its filter.
            Flag::SeccompFilterFlagTsync => 0,
            Flag::SeccompFilterFlagLog => FLAG_LOG,
            Flag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv if !has_listener => {
                return refuse("is for filters with SCMP_ACT_NOTIFY only");
            }
            flag if !is_supported(*flag, host) => return refuse("needs a newer kernel"),
            Flag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
        };
    }
    Ok(bits)
}

/// Whether the kernel has this flag.
pub(crate) fn is_supported(flag: Flag, host: &Host) -> bool {
    let since = match flag {
        Flag::SeccompFilterFlagTsync => (3, 17),
        Flag::SeccompFilterFlagLog => (4, 14),
        Flag::SeccompFilterFlagSpecAllow => (4, 17),
        Flag::SeccompFilterFlagWaitKillableRecv => (5, 19),
    };
    host.kernel >= since
}

#[cfg(test)]
mod kernel;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod tests;
