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
    let mount = &namespaces.namespaces.mount;
    Ok(Rootfs {
        source,
        readonly: root(spec)?.readonly.unwrap_or(false),
        propagation: propagation(linux, request.options.no_pivot_root)?,
        pivot: !request.options.no_pivot_root,
        mounts,
        devices: devices::plan(listed_devices, warnings)?,
        masked_paths: paths(masked, "linux.maskedPaths", mount)?,
        readonly_paths: paths(readonly, "linux.readonlyPaths", mount)?,
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

fn paths(listed: &[String], field: &str, mount: &Namespace) -> Result<Vec<PathBuf>> {
    if !listed.is_empty() && *mount == Namespace::Host {
        // They would be the host's own paths.
        return Err(Error::field(field, "needs a mount namespace in linux.namespaces"));
    }
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
