//! Telling that the kernel killed a process for want of memory.
//!
//! ```text
//!  v1: eventfd ◀─ cgroup.event_control ("EVENTFD OOM_CONTROL")   readable
//!  v2: memory.events itself                                      POLLPRI
//! ```
//!
//! Neither needs an inotify instance, of which a user may have 128 in all. v1 counts the processes
//! of this very cgroup, v2 those below it as well.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::kernel_log::KernelLog;
use super::limit_hit::{self, LimitHit, Limits};
use super::{CgroupPaths, files};
use crate::error::{At, Call, Error, Kind, Result};

/// Watches one container.
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    seen: u64,
    /// Kills that were told.
    told: usize,
    /// Where somebody else removes the cgroup.
    log: Option<KernelLog>,
}

/// How the fd of a watch tells news, for poll(2) and epoll(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// POLLIN.
    Readable,
    /// POLLPRI (and POLLERR, which is no error here).
    Priority,
}

#[derive(Debug)]
enum Source {
    V1 { event: OwnedFd, control: OwnedFd, path: PathBuf, directory: PathBuf },
    V2 { events: OwnedFd, path: PathBuf, limits: Limits },
}

/// Processes of a container that the kernel has killed for want of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kills {
    /// How many.
    pub count: u64,
    /// Whose limit was hit.
    pub limit: LimitHit,
}

impl OomWatch {
    /// Begins to watch; kills that were before do not count. It never blocks.
    ///
    /// # Errors
    /// `Unsupported` where no hierarchy has a memory controller, `Call` for what the kernel
    /// refuses.
    pub fn new(paths: &CgroupPaths) -> Result<OomWatch> {
        let source = match (paths.v1("memory"), paths.v2()) {
            (Some(directory), _) => watch_v1(directory),
            (None, Some(directory)) if directory.join("memory.events").exists() => {
                watch_v2(directory)
            }
            _ => Err(Error::new(Kind::Unsupported(
                "the container is in no cgroup with a memory controller".to_owned(),
            ))),
        };
        let unit = paths.unit.as_ref().and(paths.v2());
        let log = unit.and_then(KernelLog::from_now);
        let source = source.at("watch for OOM kills")?;
        let mut watch = OomWatch { source, seen: 0, told: 0, log };
        watch.drain()?;
        watch.told = 0;
        Ok(watch)
    }

    /// The fd to poll. It is non-blocking, and edge triggers do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V1 { event, .. } => event.as_fd(),
            Source::V2 { events, .. } => events.as_fd(),
        }
    }

    /// For which readiness to poll it.
    pub fn readiness(&self) -> Readiness {
        match &self.source {
            Source::V1 { .. } => Readiness::Readable,
            Source::V2 { .. } => Readiness::Priority,
        }
    }

    /// What was killed since the last call, in the cgroup and, on v2, in those below it. `None`
    /// when the cgroup is gone: there will be no more news. To be called when the fd is
    /// ready, and once more before an exit is reported, so that no kill is told after the exit
    /// it caused. It never blocks. Of a cgroup that systemd has removed in between, the kernel's
    /// log tells.
    ///
    /// # Errors
    /// `Call` when the counter cannot be read.
    pub fn drain(&mut self) -> Result<Option<Kills>> {
        let content = match self.source.take() {
            Ok(content) => content,
            Err(errno) if files::is_gone(errno) => return Ok(self.last_kills()),
            Err(errno) => return Err(errno).call(|| format!("read({})", self.source.path())),
        };
        let count = files::flat_value(&content, "oom_kill").and_then(|count| count.parse().ok());
        let count: u64 = count.ok_or_else(|| {
            let path = self.source.path();
            // Linux < 4.13 does not count.
            Error::new(Kind::Unsupported(format!("{path} has no oom_kill")))
        })?;
        let news = count.saturating_sub(self.seen);
        self.seen = count;
        self.told = self.told.saturating_add(usize::try_from(news).unwrap_or(usize::MAX));
        // Whose limit it was is counted a moment before the kill, so it is asked with the kill.
        let limit = if news == 0 { LimitHit::Own } else { self.source.limit_hit(&content) };
        Ok(Some(Kills { count: news, limit }))
    }

    /// What has not been told yet of a cgroup that is gone; once.
    fn last_kills(&mut self) -> Option<Kills> {
        let kills = self.log.take()?.kills();
        let untold = kills.len().saturating_sub(self.told);
        let limit = kills.into_iter().next_back()?;
        let count = u64::try_from(untold).ok().filter(|count| *count > 0)?;
        Some(Kills { count, limit })
    }
}

