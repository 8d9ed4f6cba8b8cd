//! Offsets of a new time namespace, time_namespaces(7): written before the first process enters
//! it, and never again.

use crate::error::{At, Call, Result};
use crate::plan::TimeOffset;

/// Writes them for the namespace that the children of `pid` will be in.
///
/// # Errors
/// ERANGE for an offset that makes a clock negative or overflow.
pub fn write(pid: i32, offsets: &[TimeOffset]) -> Result<()> {
    if offsets.is_empty() {
        return Ok(());
    }
    let lines: String = offsets
        .iter()
        .map(|offset| format!("{} {} {}\n", offset.clock, offset.secs, offset.nanosecs))
        .collect();
    let path = format!("/proc/{pid}/timens_offsets");
    std::fs::write(&path, &lines)
        .call(|| format!("write({path}, {lines:?})"))
        .at("linux.timeOffsets")
}
