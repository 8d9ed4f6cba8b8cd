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
use super::{Root, Surroundings, duplicate};
use crate::cgroup::{CgroupDirectory, Version};
use crate::plan::{Mount, Namespace, Propagation, Rootfs};
use crate::sys::inside::{self, Links};
use crate::sys::mount::{Change, Depth, Tree};
use crate::{At, Call, Error, Result};

pub(super) fn mount(
    root: &mut Root,
    mount: &Mount,
    path: &Path,
    rootfs: &Rootfs,
    around: &Surroundings<'_>,
) -> Result<()> {
    match around.cgroups.directories.as_slice() {
        [unified] if unified.version == Version::V2 => {
            let tree = unified_view(mount, unified, around)?;
            root.attach_and_note(tree, path, Links::Follow, Note::None)
        }
        directories => per_hierarchy(root, mount, path, directories, rootfs, around),
    }
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

fn per_hierarchy(
    root: &mut Root,
    mount: &Mount,
    path: &Path,
    directories: &[CgroupDirectory],
    rootfs: &Rootfs,
    around: &Surroundings<'_>,
) -> Result<()> {
    let safe = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let attributes = u64::from(safe.bits()) | mount.attr_set | mount.rec_attr_set;
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
    for directory in directories {
        let name = name(directory, around.cgroup_path)?;
        view(&inside, directory, name, attributes)
            .at_with(|| format!("hierarchy {}", name.display()))?;
    }
    Ok(())
}

/// Attaches the container's directory of one hierarchy: in a cgroup namespace it is the root of
/// what a mount of the hierarchy would show, so that a copy does for both.
fn view(tmpfs: &OwnedFd, directory: &CgroupDirectory, name: &OsStr, attributes: u64) -> Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(tmpfs, name, mode).call(|| format!("mkdirat(<tmpfs>, {name:?})"))?;
    let tree = copy(&directory.path, attributes)?;
    tree.attach_at(tmpfs.as_fd(), &inside::c_string(name)?)?;
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
