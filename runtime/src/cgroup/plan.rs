//! What is to be made, decided before the first effect.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::devices::DevicePolicy;
use super::resources::{self, Compiler};
use super::{Layout, UnitPlan, Write, path};
use crate::error::Result;

/// Who makes the cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// This runtime, by mkdir(2) in the cgroup file systems.
    #[default]
    Cgroupfs,
    /// systemd, as the cgroup of a transient unit.
    Systemd(UnitPlan),
}

/// What is to be made: computed at plan time from `linux.cgroupsPath` and `linux.resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Who makes it.
    pub driver: Driver,
    /// Path below each hierarchy's mount point, absolute and normalised.
    pub path: PathBuf,
    /// The limits, in the order they are written.
    pub writes: Vec<Write>,
    /// Which devices may be used. None: no rules, see [`CgroupPlan::without_device_rules`].
    pub devices: Option<DevicePolicy>,
    /// What the spec asks for and no kernel does any more, or this version of cgroups does not
    /// know and does not need: for the log.
    pub warnings: Vec<String>,
}

impl CgroupPlan {
    /// Decides where the cgroup of container `id` is and what is written there.
    ///
    /// Without systemd, a relative or absent `cgroups_path` is placed below `/myshim`. A limit of
    /// 0 means “not given”, as everywhere in the OCI world, except for `pids.limit`. With systemd,
    /// `annotations` may have properties of the unit.
    ///
    /// # Errors
    /// `Field` with the JSON path for a value that cannot be right; `Unsupported` where no
    /// hierarchy of `layout` has the controller that a limit needs.
    pub fn new(
        mut driver: Driver,
        cgroups_path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
        annotations: &BTreeMap<String, String>,
        layout: &Layout,
    ) -> Result<CgroupPlan> {
        let path = match &driver {
            Driver::Cgroupfs => path::resolve(cgroups_path, id)?,
            Driver::Systemd(unit) => unit.path.clone(),
        };
        let mut compiler = Compiler::for_new(layout);
        let mut rules = &Vec::new();
        if let Some(given) = resources {
            resources::compile(given, &mut compiler)?;
            rules = given.devices().as_ref().unwrap_or(rules);
        }
        let (writes, warnings) = compiler.finish();
        if let Driver::Systemd(unit) = &mut driver {
            unit.complete(&writes, annotations)?;
        }
        let devices = Some(DevicePolicy::new(rules)?);
        Ok(CgroupPlan { driver, path, writes, devices, warnings })
    }
}

impl CgroupPlan {
    /// For who is not root of the host: neither version lets such a one set device rules. Nothing
    /// can be reached without them but what the mode bits of the host's devices allow the user.
    pub fn without_device_rules(&mut self) {
        self.devices = None;
        self.warnings.push("no device rules for the container: they need root of the host".into());
    }

    /// The unit to be made, when systemd makes the cgroup.
    pub fn unit(&self) -> Option<&UnitPlan> {
        match &self.driver {
            Driver::Cgroupfs => None,
            Driver::Systemd(unit) => Some(unit),
        }
    }
}
