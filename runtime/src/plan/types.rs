//! What a plan consists of: facts, with nothing optional left to interpret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupPlan;

mod process;
mod rootfs;

pub use process::*;
pub use rootfs::*;

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
