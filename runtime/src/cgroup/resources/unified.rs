//! `linux.resources.unified`: files of v2 by name.

use std::collections::{BTreeMap, HashMap};

use super::{Compiler, Version, controller_of, unsupported};
use crate::error::{Error, Result};

/// Files that do something to processes, where a resource is a limit or a setting.
const NO_RESOURCES: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze"];

/// In the order of their names; a value of several lines is several writes, since the kernel
/// takes one line with each.
pub(super) fn compile(unified: &HashMap<String, String>, to: &mut Compiler<'_>) -> Result<()> {
    for (file, value) in unified.iter().collect::<BTreeMap<_, _>>() {
        let field = format!("linux.resources.unified[{file:?}]");
        check(&field, file, to)?;
        for line in value.lines() {
            to.write(&field, Version::V2, file, line);
        }
    }
    Ok(())
}

fn check(field: &str, file: &str, to: &Compiler<'_>) -> Result<()> {
    if file.contains(['/', '\0']) || !file.contains('.') || file.starts_with('.') {
        return Err(Error::field(field, "must be a file name like CONTROLLER.PARAMETER"));
    }
    if NO_RESOURCES.contains(&file) {
        return Err(Error::field(field, "acts on processes and is no resource"));
    }
    if to.v2.is_none() {
        return Err(unsupported(field, "needs cgroup v2, which is not mounted"));
    }
    let controller = controller_of(file);
    // Pressure files are there without their controller.
    let in_every_cgroup = controller.is_empty() || file.ends_with(".pressure");
    match in_every_cgroup || to.has_v2(controller) {
        true => Ok(()),
        false => Err(unsupported(field, &format!("cgroup v2 has no controller {controller} here"))),
    }
}
