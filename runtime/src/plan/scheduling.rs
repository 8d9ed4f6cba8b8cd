//! Which CPUs, how much of them, and which memory: `process.scheduler`, `process.ioPriority`,
//! `process.execCPUAffinity`, `linux.memoryPolicy`.

use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use super::{ExecCpuAffinity, MemoryPolicy, Scheduler};
use crate::error::{Error, Result};
use crate::spec::process::{self, IoPriorityClass, SchedulerFlag, SchedulerPolicy};

/// The highest number in a list of CPUs or nodes: guards against a list that is nonsense, as it
/// becomes a bit mask.
const MAX_IN_LIST: u32 = 64 * 1024;

/// Every mode of `linux.memoryPolicy`.
pub(crate) const MEMORY_POLICY_MODES: [MemoryPolicyModeType; 7] = [
    MemoryPolicyModeType::MpolBind,
    MemoryPolicyModeType::MpolDefault,
    MemoryPolicyModeType::MpolInterleave,
    MemoryPolicyModeType::MpolLocal,
    MemoryPolicyModeType::MpolPreferred,
    MemoryPolicyModeType::MpolPreferredMany,
    MemoryPolicyModeType::MpolWeightedInterleave,
];

/// Every flag of `linux.memoryPolicy`.
pub(crate) const MEMORY_POLICY_FLAGS: [MemoryPolicyFlagType; 3] = [
    MemoryPolicyFlagType::MpolFNumaBalancing,
    MemoryPolicyFlagType::MpolFRelativeNodes,
    MemoryPolicyFlagType::MpolFStaticNodes,
];

/// sched_setattr(2): what the kernel would answer with EINVAL is refused here by name.
pub(super) fn scheduler(spec: &process::Scheduler) -> Result<Scheduler> {
    use SchedulerPolicy::{Batch, Deadline, Fifo, Idle, Iso, Other, RoundRobin};
    let refuse = |field: &str, why: &str| {
        Err(Error::field(format!("process.scheduler.{field}"), why.to_owned()))
    };
    let nice = spec.nice.unwrap_or_default();
    if matches!(spec.policy, Other | Batch | Idle) && !(-20..=19).contains(&nice) {
        return refuse("nice", "must be from -20 to 19");
    }
    let real_time = matches!(spec.policy, Fifo | RoundRobin);
    let priority = match (real_time, spec.priority.unwrap_or_default()) {
        (true, priority @ 1..=99) => u32::try_from(priority).unwrap_or_default(),
        (true, _) => return refuse("priority", "must be from 1 to 99 for SCHED_FIFO and SCHED_RR"),
        (false, 0) => 0,
        (false, _) => return refuse("priority", "is for SCHED_FIFO and SCHED_RR only"),
    };
    let times = [("runtime", spec.runtime), ("deadline", spec.deadline), ("period", spec.period)];
    for (field, time) in times {
        if spec.policy != Deadline && time.is_some_and(|time| time != 0) {
            return refuse(field, "is for SCHED_DEADLINE only");
        }
    }
    let policy = match spec.policy {
        Other => 0,
        Fifo => 1,
        RoundRobin => 2,
        Batch => 3,
        // Reserved in include/uapi/linux/sched.h, never implemented.
        Iso => return refuse("policy", "SCHED_ISO is not implemented by Linux"),
        Idle => 5,
        Deadline => 6,
    };
    let flags = spec.flags.as_deref().unwrap_or_default();
    Ok(Scheduler {
        policy,
        flags: flags.iter().fold(0, |bits, flag| bits | scheduler_flag(*flag)),
        nice,
        priority,
        runtime: spec.runtime.unwrap_or_default(),
        deadline: spec.deadline.unwrap_or_default(),
        period: spec.period.unwrap_or_default(),
    })
}

