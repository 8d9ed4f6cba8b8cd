//! `linux.cgroupsPath` and `linux.resources`: the one place where the plan meets the cgroup code.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Linux;

use crate::cgroup::CgroupPlan;
use crate::error::{Error, Result};
use crate::process::CreateRequest;

pub(super) fn plan(request: &CreateRequest, linux: Option<&Linux>) -> Result<CgroupPlan> {
    if request.options.systemd_cgroup {
        let why = "systemd cgroups are not supported yet (SystemdCgroup)";
        return Err(Error::field("linux.cgroupsPath", why));
    }
    let given = linux.and_then(|linux| linux.cgroups_path().as_deref());
    Ok(CgroupPlan { path: path(given, &request.id)? })
}

/// Absolute below every hierarchy's root; `/<id>` where the spec names none. A relative one is
/// relative to that root too.
fn path(given: Option<&Path>, id: &str) -> Result<PathBuf> {
    let given = given.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(id));
    let mut path = PathBuf::from("/");
    for component in given.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let why = format!("{given:?} leads out of the hierarchy");
                return Err(Error::field("linux.cgroupsPath", why));
            }
        }
    }
    if path == Path::new("/") {
        return Err(Error::field("linux.cgroupsPath", "is the root of the hierarchy"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_normalised() {
        let of = |given: &str| path(Some(Path::new(given)), "c1").unwrap();
        assert_eq!(of("/default/c1"), Path::new("/default/c1"));
        assert_eq!(of("a//b/./c/"), Path::new("/a/b/c"));
        assert_eq!(of(""), Path::new("/c1"));
        assert_eq!(path(None, "c1").unwrap(), Path::new("/c1"));
    }

    #[test]
    fn a_path_that_leads_out_or_nowhere_is_refused() {
        for given in ["/a/../../b", "..", "/", "."] {
            let refusal = path(Some(Path::new(given)), "c1").unwrap_err().to_string();
            assert!(refusal.starts_with("linux.cgroupsPath: "), "{refusal}");
        }
    }
}
