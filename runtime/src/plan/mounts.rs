//! `mounts` of the spec, and the mounts a client makes the root of.
//!
//! `ro` on a new file system means two things: the mount is read-only, and the superblock is. The
//! second is what a block device that is read-only itself needs, but some superblocks are shared
//! (a sysfs that the pause container mounts read-only would be so for the whole pod), and some
//! are written to first. Those in [`MOUNT_IS_READONLY`] get the first only.

use std::path::{Path, PathBuf};

use libc::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
};
use oci_spec::runtime;

use super::idmap::{self, Words};
use super::namespaces::Planned;
use super::options::{Action, Options, Recursion};
use super::{Mount, MountIdMap, MountKind, Namespace};
use crate::error::{Error, Result};

/// File systems that get no `ro` on their superblock: it is shared with other mounts, or the
/// runtime puts something into it first.
const MOUNT_IS_READONLY: [&str; 17] = [
    "binfmt_misc",
    "bpf",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "ramfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// Attributes that a bind mount with other options loses, unless they are asked for. Not nosymfollow,
/// which mount_setattr(2) knows since Linux 5.14 only.
const TAKEN_OVER: u64 =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

impl Mount {
    /// The mount is to become read-only only when all else is in place: devices, mount points
    /// and copied files are put into a tmpfs and into /dev before.
    pub fn readonly_last(&self) -> bool {
        let tmpfs = matches!(&self.kind, MountKind::Filesystem { fstype, .. } if fstype == "tmpfs");
        (tmpfs || self.destination == Path::new("/dev")) && self.attr_set & MOUNT_ATTR_RDONLY != 0
    }
}

/// Parses a mount that a client wants the root made of (containerd's Create), so that it can go
/// into the request. Paths in errors begin with `rootfs`; which of them it is, the caller knows.
///
/// `target` is where below the root, empty for the root itself. A bind mount keeps the attributes
/// of its source, as containerd's own mounting does.
///
/// # Errors
/// A type or source that cannot be, or options that do not fit them.
pub fn rootfs_mount(fstype: &str, source: &str, target: &str, options: &[String]) -> Result<Mount> {
    let parsed = Options::parse(options);
    if let Some((index, _)) = parsed.data.iter().find(|(_, word)| *word == "loop") {
        let why = "loop devices are not set up here; mount a block device";
        return Err(Error::field(format!("rootfs.options[{index}]"), why));
    }
    let source = (!source.is_empty()).then(|| Path::new(source));
    if let Some(source) = source.filter(|source| parsed.is_bind(fstype) && !source.is_absolute()) {
        return Err(Error::field("rootfs.source", format!("{source:?} is not absolute")));
    }
    let request = Request {
        field: "rootfs".to_owned(),
        destination: Path::new("/").join(target.trim_start_matches('/')),
        fstype,
        source,
        maps: None,
        // Overlays are mapped by their layers, which whoever mounts them has to see to.
        idmap_any: true,
    };
    let mut mount = request.resolve(&parsed, None, Path::new("/"))?;
    mount.attr_clear_unlocked = 0;
    Ok(mount)
}

/// Parses the mounts of the spec, in order.
pub(super) fn plan(
    listed: &[runtime::Mount],
    bundle: &Path,
    namespaces: &Planned,
    warnings: &mut Vec<String>,
) -> Result<Vec<Mount>> {
    let one = |(index, mount)| one(index, mount, bundle, namespaces, warnings);
    listed.iter().enumerate().map(one).collect()
}

fn one(
    index: usize,
    mount: &runtime::Mount,
    bundle: &Path,
    namespaces: &Planned,
    warnings: &mut Vec<String>,
) -> Result<Mount> {
    let field = format!("mounts[{index}]");
    if mount.destination().as_os_str().is_empty() {
        return Err(Error::field(format!("{field}.destination"), "is empty"));
    }
    if !mount.destination().is_absolute() {
        let destination = mount.destination().display();
        warnings.push(format!("{field}.destination: {destination} is taken as below /"));
    }
    let options = Options::parse(mount.options().as_deref().unwrap_or_default());
    let request = Request {
        destination: Path::new("/").join(mount.destination()),
        fstype: mount.typ().as_deref().unwrap_or_default(),
        source: mount.source().as_deref().filter(|source| !source.as_os_str().is_empty()),
        maps: idmap::listed(mount, &field)?,
        idmap_any: false,
        field,
    };
    request.resolve(&options, Some(namespaces), bundle)
}

/// One mount, its strings not yet resolved.
struct Request<'a> {
    field: String,
    destination: PathBuf,
    fstype: &'a str,
    source: Option<&'a Path>,
    maps: Option<MountIdMap>,
    /// Id maps are not only for bind mounts.
    idmap_any: bool,
}

impl Options<'_> {
    /// The type `bind` says it as well as the option does.
    fn is_bind(&self, fstype: &str) -> bool {
        matches!(self.action, Action::Bind(_)) || self.action == Action::New && fstype == "bind"
    }
}

