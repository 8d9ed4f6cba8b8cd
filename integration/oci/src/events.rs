//! `events`.

use std::time::Duration;

use runtime::Result;
use runtime::apply::oci_state::Status;
use runtime::cgroup::Stats;
use runtime::cgroup::stats::{
    BlkioEntry, BlkioStats, MemoryEntry, MemoryStatsV1, MemoryStatsV2, PidsStats, StatsV1, StatsV2,
};
use serde_json::{Value, json};

use crate::Context;
use crate::args::{Args, Operands, Takes};
use crate::container::Container;

/// `events [--stats] [--interval 5s] ID`.
pub(crate) fn events(context: &Context, words: Vec<String>) -> Result<()> {
    let known = [("stats", Takes::Nothing), ("interval", Takes::Value)];
    let mut args = Args::parse(words, &known, Operands::Between)?;
    let container = Container::open(&context.root, &args.operand("container id")?)?;
    let interval = args.value("interval").unwrap_or("5s").trim_end_matches('s');
    let interval = u64::try_from(crate::args::number("interval", interval)?).unwrap_or(5);
    container.init()?;
    loop {
        let data = match Stats::read(&container.state.cgroup)? {
            Stats::V1(stats) => v1(&stats),
            Stats::V2(stats) => v2(&stats),
        };
        println!("{}", json!({"type": "stats", "id": container.id, "data": data}));
        if args.has("stats") || container.status()? == Status::Stopped {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(interval));
    }
}

fn v1(stats: &StatsV1) -> Value {
    let cpu = &stats.cpu;
    json!({
        "cpu": {
            "usage": {
                "total": cpu.total, "percpu": cpu.per_cpu, "kernel": cpu.kernel, "user": cpu.user,
            },
            "throttling": {
                "periods": cpu.throttling.periods,
                "throttledPeriods": cpu.throttling.throttled_periods,
                "throttledTime": cpu.throttling.throttled_time,
            },
        },
        "memory": stats.memory.as_ref().map(memory_v1),
        "pids": stats.pids.as_ref().map(pids),
        "blkio": stats.blkio.as_ref().map(blkio),
        "hugetlb": stats.hugetlb.iter().map(|size| {
            let values = json!({"usage": size.usage, "max": size.max, "failcnt": size.failcnt});
            (size.pagesize.clone(), values)
        }).collect::<serde_json::Map<_, _>>(),
    })
}

fn memory_v1(memory: &MemoryStatsV1) -> Value {
    json!({
        "cache": memory.stat.cache,
        "usage": entry(&memory.usage),
        "swap": entry(&memory.swap),
        "kernel": entry(&memory.kernel),
        "kernelTCP": entry(&memory.kernel_tcp),
    })
}

fn entry(entry: &MemoryEntry) -> Value {
    json!({
        "limit": entry.limit, "usage": entry.usage, "max": entry.max, "failcnt": entry.failcnt,
    })
}

fn pids(pids: &PidsStats) -> Value {
    json!({"current": pids.current, "limit": pids.limit})
}

fn blkio(stats: &BlkioStats) -> Value {
    let list = |entries: &[BlkioEntry]| entries.iter().map(blkio_entry).collect::<Vec<_>>();
    json!({
        "ioServiceBytesRecursive": list(&stats.io_service_bytes_recursive),
        "ioServicedRecursive": list(&stats.io_serviced_recursive),
    })
}

fn blkio_entry(entry: &BlkioEntry) -> Value {
    json!({"major": entry.major, "minor": entry.minor, "op": entry.op, "value": entry.value})
}

fn v2(stats: &StatsV2) -> Value {
    let cpu = &stats.cpu.stat;
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_usec * 1000,
                "kernel": cpu.system_usec * 1000,
                "user": cpu.user_usec * 1000,
            },
            "throttling": {
                "periods": cpu.nr_periods,
                "throttledPeriods": cpu.nr_throttled,
                "throttledTime": cpu.throttled_usec * 1000,
            },
        },
        "memory": stats.memory.as_ref().map(memory_v2),
        "pids": stats.pids.as_ref().map(pids),
    })
}

fn memory_v2(memory: &MemoryStatsV2) -> Value {
    json!({
        "cache": memory.stat.file,
        "usage": {
            "limit": memory.usage_limit, "usage": memory.usage, "max": memory.max_usage,
        },
        "swap": {
            "limit": memory.swap_limit, "usage": memory.swap_usage, "max": memory.swap_max_usage,
        },
    })
}
