//! From what the bundle alleges to what will be done.
//!
//! [`Plan::new`] answers every question before the first effect; nothing after it reads the spec.
//! [`ProcessPlan::new`] does the same for a process that comes later. What is refused is refused
//! here, as an [`Error::field`] with the JSON path of the property. On entry the spec has the
//! right types; on exit every value is one that the kernel understands, strings are parsed, lists
//! are in the order in which they are worked off, and compiling is done.
//!
//! A plan renders as JSON, for snapshot tests and for debugging.

pub(crate) mod capabilities;
mod cgroup;
mod devices;
mod exec;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod hex;
mod hooks;
pub mod host;
mod idmap;
pub mod mounts;
mod namespaces;
mod net_devices;
pub(crate) mod options;
mod process;
mod rdt;
mod rootfs;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
mod sysctl;
mod types;

#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod timing;

use crate::error::{Error, Result};
use crate::features;
use crate::process::CreateRequest;
use crate::spec::Spec;

pub use exec::{ExecTemplate, ProcessPlan};
pub use host::Host;
pub(crate) use mounts::is_context;
pub use types::*;

impl Plan {
    /// Plans a container.
    ///
    /// # Errors
    /// [`Error::field`] for every property that is wrong in itself, does not fit another one, or
    /// is not supported; a failed system call where the host has to be asked (`linux.sysctl` with
    /// a joined network namespace, memory for the seccomp compiler).
    pub fn new(request: &CreateRequest, spec: &Spec, host: &Host) -> Result<Plan> {
        let mut warnings = Vec::new();
        let linux = spec.linux.as_ref();
        let planned = namespaces::plan(spec, host)?;
        namespaces::require_mount(&planned.namespaces)?;
        let listed = spec.mounts.as_deref().unwrap_or_default();
        let mounts = mounts::plan(listed, &request.bundle, &planned, &mut warnings)?;
        let rootfs = rootfs::plan(request, spec, &planned, mounts, host, &mut warnings)?;
        let process = spec.process.as_ref().ok_or_else(|| Error::field("process", "missing"))?;
        let new_keyring = !request.options.no_new_keyring;
        let context = process::Context {
            host,
            id_maps: planned.known_id_maps(),
            inherited: process::Inherited::Init { linux, new_keyring },
        };
        let process = process::plan(process, &context, &mut warnings)?;
        let sysctl = linux.and_then(|linux| linux.sysctl().as_ref());
        let sysctl = sysctl.map(|listed| sysctl::plan(listed, &planned.namespaces, host));
        let devices = linux.and_then(|linux| linux.net_devices().as_ref());
        let devices =
            devices.map(|listed| net_devices::plan(listed, &planned.namespaces.net, host));
        let rdt = linux.and_then(|linux| linux.intel_rdt().as_ref());
        let rdt = rdt.map(|rdt| rdt::plan(rdt, &request.id, &mut warnings));
        let profile = linux.and_then(|linux| linux.seccomp().as_ref());
        let plan = Plan {
            id: request.id.clone(),
            bundle: request.bundle.clone(),
            site: rootfs::site(request, spec)?,
            oci_version: spec.oci_version.clone(),
            annotations: spec.annotations.clone().unwrap_or_default(),
            cgroup: cgroup::plan(request, spec, host)?,
            rootfs,
            sysctls: sysctl.transpose()?.unwrap_or_default(),
            process,
            hooks: hooks::plan(spec.hooks.as_ref())?,
            net_devices: devices.transpose()?.unwrap_or_default(),
            intel_rdt: rdt.transpose()?,
            // Last, as it takes the longest.
            seccomp: profile.map(|profile| seccomp::plan(profile, host)).transpose()?,
            namespaces: planned.namespaces,
            id_maps: planned.id_maps,
            joined_id_maps: planned.joined_id_maps,
            hostname: planned.hostname,
            domainname: planned.domainname,
            warnings,
        };
        features::SUPPORTED.check(&plan)?;
        Ok(plan)
    }
}