impl Request<'_> {
    fn resolve(
        self,
        options: &Options<'_>,
        namespaces: Option<&Planned>,
        relative_to: &Path,
    ) -> Result<Mount> {
        let words = Words::take(&options.data, &self.field)?;
        let kind = self.kind(options, &words.rest, relative_to)?;
        let idmap = self.idmap(options, &words, namespaces, &kind)?;
        let tmpfs = matches!(&kind, MountKind::Filesystem { fstype, .. } if fstype == "tmpfs");
        if options.tmpcopyup && !tmpfs {
            return Err(Error::field(format!("{}.options", self.field), "tmpcopyup needs a tmpfs"));
        }
        let (attr_set, attr_clear) = options.attributes.bits();
        let (rec_attr_set, rec_attr_clear) = options.recursive.bits();
        let bind = matches!(kind, MountKind::Bind { .. });
        Ok(Mount {
            field: self.field,
            destination: self.destination,
            attr_clear_unlocked: if bind { taken_over(options) } else { 0 },
            kind,
            attr_set,
            attr_clear,
            rec_attr_set,
            rec_attr_clear,
            propagation: options
                .propagation
                .map(|(propagation, recursion)| (propagation, recursion == Recursion::Yes)),
            idmap,
            tmpcopyup: options.tmpcopyup,
        })
    }

    fn kind(
        &self,
        options: &Options<'_>,
        data: &[(usize, &str)],
        relative_to: &Path,
    ) -> Result<MountKind> {
        let refuse_data = |what: &str| match data.first() {
            Some((index, word)) => Err(Error::field(
                format!("{}.options[{index}]", self.field),
                format!("{word:?} is not a mount option, and {what} has no others"),
            )),
            None => Ok(()),
        };
        if options.is_bind(self.fstype) {
            // The kernel would ignore them (do_loopback takes no data).
            refuse_data("a bind mount")?;
            let source = self.required_source("a bind mount needs one")?;
            let recursive = options.action == Action::Bind(Recursion::Yes);
            return Ok(MountKind::Bind { source: relative_to.join(source), recursive });
        }
        if options.action == Action::Remount {
            refuse_data("remount")?;
            return Ok(MountKind::Remount);
        }
        match self.fstype {
            "" => Err(Error::field(format!("{}.type", self.field), "missing")),
            "none" => Err(Error::field(
                format!("{}.type", self.field),
                "none needs one of the options bind, rbind, remount",
            )),
            "cgroup" => refuse_data("cgroup").map(|()| MountKind::Cgroup),
            fstype => Ok(self.filesystem(fstype, options, data)),
        }
    }

    fn filesystem(&self, fstype: &str, options: &Options<'_>, data: &[(usize, &str)]) -> MountKind {
        let superblock_readonly = options.readonly && !MOUNT_IS_READONLY.contains(&fstype);
        let flags = superblock_readonly.then_some("ro").into_iter();
        let flags = flags.chain(options.superblock.iter().copied()).map(str::to_owned).collect();
        let pair = |(_, word): &(usize, &str)| match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(unquoted(key, value).to_owned())),
            None => ((*word).to_owned(), None),
        };
        MountKind::Filesystem {
            fstype: fstype.to_owned(),
            source: self
                .source
                .map_or_else(|| fstype.to_owned(), |source| source.to_string_lossy().into_owned()),
            flags,
            data: data.iter().map(pair).collect(),
        }
    }

    fn required_source(&self, why: &str) -> Result<&Path> {
        self.source.ok_or_else(|| Error::field(format!("{}.source", self.field), why))
    }

    fn idmap(
        &self,
        options: &Options<'_>,
        words: &Words<'_>,
        namespaces: Option<&Planned>,
        kind: &MountKind,
    ) -> Result<Option<(MountIdMap, bool)>> {
        let known = namespaces.and_then(Planned::known_id_maps);
        let asked = match (&self.maps, words.maps(known, &self.field)?) {
            (Some(_), Some(_)) => {
                let path = format!("{}.options", self.field);
                return Err(Error::field(path, "id maps beside uidMappings and gidMappings"));
            }
            (Some(maps), None) => Some(maps.clone()),
            (None, maps) => maps,
        };
        let recursion = options.idmap.or(words.recursion);
        if asked.is_none() && recursion.is_none() {
            return Ok(None);
        }
        if !self.idmap_any && !matches!(kind, MountKind::Bind { .. }) {
            let why = "only bind mounts can be idmapped";
            return Err(Error::field(format!("{}.options", self.field), why));
        }
        let maps = match asked {
            Some(maps) => maps,
            None => self.maps_of_the_container(namespaces)?,
        };
        Ok(Some((maps, recursion == Some(Recursion::Yes))))
    }

    fn maps_of_the_container(&self, namespaces: Option<&Planned>) -> Result<MountIdMap> {
        match namespaces.map(|planned| &planned.namespaces.user) {
            Some(Namespace::New) => Ok(MountIdMap::Container),
            Some(Namespace::Join(path)) => Ok(MountIdMap::Namespace(path.clone())),
            Some(Namespace::Host) | None => {
                let why = "idmap needs uidMappings and gidMappings, or a user namespace";
                Err(Error::field(format!("{}.options", self.field), why))
            }
        }
    }
}

/// SELinux contexts have commas in them, and are quoted for mount(2), as by containerd for a root
/// file system. fsconfig(2) takes them as they are.
fn unquoted<'a>(key: &str, value: &'a str) -> &'a str {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    inner.filter(|_| is_context(key)).unwrap_or(value)
}

/// Whether a parameter is an SELinux context.
pub(crate) fn is_context(key: &str) -> bool {
    matches!(key, "context" | "fscontext" | "defcontext" | "rootcontext")
}

/// A bind mount without options is as its source. With any option, mount(2) as runc and crun call
/// it replaces the attributes: what is not named is cleared.
fn taken_over(options: &Options<'_>) -> u64 {
    if !options.any_flag {
        return 0;
    }
    let (set, clear) = options.attributes.bits();
    let atime = if options.attributes.has_atime() { MOUNT_ATTR_NODIRATIME } else { 0 };
    (TAKEN_OVER | atime) & !set & !clear
}

#[cfg(test)]
mod tests;
