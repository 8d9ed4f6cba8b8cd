//! The state of a container as the OCI runtime spec writes it (runtime.md, "State"): what hooks
//! and seccomp agents are told.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::plan::{ExecTemplate, Plan};

/// `status` of the OCI state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the spec's")]
pub enum Status {
    Creating,
    Created,
    Running,
    /// Not the spec's, which allows more: all its processes are stopped by the freezer.
    Paused,
    Stopped,
}

/// The OCI state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState<'a> {
    /// The version of the spec that the bundle is written for.
    pub oci_version: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// Where it is in its life cycle.
    pub status: Status,
    /// Its init, in the pid namespace of who is told; None when there is none (any more).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The bundle's absolute path.
    pub bundle: &'a Path,
    /// The spec's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

impl<'a> OciState<'a> {
    /// The state of the plan's container.
    pub fn of(plan: &'a Plan, status: Status, pid: Option<i32>) -> OciState<'a> {
        OciState {
            oci_version: &plan.oci_version,
            id: &plan.id,
            status,
            pid,
            bundle: &plan.bundle,
            annotations: &plan.annotations,
        }
    }

    /// The state of a container that is there.
    pub fn of_container(
        container: &'a ExecTemplate,
        status: Status,
        pid: Option<i32>,
    ) -> OciState<'a> {
        OciState {
            oci_version: &container.oci_version,
            id: &container.id,
            status,
            pid,
            bundle: &container.bundle,
            annotations: &container.annotations,
        }
    }

    /// As JSON.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] when the bundle's path is not UTF-8.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        to_json(self)
    }
}

/// Any of the documents that others are told, as JSON.
pub(super) fn to_json<T: Serialize>(document: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(document)
        .map_err(|error| Error::new(Kind::Corrupt(format!("state as JSON: {error}"))))
}
