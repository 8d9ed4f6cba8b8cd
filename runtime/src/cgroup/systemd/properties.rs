//! Limits as systemd's properties, systemd.resource-control(5).
//!
//! systemd writes the files of a cgroup that belongs to a unit whenever it has a reason to
//! (`daemon-reload`, another property of the same controller), and writes what it knows. So it
//! is told of every limit that it has a property for. Limits that it has none for (hugetlb, rdma,
//! io.max, …) are in files that it does not write.

use serde::{Deserialize, Serialize};

use super::super::{Choice, Write};
use crate::dbus::Value;
use crate::error::{Error, Result};

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// Its name in D-Bus.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl Property {
    pub(super) fn new(name: impl Into<String>, value: Value) -> Property {
        Property { name: name.into(), value }
    }
}

/// `infinity`.
const NO_LIMIT: u64 = u64::MAX;

/// What systemd is to know of these writes.
///
/// # Errors
/// `Field` for a value of `linux.resources.unified` that it could not know in the same way.
pub(super) fn of(writes: &[Write]) -> Result<Vec<Property>> {
    let mut properties: Vec<Property> = Vec::new();
    for write in writes {
        // The kernel has the first file or the second, systemd one property for both.
        let Some(choice) = write.choices.last() else { continue };
        for property in of_choice(choice).map_err(|why| Error::field(write.field.clone(), why))? {
            properties.retain(|known| known.name != property.name);
            properties.push(property);
        }
    }
    // An idle group has no weight; the property says either.
    if let Some(idle) = properties.iter().position(|property| property.name == IDLE) {
        let idle = properties.remove(idle);
        let weight = properties.iter().any(|property| property.name == WEIGHT);
        if idle.value == Value::U64(0) || !weight {
            properties.retain(|property| property.name != WEIGHT);
            properties.push(Property::new(WEIGHT, idle.value));
        }
    }
    Ok(properties)
}

/// Whether an OOM kill is to end all processes of the cgroup.
pub(super) fn kills_all_at_oom(write: &Write) -> bool {
    write.choices.iter().any(|choice| choice.file == "memory.oom.group" && choice.value == "1")
}

const WEIGHT: &str = "CPUWeight";
/// Not a property, but what becomes one.
const IDLE: &str = "cpu.idle";

fn of_choice(choice: &Choice) -> std::result::Result<Vec<Property>, String> {
    let value = choice.value.as_str();
    let one = |name: &str, value| Ok(vec![Property::new(name, Value::U64(value))]);
    match choice.file.as_str() {
        "cpu.weight" => one(WEIGHT, number(value)?),
        // CPUWeight=idle, which D-Bus says as 0.
        "cpu.idle" if value == "1" => one(IDLE, 0),
        "cpu.idle" => one(IDLE, NO_LIMIT),
        "cpu.max" => cpu_max(value),
        "cpuset.cpus" => Ok(vec![Property::new("AllowedCPUs", mask(value)?)]),
        "cpuset.mems" => Ok(vec![Property::new("AllowedMemoryNodes", mask(value)?)]),
        "memory.min" => one("MemoryMin", number(value)?),
        "memory.low" => one("MemoryLow", number(value)?),
        "memory.high" => one("MemoryHigh", number(value)?),
        "memory.max" => one("MemoryMax", number(value)?),
        "memory.swap.max" => one("MemorySwapMax", number(value)?),
        "pids.max" => one("TasksMax", number(value)?),
        // A device's own weight begins with the device's number, and systemd leaves it alone.
        "io.weight" => match value.strip_prefix("default ").unwrap_or(value) {
            device if device.contains(' ') => Ok(Vec::new()),
            weight => one("IOWeight", number(weight)?),
        },
        _ => Ok(Vec::new()),
    }
}

/// A number as the kernel reads it: with K, M, G, T at its end, or `max`.
fn number(text: &str) -> std::result::Result<u64, String> {
    if text == "max" {
        return Ok(NO_LIMIT);
    }
    let (digits, shift) = match text.to_ascii_uppercase().as_bytes().last() {
        Some(b'K') => (text.len() - 1, 10),
        Some(b'M') => (text.len() - 1, 20),
        Some(b'G') => (text.len() - 1, 30),
        Some(b'T') => (text.len() - 1, 40),
        _ => (text.len(), 0),
    };
    text.get(..digits)
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is neither a number nor `max`"))
}

/// `QUOTA PERIOD` in µs. systemd has the quota per second of time, and writes it down in whole
/// percent of a CPU: what is no whole percent is rounded up, so that it never limits by more than
/// the file does.
fn cpu_max(value: &str) -> std::result::Result<Vec<Property>, String> {
    const SECOND: u64 = 1_000_000;
    const PERCENT: u64 = SECOND / 100;
    const DEFAULT_PERIOD: u64 = 100_000;
    let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
    let period = if period.is_empty() { DEFAULT_PERIOD } else { number(period)? };
    let per_second = match number(quota)? {
        NO_LIMIT => NO_LIMIT,
        quota => quota
            .checked_mul(SECOND)
            .and_then(|quota| quota.div_ceil(period.max(1)).checked_next_multiple_of(PERCENT))
            .ok_or_else(|| format!("{value:?} is not a quota and a period"))?,
    };
    Ok(vec![
        Property::new("CPUQuotaPerSecUSec", Value::U64(per_second)),
        Property::new("CPUQuotaPeriodUSec", Value::U64(period)),
    ])
}

