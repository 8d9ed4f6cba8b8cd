//! init's part: the root, its mounts in order, its devices.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::mount::MountPropagationFlags;

use super::destination::Reached;
use super::filesystem::{self, RDONLY, Wanted, is};
use super::prepare::{PreparedRootfs, Source};
use super::{Attached, OldTree, Root, Surroundings, View, cgroups, copy_up, devices, duplicate};
use crate::plan::{Mount, MountKind, Namespace, Propagation, Rootfs};
use crate::sys::inside::{self, Links};
use crate::sys::mount::{self, Change, Depth, Tree};
use crate::{At, Call, Error, Result};

/// Attaches the root and all that is mounted in it, and makes the devices.
///
/// On exit `/` is still the old tree, downstream of the host's if it is a copy; the umask is 0 (the process's own
/// is set with its identity).
///
/// # Errors
/// The first mount or device that fails, by its place in the plan. The caller is init: what was
/// mounted goes with its mount namespace.
pub fn build(rootfs: &Rootfs, prepared: PreparedRootfs, around: &Surroundings<'_>) -> Result<Root> {
    rustix::process::umask(Mode::empty());
    let mut root = match around.old_tree {
        OldTree::Host { site } => Root::attach_in_copy(prepared.root, site),
        OldTree::Empty => Root::attach_to(prepared.root, Path::new("/"), Attached::OverNothing),
    }
    .at("root")?;
    for (path, tree) in prepared.below {
        root.attach(&tree, &inside::normalise(&path), Links::Follow)
            .at_with(|| format!("rootfs mount at {}", path.display()))?;
    }
    let count = rootfs.mounts.len();
    for (index, (mount, source)) in rootfs.mounts.iter().zip(prepared.sources).enumerate() {
        root.mount(mount, source, rootfs, around).at_with(|| {
            format!("mount {} of {count} at {}", index + 1, mount.destination.display())
        })?;
    }
    if !dev_is_bound(rootfs) {
        devices::make(&root, rootfs).at("devices")?;
    }
    Ok(root)
}

/// A /dev that the client binds is left as it is.
fn dev_is_bound(rootfs: &Rootfs) -> bool {
    rootfs.mounts.iter().any(|mount| {
        matches!(mount.kind, MountKind::Bind { .. })
            && inside::normalise(&mount.destination) == Path::new("dev")
    })
}

impl Root {
    /// Attaches the root mount where hooks look for it, or else on top of the old root: a user
    /// namespace may not be able to reach the bundle, but `/` it has.
    fn attach_in_copy(tree: Tree, site: &Path) -> Result<Root> {
        let downstream = Change::propagation(MountPropagationFlags::DOWNSTREAM);
        mount::change_path(c"/", &downstream, Depth::Tree).at("cut off from the host")?;
        let unreachable = [Errno::ENOENT, Errno::EACCES, Errno::ENOTDIR, Errno::EPERM];
        match tree.attach_path(site) {
            Err(error) if unreachable.iter().any(|errno| is(&error, *errno)) => {
                Root::attach_to(tree, Path::new("/"), Attached::OverHost)
            }
            result => result.map(|()| Root::new(tree, Attached::At(site.to_path_buf()))),
        }
    }

    fn attach_to(tree: Tree, path: &Path, attached: Attached) -> Result<Root> {
        tree.attach_path(path)?;
        Ok(Root::new(tree, attached))
    }

    fn new(tree: Tree, attached: Attached) -> Root {
        Root {
            tree,
            attached,
            fresh: Vec::new(),
            views: Vec::new(),
            obscured: false,
            late_readonly: Vec::new(),
        }
    }

    fn mount(
        &mut self,
        mount: &Mount,
        source: Source,
        rootfs: &Rootfs,
        around: &Surroundings<'_>,
    ) -> Result<()> {
        let path = inside::normalise(&mount.destination);
        match (&mount.kind, source) {
            (MountKind::Filesystem { .. }, _) => {
                self.mount_filesystem(mount, &path, rootfs, around)
            }
            (MountKind::Bind { .. }, Source::Bind(tree)) => {
                self.attach_and_note(tree, &path, Links::Follow, Note::None)
            }
            (MountKind::Cgroup, source) => {
                cgroups::mount(self, mount, &path, source, rootfs, around)
            }
            (MountKind::Remount, _) => self.remount(mount, &path),
            (MountKind::Bind { source, .. }, _) => {
                Err(Error::argument("prepared", format!("no copy of {}", source.display())))
            }
        }
    }

    fn mount_filesystem(
        &mut self,
        mount: &Mount,
        path: &Path,
        rootfs: &Rootfs,
        around: &Surroundings<'_>,
    ) -> Result<()> {
        let Some(mut wanted) = Wanted::of(mount) else { return Ok(()) };
        let kernel_view = matches!(wanted.fstype, "proc" | "sysfs");
        let late = mount.readonly_last();
        if late {
            wanted.attributes &= !RDONLY;
        }
        let label = rootfs.mount_label.as_deref().filter(|_| !kernel_view);
        let tree = match wanted.fstype {
            "tmpfs" => self.tmpfs(&wanted, path, label)?,
            "mqueue" => labelled_mqueue(&wanted, label, around)?,
            _ => instance_or_host(&wanted, label, around)?,
        };
        if mount.tmpcopyup {
            copy_up::copy(self, path, &tree).at("tmpcopyup")?;
        }
        if let Some((propagation @ (Propagation::Shared | Propagation::Unbindable), _)) =
            mount.propagation
        {
            let change = Change::propagation(filesystem::propagation(propagation));
            tree.change(&change, Depth::Mount)?;
        }
        let note = match wanted.fstype {
            "proc" => Note::Procfs,
            "tmpfs" if !mount.tmpcopyup => Note::Fresh,
            _ => Note::None,
        };
        let links = if kernel_view { Links::Refuse } else { Links::Follow };
        if late {
            self.late_readonly.push(Tree::from(duplicate(tree.as_fd())?));
        }
        self.attach_and_note(tree, path, links, note)
    }

