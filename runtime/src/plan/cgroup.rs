//! `linux.cgroupsPath` and `linux.resources`: the one place where the plan meets the cgroup code.

use oci_spec::runtime::Linux;

use super::host::Host;
use crate::cgroup::{CgroupPlan, Driver};
use crate::error::{Error, Result};
use crate::process::CreateRequest;

pub(super) fn plan(
    request: &CreateRequest,
    linux: Option<&Linux>,
    host: &Host,
) -> Result<CgroupPlan> {
    if request.options.systemd_cgroup {
        let why = "systemd cgroups are not supported yet (SystemdCgroup)";
        return Err(Error::field("linux.cgroupsPath", why));
    }
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    CgroupPlan::new(Driver::Cgroupfs, path, &request.id, resources, &host.cgroups)
}
