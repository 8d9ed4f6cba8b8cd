//! Making the root the root, and closing it.

use std::path::Path;

use nix::errno::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::filesystem::{RDONLY, Wanted};
use super::{Attached, Root, masks};
use crate::plan::{Propagation, Rootfs};
use crate::sys::mount::{Change, Depth};
use crate::sys::procfs::Procfs;
use crate::{At, Call, Result};

impl Root {
    /// Makes the root `/` and the working directory, and lets go of the old tree.
    ///
    /// # Errors
    /// EINVAL: the old root is no mount (a ramfs: the client has to ask for no pivot_root).
    pub fn enter(&self, rootfs: &Rootfs) -> Result<()> {
        match (&self.attached, rootfs.pivot) {
            (Attached::OverNothing, _) => self.chroot(),
            (_, true) => self.pivot(),
            (_, false) => self.cover_host(),
        }?;
        let propagation = match rootfs.propagation {
            // Both are so since `build`.
            Propagation::Private | Propagation::Slave => return Ok(()),
            Propagation::Shared => MountPropagationFlags::SHARED,
            Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
        };
        self.tree.change(&Change::propagation(propagation), Depth::Mount).at("root propagation")
    }

    fn pivot(&self) -> Result<()> {
        rustix::process::fchdir(&self.tree).call(|| "fchdir(<root>)".to_owned())?;
        // The old root ends on top of the new one, and is the mount that "." leads to; `build`
        // made all of it downstream, so that the host does not see it go.
        rustix::process::pivot_root(c".", c".").call(|| "pivot_root(\".\", \".\")".to_owned())?;
        rustix::mount::unmount(c".", UnmountFlags::DETACH)
            .call(|| "umount2(\".\", MNT_DETACH)".to_owned())
    }

    fn chroot(&self) -> Result<()> {
        rustix::process::fchdir(&self.tree).call(|| "fchdir(<root>)".to_owned())?;
        rustix::process::chroot(c".").call(|| "chroot(\".\")".to_owned())
    }

    fn cover_host(&self) -> Result<()> {
        self.hide_full_views().at("hide the host's proc and sysfs")?;
        if let Attached::At(_) = self.attached {
            self.tree.attach_path(Path::new("/"))?;
        }
        self.chroot()
    }

    /// Without pivot_root(2) the old tree stays in the mount namespace. While it has a proc or a
    /// sysfs that nothing is mounted over, the kernel lets the container mount new ones (they
    /// would reveal nothing more), past its masked paths.
    fn hide_full_views(&self) -> Result<()> {
        let procfs = Procfs::open()?;
        let mounts = procfs.read("self/mountinfo")?;
        for line in String::from_utf8_lossy(&mounts).lines() {
            let Some(at) = full_view(line) else { continue };
            let at = Path::new(&at);
            match &self.attached {
                Attached::At(site) if at.starts_with(site) => continue,
                _ => {}
            }
            match rustix::mount::unmount(at, UnmountFlags::DETACH) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                // Locked, in a user namespace.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => cover(at)?,
                Err(errno) => return Err(errno).call(|| format!("umount2({at:?}, MNT_DETACH)")),
            }
        }
        Ok(())
    }

    /// Makes read-only what has to be: tmpfs mounts and /dev, which were filled meanwhile, and
    /// the root.
    ///
    /// # Errors
    /// Those of mount_setattr(2).
    pub fn seal(&self, rootfs: &Rootfs) -> Result<()> {
        for tree in &self.late_readonly {
            tree.change(&Change::set(RDONLY), Depth::Mount)?;
        }
        if rootfs.readonly {
            // By its descriptor: no path of the image has a part in it (crun CVE-2026-115521).
            // Only adds a flag, so that locked ones stay.
            self.tree.change(&Change::set(RDONLY), Depth::Mount).at("read-only root")?;
        }
        Ok(())
    }

    /// Read-only and masked paths.
    ///
    /// # Errors
    /// The path that cannot be covered.
    pub fn hide(&self, rootfs: &Rootfs) -> Result<()> {
        for path in &rootfs.readonly_paths {
            masks::readonly(self, path).at_with(|| format!("read-only path {}", path.display()))?;
        }
        masks::mask(self, &rootfs.masked_paths, rootfs.mount_label.as_deref())
    }
}

/// The mount point of a mountinfo line, if it is a whole proc or sysfs (proc_pid_mountinfo(5)).
fn full_view(line: &str) -> Option<String> {
    let (mount, super_block) = line.split_once(" - ")?;
    let fstype = super_block.split(' ').next()?;
    let mut fields = mount.split(' ').skip(3);
    let (root, at) = (fields.next()?, fields.next()?);
    (root == "/" && matches!(fstype, "proc" | "sysfs")).then(|| unescape(at))
}

/// mountinfo writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                text.push(char::from(code));
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

fn cover(at: &Path) -> Result<()> {
    let wanted =
        Wanted { fstype: "tmpfs", source: "tmpfs", flags: &[], data: &[], attributes: RDONLY };
    match wanted.mount(None, &[])?.attach_path(at) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
        result => result,
    }
}
