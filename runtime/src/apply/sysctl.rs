//! Kernel parameters of the container's namespaces.

use std::path::Path;

use crate::sys::procfs::Procfs;
use crate::{At, Result};

/// Writes each value to its file below /proc/sys. The caller is in the container's namespaces:
/// the kernel takes the parameters' owner from the writer.
///
/// # Errors
/// ENOENT: no such parameter (in this namespace); EINVAL: the value.
pub fn apply(procfs: &Procfs, sysctls: &[(String, String)]) -> Result<()> {
    for (path, value) in sysctls {
        procfs
            .write(Path::new("sys").join(path), value.as_bytes())
            .at_with(|| format!("sysctl {path}"))?;
    }
    Ok(())
}
