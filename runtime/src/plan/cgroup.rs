//! `linux.cgroupsPath` and `linux.resources`: the one place where the plan meets the cgroup code.

use super::host::Host;
use crate::cgroup::{CgroupPlan, Wish};
use crate::error::Result;
use crate::process::CreateRequest;
use crate::spec::Spec;

pub(super) fn plan(request: &CreateRequest, spec: &Spec, host: &Host) -> Result<CgroupPlan> {
    let linux = spec.linux.as_ref();
    let cgroups_path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let wish = Wish {
        option: request.options.systemd_cgroup,
        cgroups_path,
        id: &request.id,
        state_dir: &request.state_dir,
    };
    let driver = wish.driver(host.systemd.as_ref(), &host.cgroups)?;
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let none = std::collections::BTreeMap::new();
    let annotations = spec.annotations.as_ref().unwrap_or(&none);
    CgroupPlan::new(driver, cgroups_path, &request.id, resources, annotations, &host.cgroups)
}
