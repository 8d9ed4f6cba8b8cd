//! `linux.resources.cpu`: the controllers cpu and cpuset.

use oci_spec::runtime::LinuxCpu;

use super::{Compiler, Missing, Version, unsupported};
use crate::error::{Error, Result};

/// What v1 takes (kernel/sched/core.c, MIN_SHARES and MAX_SHARES): it would clamp silently.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// v2's period when none is given, in µs (Documentation/admin-guide/cgroup-v2.rst, cpu.max).
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn compile(cpu: &LinuxCpu, to: &mut Compiler<'_>) -> Result<()> {
    weight(cpu, to)?;
    bandwidth(cpu, to)?;
    realtime(cpu, to)?;
    for (field, file, list) in [
        ("linux.resources.cpu.cpus", "cpuset.cpus", cpu.cpus()),
        ("linux.resources.cpu.mems", "cpuset.mems", cpu.mems()),
    ] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            let version = to.version_of(field, "cpuset", "cpuset")?;
            to.write(field, version, file, list);
        }
    }
    Ok(())
}

/// Shares and idle. An idle group has the least weight there is, and the kernel refuses another
/// one with EINVAL: `idle` is written first, so that 0 makes room for the shares.
fn weight(cpu: &LinuxCpu, to: &mut Compiler<'_>) -> Result<()> {
    const IDLE: &str = "linux.resources.cpu.idle";
    const FIELD: &str = "linux.resources.cpu.shares";
    let idle = cpu.idle();
    match idle {
        None => {}
        Some(idle @ (0 | 1)) => {
            let version = to.version_of(IDLE, "cpu", "cpu")?;
            to.write(IDLE, version, "cpu.idle", idle);
        }
        Some(_) => return Err(Error::field(IDLE, "must be 0 or 1")),
    }
    let Some(shares) = cpu.shares().filter(|&shares| shares != 0) else { return Ok(()) };
    if idle == Some(1) {
        to.warn(FIELD, "has no effect on an idle cgroup");
        return Ok(());
    }
    match to.version_of(FIELD, "cpu", "cpu")? {
        Version::V1 if !SHARES.contains(&shares) => {
            return Err(Error::field(FIELD, "must be between 2 and 262144"));
        }
        Version::V1 => to.write(FIELD, Version::V1, "cpu.shares", shares),
        Version::V2 => to.write(FIELD, Version::V2, "cpu.weight", weight_of_shares(shares)),
    }
    Ok(())
}

/// cpu.weight of v2 for cpu.shares of v1.
///
/// The curve that runc (≥ 1.3.2) and crun (≥ 1.23) use, through the
/// minimum, default and maximum of both: (2, 1), (1024, 100), (262144, 10000). With
/// l = log₂ shares the weight is 10^((l² + 125·l − 126) / 612), rounded up. The linear formula
/// of before gave 39 for the default.
fn weight_of_shares(shares: u64) -> u32 {
    let clamped = shares.clamp(*SHARES.start(), *SHARES.end());
    // 262144 is a u32, so this keeps the value.
    let log = f64::from(u32::try_from(clamped).unwrap_or(u32::MAX)).log2();
    let exact = 10f64.powf((log * log + 125.0 * log - 126.0) / 612.0);
    // The least whole number not below it, found by bisection: floats have no checked cast.
    let (mut low, mut high) = (1u32, 10_000u32);
    while low < high {
        let middle = low.midpoint(high);
        match f64::from(middle) >= exact {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

/// Quota, period and burst, all in µs. The kernel wants quota and period between 1 ms and 1 s
/// (a quota may be longer); it says so with a bare EINVAL.
fn bandwidth(cpu: &LinuxCpu, to: &mut Compiler<'_>) -> Result<()> {
    const QUOTA: &str = "linux.resources.cpu.quota";
    const PERIOD: &str = "linux.resources.cpu.period";
    const BURST: &str = "linux.resources.cpu.burst";
    let quota = cpu.quota().filter(|&quota| quota != 0).map(|quota| quota.max(-1));
    let period = cpu.period().filter(|&period| period != 0);
    if quota.is_some_and(|quota| (0..1000).contains(&quota)) {
        return Err(Error::field(QUOTA, "must be at least 1000 µs, or -1 for no limit"));
    }
    if period.is_some_and(|period| !(1000..=1_000_000).contains(&period)) {
        return Err(Error::field(PERIOD, "must be between 1000 and 1000000 µs"));
    }
    let field = if quota.is_some() { QUOTA } else { PERIOD };
    if quota.is_some() || period.is_some() {
        match to.version_of(field, "cpu", "cpu")? {
            Version::V1 => {
                if let Some(period) = period {
                    to.write(PERIOD, Version::V1, "cpu.cfs_period_us", period);
                }
                if let Some(quota) = quota {
                    to.write(QUOTA, Version::V1, "cpu.cfs_quota_us", quota);
                }
            }
            Version::V2 => {
                let max = cpu_max(quota, period, to)?;
                to.write(field, Version::V2, "cpu.max", max);
            }
        }
    }
    if let Some(burst) = cpu.burst() {
        let version = to.version_of(BURST, "cpu", "cpu")?;
        let file = match version {
            Version::V1 => "cpu.cfs_burst_us",
            Version::V2 => "cpu.max.burst",
        };
        // Linux < 5.14 has no burst: none is all that it can do.
        let missing = if burst == 0 { Missing::Ignore } else { Missing::Refuse };
        to.write_first(BURST, version, &[(file, burst.to_string())], missing);
    }
    Ok(())
}

/// `QUOTA PERIOD`. A quota alone keeps the period that is set; a period alone cannot be
/// written, so it goes with the quota that is set.
fn cpu_max(quota: Option<i64>, period: Option<u64>, to: &Compiler<'_>) -> Result<String> {
    let present = to.present_v2("cpu.max")?;
    let (present_quota, present_period) = match present.as_deref().and_then(|p| p.split_once(' ')) {
        Some((quota, period)) => (quota.to_owned(), period.to_owned()),
        None => ("max".to_owned(), DEFAULT_PERIOD.to_string()),
    };
    let quota = quota.map_or(present_quota, super::or_max);
    let period = period.map_or(present_period, |period| period.to_string());
    Ok(format!("{quota} {period}"))
}

fn realtime(cpu: &LinuxCpu, to: &mut Compiler<'_>) -> Result<()> {
    const PERIOD: &str = "linux.resources.cpu.realtimePeriod";
    const RUNTIME: &str = "linux.resources.cpu.realtimeRuntime";
    let period = cpu.realtime_period().filter(|&period| period != 0);
    let runtime = cpu.realtime_runtime().filter(|&runtime| runtime != 0);
    let period = period.map(|period| (PERIOD, "cpu.rt_period_us", period.to_string()));
    let runtime = runtime.map(|runtime| (RUNTIME, "cpu.rt_runtime_us", runtime.to_string()));
    for (field, file, value) in period.into_iter().chain(runtime) {
        match to.version_of(field, "cpu", "cpu")? {
            Version::V1 => to.write(field, Version::V1, file, value),
            Version::V2 => {
                return Err(unsupported(field, "cgroup v2 has no realtime bandwidth control"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_to_weight_through_minimum_default_and_maximum() {
        // The values of the table in runc's documentation and tests.
        for (shares, weight) in [
            (0, 1),
            (1, 1),
            (2, 1),
            (1024, 100),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    #[test]
    fn more_shares_are_never_less_weight() {
        let weights: Vec<u32> = (2..=262_144).step_by(17).map(weight_of_shares).collect();
        assert!(weights.is_sorted());
    }
}
