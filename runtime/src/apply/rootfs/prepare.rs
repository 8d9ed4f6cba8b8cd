//! main's part: everything that needs the host's paths or privileges, as detached mounts.
//!
//! On entry: main, in the host's namespaces, with one thread. On exit: the host is as it was; all
//! that was made hangs on descriptors (close-on-exec) that init inherits by clone(2).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::filesystem::{self, Wanted, is};
use super::{cgroups, overlay};
use crate::cgroup::CgroupPaths;
use crate::plan::{Mount, MountIdMap, MountKind, Propagation, Rootfs, RootfsSource};
use crate::sys::mount::{Change, Depth, Tree};
use crate::{At, Call, Error, Result};

/// Finds or makes the user namespace that an id map stands for; main's to give, because it takes
/// a process to make one.
pub type UserNamespaceOf<'a> = dyn FnMut(&MountIdMap) -> Result<OwnedFd> + 'a;

/// What [`prepare`] made, for init.
#[derive(Debug)]
pub struct PreparedRootfs {
    pub(super) root: Tree,
    /// Further mounts that the client asked for below the root: where, and what.
    pub(super) below: Vec<(PathBuf, Tree)>,
    /// One per mount of the plan.
    pub(super) sources: Vec<Source>,
}

/// What main has made for a mount.
#[derive(Debug)]
pub(super) enum Source {
    /// Nothing: init makes it.
    None,
    /// The copy of a bind mount's source.
    Bind(Tree),
    /// The container's directory in each cgroup hierarchy.
    Cgroups(Vec<Tree>),
}

/// Makes the root mount and the sources of the bind mounts. `site` is where the bundle says that
/// the root is (`root.path`); nothing is mounted there yet.
///
/// # Errors
/// The first mount that cannot be made, with its place in the spec, its source and the kernel's
/// words. Nothing is left of the others.
pub fn prepare(
    rootfs: &Rootfs,
    site: &Path,
    user_namespace: &mut UserNamespaceOf<'_>,
) -> Result<PreparedRootfs> {
    let mut sources = Vec::with_capacity(rootfs.mounts.len());
    for mount in &rootfs.mounts {
        let MountKind::Bind { source, recursive } = &mount.kind else {
            sources.push(Source::None);
            continue;
        };
        let bind = bind(mount, source, depth(*recursive), rootfs.propagation, user_namespace)
            .at_with(|| {
                format!(
                    "{} at {}: bind {}",
                    mount.field,
                    mount.destination.display(),
                    source.display()
                )
            })?;
        sources.push(Source::Bind(bind));
    }
    let (root, below) = root(rootfs, site, user_namespace).at("root")?;
    Ok(PreparedRootfs { root, below, sources })
}

impl PreparedRootfs {
    /// Copies the container's cgroup v1 directories, once they are made, for the mounts of type
    /// `cgroup`.
    ///
    /// # Errors
    /// The directory that cannot be copied.
    pub fn copy_cgroups(&mut self, rootfs: &Rootfs, cgroups: &CgroupPaths) -> Result<()> {
        for (mount, source) in rootfs.mounts.iter().zip(&mut self.sources) {
            if mount.kind == MountKind::Cgroup {
                *source = cgroups::sources(mount, cgroups).at_with(|| mount.field.clone())?;
            }
        }
        Ok(())
    }

    /// Attaches the root on the host as well, for hooks that look for it there. Init keeps a copy
    /// that is downstream of it: what a hook mounts into it before init leaves the host's tree
    /// appears in the container.
    ///
    /// # Errors
    /// Those of move_mount(2); nothing is attached then.
    pub fn attach_on_host(&mut self, target: &Path) -> Result<()> {
        self.root.attach_path(target).at("attach the root on the host")?;
        let copy = Tree::copy_fd(self.root.as_fd(), Depth::Tree).and_then(|copy| {
            copy.change(&Change::propagation(MountPropagationFlags::DOWNSTREAM), Depth::Tree)?;
            Ok(copy)
        });
        match copy {
            Ok(copy) => {
                self.root = copy;
                Ok(())
            }
            Err(error) => match detach_from_host(target) {
                Ok(()) => Err(error),
                Err(second) => Err(error.at(format!("and then {second}"))),
            },
        }
        .at("attach the root on the host")
    }
}

/// Undoes [`PreparedRootfs::attach_on_host`]. That nothing is mounted there is no error.
///
/// # Errors
/// Those of umount2(2).
pub fn detach_from_host(target: &Path) -> Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).call(|| format!("umount2({target:?}, MNT_DETACH)")),
    }
}

type Below = Vec<(PathBuf, Tree)>;

fn root(
    rootfs: &Rootfs,
    site: &Path,
    user_namespace: &mut UserNamespaceOf<'_>,
) -> Result<(Tree, Below)> {
    let mounts = match &rootfs.source {
        RootfsSource::Directory(path) => {
            let tree = Tree::copy_path(path, Depth::Tree)?;
            tree.change(&Change::propagation(root_propagation(rootfs.propagation)), Depth::Tree)?;
            return Ok((tree, Below::new()));
        }
        RootfsSource::Mounts(mounts) => mounts,
    };
    let mut root = None;
    let mut below = Below::new();
    for (index, mount) in mounts.iter().enumerate() {
        let tree = layer(mount, rootfs, site, user_namespace)
            .at_with(|| format!("mount {} of {}", index + 1, mounts.len()))?;
        if crate::sys::inside::normalise(&mount.destination).as_os_str().is_empty() {
            // It covers all that came before it.
            root = Some(tree);
            below.clear();
        } else {
            below.push((mount.destination.clone(), tree));
        }
    }
    let root = root.ok_or_else(|| Error::argument("rootfs", "no mount for / is among them"))?;
    Ok((root, below))
}

