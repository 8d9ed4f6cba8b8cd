//! What a daemon takes when nothing happens.

use std::fs;

use myshim_integration::process::{Process, descriptors, status};
use myshim_integration::wait;

/// How much more private memory is no growth. The allocator keeps what sixteen clients at once
/// needed at most, in pieces whose number depends on how they met, and a page of it counts when
/// any byte was written: the size goes up and down with each third. What an operation would leave
/// behind adds up: a run of 660 s did 61,226 operations, and 1,692 KiB after the first third were
/// 1,768 KiB after the last; 13 bytes left by each operation between would have been too many.
const TOLERANCE_KIB: u64 = 512;

/// Of the daemon, its spawner, and the main that waits.
#[derive(Debug)]
pub(super) struct Sizes {
    private_dirty_kib: u64,
    threads: Option<String>,
    processes: Vec<String>,
    /// Beside the one that has served already there may be one that was ordered meanwhile.
    mains: usize,
    descriptors: Vec<String>,
}

impl Sizes {
    /// Once two looks in a row see the same, but for the memory.
    pub(super) fn settled(daemon: u32) -> Sizes {
        let mut last = Sizes::now(daemon);
        wait::within(wait::SOON, || {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let now = Sizes::now(daemon);
            let same = now.is_like(&last);
            last = now;
            same.then_some(())
        });
        last
    }

    fn now(daemon: u32) -> Sizes {
        let family = |process: &Process| process.parent == daemon || process.pid == daemon;
        let (mains, others): (Vec<_>, Vec<_>) = Process::all()
            .into_values()
            .filter(family)
            .partition(|process| process.comm == "myshim:waits");
        let sizes = |family: &[Process]| -> Vec<u64> {
            family.iter().map(|process| private_dirty(process.pid)).collect()
        };
        let mut processes: Vec<String> = others.iter().map(|other| other.comm.clone()).collect();
        processes.sort();
        let mut open = descriptors(daemon);
        // Sockets and pidfds by what they are: their numbers differ.
        open.iter_mut().for_each(|link| link.truncate(link.find(':').unwrap_or(link.len())));
        let largest = sizes(&mains).into_iter().max().unwrap_or_default();
        Sizes {
            private_dirty_kib: sizes(&others).into_iter().sum::<u64>() + largest,
            threads: status(daemon, "Threads"),
            processes,
            mains: mains.len(),
            descriptors: open,
        }
    }

    fn is_like(&self, other: &Sizes) -> bool {
        self.processes == other.processes
            && self.mains == other.mains
            && self.descriptors == other.descriptors
    }

    pub(super) fn assert_no_larger_than(&self, before: &Sizes) {
        assert_eq!(self.processes, before.processes);
        assert!((1..=2).contains(&self.mains), "{} mains wait", self.mains);
        assert_eq!(self.threads, before.threads);
        assert_eq!(self.descriptors, before.descriptors);
        let (now, before) = (self.private_dirty_kib, before.private_dirty_kib);
        assert!(now <= before + TOLERANCE_KIB, "{before} KiB have become {now} KiB");
    }
}

fn private_dirty(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default()
}
