//! Where a process belongs that visits other namespaces to fork there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::namespaces;
use crate::error::{Call, Error, Kind, Result};
use crate::sys::process::{self, SingleThreaded};

/// The namespaces of a process that stays in them, and a root directory there.
#[derive(Debug)]
pub struct Base {
    resident: OwnedFd,
    root: OwnedFd,
}

impl Base {
    /// The caller's, which are those of its parent as well. From here on the caller's directory is
    /// its root: what it was started in is not held busy.
    ///
    /// # Errors
    /// pidfd_open(2), open(2) and chdir(2).
    pub fn of_parent() -> Result<Base> {
        let parent = rustix::process::getppid().ok_or_else(|| {
            Error::new(Kind::State("the parent is in a pid namespace that is not seen".into()))
        })?;
        Base::of(parent)
    }

    /// The caller's, which are those of this process as well.
    ///
    /// # Errors
    /// As for [`Base::of_parent`].
    pub fn of(resident: Pid) -> Result<Base> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, c"/", flags, Mode::empty()).call(|| "open(\"/\", O_PATH)".into())?;
        let resident = pidfd_open(resident, PidfdFlags::empty())
            .call(|| format!("pidfd_open({})", resident.as_raw_pid()))?;
        rustix::process::chdir(c"/").call(|| "chdir(\"/\")".into())?;
        Ok(Base { resident, root })
    }

    /// Moves the caller back, from where it is in other namespaces of the kinds in `flags`.
    ///
    /// # Errors
    /// setns(2), ESRCH when the resident is gone; fchdir(2) and chroot(2).
    pub fn back(&self, single: &SingleThreaded, flags: u64) -> Result<()> {
        process::setns(single, self.resident.as_fd(), flags)
            .call(|| format!("setns([pidfd of the daemon], {flags:#x})"))?;
        if flags & namespaces::MOUNT.flag == 0 {
            return Ok(());
        }
        // setns(2) makes the namespace's own root the process's.
        rustix::process::fchdir(&self.root).call(|| "fchdir(<root of before>)".into())?;
        rustix::process::chroot(c".").call(|| "chroot(<root of before>)".into())
    }

    /// What a fork has to close that goes elsewhere.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.resident.as_fd(), self.root.as_fd()]
    }
}