impl Source {
    /// Takes the news off the fd, and reads the counter.
    fn take(&self) -> rustix::io::Result<String> {
        let counter = match self {
            Source::V1 { event, control, .. } => {
                match rustix::io::read(event, &mut [0u8; 8]) {
                    Ok(_) | Err(Errno::AGAIN) => {}
                    Err(errno) => return Err(errno),
                }
                control
            }
            // A read from the beginning is what makes POLLPRI wait for the next change.
            Source::V2 { events, .. } => events,
        };
        rustix::fs::seek(counter, SeekFrom::Start(0))?;
        files::read_fd(counter)
    }

    fn limit_hit(&mut self, content: &str) -> LimitHit {
        match self {
            Source::V1 { directory, .. } => limit_hit::hit_v1(directory),
            Source::V2 { limits, .. } => limits.hit(content),
        }
    }

    fn path(&self) -> std::path::Display<'_> {
        match self {
            Source::V1 { path, .. } | Source::V2 { path, .. } => path.display(),
        }
    }
}

fn watch_v1(directory: &Path) -> Result<Source> {
    let path = directory.join("memory.oom_control");
    let control = files::open(&path, OFlags::RDONLY);
    let control = control.call(|| format!("open({})", path.display()))?;
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let event = eventfd(0, flags).call(|| "eventfd(0, CLOEXEC|NONBLOCK)".to_owned())?;
    let registration = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    files::write(&directory.join("cgroup.event_control"), &registration)?;
    Ok(Source::V1 { event, control, path, directory: directory.to_owned() })
}

fn watch_v2(directory: &Path) -> Result<Source> {
    let path = directory.join("memory.events");
    let events = files::open(&path, OFlags::RDONLY | OFlags::NONBLOCK);
    let events = events.call(|| format!("open({})", path.display()))?;
    let content = files::read_fd(&events).call(|| format!("read({})", path.display()))?;
    Ok(Source::V2 { events, path, limits: Limits::of(directory, &content) })
}

/// Tells after a death whether the kernel has killed for want of memory in a cgroup meanwhile.
#[derive(Debug)]
pub struct OomKills {
    counter: Counter,
    before: OomCounts,
}

/// Counters of a cgroup at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomCounts {
    kills: u64,
    /// How often the limit was hit, or one below it; 0 on v1.
    limits_hit: u64,
}

#[derive(Debug)]
enum Counter {
    At(PathBuf),
    Open(OwnedFd),
}

impl OomKills {
    /// Since the cgroup was made. Nothing is read yet. None: no hierarchy counts.
    pub fn since_birth(paths: &CgroupPaths) -> Option<OomKills> {
        OomKills::since(paths, OomCounts::default())
    }

    /// Since the counts were `before`. Nothing is read yet. None: no hierarchy counts.
    pub fn since(paths: &CgroupPaths, before: OomCounts) -> Option<OomKills> {
        counter_of(paths).map(|path| OomKills { counter: Counter::At(path), before })
    }

    /// Since now; the count can be asked for in another mount namespace. None: no hierarchy
    /// counts, or the count cannot be read.
    pub fn since_now(paths: &CgroupPaths) -> Option<OomKills> {
        let counter = files::open(&counter_of(paths)?, OFlags::RDONLY).ok()?;
        let before = OomCounts::parse(&files::read_fd(&counter).ok()?)?;
        Some(OomKills { counter: Counter::Open(counter), before })
    }

    /// What the counts were before.
    pub fn before(&self) -> OomCounts {
        self.before
    }

