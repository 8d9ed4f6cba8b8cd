//! Putting device rules in force: through the v1 controller, or a program on the v2 cgroup.

use std::path::Path;

use rustix::fs::OFlags;

use super::devices::{DeviceAction, DevicePolicy, DeviceRule};
use super::{CgroupPaths, device_program, files};
use crate::error::{At, Call, Error, Kind, Result};
use crate::sys::bpf;

/// Puts the policy in force in a new cgroup.
///
/// # Errors
/// `Unsupported` where neither version can do it: a container without device rules could reach
/// all of the host's disks.
pub(super) fn enforce(policy: &DevicePolicy, paths: &CgroupPaths) -> Result<()> {
    if let Some(directory) = paths.v1("devices") {
        return write_lines(directory, &policy.v1_lines());
    }
    replace_program(policy, paths)
}

/// Replaces the rules in force by those of the policy. A device that both allow stays allowed
/// at each moment, and one that both deny stays denied; except on v1 when either allows all by
/// default, since devices.list does not show what is denied then.
pub(super) fn replace(policy: &DevicePolicy, paths: &CgroupPaths) -> Result<()> {
    let Some(directory) = paths.v1("devices") else { return replace_program(policy, paths) };
    let list = files::read(&directory.join("devices.list"))?;
    let present: Option<Vec<DeviceRule>> = list.lines().map(DeviceRule::parse).collect();
    match (policy.default, present) {
        (DeviceAction::Deny, Some(present)) => {
            let dropped = difference(&present, &policy.exceptions);
            let added = difference(&policy.exceptions, &present);
            let dropped = dropped.map(|rule| ("devices.deny", rule.to_string()));
            let added = added.map(|rule| ("devices.allow", rule.to_string()));
            write_lines(directory, &added.chain(dropped).collect::<Vec<_>>())
        }
        // The line `a *:* rwm` says that all is allowed by default.
        _ => write_lines(directory, &policy.v1_lines()),
    }
}

/// What the rules of `these` allow beyond those of `others` for the same devices.
fn difference(these: &[DeviceRule], others: &[DeviceRule]) -> impl Iterator<Item = DeviceRule> {
    these.iter().filter_map(|rule| match others.iter().find(|other| other.names_same(rule)) {
        Some(other) => rule.without(other.access),
        None => Some(*rule),
    })
}

/// The kernel takes one rule per write; a file stays open for the run of lines that go to it.
fn write_lines(directory: &Path, lines: &[(&'static str, String)]) -> Result<()> {
    for run in lines.chunk_by(|a, b| a.0 == b.0) {
        let Some((file, _)) = run.first() else { continue };
        let path = directory.join(file);
        let fd = files::open(&path, OFlags::WRONLY);
        let fd = fd.call(|| format!("open({})", path.display()))?;
        for (_, line) in run {
            files::write_fd(&fd, line).call(|| format!("write({}, {line:?})", path.display()))?;
        }
    }
    Ok(())
}

/// Attaches the new program before the old one is detached: while there are two, only what both
/// allow is allowed. Programs of others (systemd's DeviceAllow=) stay.
fn replace_program(policy: &DevicePolicy, paths: &CgroupPaths) -> Result<()> {
    let Some(directory) = paths.v2() else {
        return Err(Error::new(Kind::Unsupported(
            "the container is in no cgroup that can restrict devices (devices of v1, or v2)".into(),
        )));
    };
    let cgroup = files::open(directory, OFlags::RDONLY | OFlags::DIRECTORY)
        .call(|| format!("open({})", directory.display()))?;
    let old = bpf::own_device_programs(&cgroup)?;
    let new = bpf::load_device_program(&device_program::program(policy))?;
    bpf::attach_device_program(&cgroup, &new)?;
    for program in &old {
        bpf::detach_device_program(&cgroup, program).at("detach the old device program")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
