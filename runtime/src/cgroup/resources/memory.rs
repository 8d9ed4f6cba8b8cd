//! `linux.resources.memory`.

use oci_spec::runtime::LinuxMemory;

use super::{Compiler, Missing, Version, or_max};
use crate::error::{Error, Result};

const LIMIT: &str = "linux.resources.memory.limit";
const SWAP: &str = "linux.resources.memory.swap";
const RESERVATION: &str = "linux.resources.memory.reservation";
const SWAPPINESS: &str = "linux.resources.memory.swappiness";
const KERNEL: &str = "linux.resources.memory.kernel";
const KERNEL_TCP: &str = "linux.resources.memory.kernelTCP";
const OOM: &str = "linux.resources.memory.disableOOMKiller";

pub(super) fn compile(memory: &LinuxMemory, to: &mut Compiler<'_>) -> Result<()> {
    let limit = amount(LIMIT, memory.limit())?;
    let swap = amount(SWAP, memory.swap())?;
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (limit, swap)
        && swap < limit
    {
        return Err(Error::field(SWAP, "is memory+swap: must not be less than memory.limit"));
    }
    if memory.kernel().is_some_and(|kernel| kernel != 0) {
        to.warn(KERNEL, "ignored: the kernel has no separate limit since 5.16");
    }
    if memory.use_hierarchy() == Some(false) {
        let field = "linux.resources.memory.useHierarchy";
        to.warn(field, "ignored: memory is always accounted hierarchically since Linux 5.11");
    }
    limits(limit, swap, to)?;
    if let Some(reservation) = amount(RESERVATION, memory.reservation())? {
        match version(RESERVATION, to)? {
            Version::V1 => {
                to.write(RESERVATION, Version::V1, "memory.soft_limit_in_bytes", reservation);
            }
            Version::V2 => to.write(RESERVATION, Version::V2, "memory.low", or_max(reservation)),
        }
    }
    only_v1(memory, to)
}

fn version(field: &str, to: &Compiler<'_>) -> Result<Version> {
    to.version_of(field, "memory", "memory")
}

/// Absent and 0 are “not given”, −1 is no limit.
fn amount(field: &str, given: Option<i64>) -> Result<Option<i64>> {
    match given {
        None | Some(0) => Ok(None),
        Some(-1..) => Ok(given),
        Some(_) => Err(Error::field(field, "must be a number of bytes, or -1 for no limit")),
    }
}

fn limits(limit: Option<i64>, swap: Option<i64>, to: &mut Compiler<'_>) -> Result<()> {
    // Who lifts the limit on memory means swap as well.
    let lifted = limit == Some(-1) && swap.is_none();
    if let Some(limit) = limit {
        match version(LIMIT, to)? {
            Version::V1 => to.write(LIMIT, Version::V1, "memory.limit_in_bytes", limit),
            Version::V2 => to.write(LIMIT, Version::V2, "memory.max", or_max(limit)),
        }
    }
    let Some(swap) = swap.or(lifted.then_some(-1)) else { return Ok(()) };
    match version(SWAP, to)? {
        Version::V1 => {
            let missing = if lifted { Missing::Ignore } else { Missing::Refuse };
            let choice = [("memory.memsw.limit_in_bytes", swap.to_string())];
            to.write_first(SWAP, Version::V1, &choice, missing);
        }
        Version::V2 => {
            let max = or_max(swap_of(swap, limit, to)?);
            // A kernel without swap has no such file; no swap or all there is, is what it does.
            let missing = match max.as_str() {
                "0" | "max" => Missing::Ignore,
                _ => Missing::Refuse,
            };
            to.write_first(SWAP, Version::V2, &[("memory.swap.max", max)], missing);
        }
    }
    Ok(())
}

/// v2 limits swap alone, where the spec has the sum of memory and swap.
fn swap_of(swap: i64, limit: Option<i64>, to: &Compiler<'_>) -> Result<i64> {
    if swap == -1 {
        return Ok(-1);
    }
    let limit = match limit {
        Some(limit) => limit,
        None => match to.present_v2("memory.max")? {
            Some(present) => present.parse().unwrap_or(-1),
            None => return Err(Error::field(SWAP, "is memory+swap: needs memory.limit as well")),
        },
    };
    match limit {
        -1 => Ok(swap),
        limit if swap < limit => {
            Err(Error::field(SWAP, "is memory+swap: must not be less than memory.limit"))
        }
        limit => Ok(swap - limit),
    }
}

/// What v2 has no file for, and does not need: it charges kernel and TCP memory to memory.max,
/// reclaims by its own judgement, and has no way to switch the OOM killer off.
fn only_v1(memory: &LinuxMemory, to: &mut Compiler<'_>) -> Result<()> {
    const NONE: &str = "ignored: cgroup v2 has no such setting";
    // A swappiness of −1 is “not given”; it arrives as an unsigned number.
    let swappiness = memory.swappiness().filter(|&swappiness| swappiness != u64::MAX);
    if let Some(swappiness) = swappiness {
        match version(SWAPPINESS, to)? {
            _ if swappiness > 100 => {
                return Err(Error::field(SWAPPINESS, "must be between 0 and 100"));
            }
            Version::V1 => to.write(SWAPPINESS, Version::V1, "memory.swappiness", swappiness),
            Version::V2 => to.warn(SWAPPINESS, NONE),
        }
    }
    if let Some(tcp) = amount(KERNEL_TCP, memory.kernel_tcp())? {
        match version(KERNEL_TCP, to)? {
            Version::V1 => {
                to.write(KERNEL_TCP, Version::V1, "memory.kmem.tcp.limit_in_bytes", tcp);
            }
            Version::V2 => to.warn(KERNEL_TCP, NONE),
        }
    }
    match (memory.disable_oom_killer(), to.present.is_some()) {
        (Some(true), _) | (Some(false), true) => match version(OOM, to)? {
            Version::V1 => {
                let disable = u8::from(memory.disable_oom_killer() == Some(true));
                to.write(OOM, Version::V1, "memory.oom_control", disable);
            }
            Version::V2 => to.warn(OOM, NONE),
        },
        _ => {}
    }
    Ok(())
}
