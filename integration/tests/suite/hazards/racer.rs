//! Who changes names while containers are made, and what must not change meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use myshim_integration::{Test, host};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use super::binary;

pub(super) fn starts() -> usize {
    let wanted = std::env::var("MYSHIM_RACE_STARTS").ok();
    wanted.map_or(30, |text| text.parse().expect("MYSHIM_RACE_STARTS is a whole number"))
}

pub(super) fn open_folder(dir: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, dir, flags, Mode::empty()).unwrap()
}

/// Changes what a name stands for, over and over.
pub(super) struct Racer {
    wish: Arc<AtomicU8>,
    /// What of [`Racer::wish`] it does.
    does: Arc<AtomicU8>,
    thread: JoinHandle<u64>,
}

pub(super) const RACE: u8 = 0;
pub(super) const PAUSE: u8 = 1;
pub(super) const STOP: u8 = 2;

impl Racer {
    /// Exchanges two names in a folder.
    pub(super) fn exchange(dir: &Path, one: &str, other: &str) -> Self {
        let (dir, one, other) = (open_folder(dir), one.to_owned(), other.to_owned());
        Self::start(move || {
            rustix::fs::renameat_with(&dir, &one, &dir, &other, RenameFlags::EXCHANGE).unwrap();
        })
    }

    pub(super) fn start(mut change: impl FnMut() + Send + 'static) -> Self {
        let (wish, does) = (Arc::new(AtomicU8::new(RACE)), Arc::new(AtomicU8::new(RACE)));
        let (wished, doing) = (Arc::clone(&wish), Arc::clone(&does));
        let thread = std::thread::spawn(move || {
            let mut times = 0;
            loop {
                let wished = wished.load(Ordering::SeqCst);
                doing.store(wished, Ordering::SeqCst);
                match wished {
                    STOP => return times,
                    PAUSE => std::thread::yield_now(),
                    _ => {
                        change();
                        times += 1;
                    }
                }
            }
        });
        Self { wish, does, thread }
    }

    /// Makes it race or pause, and waits until it does.
    pub(super) fn set(&self, wish: u8) {
        self.wish.store(wish, Ordering::SeqCst);
        while self.does.load(Ordering::SeqCst) != wish {
            assert!(!self.thread.is_finished(), "the racer has failed");
            std::thread::yield_now();
        }
    }

    /// How often it has exchanged them.
    pub(super) fn stop(self) -> u64 {
        self.wish.store(STOP, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// A tree of the host outside of all roots and volumes, which must stay as it is to the
/// nanosecond: a file that is made in it and taken away again changes its folder's times.
pub(super) struct Decoy {
    dir: PathBuf,
    before: BTreeMap<PathBuf, (u64, u32, u64, i64, i64)>,
    binary: Vec<u8>,
}

impl Decoy {
    pub(super) fn new(t: &Test) -> Self {
        let dir = t.folder("decoy");
        for name in ["mnt", "etc", "x/mnt", "self/attr", "sys/kernel"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        for name in ["etc/shadow", "secret", "null", "self/attr/exec"] {
            fs::write(dir.join(name), "SECRET\n").unwrap();
        }
        Self { before: listing(&dir), dir, binary: binary::hash(t) }
    }

    pub(super) fn is_untouched(&self, t: &Test) {
        assert_eq!(listing(&self.dir), self.before);
        let dir = self.dir.to_string_lossy();
        assert!(!host::mounts().iter().any(|mount| mount.contains(&*dir)), "mounted on the host");
        assert_eq!(super::made_outside(t), [""; 0]);
        assert_eq!(binary::hash(t), self.binary);
    }
}

fn listing(dir: &Path) -> BTreeMap<PathBuf, (u64, u32, u64, i64, i64)> {
    let mut all = BTreeMap::new();
    let mut ahead = vec![dir.to_path_buf()];
    while let Some(path) = ahead.pop() {
        let file = path.symlink_metadata().unwrap();
        if file.is_dir() {
            ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let times = (file.mtime(), file.ctime_nsec());
        all.insert(path, (file.ino(), file.mode(), file.size(), times.0, times.1));
    }
    all
}

/// How starts ended, and how often names were exchanged: for the message, and to see that there
/// was a race.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) worked: usize,
    failed: BTreeMap<String, usize>,
    pub(super) exchanges: u64,
}

impl Tally {
    pub(super) fn failed(&mut self, error: &str) {
        // Descriptors and other numbers aside, so that equal reasons are counted as one.
        let plain: String = error.chars().filter(|c| !c.is_ascii_digit()).collect();
        *self.failed.entry(plain).or_default() += 1;
    }

    pub(super) fn close(self) {
        assert!(self.worked > 0, "no start worked: {self:#?}");
        assert!(self.exchanges > 1000, "there was hardly a race: {self:#?}");
        println!("{self:#?}");
    }
}
