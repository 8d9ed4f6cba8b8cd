//! What claims about any input look at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{UnitName, Value, annotation};
use crate::error::Result;

/// The cgroup of a unit, below the mount point.
pub(in crate::cgroup) fn unit_path(cgroups_path: &Path) -> Result<PathBuf> {
    let name = UnitName::parse(cgroups_path, "system.slice")?;
    Ok(Path::new("/").join(name.path()))
}

/// The values of the properties that annotations give.
pub(in crate::cgroup) fn annotated(annotations: &BTreeMap<String, String>) -> Result<Vec<Value>> {
    let properties = annotation::properties(annotations, &[])?;
    Ok(properties.into_iter().map(|property| property.value).collect())
}
