//! Metrics: what the runtime reads of a container's cgroup, as containerd's messages.

use protobuf::well_known_types::any::Any;
use runtime::cgroup::{Cgroup, Stats};
use runtime::{At, Result};

use crate::service::any;

/// A message, from a struct whose fields have the same names and types, and from values.
macro_rules! message {
    ($message:ident <- $from:expr, [$($field:ident)*] $(, $own:ident: $value:expr)* $(,)?) => {{
        let from = $from;
        $message {
            $($field: from.$field.clone(),)*
            $($own: $value,)*
            ..$message::default()
        }
    }};
}

/// Reads the metrics of a container.
///
/// # Errors
/// Its cgroup is gone, or cannot be read.
pub(crate) fn read(cgroup: &Cgroup) -> Result<Any> {
    match Stats::read(cgroup.paths()).at("stats")? {
        Stats::V1(stats) => any("io.containerd.cgroups.v1.Metrics", &v1::metrics(&stats)),
        Stats::V2(stats) => any("io.containerd.cgroups.v2.Metrics", &v2::metrics(&stats)),
    }
}

mod v1 {
    //! `io.containerd.cgroups.v1.Metrics`.

    use containerd_shim_protos::cgroups::metrics::{
        BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
        MemoryStat, Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
    };
    use protobuf::MessageField;
    use runtime::cgroup::stats;

    pub(super) fn metrics(stats: &stats::StatsV1) -> Metrics {
        Metrics {
            hugetlb: stats.hugetlb.iter().map(hugetlb).collect(),
            pids: stats.pids.map(|pids| message!(PidsStat <- pids, [current limit])).into(),
            cpu: MessageField::some(cpu(&stats.cpu)),
            memory: stats.memory.as_ref().map(memory).into(),
            blkio: stats.blkio.as_ref().map(blkio).into(),
            rdma: stats.rdma.as_ref().map(rdma).into(),
            memory_oom_control: stats.oom_control.as_ref().map(oom_control).into(),
            ..Metrics::default()
        }
    }

    fn hugetlb(stats: &stats::HugetlbStatsV1) -> HugetlbStat {
        message!(HugetlbStat <- stats, [usage max failcnt pagesize])
    }

    fn cpu(stats: &stats::CpuStatsV1) -> CPUStat {
        let throttling = &stats.throttling;
        let throttle = message!(Throttle <- throttling, [periods throttled_periods throttled_time]);
        let usage = message!(CPUUsage <- stats, [total kernel user per_cpu]);
        CPUStat {
            usage: MessageField::some(usage),
            throttling: MessageField::some(throttle),
            ..CPUStat::default()
        }
    }

    fn memory(stats: &stats::MemoryStatsV1) -> MemoryStat {
        let entry = |entry: &stats::MemoryEntry| {
            MessageField::some(message!(MemoryEntry <- entry, [limit usage max failcnt]))
        };
        message!(MemoryStat <- &stats.stat, [
            cache rss rss_huge mapped_file dirty writeback pg_pg_in pg_pg_out pg_fault
            pg_maj_fault inactive_anon active_anon inactive_file active_file unevictable
            hierarchical_memory_limit hierarchical_swap_limit total_cache total_rss
            total_rss_huge total_mapped_file total_dirty total_writeback total_pg_pg_in
            total_pg_pg_out total_pg_fault total_pg_maj_fault total_inactive_anon
            total_active_anon total_inactive_file total_active_file total_unevictable
        ],
            usage: entry(&stats.usage),
            swap: entry(&stats.swap),
            kernel: entry(&stats.kernel),
            kernel_tcp: entry(&stats.kernel_tcp),
        )
    }

    fn blkio(stats: &stats::BlkioStats) -> BlkIOStat {
        let entries = |entries: &[stats::BlkioEntry]| {
            let entry = |entry: &stats::BlkioEntry| message!(BlkIOEntry <- entry, [op device major minor value]);
            entries.iter().map(entry).collect()
        };
        BlkIOStat {
            io_service_bytes_recursive: entries(&stats.io_service_bytes_recursive),
            io_serviced_recursive: entries(&stats.io_serviced_recursive),
            io_queued_recursive: entries(&stats.io_queued_recursive),
            io_service_time_recursive: entries(&stats.io_service_time_recursive),
            io_wait_time_recursive: entries(&stats.io_wait_time_recursive),
            io_merged_recursive: entries(&stats.io_merged_recursive),
            io_time_recursive: entries(&stats.io_time_recursive),
            sectors_recursive: entries(&stats.sectors_recursive),
            ..BlkIOStat::default()
        }
    }

