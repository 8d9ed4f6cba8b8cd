//! Control groups: cgroup v1, v2 and the two side by side, behind one model.
//!
//! A host has a [`Layout`]: any number of v1 hierarchies and at most one v2 hierarchy, each with
//! its controllers. A container's cgroup is one directory in each of them. A limit goes to the
//! hierarchy that has its controller, in the words of that version.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is to be made: computed at plan time from `linux.cgroupsPath` and `linux.resources`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// Path below each hierarchy's root, absolute and normalised.
    pub path: PathBuf,
}

/// Where a container's cgroups are; part of the state file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPaths {
    /// One directory per hierarchy.
    pub directories: Vec<CgroupDirectory>,
}

/// A container's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupDirectory {
    /// 1 or 2.
    pub version: u8,
    /// The hierarchy's controllers; empty for named v1 hierarchies.
    pub controllers: Vec<String>,
    /// Absolute path on the host.
    pub path: PathBuf,
}
