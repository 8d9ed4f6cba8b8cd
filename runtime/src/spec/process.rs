//! The `process` property, where oci-spec 0.10 does not fit:
//!
//! - it requires `user`, the specification's schema does not;
//! - it fails on a capability it does not know, and runtimes are to warn;
//! - it spells two scheduler flags otherwise than the specification does;
//! - it checks CPU lists with a regular expression, and refuses spaces that runc takes;
//! - it takes a missing `ioPriority.class` for best effort.

use std::path::PathBuf;

use oci_spec::runtime::{PosixRlimit, User};
use serde::Deserialize;

/// `process`: config.md, section Process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Process {
    pub terminal: Option<bool>,
    pub console_size: Option<ConsoleSize>,
    #[serde(default)]
    pub user: User,
    pub args: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    pub cwd: PathBuf,
    pub capabilities: Option<Capabilities>,
    pub rlimits: Option<Vec<PosixRlimit>>,
    pub no_new_privileges: Option<bool>,
    pub apparmor_profile: Option<String>,
    pub oom_score_adj: Option<i32>,
    pub selinux_label: Option<String>,
    pub io_priority: Option<IoPriority>,
    pub scheduler: Option<Scheduler>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// `process.consoleSize`, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct ConsoleSize {
    pub height: u64,
    pub width: u64,
}

/// `process.capabilities`: names as in capabilities(7), not yet looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Capabilities {
    pub bounding: Option<Vec<String>>,
    pub effective: Option<Vec<String>>,
    pub inheritable: Option<Vec<String>>,
    pub permitted: Option<Vec<String>>,
    pub ambient: Option<Vec<String>>,
}

/// `process.ioPriority`, ioprio_set(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct IoPriority {
    pub class: IoPriorityClass,
    #[serde(default)]
    pub priority: i64,
}

/// `process.ioPriority.class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are those of ioprio_set(2)")]
pub enum IoPriorityClass {
    #[serde(rename = "IOPRIO_CLASS_RT")]
    RealTime,
    #[serde(rename = "IOPRIO_CLASS_BE")]
    BestEffort,
    #[serde(rename = "IOPRIO_CLASS_IDLE")]
    Idle,
}

/// `process.scheduler`, sched_setattr(2).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Scheduler {
    pub policy: SchedulerPolicy,
    pub nice: Option<i32>,
    pub priority: Option<i32>,
    pub flags: Option<Vec<SchedulerFlag>>,
    pub runtime: Option<u64>,
    pub deadline: Option<u64>,
    pub period: Option<u64>,
}

/// `process.scheduler.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are those of sched(7)")]
pub enum SchedulerPolicy {
    #[serde(rename = "SCHED_OTHER")]
    Other,
    #[serde(rename = "SCHED_FIFO")]
    Fifo,
    #[serde(rename = "SCHED_RR")]
    RoundRobin,
    #[serde(rename = "SCHED_BATCH")]
    Batch,
    #[serde(rename = "SCHED_ISO")]
    Iso,
    #[serde(rename = "SCHED_IDLE")]
    Idle,
    #[serde(rename = "SCHED_DEADLINE")]
    Deadline,
}

/// `process.scheduler.flags[]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are those of sched_setattr(2)")]
pub enum SchedulerFlag {
    #[serde(rename = "SCHED_FLAG_RESET_ON_FORK")]
    ResetOnFork,
    #[serde(rename = "SCHED_FLAG_RECLAIM")]
    Reclaim,
    #[serde(rename = "SCHED_FLAG_DL_OVERRUN")]
    DeadlineOverrun,
    #[serde(rename = "SCHED_FLAG_KEEP_POLICY")]
    KeepPolicy,
    #[serde(rename = "SCHED_FLAG_KEEP_PARAMS")]
    KeepParams,
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MIN")]
    UtilClampMin,
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MAX")]
    UtilClampMax,
}

/// `process.execCPUAffinity`: CPU lists as in cpuset(7), not yet parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct ExecCpuAffinity {
    pub initial: Option<String>,
    pub r#final: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::process_from_json;

    #[test]
    fn a_process_needs_no_more_than_its_directory() {
        let process = process_from_json(r#"{"cwd":"/"}"#).unwrap();
        assert_eq!(process.user, User::default());
        assert_eq!(process.no_new_privileges, None);
    }

    #[test]
    fn an_explicit_false_differs_from_nothing() {
        let process = process_from_json(r#"{"cwd":"/","noNewPrivileges":false}"#).unwrap();
        assert_eq!(process.no_new_privileges, Some(false));
    }

    #[test]
    fn scheduler_flags_are_spelled_as_the_specification_spells_them() {
        let text = r#"{"cwd":"/","scheduler":{"policy":"SCHED_DEADLINE","flags":
            ["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_DL_OVERRUN"]}}"#;
        let scheduler = process_from_json(text).unwrap().scheduler.unwrap();
        let flags = [SchedulerFlag::ResetOnFork, SchedulerFlag::DeadlineOverrun];
        assert_eq!(scheduler.flags.unwrap(), flags);
    }

    #[test]
    fn paths_in_a_process_json_begin_with_process() {
        let refusal = |text| process_from_json(text).unwrap_err().to_string();
        assert_eq!(refusal("{}"), "process.cwd: missing");
        assert_eq!(
            refusal(r#"{"cwd":"/","user":{"uid":-1}}"#),
            "process.user.uid: invalid value: integer `-1`, expected u32"
        );
        assert_eq!(
            refusal(r#"{"cwd":"/","user":{"uid":4294967296}}"#),
            "process.user.uid: invalid value: integer `4294967296`, expected u32"
        );
        assert_eq!(
            refusal("[]x"),
            "process: invalid length 0, expected struct Process with 15 elements"
        );
    }
}
