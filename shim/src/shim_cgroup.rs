//! The cgroup that the shim is put into, when the options name one. Without it, the shim stays
//! in containerd's.

use std::fs;
use std::path::{Component, Path, PathBuf};

use runtime::{Call, Error, Kind, Result};

/// Moves this process: what it starts from here on is in there too. `cgroup` is relative to the
/// root of each hierarchy; those that do not have it are left as they are.
///
/// # Errors
/// When no hierarchy has it, or one does not take the process.
pub(crate) fn join(cgroup: &str) -> Result<()> {
    const MOUNTS: &str = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(MOUNTS).call(|| format!("read({MOUNTS:?})"))?;
    let below = relative(cgroup)?;
    let mut joined = false;
    for hierarchy in hierarchies(&mounts) {
        let procs = Path::new(hierarchy).join(&below).join("cgroup.procs");
        if procs.exists() {
            // 0 is the process that writes.
            fs::write(&procs, "0").call(|| format!("write({procs:?}, \"0\")"))?;
            joined = true;
        }
    }
    if joined { Ok(()) } else { Err(Error::new(Kind::NotFound(format!("shim cgroup {cgroup}")))) }
}

/// The mount points of all hierarchies (proc_pid_mountinfo(5)).
fn hierarchies(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let kind = filesystem.split(' ').next()?;
        matches!(kind, "cgroup" | "cgroup2").then(|| mount.split(' ').nth(4))?
    })
}

fn relative(cgroup: &str) -> Result<PathBuf> {
    let components = Path::new(cgroup).components();
    let names = components.filter(|component| *component != Component::RootDir);
    let names: Vec<Component<'_>> = names.collect();
    if names.iter().any(|name| !matches!(name, Component::Normal(_))) {
        return Err(Error::argument("ShimCgroup", format!("{cgroup:?} has a .. in it")));
    }
    Ok(names.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hierarchy_is_found() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n\
                      30 1 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n\
                      31 1 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found: Vec<&str> = hierarchies(mounts).collect();
        assert_eq!(found, ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"]);
    }

    #[test]
    fn a_cgroup_that_is_nowhere_is_an_error() {
        let error = join("/myshim-no-such-cgroup").unwrap_err();
        assert_eq!(error.to_string(), "shim cgroup /myshim-no-such-cgroup: not found");
        assert!(join("/a/../b").is_err());
    }
}
