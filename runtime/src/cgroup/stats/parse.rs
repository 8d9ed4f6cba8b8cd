//! The formats of interface files (Documentation/admin-guide/cgroup-v2.rst, “Format”).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// Declares a struct of counters and how it is read from lines of `key value`. A field may have
/// several keys, whose values are added: kernels have split counters into parts.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $($key:literal)|+,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names are the kernel's")]
        pub struct $name {
            $(pub $field: u64,)*
        }

        impl $name {
            pub(super) fn parse(content: &str) -> $name {
                let mut counters = $name::default();
                for line in content.lines() {
                    let Some((key, value)) = line.split_once(' ') else { continue };
                    let value = $crate::cgroup::stats::parse::number(value).unwrap_or_default();
                    match key {
                        $($($key)|+ => counters.$field = counters.$field.saturating_add(value),)*
                        _ => {}
                    }
                }
                counters
            }
        }
    };
}
pub(super) use counters;

/// A number; `max` is the largest.
pub(super) fn number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// Pressure stall information, Documentation/accounting/psi.rst.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some tasks were stalled.
    pub some: Option<PressureLine>,
    /// All tasks were stalled.
    pub full: Option<PressureLine>,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Share of the last 10 s, in per cent.
    pub avg10: f64,
    /// Share of the last 60 s.
    pub avg60: f64,
    /// Share of the last 300 s.
    pub avg300: f64,
    /// Total, in µs.
    pub total: u64,
}

/// `some avg10=0.20 avg60=0.94 avg300=1.17 total=22047914`, and the same for `full`. An empty
/// file is no pressure accounting.
pub(super) fn pressure(content: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in content.lines() {
        let Some((kind, fields)) = line.split_once(' ') else { continue };
        let mut parsed = PressureLine::default();
        for (key, value) in pairs(fields) {
            match key {
                "avg10" => parsed.avg10 = value.parse().unwrap_or_default(),
                "avg60" => parsed.avg60 = value.parse().unwrap_or_default(),
                "avg300" => parsed.avg300 = value.parse().unwrap_or_default(),
                "total" => parsed.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        match kind {
            "some" => pressure.some = Some(parsed),
            "full" => pressure.full = Some(parsed),
            _ => {}
        }
    }
    (pressure != Pressure::default()).then_some(pressure)
}

/// The words `key=value` of a line.
pub(super) fn pairs(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split_ascii_whitespace().filter_map(|word| word.split_once('='))
}

/// rdma.current and rdma.max.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdmaStats {
    /// What is in use.
    pub current: Vec<RdmaEntry>,
    /// What may be.
    pub limit: Vec<RdmaEntry>,
}

/// Figures of one RDMA device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdmaEntry {
    /// Its name.
    pub device: String,
    /// HCA handles; `u32::MAX` is no limit.
    pub hca_handles: u32,
    /// HCA objects; `u32::MAX` is no limit.
    pub hca_objects: u32,
}

pub(super) fn rdma(content: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let (device, fields) = line.split_once(' ')?;
        let mut entry = RdmaEntry { device: device.to_owned(), ..RdmaEntry::default() };
        for (key, value) in pairs(fields) {
            let value = number(value).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
            match key {
                "hca_handle" => entry.hca_handles = value.unwrap_or_default(),
                "hca_object" => entry.hca_objects = value.unwrap_or_default(),
                _ => {}
            }
        }
        Some(entry)
    };
    content.lines().filter_map(entry).collect()
}

/// `8:0` as numbers.
pub(super) fn device_number(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Names of block devices, found once each.
#[derive(Debug, Default)]
pub(super) struct DeviceName(BTreeMap<(u64, u64), String>);

impl DeviceName {
    /// `/dev/sda` for 8:0; empty when there is no such device any more.
    pub(super) fn of(&mut self, major: u64, minor: u64) -> String {
        let find = || {
            let link = Path::new("/sys/dev/block").join(format!("{major}:{minor}"));
            let target = std::fs::read_link(link).ok()?;
            Some(format!("/dev/{}", target.file_name()?.to_string_lossy()))
        };
        self.0.entry((major, minor)).or_insert_with(|| find().unwrap_or_default()).clone()
    }
}

/// The page sizes that this host has, as the hugetlb controller names its files: `2MB`. They
/// are fixed when the host boots.
pub(super) fn huge_page_sizes() -> &'static [String] {
    static SIZES: OnceLock<Vec<String>> = OnceLock::new();
    SIZES.get_or_init(read_huge_page_sizes)
}

fn read_huge_page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let mut sizes: Vec<u64> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(page_size_name).collect()
}

/// mm/hugetlb_cgroup.c, mem_fmt().
fn page_size_name(kib: u64) -> String {
    match kib {
        0x10_0000.. => format!("{}GB", kib >> 20),
        0x400.. => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_named_as_by_the_kernel() {
        let names: Vec<_> = [64, 2048, 32_768, 1_048_576].into_iter().map(page_size_name).collect();
        assert_eq!(names, ["64KB", "2MB", "32MB", "1GB"]);
    }

    #[test]
    fn a_pressure_file_of_one_line_has_one_line() {
        let parsed = pressure("some avg10=0.20 avg60=1.00 avg300=99.99 total=22\n").unwrap();
        let some = PressureLine { avg10: 0.2, avg60: 1.0, avg300: 99.99, total: 22 };
        assert_eq!(parsed, Pressure { some: Some(some), full: None });
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn no_limit_on_an_rdma_device_is_the_largest_number() {
        let entries =
            rdma("mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\n");
        assert_eq!(entries[0].hca_objects, 2000);
        assert_eq!(entries[1].hca_handles, 3);
        assert_eq!(entries[1].hca_objects, u32::MAX);
    }
}
