//! The figures of v1 controllers.

use super::parse::{self, DeviceName, counters};
use super::{CgroupPaths, PidsStats, RdmaStats, Source, files};

/// Fields as in `io.containerd.cgroups.v1.Metrics`. Its `network` and `cgroup_stats` are not
/// counted by cgroups; containerd does not fill them either.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatsV1 {
    /// One for each page size of the host.
    pub hugetlb: Vec<HugetlbStatsV1>,
    /// Tasks.
    pub pids: Option<PidsStats>,
    /// CPU time.
    pub cpu: CpuStatsV1,
    /// Memory.
    pub memory: Option<MemoryStatsV1>,
    /// Block devices.
    pub blkio: Option<BlkioStats>,
    /// RDMA devices.
    pub rdma: Option<RdmaStats>,
    /// The OOM killer.
    pub oom_control: Option<OomControl>,
}

/// Figures of one huge page size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugetlbStatsV1 {
    /// Bytes in use.
    pub usage: u64,
    /// The most there were.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
    /// `2MB`.
    pub pagesize: String,
}

/// CPU time in ns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStatsV1 {
    /// All of it.
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
    /// On each CPU.
    pub per_cpu: Vec<u64>,
    /// By the quota.
    pub throttling: Throttling,
}

counters! {
    /// cpu.stat; the time is in ns.
    Throttling {
        periods: "nr_periods",
        throttled_periods: "nr_throttled",
        throttled_time: "throttled_time",
    }
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of containerd's metrics")]
pub struct MemoryStatsV1 {
    pub stat: MemoryStatV1,
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    pub kernel: MemoryEntry,
    pub kernel_tcp: MemoryEntry,
}

/// Usage, its peak, how often the limit was hit, and the limit; bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct MemoryEntry {
    pub limit: u64,
    pub usage: u64,
    pub max: u64,
    pub failcnt: u64,
}

counters! {
    /// memory.stat of v1; `total_*` are with the cgroups below.
    MemoryStatV1 {
        cache: "cache",
        rss: "rss",
        rss_huge: "rss_huge",
        mapped_file: "mapped_file",
        dirty: "dirty",
        writeback: "writeback",
        pg_pg_in: "pgpgin",
        pg_pg_out: "pgpgout",
        pg_fault: "pgfault",
        pg_maj_fault: "pgmajfault",
        inactive_anon: "inactive_anon",
        active_anon: "active_anon",
        inactive_file: "inactive_file",
        active_file: "active_file",
        unevictable: "unevictable",
        hierarchical_memory_limit: "hierarchical_memory_limit",
        hierarchical_swap_limit: "hierarchical_memsw_limit",
        total_cache: "total_cache",
        total_rss: "total_rss",
        total_rss_huge: "total_rss_huge",
        total_mapped_file: "total_mapped_file",
        total_dirty: "total_dirty",
        total_writeback: "total_writeback",
        total_pg_pg_in: "total_pgpgin",
        total_pg_pg_out: "total_pgpgout",
        total_pg_fault: "total_pgfault",
        total_pg_maj_fault: "total_pgmajfault",
        total_inactive_anon: "total_inactive_anon",
        total_active_anon: "total_active_anon",
        total_inactive_file: "total_inactive_file",
        total_active_file: "total_active_file",
        total_unevictable: "total_unevictable",
    }
}

counters! {
    /// memory.oom_control.
    OomControl {
        oom_kill_disable: "oom_kill_disable",
        under_oom: "under_oom",
        oom_kill: "oom_kill",
    }
}

/// What was read from and written to block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the blkio controller's files")]
pub struct BlkioStats {
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    pub io_serviced_recursive: Vec<BlkioEntry>,
    pub io_queued_recursive: Vec<BlkioEntry>,
    pub io_service_time_recursive: Vec<BlkioEntry>,
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    pub io_merged_recursive: Vec<BlkioEntry>,
    pub io_time_recursive: Vec<BlkioEntry>,
    pub sectors_recursive: Vec<BlkioEntry>,
}

/// One line of a blkio file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`; empty where there is one figure.
    pub op: String,
    /// `/dev/sda`.
    pub device: String,
    /// Its number.
    pub major: u64,
    /// Its number.
    pub minor: u64,
    /// Bytes, operations, ns or sectors.
    pub value: u64,
}

pub(super) fn read(paths: &CgroupPaths, memory: Option<Source<'_>>) -> StatsV1 {
    let of = |controller: &str| Source::new(paths.v1(controller));
    StatsV1 {
        hugetlb: hugetlb(paths),
        pids: pids(of("pids")),
        cpu: cpu(of("cpu"), of("cpuacct")),
        memory: memory.map(memory_stats),
        blkio: paths.v1("blkio").is_some().then(|| blkio(of("blkio"))),
        rdma: of("rdma").rdma(),
        oom_control: memory.and_then(|memory| memory.text("memory.oom_control", OomControl::parse)),
    }
}

fn pids(source: Source<'_>) -> Option<PidsStats> {
    let current = source.number("pids.current")?;
    let limit = source.number("pids.max").filter(|&limit| limit != u64::MAX);
    Some(PidsStats { current, limit: limit.unwrap_or_default() })
}