/// One of the mounts the client asked for.
fn layer(
    mount: &Mount,
    rootfs: &Rootfs,
    site: &Path,
    user_namespace: &mut UserNamespaceOf<'_>,
) -> Result<Tree> {
    if let MountKind::Bind { source, recursive } = &mount.kind {
        let tree = bind(mount, source, depth(*recursive), Propagation::Private, user_namespace)
            .at_with(|| format!("bind {}", source.display()))?;
        return Ok(tree);
    }
    let Some(wanted) = Wanted::of(mount) else {
        return Err(Error::argument("rootfs", format!("{:?} cannot be a root", mount.kind)));
    };
    let from = || format!("{} from {:?}", wanted.fstype, wanted.source);
    match (wanted.fstype, &mount.idmap) {
        ("overlay", None) => overlay::mount(&wanted, site).at_with(from),
        ("overlay", Some((map, _))) => {
            let namespace = user_namespace(map).at("user namespace of the id map")?;
            overlay::mount_mapped(&wanted, namespace.as_fd()).at_with(from)
        }
        _ => {
            let tree = wanted.mount(rootfs.mount_label.as_deref(), &[]).at_with(from)?;
            map_ids(&tree, mount, user_namespace)?;
            Ok(tree)
        }
    }
}

/// Copies the mount at `source` and gives the copy its attributes while nobody sees it.
fn bind(
    mount: &Mount,
    source: &Path,
    depth: Depth,
    root_propagation: Propagation,
    user_namespace: &mut UserNamespaceOf<'_>,
) -> Result<Tree> {
    let tree = Tree::copy_path(source, depth)?;
    let (first, then) = propagation_steps(mount.propagation, depth, root_propagation);
    let mut whole = Change {
        propagation: first,
        ..filesystem::change(mount.rec_attr_set, mount.rec_attr_clear)
    };
    let mut own = filesystem::change(mount.attr_set, mount.attr_clear | mount.attr_clear_unlocked);
    if depth == Depth::Mount {
        own.propagation = std::mem::replace(&mut whole.propagation, MountPropagationFlags::empty());
    }
    change(&tree, &whole, mount, Depth::Tree)?;
    change(&tree, &own, mount, Depth::Mount)?;
    if let Some((propagation, depth)) = then {
        tree.change(&Change::propagation(propagation), depth)?;
    }
    map_ids(&tree, mount, user_namespace)?;
    Ok(tree)
}

/// Which propagation types a copied mount goes through, so that it ends as if it had been made
/// in a mount namespace whose mounts are all of the root's type (there a slave of the host cannot
/// become its peer again).
fn propagation_steps(
    asked: Option<(Propagation, bool)>,
    depth: Depth,
    root_propagation: Propagation,
) -> (MountPropagationFlags, Option<(MountPropagationFlags, Depth)>) {
    let inherited = match root_propagation {
        Propagation::Shared => MountPropagationFlags::empty(),
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Private | Propagation::Unbindable => MountPropagationFlags::PRIVATE,
    };
    let Some((asked, recursive)) = asked else { return (inherited, None) };
    let cut_off = !inherited.is_empty();
    let whole = recursive || depth == Depth::Mount;
    let flags = filesystem::propagation(asked);
    match asked {
        Propagation::Slave if cut_off => (inherited, None),
        Propagation::Shared if cut_off => (inherited, Some((flags, self::depth(recursive)))),
        _ if whole => (flags, None),
        _ => (inherited, Some((flags, Depth::Mount))),
    }
}

/// Changes attributes; where the source has locked ones (the caller is in a user namespace
/// itself), those that the spec does not name stay as they are.
fn change(tree: &Tree, change: &Change<'_>, mount: &Mount, depth: Depth) -> Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    match tree.change(change, depth) {
        Err(error) if is(&error, Errno::EPERM) && depth == Depth::Mount => {
            let named = filesystem::change(mount.attr_set, mount.attr_clear);
            let kept = Change { propagation: change.propagation, ..named };
            tree.change(&kept, depth).map_err(|_| error)
        }
        result => result,
    }
}

fn map_ids(tree: &Tree, mount: &Mount, user_namespace: &mut UserNamespaceOf<'_>) -> Result<()> {
    let Some((map, recursive)) = &mount.idmap else { return Ok(()) };
    let namespace = user_namespace(map).at("user namespace of the id map")?;
    let change = Change { idmap: Some(namespace.as_fd()), ..Change::default() };
    tree.change(&change, depth(*recursive)).at("id map")
}

/// The root is never the peer of anything while mounts are made in it.
fn root_propagation(propagation: Propagation) -> MountPropagationFlags {
    match propagation {
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        _ => MountPropagationFlags::PRIVATE,
    }
}

fn depth(recursive: bool) -> Depth {
    if recursive { Depth::Tree } else { Depth::Mount }
}
