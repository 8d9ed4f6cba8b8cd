//! `containerd.runc.v1.Options`.

use containerd_shim_protos::shim::oci;
use protobuf::Message;
use runtime::Result;

use super::{Options, broken, warn_of};

pub(super) fn runc(value: &[u8]) -> Result<Options> {
    let given = oci::Options::parse_from_bytes(value).map_err(broken)?;
    let mut warnings = Vec::new();
    warn_of(&mut warnings, "binary_name", &given.binary_name);
    warn_of(&mut warnings, "root", &given.root);
    Ok(Options {
        no_pivot_root: given.no_pivot_root,
        no_new_keyring: given.no_new_keyring,
        systemd_cgroup: given.systemd_cgroup,
        shim_cgroup: given.shim_cgroup,
        io_uid: given.io_uid,
        io_gid: given.io_gid,
        criu_image_path: given.criu_image_path,
        criu_work_path: given.criu_work_path,
        warnings,
    })
}
