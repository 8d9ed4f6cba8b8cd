//! A process: who it is, what it may do, what it gets.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A process of the container: its init, or a tenant. The same type serves exec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// `KEY=value`, order kept.
    pub env: Vec<String>,
    /// Absolute.
    pub cwd: PathBuf,
    /// A pseudo terminal is made for it.
    pub terminal: Option<Terminal>,
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Supplementary groups; empty clears them.
    pub groups: Vec<u32>,
    /// umask(2).
    pub umask: u32,
    /// The five sets, as bits of linux/capability.h.
    pub capabilities: Capabilities,
    /// Resource limits, setrlimit(2).
    pub rlimits: Vec<Rlimit>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// /proc/pid/oom_score_adj; None leaves what the starter of the shim had.
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// SELinux process label.
    pub selinux_label: Option<String>,
    /// sched_setattr(2).
    pub scheduler: Option<Scheduler>,
    /// ioprio_set(2): (class, level).
    pub io_priority: Option<(u16, u16)>,
    /// CPUs while joining, and for the program (exec only).
    pub exec_cpu_affinity: ExecCpuAffinity,
    /// set_mempolicy(2).
    pub memory_policy: Option<MemoryPolicy>,
    /// personality(2).
    pub personality: Option<u64>,
    /// A new session keyring is joined (keyctl(2)), unless the client says no_new_keyring.
    pub new_keyring: bool,
}

/// A pseudo terminal's window size (ioctl_tty(2), TIOCSWINSZ).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Rows; 0 when not given.
    pub rows: u16,
    /// Columns; 0 when not given.
    pub columns: u16,
}

/// Capability sets as bit masks, capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of capabilities(7)")]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// RLIMIT_* of the kernel's headers.
    pub resource: u32,
    /// Soft limit; u64::MAX is no limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// sched_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of struct sched_attr")]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// CPU lists of `process.execCPUAffinity`, as sorted CPU numbers; empty when not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the spec's")]
pub struct ExecCpuAffinity {
    pub initial: Vec<u32>,
    pub r#final: Vec<u32>,
}

/// set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// MPOL_* with MPOL_F_* or'ed in.
    pub mode: u32,
    /// NUMA nodes.
    pub nodes: Vec<u32>,
}
