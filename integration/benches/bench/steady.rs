//! What shims cost while their containers run: output, and exec probes.

use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use myshim_integration::process::Process;

use crate::budgets::Bound;
use crate::command_line::Options;
use crate::shim::{Binary, Place, Shim};
use crate::started;

/// MiB that a container writes to its standard output.
const MIB: u64 = 1024;
/// Containers with probes, each with a shim of its own.
const PROBED: usize = 10;
/// Probes a second, all containers together: what Go's shim still does in time here.
const RATE: u32 = 20;
const PROBES: u32 = 400;

/// Hundredths of a second, as /proc/PID/stat has them.
const TICKS: f64 = 100.0;

/// Fields 14 to 17 of /proc/PID/stat: own time, and that of children that were waited for.
fn times(pid: u32) -> [u64; 4] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n: usize| rest.split_whitespace().nth(n - 3).and_then(|f| f.parse().ok());
    [14, 15, 16, 17].map(|n| field(n).unwrap_or_default())
}

/// A shim's helpers: children of the same program.
fn helpers(pid: u32) -> Vec<u32> {
    let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let program = exe(pid);
    let all = Process::all().into_values();
    all.filter(|p| p.parent == pid && exe(p.pid) == program).map(|p| p.pid).collect()
}

/// Seconds of processor time of a shim and its helpers, without their containers.
fn own_time(pid: u32) -> f64 {
    let pids = helpers(pid).into_iter().chain([pid]);
    seconds(pids.map(|pid| times(pid)[..2].iter().sum::<u64>()).sum())
}

/// The same with all that they have started and waited for.
fn whole_time(pid: u32) -> f64 {
    let helpers = helpers(pid).into_iter().map(|pid| times(pid)[..2].iter().sum::<u64>());
    seconds(helpers.sum::<u64>() + times(pid).iter().sum::<u64>())
}

fn seconds(ticks: u64) -> f64 {
    f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / TICKS
}

/// A container that writes as fast as it can, into a fifo that somebody reads.
pub(crate) fn output(options: &Options, place: &Place<'_>) -> String {
    let mut text = format!(
        "### Output\n\n{MIB} MiB from a container's standard output to who reads its fifo.\n\n\
         | | s | MiB/s | CPU of the shim, s |\n|---|---|---|---|\n"
    );
    for binary in &options.shims {
        let mut shim = Shim::start(place, binary, &format!("out-{}", binary.name));
        let pid = shim.pid();
        let before = own_time(pid);
        let (took, bytes) = pour(&mut shim, "pour");
        assert_eq!(bytes, MIB << 20, "{}: output is lost", binary.name);
        let cpu = own_time(pid) - before;
        if binary.name == options.shims[0].name {
            options.budgets.note(
                "CPU of the shim for 1 GiB of output",
                Bound::AtMost,
                0.0,
                cpu,
                "s",
            );
        }
        shim.shutdown();
        let (took, mib) = (took.as_secs_f64(), f64::from(u32::try_from(MIB).unwrap()));
        text += &format!("| {} | {took:.2} | {:.0} | {cpu:.2} |\n", binary.name, mib / took);
    }
    text + "\n"
}

fn pour(shim: &mut Shim<'_>, id: &str) -> (Duration, u64) {
    let script = format!("dd if=/dev/zero bs=65536 count={} 2>/dev/null", MIB * 16);
    let fifo = shim.prepare_output(id, &["sh", "-c", &script]);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut file = File::open(&fifo).unwrap();
            let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
            while let Ok(read @ 1..) = file.read(&mut buffer) {
                bytes += u64::try_from(read).unwrap();
            }
            bytes
        });
        shim.create_with_output(id, &fifo);
        let begin = Instant::now();
        shim.finish(id, "");
        let bytes = reader.join().unwrap();
        (begin.elapsed(), bytes)
    })
}

/// Probes at a fixed rate.
pub(crate) fn probes(options: &Options, place: &Place<'_>) -> String {
    let mut text = format!(
        "### Exec probes\n\n{PROBES} execs of `true`, {RATE} a second, in {PROBED} containers with \
         a shim each. Processor time of the shims and all that they start, the probe itself \
         included.\n\n| | CPU ms per exec | of one core |\n|---|---|---|\n"
    );
    let mut figures = Vec::new();
    for binary in &options.shims {
        let per_exec = probe(place, binary);
        figures.push(per_exec);
        let share = per_exec * f64::from(RATE) / 10.0;
        text += &format!("| {} | {per_exec:.2} | {share:.1} % |\n", binary.name);
    }
    if let [ours, theirs, ..] = figures[..] {
        let part = ours / theirs;
        options.budgets.note("CPU of exec probes", Bound::AtMost, 0.125, part, "× the peer's");
    }
    text + "\n"
}

fn probe(place: &Place<'_>, binary: &Binary) -> f64 {
    let mut shims: Vec<_> = (0..PROBED)
        .map(|n| {
            let prefix = format!("pr{n}");
            started(place, binary, &prefix).with_sleeper(&prefix)
        })
        .collect();
    let pids: Vec<u32> = shims.iter_mut().map(|shim| shim.as_mut().pid()).collect();
    let total = || pids.iter().map(|pid| whole_time(*pid)).sum::<f64>();
    let (before, begin) = (total(), Instant::now());
    for number in 0..PROBES {
        let due = Duration::from_secs(1) * number / RATE;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        let shim = &mut shims[usize::try_from(number).unwrap() % PROBED];
        let id = shim.sleeper_id();
        shim.as_mut().exec(&id);
    }
    (total() - before) * 1000.0 / f64::from(PROBES)
}
