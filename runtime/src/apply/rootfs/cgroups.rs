//! The container's view of its cgroups: a mount of type `cgroup`.
//!
//! On a host with only cgroup v2 it is a cgroup2 mount. Otherwise it is a tmpfs with a directory
//! per hierarchy, named as on the host, and a link per controller where several share one.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::build::Note;
use super::filesystem::{self, RDONLY, Wanted, is};
use super::prepare::Source;
use super::{Root, Surroundings, duplicate};
use crate::cgroup::{CgroupDirectory, CgroupPaths, Version};
use crate::plan::{Mount, Namespace, Propagation, Rootfs};
use crate::sys::inside::{self, Links};
use crate::sys::mount::{Change, Depth, Tree};
use crate::{At, Call, Error, Result};

/// Whether the host has nothing but cgroup v2.
fn unified(cgroups: &CgroupPaths) -> Option<&CgroupDirectory> {
    match cgroups.directories.as_slice() {
        [directory] if directory.version == Version::V2 => Some(directory),
        _ => None,
    }
}

/// main's part: copies of the directories that init cannot mount by itself.
pub(super) fn sources(mount: &Mount, cgroups: &CgroupPaths) -> Result<Source> {
    if unified(cgroups).is_some() {
        return Ok(Source::None);
    }
    let attributes = safe_attributes(mount);
    let copies = cgroups.directories.iter().map(|directory| copy(&directory.path, attributes));
    copies.collect::<Result<_>>().map(Source::Cgroups)
}

pub(super) fn mount(
    root: &mut Root,
    mount: &Mount,
    path: &Path,
    source: Source,
    rootfs: &Rootfs,
    around: &Surroundings<'_>,
) -> Result<()> {
    if let Some(directory) = unified(around.cgroups) {
        let tree = unified_view(mount, directory, around)?;
        return root.attach_and_note(tree, path, Links::Follow, Note::None);
    }
    let Source::Cgroups(copies) = source else {
        return Err(Error::argument("prepared", "no copies of the cgroup hierarchies"));
    };
    let inside = tmpfs(root, mount, path, rootfs)?;
    for (directory, copy) in around.cgroups.directories.iter().zip(copies) {
        let name = name(directory, around.cgroup_path)?;
        attach(&inside, directory, &copy, name)
            .at_with(|| format!("hierarchy {}", name.display()))?;
    }
    Ok(())
}

/// In a cgroup namespace of its own the container sees its cgroup as the root; in the host's it
/// sees the host's tree, where /proc/self/cgroup says that it is.
fn unified_view(
    mount: &Mount,
    directory: &CgroupDirectory,
    around: &Surroundings<'_>,
) -> Result<Tree> {
    let wanted = Wanted {
        fstype: "cgroup2",
        source: "cgroup",
        flags: &[],
        data: &[],
        attributes: mount.attr_set | mount.rec_attr_set,
    };
    match wanted.mount(None, &[]) {
        // EPERM: a user namespace that does not own the cgroup namespace. EBUSY: the hierarchy is
        // bound to another one.
        Err(error) if is(&error, Errno::EPERM) || is(&error, Errno::EBUSY) => {
            let source = match around.namespaces.cgroup {
                Namespace::Host => hierarchy(directory, around.cgroup_path),
                _ => &directory.path,
            };
            copy(source, wanted.attributes).at_with(|| format!("after {error}"))
        }
        result => result,
    }
}

/// The directory of hierarchies. Returns a descriptor of it.
fn tmpfs(root: &mut Root, mount: &Mount, path: &Path, rootfs: &Rootfs) -> Result<OwnedFd> {
    let attributes = safe_attributes(mount);
    let wanted = Wanted {
        fstype: "tmpfs",
        source: "cgroup",
        flags: &[],
        data: &[],
        attributes: attributes & !RDONLY,
    };
    let tmpfs = wanted.mount(rootfs.mount_label.as_deref(), &[("mode", "755")])?;
    if let Some((propagation @ (Propagation::Shared | Propagation::Unbindable), _)) =
        mount.propagation
    {
        let change = Change::propagation(filesystem::propagation(propagation));
        tmpfs.change(&change, Depth::Mount)?;
    }
    let inside = duplicate(tmpfs.as_fd())?;
    if attributes & RDONLY != 0 {
        root.late_readonly.push(Tree::from(duplicate(tmpfs.as_fd())?));
    }
    root.attach_and_note(tmpfs, path, Links::Follow, Note::Fresh)?;
    Ok(inside)
}

/// What the spec asks for, and what runc adds.
fn safe_attributes(mount: &Mount) -> u64 {
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    u64::from(safe.bits()) | mount.attr_set | mount.rec_attr_set
}

/// Attaches the container's directory of one hierarchy: in a cgroup namespace it is the root of
/// what a mount of the hierarchy would show, so that a copy does for both.
fn attach(tmpfs: &OwnedFd, directory: &CgroupDirectory, copy: &Tree, name: &OsStr) -> Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(tmpfs, name, mode).call(|| format!("mkdirat(<tmpfs>, {name:?})"))?;
    copy.attach_at(tmpfs.as_fd(), &inside::c_string(name)?)?;
    for controller in &directory.controllers {
        if OsStr::new(controller) == name {
            continue;
        }
        match rustix::fs::symlinkat(name, tmpfs, controller.as_str()) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => {
                return Err(errno).call(|| format!("symlinkat({name:?}, <tmpfs>, {controller:?})"));
            }
        }
    }
    Ok(())
}

fn copy(path: &Path, attributes: u64) -> Result<Tree> {
    let tree = Tree::copy_path(path, Depth::Mount)?;
    let change = Change {
        propagation: MountPropagationFlags::DOWNSTREAM,
        ..filesystem::change(attributes, 0)
    };
    tree.change(&change, Depth::Mount)?;
    Ok(tree)
}

/// Where the hierarchy is mounted on the host.
fn hierarchy<'a>(directory: &'a CgroupDirectory, cgroup_path: &Path) -> &'a Path {
    let depth = inside::normalise(cgroup_path).components().count();
    directory.path.ancestors().nth(depth).unwrap_or(&directory.path)
}

/// The hierarchy's name, as it is mounted on the host (`cpu,cpuacct`, `systemd`, `unified`).
fn name<'a>(directory: &'a CgroupDirectory, cgroup_path: &Path) -> Result<&'a OsStr> {
    hierarchy(directory, cgroup_path).file_name().ok_or_else(|| {
        Error::argument("cgroups", format!("{} has no name", directory.path.display()))
    })
}