    fn rdma(stats: &stats::RdmaStats) -> RdmaStat {
        let entries = |entries: &[stats::RdmaEntry]| {
            let entry = |entry: &stats::RdmaEntry| message!(RdmaEntry <- entry, [device hca_handles hca_objects]);
            entries.iter().map(entry).collect()
        };
        RdmaStat {
            current: entries(&stats.current),
            limit: entries(&stats.limit),
            ..RdmaStat::default()
        }
    }

    fn oom_control(stats: &stats::OomControl) -> MemoryOomControl {
        message!(MemoryOomControl <- stats, [oom_kill_disable under_oom oom_kill])
    }
}

mod v2 {
    //! `io.containerd.cgroups.v2.Metrics`.

    use containerd_shim_protos::cgroups_v2::metrics::{
        CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData,
        PSIStats, PidsStat, RdmaEntry, RdmaStat,
    };
    use protobuf::MessageField;
    use runtime::cgroup::stats;

    pub(super) fn metrics(stats: &stats::StatsV2) -> Metrics {
        Metrics {
            pids: stats.pids.map(|pids| message!(PidsStat <- pids, [current limit])).into(),
            cpu: MessageField::some(cpu(&stats.cpu)),
            memory: stats.memory.as_ref().map(memory).into(),
            rdma: stats.rdma.as_ref().map(rdma).into(),
            io: stats.io.as_ref().map(io).into(),
            hugetlb: stats.hugetlb.iter().map(hugetlb).collect(),
            memory_events: stats.memory_events.as_ref().map(memory_events).into(),
            ..Metrics::default()
        }
    }

    fn cpu(stats: &stats::CpuStatsV2) -> CPUStat {
        message!(CPUStat <- &stats.stat, [
            usage_usec user_usec system_usec nr_periods nr_throttled throttled_usec nr_bursts
            burst_usec
        ], psi: psi(stats.psi))
    }

    fn psi(pressure: Option<stats::Pressure>) -> MessageField<PSIStats> {
        let line = |line: Option<stats::PressureLine>| {
            line.map(|line| message!(PSIData <- line, [avg10 avg60 avg300 total])).into()
        };
        let stats = pressure.map(|pressure| PSIStats {
            some: line(pressure.some),
            full: line(pressure.full),
            ..PSIStats::default()
        });
        stats.into()
    }

    fn memory(stats: &stats::MemoryStatsV2) -> MemoryStat {
        message!(MemoryStat <- &stats.stat, [
            anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp
            inactive_anon active_anon inactive_file active_file unevictable slab_reclaimable
            slab_unreclaimable pgfault pgmajfault workingset_refault workingset_activate
            workingset_nodereclaim pgrefill pgscan pgsteal pgactivate pgdeactivate pglazyfree
            pglazyfreed thp_fault_alloc thp_collapse_alloc
        ],
            usage: stats.usage,
            usage_limit: stats.usage_limit,
            swap_usage: stats.swap_usage,
            swap_limit: stats.swap_limit,
            max_usage: stats.max_usage,
            swap_max_usage: stats.swap_max_usage,
            psi: psi(stats.psi),
        )
    }

    fn rdma(stats: &stats::RdmaStats) -> RdmaStat {
        let entries = |entries: &[stats::RdmaEntry]| {
            let entry = |entry: &stats::RdmaEntry| message!(RdmaEntry <- entry, [device hca_handles hca_objects]);
            entries.iter().map(entry).collect()
        };
        RdmaStat {
            current: entries(&stats.current),
            limit: entries(&stats.limit),
            ..RdmaStat::default()
        }
    }

    fn io(stats: &stats::IoStats) -> IOStat {
        let entry = |entry: &stats::IoEntry| message!(IOEntry <- entry, [major minor rbytes wbytes rios wios]);
        IOStat {
            usage: stats.usage.iter().map(entry).collect(),
            psi: psi(stats.psi),
            ..IOStat::default()
        }
    }

    fn hugetlb(stats: &stats::HugetlbStatsV2) -> HugeTlbStat {
        message!(HugeTlbStat <- stats, [current max pagesize failcnt])
    }

    fn memory_events(stats: &stats::MemoryEvents) -> MemoryEvents {
        message!(MemoryEvents <- stats, [low high max oom oom_kill oom_group_kill])
    }
}