fn scheduler_flag(flag: SchedulerFlag) -> u64 {
    match flag {
        SchedulerFlag::ResetOnFork => 0x01,
        SchedulerFlag::Reclaim => 0x02,
        SchedulerFlag::DeadlineOverrun => 0x04,
        SchedulerFlag::KeepPolicy => 0x08,
        SchedulerFlag::KeepParams => 0x10,
        SchedulerFlag::UtilClampMin => 0x20,
        SchedulerFlag::UtilClampMax => 0x40,
    }
}

/// ioprio_set(2): class and level.
pub(super) fn io_priority(spec: process::IoPriority) -> Result<(u16, u16)> {
    let class = match spec.class {
        IoPriorityClass::RealTime => 1,
        IoPriorityClass::BestEffort => 2,
        IoPriorityClass::Idle => 3,
    };
    match u16::try_from(spec.priority) {
        Ok(level @ 0..=7) => Ok((class, level)),
        _ => Err(Error::field("process.ioPriority.priority", "must be from 0 to 7")),
    }
}

pub(super) fn exec_cpu_affinity(spec: &process::ExecCpuAffinity) -> Result<ExecCpuAffinity> {
    let cpus = |list: &Option<String>, field: &str| {
        number_list(list.as_deref().unwrap_or_default())
            .map_err(|why| Error::field(format!("process.execCPUAffinity.{field}"), why))
    };
    Ok(ExecCpuAffinity {
        initial: cpus(&spec.initial, "initial")?,
        r#final: cpus(&spec.r#final, "final")?,
    })
}

/// set_mempolicy(2).
pub(super) fn memory_policy(spec: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    use MemoryPolicyModeType::{
        MpolBind, MpolDefault, MpolInterleave, MpolLocal, MpolPreferred, MpolPreferredMany,
        MpolWeightedInterleave,
    };
    let nodes = number_list(spec.nodes().as_deref().unwrap_or_default())
        .map_err(|why| Error::field("linux.memoryPolicy.nodes", why))?;
    let (mode, takes_nodes, needs_nodes) = match spec.mode() {
        MpolDefault => (0, false, false),
        MpolPreferred => (1, true, false),
        MpolBind => (2, true, true),
        MpolInterleave => (3, true, true),
        MpolLocal => (4, false, false),
        MpolPreferredMany => (5, true, true),
        MpolWeightedInterleave => (6, true, true),
    };
    if needs_nodes && nodes.is_empty() {
        return Err(Error::field("linux.memoryPolicy.nodes", "this mode needs nodes"));
    }
    if !takes_nodes && !nodes.is_empty() {
        return Err(Error::field("linux.memoryPolicy.nodes", "this mode takes no nodes"));
    }
    let flags = spec.flags().as_deref().unwrap_or_default();
    let flags = flags.iter().fold(0, |bits, flag| bits | memory_policy_flag(*flag));
    if flags & 0xC000 == 0xC000 {
        let why = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
        return Err(Error::field("linux.memoryPolicy.flags", why));
    }
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

fn memory_policy_flag(flag: MemoryPolicyFlagType) -> u32 {
    match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    }
}

