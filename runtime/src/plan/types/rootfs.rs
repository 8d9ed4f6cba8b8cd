//! The root file system: mounts, devices, hidden paths.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::IdMaps;

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
