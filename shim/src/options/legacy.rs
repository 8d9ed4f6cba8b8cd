//! The options of containerd 1.x's own types, which no crate has.

use runtime::{Error, Result};

use super::message::{Field, fields, utf8};
use super::{Options, warn_of};

/// `containerd.linux.runc.CreateOptions`; what is only for a checkpoint is not looked at.
pub(super) fn legacy_create(value: &[u8]) -> Result<Options> {
    let mut options = Options::default();
    for (number, field) in fields(value)? {
        match (number, field) {
            (1, Field::Number(flag)) => options.no_pivot_root = flag != 0,
            (8, Field::Number(flag)) => options.no_new_keyring = flag != 0,
            (9, Field::Bytes(path)) => options.shim_cgroup = utf8("shim_cgroup", path)?,
            (10, Field::Number(uid)) => options.io_uid = id("io_uid", uid)?,
            (11, Field::Number(gid)) => options.io_gid = id("io_gid", gid)?,
            (12, Field::Bytes(path)) => options.criu_work_path = utf8("criu_work_path", path)?,
            (13, Field::Bytes(path)) => options.criu_image_path = utf8("criu_image_path", path)?,
            _ => {}
        }
    }
    Ok(options)
}

/// `containerd.linux.runc.RuncOptions`.
pub(super) fn legacy_runc(value: &[u8]) -> Result<Options> {
    let mut options = Options::default();
    for (number, field) in fields(value)? {
        match (number, field) {
            (1, Field::Bytes(name)) => {
                warn_of(&mut options.warnings, "runtime", &utf8("runtime", name)?);
            }
            (2, Field::Bytes(root)) => {
                warn_of(&mut options.warnings, "runtime_root", &utf8("runtime_root", root)?);
            }
            (4, Field::Number(flag)) => options.systemd_cgroup = flag != 0,
            _ => {}
        }
    }
    Ok(options)
}

fn id(name: &str, value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::argument(name, format!("{value} is too large")))
}
