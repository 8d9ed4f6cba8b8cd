//! Control groups: cgroup v1, v2 and the two side by side, behind one model.
//!
//! A host has a [`Layout`]: any number of v1 hierarchies and at most one v2 hierarchy, each with
//! its controllers. A container's cgroup is one directory in each of them, all at the same path
//! below the hierarchy's mount point. A limit goes to the hierarchy that has its controller, in
//! the words of that version.
//!
//! ```text
//! linux.resources ─▶ CgroupPlan ─▶ Cgroup::create ─▶ Entry (joined by init)
//!                    (writes)      (directories,
//!                                   limits, devices) ─▶ pids, kill, freeze, update, Stats, remove
//! ```
//!
//! Everything here is plain and blocking. [`Stats::read`] and [`OomWatch`] never wait for
//! anything but the kernel's own file handlers, so the daemon may call them.

mod absent;
mod create;
mod delegate;
mod device_control;
mod device_program;
mod devices;
mod entry;
mod files;
mod freezer;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod kernel_log;
mod layout;
mod limit_hit;
mod oom;
mod path;
mod plan;
mod processes;
mod remove;
mod resources;
pub mod stats;
mod systemd;
mod update;
mod write;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use create::Created;
pub use devices::{DeviceAccess, DeviceAction, DeviceClass, DevicePolicy, DeviceRule};
pub use entry::Entry;
pub use freezer::Freeze;
pub use layout::{Access, Hierarchy, Layout};
pub use limit_hit::LimitHit;
pub use oom::{Kills, OomCounts, OomKills, OomWatch, Readiness};
pub use plan::{CgroupPlan, Driver};
pub use stats::Stats;
pub use systemd::{Manager, Property, Unit, UnitPlan, Wish};
pub use write::{Choice, Missing, Write};

pub use crate::dbus::Value;

/// The two versions of the kernel's interface, cgroups(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Version {
    /// One hierarchy for each controller, or for a few of them.
    V1,
    /// The unified hierarchy.
    V2,
}

/// Where a container's cgroups are; part of the state file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPaths {
    /// One directory per hierarchy.
    pub directories: Vec<CgroupDirectory>,
    /// The unit of systemd that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// A container's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupDirectory {
    /// The hierarchy's version.
    pub version: Version,
    /// Controllers that this directory has the files of; empty for a named v1 hierarchy.
    pub controllers: Vec<String>,
    /// Absolute path on the host.
    pub path: PathBuf,
}

impl CgroupPaths {
    /// The directory of a v1 controller, or `None`.
    pub fn v1(&self, controller: &str) -> Option<&Path> {
        self.directories
            .iter()
            .find(|d| d.version == Version::V1 && d.controllers.iter().any(|c| c == controller))
            .map(|d| d.path.as_path())
    }

    /// The directory in the v2 hierarchy, or `None`.
    pub fn v2(&self) -> Option<&Path> {
        self.directories.iter().find(|d| d.version == Version::V2).map(|d| d.path.as_path())
    }

    /// The directory with all of the container's processes that is best to ask about them: the
    /// v2 one, which has events and kill, or else any v1 one.
    fn of_processes(&self) -> Option<&CgroupDirectory> {
        self.directories.iter().max_by_key(|d| d.version)
    }
}

/// A container's cgroup: the handle for all that is done to it after its creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    paths: CgroupPaths,
}

impl Cgroup {
    /// The cgroup at these paths. Touches nothing: what is not there any more fails (or, for
    /// [`Cgroup::remove`] and [`Cgroup::pids`], is no error) when it is used.
    pub fn open(paths: &CgroupPaths) -> Cgroup {
        Cgroup { paths: paths.clone() }
    }

    /// Where it is, for the state file.
    pub fn paths(&self) -> &CgroupPaths {
        &self.paths
    }
}
