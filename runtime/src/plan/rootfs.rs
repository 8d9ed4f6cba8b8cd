//! `root`, and the properties about paths in it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;

use super::host::{Host, Lsm};
use super::namespaces::Planned;
use super::{Mount, Namespace, Propagation, Rootfs, RootfsSource, devices, options};
use crate::error::{Error, Result};
use crate::process::CreateRequest;
use crate::spec::Spec;

pub(super) fn plan(
    request: &CreateRequest,
    spec: &Spec,
    namespaces: &Planned,
    mounts: Vec<Mount>,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<Rootfs> {
    let linux = spec.linux.as_ref();
    let source = if request.rootfs.is_empty() {
        RootfsSource::Directory(site(request, spec)?)
    } else {
        RootfsSource::Mounts(request.rootfs.clone())
    };
    let masked = linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default();
    let readonly = linux.and_then(|linux| linux.readonly_paths().as_deref()).unwrap_or_default();
    let listed_devices = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    Ok(Rootfs {
        source,
        readonly: root(spec)?.readonly.unwrap_or(false),
        propagation: propagation(linux, request.options.no_pivot_root)?,
        pivot: !request.options.no_pivot_root,
        mounts,
        devices: devices::plan(listed_devices, warnings)?,
        masked_paths: paths(masked, "linux.maskedPaths")?,
        readonly_paths: paths(readonly, "linux.readonlyPaths")?,
        mount_label: mount_label(linux, host)?,
        in_new_user_namespace: namespaces.namespaces.user == Namespace::New,
    })
}

/// `root.path`, made absolute.
pub(super) fn site(request: &CreateRequest, spec: &Spec) -> Result<PathBuf> {
    let root = root(spec)?;
    if root.path.as_os_str().is_empty() {
        return Err(Error::field("root.path", "is empty"));
    }
    Ok(request.bundle.join(&root.path))
}

fn root(spec: &Spec) -> Result<&crate::spec::Root> {
    spec.root.as_ref().ok_or_else(|| Error::field("root", "missing"))
}

/// Always of the whole tree: a mount of the host that stayed shared would carry the container's
/// mounts out to it.
fn propagation(linux: Option<&Linux>, no_pivot_root: bool) -> Result<Propagation> {
    let given = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    if given.is_empty() {
        return Ok(Propagation::Slave);
    }
    match options::propagation(given) {
        // Without pivot_root the host's root stays below; what is private in it keeps mounts alive.
        Some((Propagation::Private, _)) if no_pivot_root => {
            Err(Error::field("linux.rootfsPropagation", "private is not safe without pivot_root"))
        }
        Some((propagation, _)) => Ok(propagation),
        None => {
            Err(Error::field("linux.rootfsPropagation", format!("{given:?} is not a propagation")))
        }
    }
}

fn paths(listed: &[String], field: &str) -> Result<Vec<PathBuf>> {
    let path = |(index, path): (usize, &String)| {
        if !Path::new(path).is_absolute() {
            return Err(Error::field(
                format!("{field}[{index}]"),
                format!("{path:?} is not absolute"),
            ));
        }
        Ok(PathBuf::from(path))
    };
    listed.iter().enumerate().map(path).collect()
}

fn mount_label(linux: Option<&Linux>, host: &Host) -> Result<Option<String>> {
    match linux.and_then(|linux| linux.mount_label().as_deref()) {
        None | Some("") => Ok(None),
        Some(label) if host.lsm == Lsm::SeLinux => Ok(Some(label.to_owned())),
        Some(_) => Err(Error::field("linux.mountLabel", "SELinux is not enabled on this host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::process::CreateOptions;

    fn plan_with(options: CreateOptions, root: &str, linux: &str) -> Result<Rootfs> {
        let text = format!(
            r#"{{"ociVersion":"1.3.0",{root}"process":{{"cwd":"/","args":["a"]}},
            "linux":{{{linux}"namespaces":[{{"type":"mount"}}]}}}}"#
        );
        let request = CreateRequest {
            id: "c1".to_owned(),
            bundle: PathBuf::from("/bundle"),
            state_dir: PathBuf::from("/state"),
            rootfs: Vec::new(),
            options,
            pid_file: None,
        };
        let spec = Spec::from_json(text.as_bytes()).unwrap();
        Plan::new(&request, &spec, &Host::example()).map(|plan| plan.rootfs)
    }

    const ROOT: &str = r#""root":{"path":"rootfs"},"#;

    fn plan_of(linux: &str) -> Result<Rootfs> {
        plan_with(CreateOptions::default(), ROOT, linux)
    }

    fn refusal(linux: &str) -> String {
        plan_of(linux).unwrap_err().to_string()
    }

    #[test]
    fn a_root_is_required_and_relative_to_the_bundle() {
        let source = |root| plan_with(CreateOptions::default(), root, "").map(|root| root.source);
        let directory = RootfsSource::Directory("/bundle/rootfs".into());
        assert_eq!(source(ROOT).unwrap(), directory);
        let directory = RootfsSource::Directory("/srv/root".into());
        assert_eq!(source(r#""root":{"path":"/srv/root"},"#).unwrap(), directory);
        assert_eq!(source("").unwrap_err().to_string(), "root: missing");
        let empty = source(r#""root":{"path":""},"#).unwrap_err().to_string();
        assert_eq!(empty, "root.path: is empty");
    }

    #[test]
    fn propagation_is_slave_unless_said_otherwise() {
        let propagation =
            |word: &str| plan_of(&format!(r#""rootfsPropagation":"{word}","#)).unwrap().propagation;
        assert_eq!(propagation(""), Propagation::Slave);
        assert_eq!(plan_of("").unwrap().propagation, Propagation::Slave);
        assert_eq!(propagation("rshared"), Propagation::Shared);
        assert_eq!(propagation("private"), Propagation::Private);
        assert_eq!(propagation("unbindable"), Propagation::Unbindable);
        assert_eq!(
            refusal(r#""rootfsPropagation":"ro","#),
            "linux.rootfsPropagation: \"ro\" is not a propagation"
        );
    }

    #[test]
    fn private_propagation_needs_pivot_root() {
        let options = || CreateOptions { no_pivot_root: true, ..CreateOptions::default() };
        let private = plan_with(options(), ROOT, r#""rootfsPropagation":"rprivate","#);
        assert_eq!(
            private.unwrap_err().to_string(),
            "linux.rootfsPropagation: private is not safe without pivot_root"
        );
        assert!(!plan_with(options(), ROOT, "").unwrap().pivot);
    }

    #[test]
    fn masked_and_read_only_paths_are_absolute() {
        assert_eq!(
            refusal(r#""maskedPaths":["/proc/acpi","proc/keys"],"#),
            "linux.maskedPaths[1]: \"proc/keys\" is not absolute"
        );
    }

    #[test]
    fn a_mount_label_needs_selinux() {
        assert_eq!(
            refusal(r#""mountLabel":"system_u:object_r:container_file_t:s0","#),
            "linux.mountLabel: SELinux is not enabled on this host"
        );
        assert_eq!(plan_of(r#""mountLabel":"","#).unwrap().mount_label, None);
    }
}