/// Parses a list as in cpuset(7), `0-3,7`: sorted, without doubles. Spaces around elements and
/// empty elements do no harm, as in runc.
fn number_list(text: &str) -> std::result::Result<Vec<u32>, String> {
    let mut numbers = Vec::new();
    for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        let (first, last) = element.split_once('-').unwrap_or((element, element));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) if first <= last && last <= MAX_IN_LIST => {
                numbers.extend(first..=last);
            }
            _ => return Err(format!("{element:?} is not a number or a range of numbers")),
        }
    }
    if numbers.is_empty() && !text.is_empty() {
        return Err(format!("{text:?} has no numbers in it"));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler_of(json: &str) -> Result<Scheduler> {
        scheduler(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_scheduler_is_translated() {
        let json = r#"{"policy":"SCHED_DEADLINE","runtime":1000,"deadline":2000,"period":3000,
            "flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_UTIL_CLAMP_MAX"]}"#;
        let planned = scheduler_of(json).unwrap();
        assert_eq!((planned.policy, planned.flags), (6, 0x41));
        assert_eq!((planned.runtime, planned.deadline, planned.period), (1000, 2000, 3000));
        let planned = scheduler_of(r#"{"policy":"SCHED_RR","priority":99}"#).unwrap();
        assert_eq!((planned.policy, planned.priority), (2, 99));
        let planned = scheduler_of(r#"{"policy":"SCHED_BATCH","nice":-20}"#).unwrap();
        assert_eq!((planned.policy, planned.nice), (3, -20));
    }

    #[test]
    fn a_scheduler_the_kernel_would_refuse_is_refused_by_field() {
        for (json, field) in [
            (r#"{"policy":"SCHED_OTHER","nice":20}"#, "nice"),
            (r#"{"policy":"SCHED_OTHER","priority":1}"#, "priority"),
            (r#"{"policy":"SCHED_FIFO"}"#, "priority"),
            (r#"{"policy":"SCHED_FIFO","priority":100}"#, "priority"),
            (r#"{"policy":"SCHED_BATCH","runtime":1}"#, "runtime"),
            (r#"{"policy":"SCHED_ISO"}"#, "policy"),
        ] {
            let refusal = scheduler_of(json).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("process.scheduler.{field}: ")), "{refusal}");
        }
    }

    #[test]
    fn an_io_priority_is_a_class_and_a_level_up_to_7() {
        let of = |json: &str| io_priority(serde_json::from_str(json).unwrap());
        assert_eq!(of(r#"{"class":"IOPRIO_CLASS_RT","priority":7}"#).unwrap(), (1, 7));
        assert_eq!(of(r#"{"class":"IOPRIO_CLASS_IDLE"}"#).unwrap(), (3, 0));
        for priority in ["8", "-1", "65536"] {
            let json = format!(r#"{{"class":"IOPRIO_CLASS_BE","priority":{priority}}}"#);
            assert_eq!(
                of(&json).unwrap_err().to_string(),
                "process.ioPriority.priority: must be from 0 to 7"
            );
        }
    }

    #[test]
    fn lists_are_parsed_as_runc_parses_them() {
        assert_eq!(number_list("").unwrap(), [0; 0]);
        assert_eq!(number_list("0-3,7").unwrap(), [0, 1, 2, 3, 7]);
        assert_eq!(number_list(" 7, 1-2 ,,2").unwrap(), [1, 2, 7]);
        for bad in [",", "a", "3-1", "1-", "-1", "0-3-4", "65537", "0-4294967295", "99999999999"] {
            assert!(number_list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_list_is_refused_by_field() {
        let affinity = serde_json::from_str(r#"{"initial":"0","final":"x"}"#).unwrap();
        assert_eq!(
            exec_cpu_affinity(&affinity).unwrap_err().to_string(),
            "process.execCPUAffinity.final: \"x\" is not a number or a range of numbers"
        );
    }

    #[test]
    fn a_memory_policy_is_a_mode_with_flags_and_nodes() {
        let of = |json: &str| memory_policy(&serde_json::from_str(json).unwrap());
        let json = r#"{"mode":"MPOL_INTERLEAVE","nodes":"0-1","flags":["MPOL_F_STATIC_NODES"]}"#;
        assert_eq!(of(json).unwrap(), MemoryPolicy { mode: 3 | 1 << 15, nodes: vec![0, 1] });
        let refusal = |json| of(json).unwrap_err().to_string();
        assert_eq!(
            refusal(r#"{"mode":"MPOL_BIND"}"#),
            "linux.memoryPolicy.nodes: this mode needs nodes"
        );
        assert_eq!(
            refusal(r#"{"mode":"MPOL_LOCAL","nodes":"0"}"#),
            "linux.memoryPolicy.nodes: this mode takes no nodes"
        );
        assert!(of(r#"{"mode":"MPOL_PREFERRED"}"#).is_ok());
        let json = r#"{"mode":"MPOL_BIND","nodes":"0",
            "flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#;
        assert!(refusal(json).starts_with("linux.memoryPolicy.flags: "));
    }
}
