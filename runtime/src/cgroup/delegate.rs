//! Handing a cgroup over to the container, config-linux.md of the OCI spec, “Cgroup ownership”.

use std::path::Path;

use rustix::fs::Uid;
use rustix::io::Errno;

use super::{Cgroup, files};
use crate::error::{At, Call, Result};

/// What cgroups(7) says may be delegated, for kernels that do not list it (Linux < 4.15).
const ALWAYS: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

impl Cgroup {
    /// Makes `uid` (on the host) the owner of the v2 directory and of the files by which it
    /// manages cgroups below it. The limits of the container itself stay root's. For a container
    /// with a cgroup namespace of its own and a writable mount of it. Without a v2 cgroup there
    /// is nothing to do: v1 is not safe to delegate.
    ///
    /// # Errors
    /// `Call` for what the kernel refuses.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        const STEP: &str = "delegate the cgroup";
        let Some(directory) = self.paths.v2() else { return Ok(()) };
        let uid = Uid::from_raw(uid);
        chown(directory, uid).call(|| format!("chown({})", directory.display())).at(STEP)?;
        let listed = match files::try_read(Path::new("/sys/kernel/cgroup/delegate")) {
            Ok(listed) => listed,
            Err(Errno::NOENT) => ALWAYS.to_owned(),
            Err(errno) => return Err(errno).call(|| "read(/sys/kernel/cgroup/delegate)".into()),
        };
        for file in listed.lines() {
            let path = directory.join(file);
            match chown(&path, uid) {
                // The list is of all files, those of controllers that are not enabled as well.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(errno).call(|| format!("chown({})", path.display())).at(STEP);
                }
            }
        }
        Ok(())
    }
}

fn chown(path: &Path, uid: Uid) -> rustix::io::Result<()> {
    rustix::fs::chown(path, Some(uid), None)
}
