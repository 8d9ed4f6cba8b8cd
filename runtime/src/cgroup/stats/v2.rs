//! The figures of a v2 cgroup.

use super::parse::{self, Pressure, counters};
use super::{PidsStats, RdmaStats, Source};

/// Fields as in `io.containerd.cgroups.v2.Metrics`, but `network`, which is not counted by
/// cgroups; containerd does not fill it either.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatsV2 {
    /// Tasks.
    pub pids: Option<PidsStats>,
    /// CPU time.
    pub cpu: CpuStatsV2,
    /// Memory.
    pub memory: Option<MemoryStatsV2>,
    /// RDMA devices.
    pub rdma: Option<RdmaStats>,
    /// Block devices.
    pub io: Option<IoStats>,
    /// One for each page size of the host.
    pub hugetlb: Vec<HugetlbStatsV2>,
    /// How often limits were hit, and what that led to.
    pub memory_events: Option<MemoryEvents>,
}

/// cpu.stat and cpu.pressure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuStatsV2 {
    /// Times and counts.
    pub stat: CpuStatV2,
    /// Pressure.
    pub psi: Option<Pressure>,
}

counters! {
    /// cpu.stat; times are in µs.
    CpuStatV2 {
        usage_usec: "usage_usec",
        user_usec: "user_usec",
        system_usec: "system_usec",
        nr_periods: "nr_periods",
        nr_throttled: "nr_throttled",
        throttled_usec: "throttled_usec",
        nr_bursts: "nr_bursts",
        burst_usec: "burst_usec",
    }
}

/// Memory in bytes; a limit of `u64::MAX` is none.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "the names are those of containerd's metrics")]
pub struct MemoryStatsV2 {
    pub stat: MemoryStatV2,
    pub usage: u64,
    pub usage_limit: u64,
    pub max_usage: u64,
    pub swap_usage: u64,
    pub swap_limit: u64,
    pub swap_max_usage: u64,
    pub psi: Option<Pressure>,
}

counters! {
    /// memory.stat of v2. The workingset counters are sums since Linux 5.9 has them apart for
    /// anonymous memory and files.
    MemoryStatV2 {
        anon: "anon",
        file: "file",
        kernel_stack: "kernel_stack",
        slab: "slab",
        sock: "sock",
        shmem: "shmem",
        file_mapped: "file_mapped",
        file_dirty: "file_dirty",
        file_writeback: "file_writeback",
        anon_thp: "anon_thp",
        inactive_anon: "inactive_anon",
        active_anon: "active_anon",
        inactive_file: "inactive_file",
        active_file: "active_file",
        unevictable: "unevictable",
        slab_reclaimable: "slab_reclaimable",
        slab_unreclaimable: "slab_unreclaimable",
        pgfault: "pgfault",
        pgmajfault: "pgmajfault",
        workingset_refault:
            "workingset_refault" | "workingset_refault_anon" | "workingset_refault_file",
        workingset_activate:
            "workingset_activate" | "workingset_activate_anon" | "workingset_activate_file",
        workingset_nodereclaim: "workingset_nodereclaim",
        pgrefill: "pgrefill",
        pgscan: "pgscan",
        pgsteal: "pgsteal",
        pgactivate: "pgactivate",
        pgdeactivate: "pgdeactivate",
        pglazyfree: "pglazyfree",
        pglazyfreed: "pglazyfreed",
        thp_fault_alloc: "thp_fault_alloc",
        thp_collapse_alloc: "thp_collapse_alloc",
    }
}

counters! {
    /// memory.events.
    MemoryEvents {
        low: "low",
        high: "high",
        max: "max",
        oom: "oom",
        oom_kill: "oom_kill",
        oom_group_kill: "oom_group_kill",
    }
}

/// io.stat and io.pressure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IoStats {
    /// One for each device.
    pub usage: Vec<IoEntry>,
    /// Pressure.
    pub psi: Option<Pressure>,
}

/// What one device was asked to do, in bytes and operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of io.stat")]
pub struct IoEntry {
    pub major: u64,
    pub minor: u64,
    pub rbytes: u64,
    pub wbytes: u64,
    pub rios: u64,
    pub wios: u64,
}

/// Figures of one huge page size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugetlbStatsV2 {
    /// Bytes in use.
    pub current: u64,
    /// The limit; `u64::MAX` is none.
    pub max: u64,
    /// `2MB`.
    pub pagesize: String,
    /// How often the limit was hit.
    pub failcnt: u64,
}

