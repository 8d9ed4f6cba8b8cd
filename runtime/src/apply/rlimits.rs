//! Resource limits: hard limits are raised by main, exact values are set by the process itself.
//!
//! Raising a hard limit needs CAP_SYS_RESOURCE in the initial user namespace, which a process in
//! a user namespace of its own has lost: it inherits what main has raised.

use crate::error::{Call, Result};
use crate::plan::Rlimit;
use crate::sys::rlimit;

/// Whether a limit was raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// All were high enough.
    None,
    /// At least one was.
    Some,
}

/// In main, before it forks: raises its own hard limits to those wanted, where they are lower.
///
/// # Errors
/// The limit that the kernel refused; EPERM without CAP_SYS_RESOURCE.
pub fn raise(wanted: &[Rlimit]) -> Result<Raised> {
    let mut raised = Raised::None;
    for limit in wanted {
        let (soft, hard) = rlimit::get(limit.resource)
            .call(|| format!("prlimit(0, {}, NULL, old)", name(limit.resource)))?;
        if hard < limit.hard {
            set(limit.resource, soft, limit.hard)?;
            raised = Raised::Some;
        }
    }
    Ok(raised)
}

/// In init and in tenants: sets soft and hard limits to exactly those wanted.
///
/// As late as can be: RLIMIT_NOFILE, RLIMIT_AS and RLIMIT_NPROC apply to the caller at once.
///
/// # Errors
/// The limit that the kernel refused.
pub fn apply(wanted: &[Rlimit]) -> Result<()> {
    wanted.iter().try_for_each(|limit| set(limit.resource, limit.soft, limit.hard))
}

fn set(resource: u32, soft: u64, hard: u64) -> Result<()> {
    rlimit::set(resource, soft, hard).call(|| {
        let (soft, hard) = (value(soft), value(hard));
        format!("prlimit(0, {}, {{soft {soft}, hard {hard}}})", name(resource))
    })
}

fn value(limit: u64) -> String {
    if limit == u64::MAX { "infinity".to_owned() } else { limit.to_string() }
}

/// The names of asm-generic/resource.h, as all architectures but sparc, mips and alpha number them.
pub(crate) fn name(resource: u32) -> String {
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    let name = usize::try_from(resource).ok().and_then(|index| NAMES.get(index));
    name.map_or_else(|| resource.to_string(), |name| format!("RLIMIT_{name}"))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::sys::testing::in_fork;

    const NOFILE: u32 = 7;
    const CORE: u32 = 4;

    fn line_of_proc(title: &str) -> String {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with(title)).unwrap();
        line[title.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn limits_are_exactly_those_of_the_plan() {
        in_fork(|_| {
            let limits = [
                Rlimit { resource: NOFILE, soft: 100, hard: 200 },
                Rlimit { resource: CORE, soft: 0, hard: 4096 },
            ];
            apply(&limits).unwrap();
            assert_eq!(line_of_proc("Max open files"), "100 200 files");
            assert_eq!(line_of_proc("Max core file size"), "0 4096 bytes");
        });
    }

    #[test]
    fn main_raises_nothing_that_is_high_enough() {
        in_fork(|_| {
            let before = rlimit::get(NOFILE).unwrap();
            let raised = raise(&[Rlimit { resource: NOFILE, soft: 1, hard: 10 }]).unwrap();
            assert_eq!(raised, Raised::None);
            assert_eq!(rlimit::get(NOFILE).unwrap(), before);
        });
    }

    #[test]
    fn a_hard_limit_is_raised_with_its_capability_and_refused_by_name_without() {
        in_fork(|_| {
            rlimit::set(CORE, 0, 10).unwrap();
            let wanted = [Rlimit { resource: CORE, soft: 5, hard: u64::MAX }];
            let may_raise =
                caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE);
            match raise(&wanted) {
                Ok(raised) => {
                    assert!(may_raise.unwrap());
                    assert_eq!(raised, Raised::Some);
                    assert_eq!(rlimit::get(CORE).unwrap(), (0, u64::MAX));
                }
                Err(error) => {
                    assert!(!may_raise.unwrap());
                    assert_eq!(error.errno(), Some(Errno::EPERM));
                    let text = error.to_string();
                    assert!(text.contains("RLIMIT_CORE, {soft 0, hard infinity}"), "{text}");
                }
            }
        });
    }

    #[test]
    fn a_limit_the_kernel_does_not_know_is_an_error() {
        let error = raise(&[Rlimit { resource: 99, soft: 1, hard: 1 }]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL));
    }
}
