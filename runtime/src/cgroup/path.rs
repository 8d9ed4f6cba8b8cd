//! Where a container's cgroup is to be, below the mount point of each hierarchy.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// Below this the containers are whose path is relative or not given. It is at the top, not
/// below the caller's own cgroup as with runc: on v2 a cgroup with processes in it cannot have
/// limits for its children (cgroups(7), “no internal processes”).
const DEFAULT_PARENT: &str = "/myshim";

const FIELD: &str = "linux.cgroupsPath";

/// `linux.cgroupsPath` as an absolute, normalised path below every hierarchy's mount point.
///
/// # Errors
/// `Field` for a path that climbs out by `..`, names the top itself, or has a byte that no
/// cgroup's name may have.
pub(super) fn resolve(cgroups_path: Option<&Path>, id: &str) -> Result<PathBuf> {
    let given = match cgroups_path {
        Some(path) if !path.as_os_str().is_empty() => path,
        _ => Path::new(id),
    };
    // The kernel refuses a newline in a name, since it would forge lines in /proc/pid/cgroup.
    if given.as_os_str().as_bytes().iter().any(|byte| matches!(byte, 0 | b'\n')) {
        return Err(Error::field(FIELD, "has a NUL or a newline in it"));
    }
    let top = match given.is_absolute() {
        true => Path::new("/"),
        false => Path::new(DEFAULT_PARENT),
    };
    let normalised = normalise(given)?;
    if normalised.as_os_str().is_empty() {
        return Err(Error::field(FIELD, "names the top of the hierarchy"));
    }
    Ok(top.join(normalised))
}

/// Without `.`, `..` and `/` at the beginning; lexically, since a cgroup tree has no links.
fn normalise(path: &Path) -> Result<PathBuf> {
    let mut normalised = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normalised.push(name),
            Component::ParentDir => {
                if !normalised.pop() {
                    return Err(Error::field(FIELD, "climbs out of the hierarchy by `..`"));
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(normalised)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(path: &str) -> String {
        match resolve(Some(Path::new(path)), "web") {
            Ok(path) => path.display().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_absolute_path_is_kept_and_normalised() {
        assert_eq!(resolved("/default/web"), "/default/web");
        assert_eq!(resolved("//a/./b/../c/"), "/a/c");
    }

    #[test]
    fn a_relative_or_absent_path_is_below_the_default_parent() {
        assert_eq!(resolved("pods/web"), "/myshim/pods/web");
        assert_eq!(resolved(""), "/myshim/web");
        assert_eq!(resolve(None, "web").unwrap(), Path::new("/myshim/web"));
    }

    #[test]
    fn a_path_that_is_not_below_the_top_is_refused_with_the_field() {
        for path in ["/", "/..", "/a/../..", "a/../../..", "..", "/a/..", "/a\nb"] {
            assert!(resolved(path).starts_with("linux.cgroupsPath: "), "{path:?}");
        }
    }
}
