//! New instances of file systems, and the attributes of mounts.

use rustix::mount::MountPropagationFlags;

use crate::plan::{Mount, MountKind, Propagation};
use crate::sys::mount::{Change, FsContext, Tree};
use crate::{At, Error, Result};

/// The attribute that is an access time mode and not a flag (MOUNT_ATTR__ATIME, linux/mount.h).
const ATIME: u64 = 0x70;

pub(super) const RDONLY: u64 = 0x1;

/// A new file system instance as the plan has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) fstype: &'a str,
    pub(super) source: &'a str,
    pub(super) flags: &'a [String],
    pub(super) data: &'a [(String, Option<String>)],
    /// MOUNT_ATTR_* of the mount.
    pub(super) attributes: u64,
}

impl<'a> Wanted<'a> {
    /// What the plan wants here, when it is a new file system.
    pub(super) fn of(mount: &'a Mount) -> Option<Wanted<'a>> {
        let MountKind::Filesystem { fstype, source, flags, data } = &mount.kind else {
            return None;
        };
        let attributes = mount.attr_set | mount.rec_attr_set;
        Some(Wanted { fstype, source, flags, data, attributes })
    }

    /// A context with source and flags set, the data still to come.
    pub(super) fn context(&self) -> Result<FsContext<'a>> {
        let context = FsContext::open(self.fstype)?;
        if !self.source.is_empty() {
            context.string("source", self.source)?;
        }
        for flag in self.flags {
            context.flag(flag)?;
        }
        Ok(context)
    }

    /// Whether the plan sets this parameter.
    pub(super) fn has(&self, key: &str) -> bool {
        self.data.iter().any(|(name, _)| name == key)
    }

    /// Makes the instance, detached. `label` is an SELinux context, `more` parameters that come
    /// before the plan's own.
    pub(super) fn mount(&self, label: Option<&str>, more: &[(&str, &str)]) -> Result<Tree> {
        let context = self.context()?;
        for (key, value) in more {
            context.string(key, value)?;
        }
        for parameter in self.data {
            set(&context, parameter)?;
        }
        // Who gives this mount a context of its own means that.
        if let Some(label) = label.filter(|_| !self.has("context")) {
            context.string("context", label).at("linux.mountLabel")?;
        }
        context.mount(self.attributes)
    }
}

/// Sets one parameter of the plan.
pub(super) fn set(context: &FsContext<'_>, (key, value): &(String, Option<String>)) -> Result<()> {
    match value {
        Some(value) => context.string(key, value),
        None => context.flag(key),
    }
}

/// A change that is free of contradictions: what is set is not cleared, and an access time mode
/// replaces the one before.
pub(super) fn change(set: u64, clear: u64) -> Change<'static> {
    let mut clear = clear & !set;
    if set & ATIME != 0 || clear & ATIME != 0 {
        clear |= ATIME;
    }
    Change { set, clear, ..Change::default() }
}

/// The kernel's word for a propagation type.
pub(super) fn propagation(propagation: Propagation) -> MountPropagationFlags {
    match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
    }
}

/// Whether the error is this errno.
pub(super) fn is(error: &Error, errno: nix::errno::Errno) -> bool {
    error.errno() == Some(errno)
}
