//! `linux.resources.blockIO`: blkio of v1, io of v2.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

use super::{Compiler, Missing, Version, unsupported};
use crate::error::{Error, Result};

const FIELD: &str = "linux.resources.blockIO";

pub(super) fn compile(block_io: &LinuxBlockIo, to: &mut Compiler<'_>) -> Result<()> {
    let field = format!("{FIELD}.weight");
    if let Some(weight) = weight(&field, block_io.weight())? {
        write_weight(&field, "", weight, to)?;
    }
    let field = format!("{FIELD}.leafWeight");
    if let Some(weight) = weight(&field, block_io.leaf_weight())? {
        write_leaf_weight(&field, "blkio.leaf_weight", weight.to_string(), to)?;
    }
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        weight_device(&format!("{FIELD}.weightDevice[{index}]"), device, to)?;
    }
    for (name, devices, v1, v2) in [
        ("throttleReadBpsDevice", block_io.throttle_read_bps_device(), "read_bps", "rbps"),
        ("throttleWriteBpsDevice", block_io.throttle_write_bps_device(), "write_bps", "wbps"),
        ("throttleReadIOPSDevice", block_io.throttle_read_iops_device(), "read_iops", "riops"),
        ("throttleWriteIOPSDevice", block_io.throttle_write_iops_device(), "write_iops", "wiops"),
    ] {
        for (index, device) in devices.iter().flatten().enumerate() {
            throttle(&format!("{FIELD}.{name}[{index}]"), device, v1, v2, to)?;
        }
    }
    Ok(())
}

/// Absent and 0 are “not given”.
fn weight(field: &str, given: Option<u16>) -> Result<Option<u16>> {
    match given {
        None | Some(0) => Ok(None),
        Some(10..=1000) => Ok(given),
        Some(_) => Err(Error::field(field, "must be between 10 and 1000")),
    }
}

/// The weight of the whole cgroup (`device` is empty) or for one device (`8:0 `).
///
/// The files are those of the bfq scheduler, which takes the spec's range as it is, or else of
/// CFQ (v1, Linux < 5.0) and of iocost (v2), whose range 1…10000 the spec's 10…1000 is mapped to
/// linearly, as runc and crun do.
fn write_weight(field: &str, device: &str, weight: u16, to: &mut Compiler<'_>) -> Result<()> {
    let version = to.version_of(field, "blkio", "io")?;
    let bfq = format!("{device}{weight}");
    let choices = match (version, device.is_empty()) {
        (Version::V1, true) => [("blkio.bfq.weight", bfq.clone()), ("blkio.weight", bfq)],
        (Version::V1, false) => {
            [("blkio.bfq.weight_device", bfq.clone()), ("blkio.weight_device", bfq)]
        }
        (Version::V2, _) => {
            let io_weight = 1 + (u32::from(weight) - 10) * 9999 / 990;
            [("io.bfq.weight", bfq), ("io.weight", format!("{device}{io_weight}"))]
        }
    };
    to.write_first(field, version, &choices, Missing::Refuse);
    Ok(())
}

fn write_leaf_weight(field: &str, file: &str, value: String, to: &mut Compiler<'_>) -> Result<()> {
    match to.version_of(field, "blkio", "io")? {
        Version::V1 => to.write(field, Version::V1, file, value),
        Version::V2 => return Err(unsupported(field, "cgroup v2 has no leaf weight")),
    }
    Ok(())
}

fn weight_device(field: &str, device: &LinuxWeightDevice, to: &mut Compiler<'_>) -> Result<()> {
    let name = device_number(field, device.major(), device.minor())?;
    let weight_field = format!("{field}.weight");
    if let Some(weight) = weight(&weight_field, device.weight())? {
        write_weight(&weight_field, &format!("{name} "), weight, to)?;
    }
    let leaf_field = format!("{field}.leafWeight");
    if let Some(weight) = weight(&leaf_field, device.leaf_weight())? {
        let value = format!("{name} {weight}");
        write_leaf_weight(&leaf_field, "blkio.leaf_weight_device", value, to)?;
    }
    Ok(())
}

/// A rate of 0 removes the limit: v1 takes it so, v2 wants `max`.
fn throttle(
    field: &str,
    device: &LinuxThrottleDevice,
    v1: &str,
    v2: &str,
    to: &mut Compiler<'_>,
) -> Result<()> {
    let name = device_number(field, device.major(), device.minor())?;
    let rate = device.rate();
    match to.version_of(field, "blkio", "io")? {
        Version::V1 => {
            let file = format!("blkio.throttle.{v1}_device");
            to.write(field, Version::V1, &file, format!("{name} {rate}"));
        }
        Version::V2 => {
            let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
            to.write(field, Version::V2, "io.max", format!("{name} {v2}={rate}"));
        }
    }
    Ok(())
}

fn device_number(field: &str, major: i64, minor: i64) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(Error::field(field, format!("{major}:{minor} is not a device number"))),
    }
}
