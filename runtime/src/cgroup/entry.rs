//! How a process gets into the cgroup.
//!
//! ```text
//!  parent (privileged): cgroup.entry()      opens everything while the host's tree is in sight
//!  parent:              clone3(CLONE_INTO_CGROUP, clone_into)
//!  child:               entry.join_self()   v1: one write per hierarchy, about itself
//! ```

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{Cgroup, Version, files};
use crate::error::{At, Call, Result};

/// Open files by which a process enters a container's cgroup.
///
/// The kernel checks the right to move a process against who opened the file, so a child that
/// has dropped its privileges may still use them.
#[derive(Debug)]
pub struct Entry {
    /// The v2 directory, for clone3(2) with CLONE_INTO_CGROUP (Linux ≥ 5.7).
    pub clone_into: Option<OwnedFd>,
    /// The `tasks` file of each v1 directory, open for writing, with its path for messages.
    pub tasks: Vec<(PathBuf, OwnedFd)>,
}

impl Entry {
    /// Moves the calling process into the v1 cgroups. The caller has one thread.
    ///
    /// The files are `tasks`, not `cgroup.procs`: a thread that moves itself alone needs no
    /// lock over all thread groups (kernel/cgroup/cgroup.c, cgroup_procs_write_start), and
    /// taking that lock waits for an RCU grace period, which is milliseconds.
    ///
    /// # Errors
    /// `Call` with the file, for what the kernel refuses.
    pub fn join_self(&self) -> Result<()> {
        for (path, fd) in &self.tasks {
            files::write_fd(fd, "0").call(|| format!("write({}, \"0\")", path.display()))?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// Opens what a process needs to enter.
    ///
    /// # Errors
    /// `Call` when a directory is not there any more or may not be written.
    pub fn entry(&self) -> Result<Entry> {
        self.open_entry(self.paths.v2()).at("open the cgroup to enter")
    }

    /// As [`Cgroup::entry`], for a tenant: into the v2 cgroup where the process `init` is now,
    /// when that is below the container's. A container that manages its own cgroups (systemd)
    /// moves its init into one of them, and its own then has controllers enabled for children
    /// and takes no process: clone3 fails with EBUSY. Use this one then.
    ///
    /// # Errors
    /// As for [`Cgroup::entry`].
    pub fn entry_beside(&self, init: i32) -> Result<Entry> {
        let path = format!("/proc/{init}/cgroup");
        let own = files::try_read_list(Path::new(&path)).call(|| format!("read({path})"))?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let below = self.paths.v2().zip(own).and_then(|(top, own)| {
            // `own` begins with the container's path, below the root of the cgroup namespace;
            // `top` ends with it, below the mount point.
            let above = |base: &&Path| {
                let path = top.strip_prefix(base).unwrap_or(top);
                path.components().next().is_some() && Path::new(own).starts_with(path)
            };
            Some(top.ancestors().filter(above).last()?.join(own))
        });
        self.open_entry(below.as_deref().or(self.paths.v2())).at("open the cgroup of init")
    }

    fn open_entry(&self, v2: Option<&Path>) -> Result<Entry> {
        let clone_into = match v2 {
            Some(path) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                Some(files::open(path, flags).call(|| format!("open({})", path.display()))?)
            }
            None => None,
        };
        let v1 = self.paths.directories.iter().filter(|d| d.version == Version::V1);
        let tasks = v1.map(|directory| {
            let path = directory.path.join("tasks");
            let fd = files::open(&path, OFlags::WRONLY);
            fd.call(|| format!("open({})", path.display())).map(|fd| (path, fd))
        });
        Ok(Entry { clone_into, tasks: tasks.collect::<Result<_>>()? })
    }
}