pub(super) fn read(source: Source<'_>) -> StatsV2 {
    StatsV2 {
        pids: source.number("pids.current").map(|current| PidsStats {
            current,
            limit: source.number("pids.max").unwrap_or_default(),
        }),
        cpu: CpuStatsV2 {
            stat: source.text("cpu.stat", CpuStatV2::parse).unwrap_or_default(),
            psi: source.pressure("cpu.pressure"),
        },
        memory: memory(source),
        rdma: source.rdma(),
        io: source
            .text("io.stat", io_entries)
            .map(|usage| IoStats { usage, psi: source.pressure("io.pressure") }),
        hugetlb: hugetlb(source),
        memory_events: source.text("memory.events", MemoryEvents::parse),
    }
}

fn memory(source: Source<'_>) -> Option<MemoryStatsV2> {
    let stat = source.text("memory.stat", MemoryStatV2::parse)?;
    let number = |file: &str| source.number(file).unwrap_or_default();
    Some(MemoryStatsV2 {
        stat,
        usage: number("memory.current"),
        usage_limit: number("memory.max"),
        max_usage: number("memory.peak"),
        swap_usage: number("memory.swap.current"),
        swap_limit: number("memory.swap.max"),
        swap_max_usage: number("memory.swap.peak"),
        psi: source.pressure("memory.pressure"),
    })
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`. A device without figures has a
/// line of its number alone.
fn io_entries(content: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let (device, fields) = line.split_once(' ')?;
        let (major, minor) = parse::device_number(device)?;
        let mut entry = IoEntry { major, minor, ..IoEntry::default() };
        for (key, value) in parse::pairs(fields) {
            let value = parse::number(value).unwrap_or_default();
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    };
    content.lines().filter_map(entry).collect()
}

fn hugetlb(source: Source<'_>) -> Vec<HugetlbStatsV2> {
    let stats = |pagesize: &String| {
        let number = |file: &str| source.number(&format!("hugetlb.{pagesize}.{file}"));
        let (current, max) = (number("current")?, number("max").unwrap_or_default());
        let failcnt = huge_page_failures(source, pagesize).unwrap_or_default();
        Some(HugetlbStatsV2 { current, max, pagesize: pagesize.clone(), failcnt })
    };
    parse::huge_page_sizes().iter().filter_map(stats).collect()
}

/// How often the limit on pages of this size was hit.
pub(super) fn huge_page_failures(source: Source<'_>, pagesize: &str) -> Option<u64> {
    source.value(&format!("hugetlb.{pagesize}.events"), "max")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat_is_read_with_and_without_figures() {
        let entries =
            io_entries("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=9 dios=9\n254:0 \n7:0\n");
        let sda = IoEntry { major: 8, minor: 0, rbytes: 1, wbytes: 2, rios: 3, wios: 4 };
        assert_eq!(entries[0], sda);
        assert_eq!(entries[1], IoEntry { major: 254, ..IoEntry::default() });
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn counters_that_the_kernel_split_are_added() {
        let stat = MemoryStatV2::parse("workingset_refault_anon 3\nworkingset_refault_file 4\n");
        assert_eq!(stat.workingset_refault, 7);
        assert_eq!(MemoryStatV2::parse("workingset_refault 5\n").workingset_refault, 5);
    }

    #[test]
    fn a_directory_with_few_files_gives_the_figures_of_those() {
        let directory = std::env::temp_dir().join(format!("myshim-stats-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        for (file, content) in [
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("cpu.stat", "usage_usec 10\nuser_usec 7\nnr_bursts 2\n"),
            ("memory.stat", "anon 4096\nfile 8192\n"),
            ("memory.max", "max\n"),
            ("memory.swap.max", "0\n"),
            ("memory.events", "oom 1\noom_kill 2\n"),
            ("io.stat", ""),
        ] {
            std::fs::write(directory.join(file), content).unwrap();
        }
        let stats = read(Source::new(Some(&directory)));
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(stats.pids, Some(PidsStats { current: 3, limit: u64::MAX }));
        assert_eq!(stats.cpu.stat.nr_bursts, 2);
        assert_eq!(stats.cpu.psi, None);
        let memory = stats.memory.unwrap();
        assert_eq!((memory.stat.anon, memory.usage), (4096, 0));
        assert_eq!((memory.usage_limit, memory.swap_limit), (u64::MAX, 0));
        assert_eq!(stats.memory_events.unwrap().oom_kill, 2);
        assert_eq!(stats.io.unwrap().usage, []);
        assert_eq!(stats.rdma, None);
    }
}
