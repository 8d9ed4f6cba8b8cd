//! What a shim holds of the machine's memory.

use std::fs;

use myshim_integration::process::Process;

use crate::budgets::Bound;
use crate::command_line::Options;
use crate::shim::{Binary, Place, Shim};

/// Kibibytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Memory {
    resident: u64,
    proportional: u64,
    private: u64,
    dirty: u64,
    threads: u64,
}

/// A shim's process and its helpers: children of the same program.
fn of_shim(pid: u32) -> Memory {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let helpers = Process::all().into_values().filter(|process| {
        process.parent == pid
            && fs::read_link(format!("/proc/{}/exe", process.pid)).is_ok_and(|exe| exe == program)
    });
    let pids = helpers.map(|process| process.pid).chain([pid]);
    pids.map(of_process).fold(Memory::default(), |sum, one| Memory {
        resident: sum.resident + one.resident,
        proportional: sum.proportional + one.proportional,
        private: sum.private + one.private,
        dirty: sum.dirty + one.dirty,
        threads: sum.threads.max(one.threads),
    })
}

fn of_process(pid: u32) -> Memory {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    Memory {
        resident: field("Rss:"),
        proportional: field("Pss:"),
        private: field("Private_Clean:") + field("Private_Dirty:"),
        dirty: field("Private_Dirty:"),
        threads: u64::try_from(tasks).unwrap(),
    }
}

/// Containers beyond the first one.
const MORE: u64 = 10;
/// Execs after which what grows at first has grown: buffers, and the heap's free lists.
const FIRST_EXECS: usize = 500;

/// Two pages, in KiB: by so much the same program differs from run to run.
const FLAT: f64 = 8.0;

/// A table with one shim per line.
pub(crate) fn table(options: &Options, place: &Place<'_>) -> String {
    let execs = options.execs;
    let mut text = format!(
        "### Memory\n\nKiB, of the daemon and its helpers together, while a second shim of the \
         same program runs, as on any node with two pods: pages of the program are the page \
         cache's. Threads: the most of one process.\n\n| | private, 1 container | of it dirty \
         | PSS | RSS | threads | dirty per further container | dirty after {MORE} containers came \
         and went | and {FIRST_EXECS} execs | and {execs} more \
         |\n|---|---|---|---|---|---|---|---|---|---|\n"
    );
    for binary in &options.shims {
        let mut other = Shim::start(place, binary, &format!("o-{}", binary.name));
        other.sleeper("mo");
        other.exec("mo");
        text += &line(options, place, binary);
        other.end("mo");
        other.shutdown();
    }
    text + "\n"
}

fn execute(shim: &mut Shim<'_>, execs: usize) {
    for _ in 0..execs {
        shim.exec("m0");
    }
}

fn line(options: &Options, place: &Place<'_>, binary: &Binary) -> String {
    let mut shim = Shim::start(place, binary, &format!("m-{}", binary.name));
    shim.sleeper("m0");
    let pid = shim.pid();
    shim.state("m0");
    let one = of_shim(pid);
    (1..=MORE).for_each(|n| shim.sleeper(&format!("m{n}")));
    let many = of_shim(pid);
    (1..=MORE).for_each(|n| shim.end(&format!("m{n}")));
    let gone = of_shim(pid);
    execute(&mut shim, FIRST_EXECS);
    let before = of_shim(pid);
    execute(&mut shim, options.execs);
    let after = of_shim(pid);
    shim.end("m0");
    shim.shutdown();
    let each = many.dirty.saturating_sub(one.dirty) / MORE;
    if binary.name == options.shims[0].name {
        let note = |what: &str, budget, measured: u64, unit| {
            let measured = f64::from(u32::try_from(measured).unwrap());
            options.budgets.note(what, Bound::AtMost, budget, measured, unit);
        };
        note("Private memory with one container", 1024.0, one.private, "KiB");
        note("Private memory of each further container", 64.0, each, "KiB");
        let grown = after.dirty.saturating_sub(before.dirty);
        note(
            &format!("Growth in {} execs, after the first {FIRST_EXECS}", options.execs),
            FLAT,
            grown,
            "KiB",
        );
        note("Threads of a process", 1.0, one.threads, "");
    }
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        binary.name,
        one.private,
        one.dirty,
        one.proportional,
        one.resident,
        one.threads,
        each,
        gone.dirty,
        before.dirty,
        after.dirty,
    )
}
