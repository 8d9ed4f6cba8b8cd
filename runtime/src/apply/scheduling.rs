//! How the kernel treats the process: scheduler, io priority, CPU affinity, memory policy,
//! personality. Each is inherited by what the process executes.

use crate::error::{Call, Result};
use crate::plan::{MemoryPolicy, Process, Scheduler};
use crate::sys::sched::{self, Mask};

/// Scheduler, io priority, memory policy and personality of the process, where the plan has them.
///
/// While CAP_SYS_NICE is there: real-time policies, lower nice values and real-time io need it.
///
/// # Errors
/// The call that the kernel refused, with its arguments.
pub fn apply(process: &Process) -> Result<()> {
    process.scheduler.as_ref().map_or(Ok(()), set_scheduler)?;
    process.io_priority.map_or(Ok(()), set_io_priority)?;
    process.memory_policy.as_ref().map_or(Ok(()), set_memory_policy)?;
    process.personality.map_or(Ok(()), set_personality)
}

fn set_scheduler(scheduler: &Scheduler) -> Result<()> {
    sched::set_scheduler(scheduler).call(|| format!("sched_setattr(0, {scheduler:?}, 0)"))
}

fn set_io_priority((class, level): (u16, u16)) -> Result<()> {
    sched::set_io_priority(class, level)
        .call(|| format!("ioprio_set(IOPRIO_WHO_PROCESS, 0, {{class {class}, level {level}}})"))
}

fn set_memory_policy(policy: &MemoryPolicy) -> Result<()> {
    sched::set_memory_policy(policy.mode, &Mask::of(&policy.nodes))
        .call(|| format!("set_mempolicy({:#x}, {:?})", policy.mode, policy.nodes))
}

fn set_personality(persona: u64) -> Result<()> {
    sched::set_personality(persona).call(|| format!("personality({persona:#x})"))
}

/// Which CPUs the process may run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cpus<'a> {
    /// All that its cpuset allows: the shim's own affinity must not be inherited.
    All,
    /// These.
    These(&'a [u32]),
}

/// Sets the CPU affinity: `initial` before the process is in the container's cgroup, `final` (or
/// [`Cpus::All`]) when it is there.
///
/// # Errors
/// sched_setaffinity(2) with its CPUs: EINVAL when the cpuset allows none of them.
pub fn set_affinity(cpus: Cpus<'_>) -> Result<()> {
    let (mask, cpus) = match cpus {
        Cpus::All => (Mask::all(), &[][..]),
        Cpus::These(cpus) => (Mask::of(cpus), cpus),
    };
    sched::set_affinity(&mask).call(|| {
        if cpus.is_empty() {
            "sched_setaffinity(0, all CPUs)".to_owned()
        } else {
            format!("sched_setaffinity(0, {cpus:?})")
        }
    })
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::sys::testing::in_fork;

    /// SCHED_BATCH of linux/sched.h.
    const BATCH: u32 = 3;
    /// IOPRIO_CLASS_BE and IOPRIO_CLASS_IDLE of linux/ioprio.h.
    const BEST_EFFORT: u16 = 2;

    fn line_of_status(key: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line[key.len()..].trim().to_owned()
    }

    #[test]
    fn the_scheduler_is_read_back_as_it_was_set() {
        in_fork(|_| {
            let wanted = Scheduler {
                policy: BATCH,
                flags: 0,
                nice: 7,
                priority: 0,
                runtime: 0,
                deadline: 0,
                period: 0,
            };
            set_scheduler(&wanted).unwrap();
            let found = sched::scheduler().unwrap();
            assert_eq!((found.policy, found.nice), (BATCH, 7));
        });
    }

    #[test]
    fn a_scheduler_the_kernel_refuses_is_named_with_its_attributes() {
        let wanted = Scheduler {
            policy: 99,
            flags: 0,
            nice: 0,
            priority: 0,
            runtime: 0,
            deadline: 0,
            period: 0,
        };
        let error = set_scheduler(&wanted).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL));
        assert!(error.to_string().contains("policy: 99"), "{error}");
    }

    #[test]
    fn the_io_priority_is_read_back_as_it_was_set() {
        in_fork(|_| {
            set_io_priority((BEST_EFFORT, 6)).unwrap();
            assert_eq!(sched::io_priority().unwrap(), (BEST_EFFORT, 6));
        });
    }

    #[test]
    fn the_affinity_is_that_of_the_plan_and_never_the_callers() {
        in_fork(|_| {
            let all = line_of_status("Cpus_allowed_list:");
            set_affinity(Cpus::These(&[0])).unwrap();
            assert_eq!(line_of_status("Cpus_allowed_list:"), "0");
            set_affinity(Cpus::All).unwrap();
            assert_eq!(line_of_status("Cpus_allowed_list:"), all);
        });
    }

    #[test]
    fn an_affinity_without_a_usable_cpu_is_named() {
        in_fork(|_| {
            let error = set_affinity(Cpus::These(&[8000])).unwrap_err();
            assert_eq!(error.to_string(), "sched_setaffinity(0, [8000]): EINVAL: Invalid argument");
        });
    }

    #[test]
    fn the_memory_policy_is_seen_in_numa_maps() {
        in_fork(|_| {
            // MPOL_BIND of linux/mempolicy.h.
            let policy = MemoryPolicy { mode: 2, nodes: vec![0] };
            match set_memory_policy(&policy) {
                Err(error) if error.errno() == Some(Errno::ENOSYS) => return,
                other => other.unwrap(),
            }
            let maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
            assert!(maps.lines().all(|line| line.split(' ').nth(1) == Some("bind:0")), "{maps}");
        });
    }

    #[test]
    fn a_memory_policy_for_a_node_that_is_not_there_is_named() {
        in_fork(|_| {
            let error = set_memory_policy(&MemoryPolicy { mode: 2, nodes: vec![700] }).unwrap_err();
            assert!(error.to_string().starts_with("set_mempolicy(0x2, [700]): E"), "{error}");
        });
    }

    #[test]
    fn the_personality_is_read_back_from_proc() {
        in_fork(|_| {
            // ADDR_NO_RANDOMIZE | PER_LINUX of linux/personality.h.
            set_personality(0x0004_0000).unwrap();
            let found = std::fs::read_to_string("/proc/self/personality").unwrap();
            assert_eq!(found.trim(), "00040000");
        });
    }
}
