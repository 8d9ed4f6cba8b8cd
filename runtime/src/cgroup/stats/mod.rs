//! What a container uses, as the kernel counts it: all that containerd's metrics have fields
//! for, in their units.
//!
//! Every file is read for itself. One that is missing (an older kernel, a controller that is
//! not enabled, no swap) leaves its own figures at 0, or its group at `None`, and no others.

mod parse;
mod v1;
mod v2;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;

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
        match paths.directories.first() {
            Some(directory) if directory.path.exists() => Ok(match is_v1 {
                true => Stats::V1(Box::new(v1::read(paths))),
                false => Stats::V2(Box::new(v2::read(&directory.path))),
            }),
            gone => Err(Error::new(Kind::NotFound(match gone {
                Some(directory) => format!("cgroup {}", directory.path.display()),
                None => "cgroup of the container".to_owned(),
            }))),
        }
    }
}

/// The files of one directory, which may not be there.
#[derive(Clone, Copy)]
struct Source<'a>(Option<&'a Path>, Option<BorrowedFd<'a>>);

impl<'a> Source<'a> {
    fn new(directory: Option<&'a Path>) -> Self {
        Source(directory, None)
    }

    /// Where many files are read: the same directory, open. The way to it is gone once then.
    fn within(self, open: Option<&'a OwnedFd>) -> Self {
        Source(self.0, open.map(AsFd::as_fd))
    }

    fn open(self) -> Option<OwnedFd> {
        files::open(self.0?, OFlags::PATH | OFlags::DIRECTORY).ok()
    }

    /// A file that cannot be read is one that has no figures.
    fn text(self, file: &str) -> Option<String> {
        match self.1 {
            Some(directory) => files::try_read_at(directory, file).ok(),
            None => files::try_read(&self.0?.join(file)).ok(),
        }
    }

    fn has(self, file: &str) -> bool {
        self.0.is_some_and(|directory| directory.join(file).exists())
    }

    fn number(self, file: &str) -> Option<u64> {
        parse::number(self.text(file)?.trim())
    }

    /// The value of a key in a file of lines `key value`.
    fn value(self, file: &str, key: &str) -> Option<u64> {
        files::flat_value(&self.text(file)?, key).and_then(parse::number)
    }

    fn numbers(self, file: &str) -> Vec<u64> {
        let text = self.text(file).unwrap_or_default();
        text.split_whitespace().filter_map(parse::number).collect()
    }

    fn pressure(self, file: &str) -> Option<Pressure> {
        parse::pressure(&self.text(file)?)
    }

    fn rdma(self) -> Option<RdmaStats> {
        let current = parse::rdma(&self.text("rdma.current")?);
        Some(RdmaStats { current, limit: parse::rdma(&self.text("rdma.max").unwrap_or_default()) })
    }
}

#[cfg(test)]
mod tests;
