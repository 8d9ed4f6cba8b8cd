//! What a plan consists of: facts, with nothing optional left to interpret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupPlan;

/// Everything that is done to make one container, decided before the first effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// The bundle: an absolute path on the host.
    pub bundle: PathBuf,
    /// Where the bundle says that the root is: `root.path`, made absolute. Nothing needs to be
    /// there but a directory.
    pub site: PathBuf,
    /// `ociVersion` of the spec, repeated in the state that hooks and seccomp agents get.
    pub oci_version: String,
    /// The spec's annotations, for that state.
    pub annotations: BTreeMap<String, String>,
    /// Which namespaces are made, joined or shared with the host.
    pub namespaces: Namespaces,
    /// uid_map and gid_map of a new user namespace.
    pub id_maps: Option<IdMaps>,
    /// What the spec alleges of the maps of a user namespace that is joined: nothing is written,
    /// the maps found there have to be these.
    pub joined_id_maps: Option<IdMaps>,
    /// The cgroup and its limits.
    pub cgroup: CgroupPlan,
    /// The root file system and all that is mounted in it.
    pub rootfs: Rootfs,
    /// sethostname(2), when `hostname` is given.
    pub hostname: Option<String>,
    /// setdomainname(2), when `domainname` is given.
    pub domainname: Option<String>,
    /// sysctls as (path below /proc/sys, value), ordered by path.
    pub sysctls: Vec<(String, String)>,
    /// The container's process.
    pub process: Process,
    /// Its system call filter, compiled.
    pub seccomp: Option<Seccomp>,
    /// Programs to run at the points of the life cycle.
    pub hooks: Hooks,
    /// Network devices to move into the container, ordered by their name on the host.
    pub net_devices: Vec<NetDevice>,
    /// Intel RDT, when `linux.intelRdt` is given.
    pub intel_rdt: Option<IntelRdt>,
    /// What was asked for and cannot be had, where that is no reason to refuse.
    pub warnings: Vec<String>,
}

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// The runtime's own.
    Host,
    /// A new one.
    New,
    /// The one this file (an nsfs file, for example `/proc/1/ns/net`) stands for.
    Join(PathBuf),
}

/// The container's namespaces, namespaces(7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of namespaces(7)")]
pub struct Namespaces {
    pub user: Namespace,
    pub mount: Namespace,
    pub pid: Namespace,
    pub net: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub cgroup: Namespace,
    pub time: Namespace,
    /// Offsets of a new time namespace as lines of /proc/pid/timens_offsets (time_namespaces(7)).
    pub time_offsets: Vec<TimeOffset>,
}

/// One line of /proc/pid/timens_offsets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Whole seconds, may be negative.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}

/// One line of uid_map or gid_map, user_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// First id inside the namespace.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many ids.
    pub size: u32,
}

/// Both maps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Lines of uid_map.
    pub uids: Vec<IdMap>,
    /// Lines of gid_map.
    pub gids: Vec<IdMap>,
}

/// A mount propagation type, mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of mount_namespaces(7)")]
pub enum Propagation {
    Private,
    Slave,
    Shared,
    Unbindable,
}

/// The container's root file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rootfs {
    /// What the root is made of.
    pub source: RootfsSource,
    /// `root.readonly`.
    pub readonly: bool,
    /// `linux.rootfsPropagation`; `Slave` (recursive) when absent, as runc has it.
    pub propagation: Propagation,
    /// pivot_root(2), or MS_MOVE + chroot(2) where the client says no_pivot_root.
    pub pivot: bool,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Device nodes to make or bind, the spec's and the default ones, ordered as made.
    pub devices: Vec<Device>,
    /// Paths hidden by /dev/null or an empty read-only tmpfs.
    pub masked_paths: Vec<PathBuf>,
    /// Paths remounted read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// SELinux label for mounts (`linux.mountLabel`).
    pub mount_label: Option<String>,
    /// The ids a new user namespace maps, for an idmapped rootfs and tmpfs ownership.
    pub in_new_user_namespace: bool,
}