fn cpu(cpu: Source<'_>, cpuacct: Source<'_>) -> CpuStatsV1 {
    // cpuacct.stat counts clock ticks.
    let ns_per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let ns = |stat: &str, key: &str| {
        let ticks = files::flat_value(stat, key).and_then(parse::number).unwrap_or_default();
        ticks.saturating_mul(ns_per_tick)
    };
    let both = |stat: &str| (ns(stat, "system"), ns(stat, "user"));
    let (kernel, user) = cpuacct.text("cpuacct.stat", both).unwrap_or_default();
    CpuStatsV1 {
        total: cpuacct.number("cpuacct.usage").unwrap_or_default(),
        kernel,
        user,
        per_cpu: cpuacct.numbers("cpuacct.usage_percpu"),
        throttling: cpu.text("cpu.stat", Throttling::parse).unwrap_or_default(),
    }
}

fn memory_stats(source: Source<'_>) -> MemoryStatsV1 {
    let entry = |name: &str| {
        let number = |file: &str| source.number(&format!("{name}.{file}")).unwrap_or_default();
        MemoryEntry {
            limit: number("limit_in_bytes"),
            usage: number("usage_in_bytes"),
            max: number("max_usage_in_bytes"),
            failcnt: number("failcnt"),
        }
    };
    MemoryStatsV1 {
        stat: source.text("memory.stat", MemoryStatV1::parse).unwrap_or_default(),
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
    }
}

/// Of the v1 controller, or of v2 in the form of v1: on a hybrid host hugetlb may be there.
fn hugetlb(paths: &CgroupPaths) -> Vec<HugetlbStatsV1> {
    let (source, is_v1) = match paths.v1("hugetlb") {
        Some(directory) => (Source::new(Some(directory)), true),
        None => (Source::new(paths.v2()), false),
    };
    if source.directory.is_none() {
        return Vec::new();
    }
    let stats = |pagesize: &String| {
        let number = |file: &str| source.number(&format!("hugetlb.{pagesize}.{file}"));
        let (usage, max, failcnt) = match is_v1 {
            true => (number("usage_in_bytes")?, number("max_usage_in_bytes"), number("failcnt")),
            false => (number("current")?, None, super::v2::huge_page_failures(source, pagesize)),
        };
        let (max, failcnt) = (max.unwrap_or_default(), failcnt.unwrap_or_default());
        Some(HugetlbStatsV1 { usage, max, failcnt, pagesize: pagesize.clone() })
    };
    parse::huge_page_sizes().iter().filter_map(stats).collect()
}

/// Bytes and operations are those of the throttling layer, which sees all I/O. The other
/// figures are of a scheduler: of CFQ (Linux < 5.0), or of bfq with CONFIG_BFQ_CGROUP_DEBUG.
fn blkio(source: Source<'_>) -> BlkioStats {
    let mut names = DeviceName::default();
    let mut entries = |files: &[String]| {
        let mut entries = |text: &str| blkio_entries(text, &mut names);
        files.iter().find_map(|file| source.text(file, &mut entries)).unwrap_or_default()
    };
    let mut throttled = |name: &str| {
        // Since Linux 4.18 with the cgroups below; all that there is before.
        let name = format!("blkio.throttle.{name}");
        entries(&[format!("{name}_recursive"), name])
    };
    let bytes = throttled("io_service_bytes");
    let operations = throttled("io_serviced");
    let scheduler = ["blkio", "blkio.bfq"]
        .into_iter()
        .find(|prefix| source.has(&format!("{prefix}.io_queued_recursive")));
    let mut scheduled = |name: &str| match scheduler {
        Some(prefix) => entries(&[format!("{prefix}.{name}_recursive")]),
        None => Vec::new(),
    };
    BlkioStats {
        io_service_bytes_recursive: bytes,
        io_serviced_recursive: operations,
        io_queued_recursive: scheduled("io_queued"),
        io_service_time_recursive: scheduled("io_service_time"),
        io_wait_time_recursive: scheduled("io_wait_time"),
        io_merged_recursive: scheduled("io_merged"),
        io_time_recursive: scheduled("time"),
        sectors_recursive: scheduled("sectors"),
    }
}

/// Lines `8:0 Read 1024` or `8:0 1024`, and a sum without a device at the end.
fn blkio_entries(content: &str, names: &mut DeviceName) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = parse::device_number(device)?;
        let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
        let (op, value) = (op.to_owned(), parse::number(value)?);
        Some(BlkioEntry { op, device: names.of(major, minor), major, minor, value })
    };
    content.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blkio_file_is_read_without_its_sum() {
        let text = "8:0 Read 1282048\n8:0 Total 3477504\n8:16 5\nTotal 3477504\n";
        let entries = blkio_entries(text, &mut DeviceName::default());
        let brief: Vec<_> = entries.iter().map(|e| (e.op.as_str(), e.minor, e.value)).collect();
        assert_eq!(brief, [("Read", 0, 1_282_048), ("Total", 0, 3_477_504), ("", 16, 5)]);
    }
}
