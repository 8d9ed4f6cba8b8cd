//! Stopping all processes of a container, and letting them run again.
//!
//! Where the container has a v2 cgroup its freezer is used: it says when it is done, and frozen
//! processes can be killed. Otherwise it is that of v1, which has to be asked until it is done.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use super::{Cgroup, files};
use crate::error::{At, Call, Error, Kind, Result};

/// How long processes may take to stop: one in an uninterruptible sleep (a dead NFS server, a
/// FUSE daemon that is frozen itself) stops when the kernel wakes it.
const DEADLINE: Duration = Duration::from_secs(10);

/// The freezer's position, as it was last set. (A signal makes a frozen process move for a
/// moment, on its way back into the freezer.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// Processes are to stop, and [`Cgroup::freeze`] waited until they had.
    Frozen,
    /// Processes run.
    Thawed,
}

enum Freezer<'a> {
    V1(&'a Path),
    V2(&'a Path),
}

impl Cgroup {
    /// Stops all processes and waits until none runs.
    ///
    /// # Errors
    /// `Deadline` when a process does not stop within 10 s: all run again then. `Unsupported`
    /// when the container is in no freezer.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_within(DEADLINE)
    }

    pub(super) fn freeze_within(&self, within: Duration) -> Result<()> {
        let result = match self.freezer()? {
            Freezer::V2(directory) => freeze_v2(directory, within),
            Freezer::V1(directory) => freeze_v1(directory, within),
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) => match self.thaw() {
                Ok(()) => Err(error.at("freeze the cgroup")),
                Err(undo) => Err(error.at(format!("freeze the cgroup (not undone: {undo})"))),
            },
        }
    }

    /// Lets all processes run.
    ///
    /// # Errors
    /// `Call` for what the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        match self.freezer()? {
            Freezer::V2(directory) => files::write(&directory.join("cgroup.freeze"), "0"),
            Freezer::V1(directory) => files::write(&directory.join("freezer.state"), "THAWED"),
        }
        .at("thaw the cgroup")
    }

    /// The freezer's position. `None` when there is no freezer, or no cgroup any more.
    ///
    /// # Errors
    /// `Call` when it cannot be read.
    pub fn freezer_state(&self) -> Result<Option<Freeze>> {
        let file = match self.freezer() {
            Ok(Freezer::V2(directory)) => directory.join("cgroup.freeze"),
            Ok(Freezer::V1(directory)) => directory.join("freezer.self_freezing"),
            Err(_) => return Ok(None),
        };
        match files::try_read(&file) {
            Ok(position) if position.trim() == "1" => Ok(Some(Freeze::Frozen)),
            Ok(_) => Ok(Some(Freeze::Thawed)),
            Err(errno) if files::is_gone(errno) => Ok(None),
            Err(errno) => Err(errno).call(|| format!("read({})", file.display())),
        }
    }

    fn freezer(&self) -> Result<Freezer<'_>> {
        let v1 = self.paths.v1("freezer");
        match (self.paths.v2(), v1) {
            // cgroup.freeze is there since Linux 5.2.
            (Some(v2), None) => Ok(Freezer::V2(v2)),
            (Some(v2), Some(_)) if has_freezer(v2)? => Ok(Freezer::V2(v2)),
            (_, Some(v1)) => Ok(Freezer::V1(v1)),
            (None, None) => Err(Error::new(Kind::Unsupported(
                "the container is in no cgroup that can be frozen (v2, or freezer of v1)".into(),
            ))),
        }
    }
}

/// A look that fails must not be taken for a no: what one freezer stops, the other does not let go.
fn has_freezer(v2: &Path) -> Result<bool> {
    let file = v2.join("cgroup.freeze");
    file.try_exists().call(|| format!("stat({})", file.display()))
}

fn freeze_v2(directory: &Path, within: Duration) -> Result<()> {
    // Opened before the write, so that no change is missed.
    let path = directory.join("cgroup.events");
    let events = files::open(&path, OFlags::RDONLY).call(|| format!("open({})", path.display()))?;
    files::write(&directory.join("cgroup.freeze"), "1")?;
    wait_for_event(&events, &path, "frozen", "1", within)
}

/// Waits until a line of cgroup.events says so: the kernel tells its changes by POLLPRI.
pub(super) fn wait_for_event(
    events: &std::os::fd::OwnedFd,
    path: &Path,
    key: &str,
    value: &str,
    within: Duration,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        rustix::fs::seek(events, rustix::fs::SeekFrom::Start(0))
            .call(|| format!("lseek({})", path.display()))?;
        let content = match files::read_fd(events) {
            Ok(content) => content,
            // Removed meanwhile: nothing runs in it.
            Err(errno) if files::is_gone(errno) => return Ok(()),
            Err(errno) => return Err(errno).call(|| format!("read({})", path.display())),
        };
        if files::flat_value(&content, key) == Some(value) {
            return Ok(());
        }
        let left = within.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(late(format!("`{key} {value}` in {}", path.display()), within));
        }
        let timeout = Timespec::try_from(left).ok();
        let mut poll = [PollFd::new(events, PollFlags::PRI)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, timeout.as_ref()))
            .call(|| format!("poll({})", path.display()))?;
    }
}

/// Processes that are forked while the kernel walks the list are missed by it, so the order has
/// to be given again; v1 has no event to wait for. When processes keep appearing, letting them
/// run for a moment helps: the order then meets them in another state.
fn freeze_v1(directory: &Path, within: Duration) -> Result<()> {
    const LONGEST_PAUSE: Duration = Duration::from_millis(5);
    let file = directory.join("freezer.state");
    let begin = Instant::now();
    let mut pause = Duration::from_micros(20);
    for round in 1u32.. {
        files::write(&file, "FROZEN")?;
        if files::read(&file)?.trim() == "FROZEN" {
            return Ok(());
        }
        if begin.elapsed() > within {
            break;
        }
        if round % 50 == 0 {
            files::write(&file, "THAWED")?;
        }
        std::thread::sleep(pause);
        pause = LONGEST_PAUSE.min(pause * 2);
    }
    Err(late(format!("FROZEN in {}", file.display()), within))
}

/// The error of a wait that took too long.
pub(super) fn late(awaited: String, within: Duration) -> Error {
    let after_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    Error::new(Kind::Deadline { awaited, after_ms })
}