/// What the root is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RootfsSource {
    /// Mounts a client asked for (containerd's Create): the last one on top is the root.
    Mounts(Vec<Mount>),
    /// A directory on the host (`root.path`, made absolute).
    Directory(PathBuf),
}

/// One mount of the spec, options parsed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Its place in the spec, for messages: `mounts[3]`.
    pub field: String,
    /// Where, inside the root; absolute.
    pub destination: PathBuf,
    /// What.
    pub kind: MountKind,
    /// Attributes of the mount itself (MOUNT_ATTR_*, mount_setattr(2)) to set, and to clear.
    pub attr_set: u64,
    /// See `attr_set`.
    pub attr_clear: u64,
    /// Attributes a bind mount would take over from its source, though the spec does not name
    /// them: to be cleared as well, unless they are locked (EPERM, mount_namespaces(7)).
    pub attr_clear_unlocked: u64,
    /// The same, applied to the whole tree (rro, rnosuid, …).
    pub rec_attr_set: u64,
    /// See `rec_attr_set`.
    pub rec_attr_clear: u64,
    /// Per-mount propagation: the type, and whether it is recursive.
    pub propagation: Option<(Propagation, bool)>,
    /// Id maps of an idmapped mount, and whether it is recursive (`ridmap`).
    pub idmap: Option<(MountIdMap, bool)>,
    /// `tmpcopyup`: the content of the directory underneath is copied into the new tmpfs.
    pub tmpcopyup: bool,
}

/// Which mapping an idmapped mount gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountIdMap {
    /// The container's own user namespace.
    Container,
    /// These.
    Maps(IdMaps),
    /// The user namespace this nsfs file stands for.
    Namespace(PathBuf),
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountKind {
    /// A new instance of a file system: fsopen(2) with these parameters.
    Filesystem {
        /// The type (`proc`, `tmpfs`, `overlay`, …).
        fstype: String,
        /// The source string.
        source: String,
        /// Super block flags as fsconfig(2) flag names, set in order: `ro`, `sync`, `dirsync`, `mand`, …
        flags: Vec<String>,
        /// File system specific `key=value` or `key`, in order.
        data: Vec<(String, Option<String>)>,
    },
    /// A bind mount of a path on the host.
    Bind {
        /// Absolute on the host.
        source: PathBuf,
        /// `rbind`.
        recursive: bool,
    },
    /// The container's view of its cgroups (a mount of type `cgroup`).
    Cgroup,
    /// Only changes what is mounted there already (option `remount`).
    Remount,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute inside the root.
    pub path: PathBuf,
    /// Node type.
    pub kind: DeviceKind,
    /// File mode without the type bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A node's type and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "major and minor as in mknod(2)")]
pub enum DeviceKind {
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

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

/// A compiled seccomp filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// Array of struct sock_filter, as bytes; written down in hexadecimal.
    #[serde(with = "super::hex")]
    pub bpf: Vec<u8>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u64,
    /// Where the notify fd goes; set exactly when the filter has SCMP_ACT_NOTIFY.
    pub listener: Option<SeccompListener>,
}

/// `linux.seccomp.listenerPath` and `listenerMetadata`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompListener {
    /// A unix stream socket on the host.
    pub path: PathBuf,
    /// Passed to the agent as it is.
    pub metadata: String,
}

/// All hooks, each list in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the spec's")]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// argv; `[path]` when the spec gives none.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout_secs: Option<u64>,
}

/// A network device to move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDevice {
    /// Its name on the host.
    pub host_name: String,
    /// Its name in the container.
    pub name: String,
}

/// `linux.intelRdt`, kernel documentation Documentation/filesystems/resctrl.rst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntelRdt {
    /// The name of the resource group.
    pub clos_id: String,
    /// Whether the spec named it (a named group that exists is joined, and not removed).
    pub clos_id_given: bool,
    /// Lines for `schemata`, in the order they are written.
    pub schemata: Vec<String>,
    /// How many of the first lines are `l3CacheSchema` and `memBwSchema`: a named group that
    /// exists must have these already, and only the others are written to it.
    pub lines_to_match: usize,
    /// A monitoring group of the container's own.
    pub enable_monitoring: bool,
}
