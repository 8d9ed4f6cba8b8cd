//! Changing the limits of a container that runs.

use std::path::Path;

use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;

use super::resources::{self, Compiler};
use super::{Cgroup, CgroupPaths, DevicePolicy, Version, Write, device_control, files, write};
use crate::error::{At, Call, Error, Kind, Result};

const MAX: &str = "memory.max";

impl Cgroup {
    /// Sets what the resources name; all the rest stays as it is, the device rules too when
    /// there are none. Returns warnings for the log, as in [`super::CgroupPlan::warnings`].
    ///
    /// A memory limit below what is in use never kills: what can be reclaimed is, and when that
    /// is not enough the limit is refused. Meanwhile memory.high is lowered: `throttles` is told
    /// before that what it was, for who is to restore it should the caller die.
    ///
    /// # Errors
    /// As for [`super::CgroupPlan::new`], before the first effect. `State` with the figures for
    /// a memory limit that is too low, `Call` for what the kernel refuses: the limits before it
    /// are set then, those after it are not.
    pub fn update(
        &self,
        resources: &LinuxResources,
        throttles: impl Fn(&str) -> Result<()>,
    ) -> Result<Vec<String>> {
        let mut compiler = Compiler::for_present(&self.paths);
        resources::compile(resources, &mut compiler)?;
        let (writes, warnings) = compiler.finish();
        let rules = resources.devices().as_deref().filter(|rules| !rules.is_empty());
        let policy = rules.map(DevicePolicy::new).transpose()?;
        let check = resources.memory().as_ref().and_then(|memory| memory.check_before_update());
        for write in &writes {
            let Some((directory, limit)) = lowers_memory(write, &self.paths) else { continue };
            shrink(directory, limit, check == Some(true), &throttles).at(write.field.clone())?;
        }
        if let Some(unit) = &self.paths.unit {
            unit.tell(&writes)?;
        }
        write::apply(&writes, &self.paths).at("update limits")?;
        if let Some(policy) = policy {
            device_control::replace(&policy, &self.paths).at("update device rules")?;
        }
        Ok(warnings)
    }
}

/// The v2 directory and its new memory.max, where that is what is written.
fn lowers_memory<'a>(write: &Write, paths: &'a CgroupPaths) -> Option<(&'a Path, u64)> {
    let (Version::V2, [max]) = (write.version, write.choices.as_slice()) else { return None };
    let limit = max.value.parse().ok().filter(|_| max.file == MAX)?;
    Some((paths.v2()?, limit))
}

/// v2 takes any memory.max and kills until the use is below it; v1 answers EBUSY. So on v2 the
/// limit is lowered in steps: memory.high makes who allocates wait, while the kernel reclaims;
/// when that does, memory.max follows, and when it does not, all is as it was.
fn shrink(
    directory: &Path,
    limit: u64,
    only_check: bool,
    throttles: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let used = memory_used(directory)?;
    if used <= limit {
        return Ok(());
    }
    if only_check {
        return Err(too_low(limit, used));
    }
    let high = directory.join("memory.high");
    let before = files::read(&high)?;
    throttles(before.trim())?;
    // The write itself reclaims, as far as that goes in a few rounds.
    files::write(&high, &limit.to_string())?;
    let shrunk = reclaim(directory, limit, used).and_then(|used| match used > limit {
        true => Err(too_low(limit, used)),
        false => files::write(&directory.join(MAX), &limit.to_string()),
    });
    let restored = files::write(&high, before.trim());
    shrunk.map_err(|error| error.with_undo(restored.clone().err().into_iter().collect()))?;
    restored
}

/// Asks the kernel for what is above the limit, and a little more, so that who allocates between
/// two looks has room. Returns what is in use then.
fn reclaim(directory: &Path, limit: u64, used: u64) -> Result<u64> {
    const ROOM: u64 = 1 << 20;
    let wanted = (used - limit).saturating_add(ROOM.min(limit / 16));
    let file = directory.join("memory.reclaim");
    match files::try_write(&file, &wanted.to_string()) {
        // Not that much could be reclaimed; or Linux < 5.19, which has memory.high alone.
        Ok(()) | Err(Errno::AGAIN | Errno::NOENT) => memory_used(directory),
        Err(errno) => Err(errno).call(|| format!("write({})", file.display())),
    }
}

fn too_low(limit: u64, used: u64) -> Error {
    Error::new(Kind::State(format!(
        "{limit} bytes are less than what is in use ({used} bytes): processes would be killed, so \
         the limit stays as it is"
    )))
}

fn memory_used(directory: &Path) -> Result<u64> {
    let content = files::read(&directory.join("memory.current"))?;
    content.trim().parse().map_err(|_| {
        Error::new(Kind::Corrupt(format!("memory.current is {content:?}, which is no number")))
    })
}

#[cfg(test)]
mod tests;