    /// A tmpfs takes the mode of the directory that it covers, unless the spec gives one.
    fn tmpfs(&self, wanted: &Wanted<'_>, path: &Path, label: Option<&str>) -> Result<Tree> {
        if wanted.has("mode") {
            return wanted.mount(label, &[]);
        }
        match inside::locate(self.tree_fd(), path, Links::Follow) {
            Ok(covered) => {
                let stat = rustix::fs::fstat(&covered).call(|| format!("fstat({path:?})"))?;
                let mode = format!("{:04o}", stat.st_mode & 0o7777);
                wanted.mount(label, &[("mode", &mode)])
            }
            Err(error) if is(&error, Errno::ENOENT) => wanted.mount(label, &[]),
            Err(error) => Err(error),
        }
    }

    /// Attaches a mount and keeps what later steps know about it.
    pub(super) fn attach_and_note(
        &mut self,
        tree: Tree,
        path: &Path,
        links: Links,
        note: Note,
    ) -> Result<()> {
        match self.attach(&tree, path, links)? {
            // It may lie over any of them.
            Reached::ThroughLinks => {
                self.fresh.clear();
                self.obscured = true;
            }
            Reached::Directly => {
                self.fresh.retain(|(at, _)| !at.starts_with(path));
                self.views.retain(|view| !view.at.starts_with(path));
                if ["proc", "sys"].iter().any(|view| path == Path::new(view)) {
                    let (at, is_own_procfs) = (path.to_path_buf(), note == Note::Procfs);
                    self.views.push(View { at, tree, is_own_procfs });
                } else if note == Note::Fresh {
                    self.fresh.push((path.to_path_buf(), tree.into()));
                }
            }
        }
        Ok(())
    }

    fn remount(&self, mount: &Mount, path: &Path) -> Result<()> {
        let target = inside::locate(self.tree_fd(), path, Links::Follow)?;
        let fd = target.as_fd();
        let whole = filesystem::change(mount.rec_attr_set, mount.rec_attr_clear);
        if !whole.is_empty() {
            mount::change(fd, &whole, Depth::Tree)?;
        }
        let own = filesystem::change(mount.attr_set, mount.attr_clear);
        if !own.is_empty() {
            mount::change(fd, &own, Depth::Mount)?;
        }
        if let Some((propagation, recursive)) = mount.propagation {
            let depth = if recursive { Depth::Tree } else { Depth::Mount };
            let change = Change::propagation(filesystem::propagation(propagation));
            mount::change(fd, &change, depth)?;
        }
        Ok(())
    }

    fn tree_fd(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }
}

/// What a new mount is good for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// Nothing.
    None,
    /// An empty tmpfs that only init knows.
    Fresh,
    /// A procfs of init's own making.
    Procfs,
}

/// A new instance, or, where the kernel refuses one because its namespace is the host's and not
/// that of the container's user namespace, a copy of the host's mount.
fn instance_or_host(
    wanted: &Wanted<'_>,
    label: Option<&str>,
    around: &Surroundings<'_>,
) -> Result<Tree> {
    let refused = match wanted.mount(label, &[]) {
        Err(error) if is(&error, Errno::EPERM) => error,
        result => return result,
    };
    let (path, namespace) = match wanted.fstype {
        "proc" => (Path::new("/proc"), &around.namespaces.pid),
        "sysfs" => (Path::new("/sys"), &around.namespaces.net),
        "mqueue" => (Path::new("/dev/mqueue"), &around.namespaces.ipc),
        _ => return Err(refused),
    };
    if around.namespaces.user == Namespace::Host || *namespace != Namespace::Host {
        return Err(refused);
    }
    let tree = Tree::copy_path(path, Depth::Tree).at_with(|| format!("after {refused}"))?;
    tree.change(&Change::set(wanted.attributes), Depth::Mount)?;
    Ok(tree)
}

/// mqueue has no `context` parameter: its root directory gets the label.
fn labelled_mqueue(
    wanted: &Wanted<'_>,
    label: Option<&str>,
    around: &Surroundings<'_>,
) -> Result<Tree> {
    let tree = instance_or_host(wanted, None, around)?;
    if let Some(label) = label {
        let directory = inside::open(
            tree.as_fd(),
            Path::new("."),
            Links::Refuse,
            OFlags::RDONLY | OFlags::DIRECTORY,
        )?;
        rustix::fs::fsetxattr(
            &directory,
            c"security.selinux",
            label.as_bytes(),
            XattrFlags::empty(),
        )
        .call(|| format!("fsetxattr(<mqueue>, security.selinux, {label:?})"))
        .at("linux.mountLabel")?;
    }
    Ok(tree)
}
