//! `linux.cgroupsPath` and `linux.resources`: the one place where the plan meets the cgroup code.

use rustix::mount::MountAttrFlags;

use super::host::{Host, Privilege};
use super::{IdMaps, MountKind, Namespace, Plan};
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
    let (id, layout) = (&request.id, &host.cgroups);
    let mut plan = CgroupPlan::new(driver, cgroups_path, id, resources, annotations, layout)?;
    if host.privilege != Privilege::Root {
        plan.without_device_rules();
    }
    Ok(plan)
}

impl Plan {
    /// Who is to own the container's v2 cgroup, as a user id of the host: the user of its process,
    /// when it sees its own cgroup only and has it mounted for writing (config-linux.md, “Cgroup
    /// ownership”). None: it stays the runtime's.
    pub fn cgroup_owner(&self) -> Option<u32> {
        let writable = |mount: &super::Mount| {
            let read_only = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
            let attributes = mount.attr_set | mount.rec_attr_set;
            matches!(mount.kind, MountKind::Cgroup) && attributes & read_only == 0
        };
        let delegated =
            self.namespaces.cgroup == Namespace::New && self.rootfs.mounts.iter().any(writable);
        let maps = self.id_maps.as_ref().or(self.joined_id_maps.as_ref());
        let uid = self.process.uid;
        delegated.then(|| maps.map_or(Some(uid), |maps| on_host(maps, uid)))?
    }
}

fn on_host(maps: &IdMaps, uid: u32) -> Option<u32> {
    maps.uids.iter().find_map(|line| {
        let offset = uid.checked_sub(line.container).filter(|&offset| offset < line.size)?;
        line.host.checked_add(offset)
    })
}
