//! The container's root file system.
//!
//! ```text
//! main   prepare   root and bind sources as detached mounts; the host's mount table never changes
//!          (init is cloned, from an empty mount namespace if that will do)
//! init   build     root attached in init's mount namespace, mounts, devices
//!          (createContainer hooks: the old tree is still "/")
//!        enter     pivot_root, the old tree gone, the root's propagation
//!          (console, working directory)
//!        seal      what has to be read-only
//!          (sysctls, labels)
//!        hide      read-only and masked paths
//! ```
//!
//! On entry of `build`: init is in its namespaces (mount, pid, net, ipc, uts, cgroup), with
//! CAP_SYS_ADMIN in the user namespace that owns them. Whatever the image or a volume contains,
//! and whoever changes a volume meanwhile, nothing outside the root is touched: destinations are
//! descriptors, see [`crate::sys::inside`].

mod build;
mod cgroups;
mod copy_up;
mod destination;
mod devices;
mod empty;
mod enter;
mod filesystem;
mod masks;
mod overlay;
mod prepare;
#[cfg(test)]
pub(crate) mod tests;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::Result;
use crate::cgroup::CgroupPaths;
use crate::plan::Namespaces;
use crate::sys::inside::{self, Links};
use crate::sys::mount::Tree;
use crate::sys::procfs::Procfs;

pub use build::build;
pub use empty::{EmptyMountNamespace, Visit};
pub use prepare::{PreparedRootfs, UserNamespaceOf, detach_from_host, prepare};

/// What [`build`] has to know beside the plan of the root.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The container's namespaces; init is in them.
    pub namespaces: &'a Namespaces,
    /// The container's cgroups, made already.
    pub cgroups: &'a CgroupPaths,
    /// The path that all of these directories end with ([`crate::cgroup::CgroupPlan`]).
    pub cgroup_path: &'a Path,
    /// What init's `/` is when it begins.
    pub old_tree: OldTree<'a>,
}

/// The mounts that init begins with.
#[derive(Debug, Clone, Copy)]
pub enum OldTree<'a> {
    /// A copy of the host's.
    Host {
        /// Where the bundle says that the root is (`root.path`, absolute): hooks look for it there.
        site: &'a Path,
    },
    /// None, see [`EmptyMountNamespace`].
    Empty,
}

/// The container's root, mounted.
#[derive(Debug)]
pub struct Root {
    /// The root mount; good as a directory descriptor.
    tree: Tree,
    attached: Attached,
    /// New tmpfs mounts, that nobody else has had a chance to put anything into.
    fresh: Vec<(PathBuf, OwnedFd)>,
    /// What is mounted on /proc and on /sys.
    views: Vec<View>,
    /// Something was mounted through a link, and may lie over any other mount.
    obscured: bool,
    /// Mounts that become read-only when nothing has to be made in them any more.
    late_readonly: Vec<Tree>,
}

/// A mount of the kernel's view of the system, most of which the container may not touch.
#[derive(Debug)]
struct View {
    /// Normalised.
    at: PathBuf,
    tree: Tree,
    is_own_procfs: bool,
}

/// Where the root is attached before it is entered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Attached {
    /// In the host's tree, where hooks look for it.
    At(PathBuf),
    /// On top of the host's root.
    OverHost,
    /// On top of nothing.
    OverNothing,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }
}

impl Root {
    /// The procfs to write through from here on: the one mounted on /proc by [`build`], or as
    /// [`Procfs::open`] finds it.
    ///
    /// # Errors
    /// Those of [`Procfs::open`].
    pub fn procfs(&self) -> Result<Procfs> {
        match self.views.iter().find(|view| view.is_own_procfs) {
            Some(view) => Ok(Procfs::from(Tree::from(duplicate(view.tree.as_fd())?))),
            None => Procfs::open(),
        }
    }

    /// Makes sure that a directory is there (the process's working directory), with mode 0755
    /// where it has to be made.
    ///
    /// # Errors
    /// Those of mkdirat(2); ENOTDIR.
    pub fn ensure_directory(&self, path: &Path) -> Result<()> {
        match inside::locate(self.as_fd(), path, Links::Follow) {
            Err(error) if filesystem::is(&error, Errno::ENOENT) => {
                inside::make(self.as_fd(), path, inside::Missing::Directory).map(drop)
            }
            result => result.map(drop),
        }
    }

    /// Where to look for a path that is to be covered: a directory, and the path below it.
    ///
    /// What is on /proc is reached by its mount. In a root that somebody else may write to as
    /// well, its mount point may have another name by now, and another folder its name: what is
    /// covered there would be of no use, and the procfs open.
    fn places<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (BorrowedFd<'a>, &'a Path)> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let below = |view: &'a View| Some((view.tree.as_fd(), path.strip_prefix(&view.at).ok()?));
        let in_view = self.views.iter().find_map(below);
        let by_name = (in_view.is_none() || self.obscured).then_some((self.as_fd(), path));
        in_view.into_iter().chain(by_name)
    }

    /// The tmpfs of our own that is mounted exactly here.
    fn fresh(&self, path: &Path) -> Option<BorrowedFd<'_>> {
        self.fresh.iter().find(|(at, _)| at == path).map(|(_, fd)| fd.as_fd())
    }
}

/// Splits a normalised path into the directory it is in and its name; None for the root.
fn split(path: &Path) -> Result<Option<(&Path, CString)>> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(Some((parent, inside::c_string(name)?))),
        _ => Ok(None),
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    use crate::Call;
    rustix::io::fcntl_dupfd_cloexec(fd, 0).call(|| "fcntl(F_DUPFD_CLOEXEC)".to_owned())
}