/// A list like `0-3,5` as a set of bits.
fn mask(list: &str) -> std::result::Result<Value, String> {
    /// More than the kernel can be built for (NR_CPUS, MAX_NUMNODES).
    const HIGHEST: usize = 1 << 16;
    let refuse = || format!("{list:?} is not a list like `0-3,5`");
    let mut bits = Vec::new();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bound = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n < HIGHEST);
        let (first, last) = (bound(first).ok_or_else(refuse)?, bound(last).ok_or_else(refuse)?);
        for number in first..=last {
            if bits.len() <= number / 8 {
                bits.resize(number / 8 + 1, 0u8);
            }
            if let Some(byte) = bits.get_mut(number / 8) {
                *byte |= 1 << (number % 8);
            }
        }
    }
    Ok(Value::bytes(&bits))
}

#[cfg(test)]
mod tests {
    use super::super::super::{Missing, Version};
    use super::*;

    fn write(file: &str, value: &str) -> Write {
        Write {
            field: format!("linux.resources.unified[{file:?}]"),
            version: Version::V2,
            controller: String::new(),
            choices: vec![Choice { file: file.into(), value: value.into() }],
            missing: Missing::Refuse,
        }
    }

    fn shown(writes: &[(&str, &str)]) -> String {
        let writes: Vec<Write> = writes.iter().map(|(file, value)| write(file, value)).collect();
        match of(&writes) {
            Ok(properties) => properties
                .iter()
                .map(|property| match &property.value {
                    Value::U64(NO_LIMIT) => format!("{}=infinity", property.name),
                    Value::U64(number) => format!("{}={number}", property.name),
                    Value::Array(_, bytes) => format!("{}={bytes:?}", property.name),
                    other => format!("{}={other:?}", property.name),
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn limits_on_memory_are_numbers_or_infinity() {
        assert_eq!(
            shown(&[
                ("memory.max", "67108864"),
                ("memory.swap.max", "max"),
                ("memory.low", "0"),
                ("memory.high", "32M"),
            ]),
            "MemoryMax=67108864 MemorySwapMax=infinity MemoryLow=0 MemoryHigh=33554432"
        );
    }

    #[test]
    fn a_quota_is_per_second_and_a_whole_percent_of_a_cpu() {
        assert_eq!(
            shown(&[("cpu.max", "50000 100000")]),
            "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000"
        );
        assert_eq!(
            shown(&[("cpu.max", "33333 100000")]),
            "CPUQuotaPerSecUSec=340000 CPUQuotaPeriodUSec=100000"
        );
        assert_eq!(
            shown(&[("cpu.max", "max 20000")]),
            "CPUQuotaPerSecUSec=infinity CPUQuotaPeriodUSec=20000"
        );
        assert_eq!(
            shown(&[("cpu.max", "1000")]),
            "CPUQuotaPerSecUSec=10000 CPUQuotaPeriodUSec=100000"
        );
    }

    #[test]
    fn lists_of_cpus_and_nodes_are_sets_of_bits() {
        let bytes = |bytes: &[u8]| {
            format!("{:?}", bytes.iter().map(|b| Value::Byte(*b)).collect::<Vec<_>>())
        };
        assert_eq!(
            shown(&[("cpuset.cpus", "0-3,5,9"), ("cpuset.mems", "0")]),
            format!("AllowedCPUs={} AllowedMemoryNodes={}", bytes(&[0b10_1111, 0b10]), bytes(&[1]))
        );
    }

    #[test]
    fn an_idle_group_has_no_weight() {
        assert_eq!(shown(&[("cpu.idle", "1"), ("cpu.weight", "100")]), "CPUWeight=0");
        assert_eq!(shown(&[("cpu.idle", "0"), ("cpu.weight", "39")]), "CPUWeight=39");
        assert_eq!(shown(&[("cpu.idle", "0")]), "CPUWeight=infinity");
        assert_eq!(shown(&[("cpu.weight", "39")]), "CPUWeight=39");
    }

    #[test]
    fn a_later_value_of_the_same_property_holds() {
        assert_eq!(shown(&[("memory.max", "1"), ("memory.max", "2")]), "MemoryMax=2");
    }

    #[test]
    fn what_systemd_has_no_property_for_is_left_out() {
        assert_eq!(
            shown(&[
                ("io.max", "8:0 rbps=1"),
                ("io.weight", "8:0 100"),
                ("io.weight", "default 200"),
                ("hugetlb.2MB.max", "0"),
                ("pids.max", "max"),
            ]),
            "IOWeight=200 TasksMax=infinity"
        );
    }

    #[test]
    fn what_is_no_number_is_refused_with_its_field() {
        for (file, value) in [
            ("memory.high", "much"),
            ("cpu.max", "1 x"),
            ("cpuset.cpus", "0-x"),
            ("cpuset.cpus", "99999999"),
            ("memory.max", "-1"),
            ("memory.max", "99999999999999T"),
        ] {
            let text = shown(&[(file, value)]);
            let field = format!("linux.resources.unified[{file:?}]: ");
            let wrong = value.split(' ').next_back().unwrap();
            assert!(text.starts_with(&field) && text.contains(wrong), "{text}");
        }
    }
}
