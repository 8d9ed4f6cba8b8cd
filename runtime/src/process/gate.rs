//! The gate of a container that lives without a daemon: two FIFOs beside its state, by which any
//! process may start it.
//!
//! ```text
//!  <state dir>/start.fifo    starter --Start--> init
//!  <state dir>/started.fifo  init --Executing, Failed--> starter; its end is the execve
//! ```
//!
//! FIFOs and not a socket: behind its seccomp filter init needs nothing but read(2) and write(2)
//! for them, and whether init still waits is known without a word to it. It holds both open for
//! reading and writing, so that it sees neither an end nor EPIPE; for anybody else, as long as
//! nobody has the first one open for reading (ENXIO), there is nothing to be started.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::channel::Channel;
use super::death::Death;
use super::operation::{FromStarted, StartOutcome, Step, ToTarget};
use crate::apply::oci_state::Status;
use crate::cgroup::{Cgroup, Freeze, OomKills};
use crate::container::{START, STARTED, State, StateDir};
use crate::error::{At, Call, Error, Kind, Result};

/// Init's ends of both FIFOs.
#[derive(Debug)]
pub(super) struct Gate {
    start: OwnedFd,
    started: OwnedFd,
}

impl Gate {
    /// Makes the FIFOs in a state directory.
    pub(super) fn make(dir: &StateDir) -> Result<Gate> {
        let make = |name| {
            let path = dir.join(name);
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                .call(|| format!("mkfifo({path:?}, 0600)"))?;
            open(&path, OFlags::RDWR).call(|| format!("open({path:?}, O_RDWR)"))
        };
        Ok(Gate { start: make(START)?, started: make(STARTED)? })
    }

    /// Init's channels: to hear by, and to speak by.
    pub(super) fn into_channels(self) -> (Channel, Channel) {
        (Channel::from_fd(self.start), Channel::from_fd(self.started))
    }
}

fn open(path: &Path, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    // Only the open itself is not to wait for a peer.
    rustix::fs::fcntl_setfl(&fifo, OFlags::empty())?;
    Ok(fifo)
}

/// The starter's end of the first FIFO; None when nobody waits at the other one.
fn approach(dir: &StateDir) -> Result<Option<OwnedFd>> {
    let path = dir.join(START);
    match open(&path, OFlags::WRONLY) {
        Ok(fifo) => Ok(Some(fifo)),
        Err(Errno::NXIO | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).call(|| format!("open({path:?}, O_WRONLY|O_NONBLOCK)")),
    }
}

/// Lets the init of a container that was made for [`super::StartedBy::Anyone`] execute the user's
/// program, and waits until it does: as long as its startContainer hooks take.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such container; [`Kind::State`] when it does not wait for
/// start, in the words of runc.
pub fn start_container(state_dir: &Path) -> Result<StartOutcome> {
    let dir = StateDir::open(state_dir);
    let state = dir.require()?;
    let gate = match status_of(&dir, &state)? {
        Status::Created => approach(&dir)?.ok_or_else(|| not_waiting(Status::Running))?,
        other => return Err(not_waiting(other)),
    };
    match rustix::fs::flock(&gate, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            return Err(Error::new(Kind::State("the container is being started already".into())));
        }
        other => other.call(|| format!("flock({:?}, LOCK_EX|LOCK_NB)", dir.join(START)))?,
    }
    // Opened before the word is given, so that no answer is missed.
    let path = dir.join(STARTED);
    let answers =
        open(&path, OFlags::RDONLY).call(|| format!("open({path:?}, O_RDONLY|O_NONBLOCK)"))?;
    let gate = Channel::from_fd(gate);
    match gate.say(&ToTarget::Start) {
        Err(error) if error.errno() == Some(nix::errno::Errno::EPIPE) => {
            return Err(not_waiting(status_of(&dir, &state)?));
        }
        other => other.at("start")?,
    }
    outcome(answers, OomKills::since_birth(&state.cgroup)).at("start")
}

/// Reads until init has the second FIFO open no more.
fn outcome(answers: OwnedFd, oom_kills: Option<OomKills>) -> Result<StartOutcome> {
    let mut stream = Vec::new();
    File::from(answers).read_to_end(&mut stream).call(|| format!("read({STARTED})"))?;
    let died =
        |step: Step| StartOutcome::Died(Death { who: "init".into(), step: step.name(), oom_kills });
    let words = Channel::words_of::<FromStarted>(&stream)?;
    Ok(match words.into_iter().next_back() {
        Some(FromStarted::Failed(error)) => StartOutcome::Failed(error),
        Some(FromStarted::Executing) => StartOutcome::Executed,
        Some(FromStarted::Hooks) => died(Step::Hooks),
        None => died(Step::Start),
    })
}

fn not_waiting(status: Status) -> Error {
    Error::new(Kind::State(match status {
        Status::Stopped => "cannot start a container that has stopped".into(),
        Status::Running | Status::Created => "cannot start an already running container".into(),
        Status::Paused => "cannot start a container in the paused state".into(),
        Status::Creating => "cannot start a container in the creating state".into(),
    }))
}

/// Where a container is in its life, told from its state, its init, its freezer and its gate.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such container; what cannot be read.
pub fn status(state_dir: &Path) -> Result<Status> {
    let dir = StateDir::open(state_dir);
    status_of(&dir, &dir.require()?)
}

fn status_of(dir: &StateDir, state: &State) -> Result<Status> {
    let Some(init) = state.init else { return Ok(Status::Creating) };
    if init.open()?.is_none() {
        return Ok(Status::Stopped);
    }
    if Cgroup::open(&state.cgroup).freezer_state()? == Some(Freeze::Frozen) {
        return Ok(Status::Paused);
    }
    Ok(if approach(dir)?.is_some() { Status::Created } else { Status::Running })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> (std::path::PathBuf, StateDir) {
        let path = std::env::temp_dir().join(format!("myshim-gate-{name}-{}", std::process::id()));
        let dir = StateDir::create(&path).unwrap();
        (path, dir)
    }

    #[test]
    fn the_gate_is_there_as_long_as_somebody_waits_behind_it() {
        let (path, dir) = directory("waits");
        assert!(approach(&dir).unwrap().is_none());
        let gate = Gate::make(&dir).unwrap();
        assert!(approach(&dir).unwrap().is_some());
        drop(gate);
        assert!(approach(&dir).unwrap().is_none());
        dir.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_word_through_the_gate_is_answered_by_words_and_an_end() {
        let (_, dir) = directory("words");
        let (hear, speak) = Gate::make(&dir).unwrap().into_channels();
        let starter = Channel::from_fd(approach(&dir).unwrap().unwrap());
        let answers = open(&dir.join(STARTED), OFlags::RDONLY).unwrap();
        starter.say(&ToTarget::Start).unwrap();
        assert!(matches!(hear.await_word().unwrap(), Some(ToTarget::Start)));
        speak.say(&FromStarted::Executing).unwrap();
        speak.say(&FromStarted::Failed(Error::argument("a", "\0"))).unwrap();
        drop((hear, speak));
        let StartOutcome::Failed(error) = outcome(answers, None).unwrap() else {
            panic!("no error")
        };
        assert_eq!(error, Error::argument("a", "\0"));
        dir.remove().unwrap();
    }
}
