//! What a container uses, as the kernel counts it: all that containerd's metrics have fields
//! for, in their units.
//!
//! Every file is read for itself. One that is missing (an older kernel, a controller that is
//! not enabled, no swap) leaves its own figures at 0, or its group at `None`, and no others.

mod parse;
mod v1;
mod v2;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{CgroupPaths, Version, files};
use crate::error::{Error, Kind, Result};

pub use parse::{Pressure, PressureLine, RdmaEntry, RdmaStats};
pub use v1::{
    BlkioEntry, BlkioStats, CpuStatsV1, HugetlbStatsV1, MemoryEntry, MemoryStatV1, MemoryStatsV1,
    OomControl, StatsV1, Throttling,
};
pub use v2::{
    CpuStatV2, CpuStatsV2, HugetlbStatsV2, IoEntry, IoStats, MemoryEvents, MemoryStatV2,
    MemoryStatsV2, StatsV2,
};

/// Metrics in the form of the host's version. A hybrid host is one of v1, as containerd sees
/// it, with what its v2 hierarchy has in the same form.
#[derive(Debug, Clone, PartialEq)]
pub enum Stats {
    /// As `io.containerd.cgroups.v1.Metrics`.
    V1(Box<StatsV1>),
    /// As `io.containerd.cgroups.v2.Metrics`.
    V2(Box<StatsV2>),
}

/// pids.current and pids.max.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// How many tasks there are.
    pub current: u64,
    /// How many there may be; without a limit 0 on v1 and `u64::MAX` on v2, as containerd has
    /// it.
    pub limit: u64,
}

impl Stats {
    /// Reads them all: about 30 small files, without waiting.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone.
    pub fn read(paths: &CgroupPaths) -> Result<Stats> {
        let is_v1 = paths.directories.iter().any(|d| d.version == Version::V1);
        // The one with the most files stands for all.
        let memory = paths.v1("memory");
        let Some(directory) = memory.or(paths.directories.first().map(|first| &*first.path)) else {
            return Err(Error::new(Kind::NotFound("cgroup of the container".to_owned())));
        };
        let Ok(open) = files::open(directory, OFlags::PATH | OFlags::DIRECTORY) else {
            return Err(Error::new(Kind::NotFound(format!("cgroup {}", directory.display()))));
        };
        let source = Source { directory: Some(directory), open: Some(open.as_fd()) };
        Ok(match is_v1 {
            true => Stats::V1(Box::new(v1::read(paths, memory.map(|_| source)))),
            false => Stats::V2(Box::new(v2::read(source))),
        })
    }
}

/// The files of one directory, which may not be there.
#[derive(Clone, Copy)]
struct Source<'a> {
    directory: Option<&'a Path>,
    /// The same, where many files are read: the way to it is gone once then.
    open: Option<BorrowedFd<'a>>,
}

impl<'a> Source<'a> {
    fn new(directory: Option<&'a Path>) -> Self {
        Source { directory, open: None }
    }

    /// What `look` finds in the file. One that cannot be read is one that has no figures.
    fn text<T>(self, file: &str, look: impl FnOnce(&str) -> T) -> Option<T> {
        let fd = match self.open {
            Some(directory) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                rustix::fs::openat(directory, file, flags, Mode::empty())
            }
            None => files::open(&self.directory?.join(file), OFlags::RDONLY),
        };
        files::look_at(fd.ok()?, look).ok()
    }

    fn has(self, file: &str) -> bool {
        self.directory.is_some_and(|directory| directory.join(file).exists())
    }

    fn number(self, file: &str) -> Option<u64> {
        self.text(file, |text| parse::number(text.trim()))?
    }

    /// The value of a key in a file of lines `key value`.
    fn value(self, file: &str, key: &str) -> Option<u64> {
        self.text(file, |text| files::flat_value(text, key).and_then(parse::number))?
    }

    fn numbers(self, file: &str) -> Vec<u64> {
        let numbers = |text: &str| text.split_whitespace().filter_map(parse::number).collect();
        self.text(file, numbers).unwrap_or_default()
    }

    fn pressure(self, file: &str) -> Option<Pressure> {
        self.text(file, parse::pressure)?
    }

    fn rdma(self) -> Option<RdmaStats> {
        let current = self.text("rdma.current", parse::rdma)?;
        Some(RdmaStats { current, limit: self.text("rdma.max", parse::rdma).unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests;