    /// What killed, in words; None when there was none or that cannot be known.
    pub fn explain(&self) -> Option<&'static str> {
        let content = match &self.counter {
            Counter::At(path) => files::try_read(path),
            Counter::Open(file) => {
                rustix::fs::seek(file, SeekFrom::Start(0)).and_then(|_| files::read_fd(file))
            }
        };
        let content = content.ok()?;
        let now = OomCounts::parse(&content)?;
        if now.kills <= self.before.kills {
            return None;
        }
        let tells = files::flat_value(&content, "oom").is_some();
        Some(match (tells, now.limits_hit > self.before.limits_hit) {
            (true, true) => "killed by the kernel in the container's cgroup, at its memory limit",
            (true, false) => {
                "killed by the kernel in the container's cgroup, at a memory limit above it or the host's"
            }
            (false, _) => "killed by the kernel in the container's cgroup",
        })
    }
}

impl OomCounts {
    fn parse(content: &str) -> Option<OomCounts> {
        let kills = files::flat_value(content, "oom_kill")?.parse().ok()?;
        Some(OomCounts { kills, limits_hit: limit_hit::ooms(content) })
    }
}

fn counter_of(paths: &CgroupPaths) -> Option<PathBuf> {
    let v1 = paths.v1("memory").map(|directory| directory.join("memory.oom_control"));
    v1.or_else(|| paths.v2().map(|directory| directory.join("memory.events")))
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::super::testing::TestCgroup;
    use super::*;

    /// Doubles a string until it is too large for the cgroup.
    const HOG: &str = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";

    fn is_ready(watch: &OomWatch, milliseconds: i64) -> bool {
        let flags = match watch.readiness() {
            Readiness::Readable => PollFlags::IN,
            Readiness::Priority => PollFlags::PRI,
        };
        let timeout = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        let fd = watch.fd();
        poll(&mut [PollFd::new(&fd, flags)], Some(&timeout)).unwrap() == 1
    }

    #[test]
    fn a_child_killed_for_memory_wakes_the_watch() {
        let mut group = TestCgroup::new(r#"{"memory":{"limit":16777216,"swap":16777216}}"#);
        let mut watch = OomWatch::new(group.cgroup.paths()).unwrap();
        assert!(!is_ready(&watch, 0));
        for _ in 0..2 {
            assert_eq!(group.run(HOG), 128 + 9);
            assert!(is_ready(&watch, 900));
            let kills = watch.drain().unwrap().unwrap();
            assert_eq!(kills.count, 1);
            assert!(matches!(kills.limit, LimitHit::Own | LimitHit::Untold), "{kills:?}");
            assert!(!is_ready(&watch, 0));
            assert_eq!(watch.drain().unwrap().unwrap().count, 0);
        }
    }

    #[test]
    fn kills_before_the_watch_do_not_count() {
        let mut group = TestCgroup::new(r#"{"memory":{"limit":16777216,"swap":16777216}}"#);
        assert_eq!(group.run(HOG), 128 + 9);
        let mut watch = OomWatch::new(group.cgroup.paths()).unwrap();
        assert_eq!(watch.drain().unwrap().unwrap().count, 0);
    }

    #[test]
    fn kills_are_told_from_birth_or_from_a_moment_on() {
        let mut group = TestCgroup::new(r#"{"memory":{"limit":16777216,"swap":16777216}}"#);
        let born = OomKills::since_birth(group.cgroup.paths()).unwrap();
        assert_eq!(born.explain(), None);
        assert_eq!(group.run(HOG), 128 + 9);
        let later = OomKills::since_now(group.cgroup.paths()).unwrap();
        assert!(born.explain().is_some_and(|words| words.contains("killed by the kernel")));
        assert_eq!(later.explain(), None);
        assert_eq!(group.run(HOG), 128 + 9);
        assert!(later.explain().is_some());
    }

    #[test]
    fn the_watch_ends_with_the_cgroup() {
        let group = TestCgroup::new("{}");
        let mut watch = OomWatch::new(group.cgroup.paths()).unwrap();
        group.cgroup.remove().unwrap();
        assert!(is_ready(&watch, 900));
        assert_eq!(watch.drain().unwrap(), None);
    }
}
