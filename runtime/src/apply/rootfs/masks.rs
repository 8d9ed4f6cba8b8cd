//! Paths that the container may not write, or not see.
//!
//! On entry the root is `/` and has what the container will have. A path is opened inside the
//! root, or inside what is on /proc or /sys (see [`Root::places`]), and the cover is attached to
//! that descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::FileType;

use super::Root;
use super::destination::is_directory;
use super::filesystem::{RDONLY, Wanted, is};
use crate::sys::inside::{self, Links};
use crate::sys::mount::{Change, Depth, Tree};
use crate::{At, Call, Error, Kind, Result};

/// Makes what is mounted at a path read-only; a path that is not there needs none.
pub(super) fn readonly(root: &Root, path: &Path) -> Result<()> {
    root.places(path).try_for_each(|(directory, path)| {
        let Some(target) = existing(directory, path)? else { return Ok(()) };
        let copy = Tree::copy_fd(target.as_fd(), Depth::Tree)?;
        // As runc and crun do it: what is mounted below keeps its own attributes.
        copy.change(&Change::set(RDONLY), Depth::Mount)?;
        copy.attach(target.as_fd())
    })
}

/// Covers files with /dev/null, and directories with one empty read-only tmpfs.
pub(super) fn mask(root: &Root, paths: &[PathBuf], label: Option<&str>) -> Result<()> {
    let mut covers = Covers { root, label, null: None, empty: None };
    for path in paths {
        root.places(path)
            .try_for_each(|(directory, path)| covers.cover(directory, path))
            .at_with(|| format!("masked path {}", path.display()))?;
    }
    Ok(())
}

struct Covers<'a> {
    root: &'a Root,
    label: Option<&'a str>,
    /// The container's /dev/null, checked.
    null: Option<OwnedFd>,
    /// The tmpfs, attached over the first directory: a detached mount cannot be copied before
    /// Linux 6.15.
    empty: Option<Tree>,
}

impl Covers<'_> {
    fn cover(&mut self, directory: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let Some(target) = existing(directory, path)? else { return Ok(()) };
        if is_directory(target.as_fd())? {
            return self.cover_directory(target.as_fd());
        }
        let null = match self.null.take() {
            Some(null) => null,
            None => dev_null(self.root.as_fd())?,
        };
        let null = self.null.insert(null);
        Tree::copy_fd(null.as_fd(), Depth::Mount)?.attach(target.as_fd())
    }

    fn cover_directory(&mut self, target: BorrowedFd<'_>) -> Result<()> {
        if let Some(empty) = &self.empty {
            return Tree::copy_fd(empty.as_fd(), Depth::Mount)?.attach(target);
        }
        let wanted =
            Wanted { fstype: "tmpfs", source: "tmpfs", flags: &[], data: &[], attributes: RDONLY };
        let empty = wanted.mount(self.label, &[("nr_blocks", "1"), ("nr_inodes", "1")])?;
        empty.attach(target)?;
        self.empty = Some(empty);
        Ok(())
    }
}

/// The container's /dev/null, when it is that: a link or a file in its place would be what is
/// mounted over the masked paths (CVE-2025-31133).
fn dev_null(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let null = inside::locate(root, Path::new("dev/null"), Links::Refuse)?;
    let stat = rustix::fs::fstat(&null).call(|| "fstat(</dev/null>)".to_owned())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
        || stat.st_rdev != rustix::fs::makedev(1, 3)
    {
        return Err(Error::new(Kind::Unsupported(
            "the container's /dev/null is not the null device".to_owned(),
        )));
    }
    Ok(null)
}

fn existing(directory: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    match inside::locate(directory, path, Links::Follow) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if is(&error, Errno::ENOENT) || is(&error, Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}
