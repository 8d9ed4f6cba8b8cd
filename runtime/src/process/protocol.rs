//! What main says to the processes it makes, and they to main.
//!
//! ```text
//!  intermediate --Map----------> main      (user namespace made: write its maps)
//!               <--Proceed------
//!               --OffsetTime---> main      (time namespace made: write its offsets)
//!               <--Proceed------
//!               --InitForked---> main      (+ init's pidfd)
//!
//!  init, tenant --Entered------> main      (all namespaces are entered: hooks, net devices, …;
//!               <--Proceed------            only where the plan has something to do there)
//!               --Listener-----> main      (seccomp notify: main fetches the fd by its number)
//!               <--Proceed------
//!               --Ready--------> main      (+ console; waits for start from now on)
//! ```
//!
//! Either may send `Failed` in place of any message. The end of the stream is a death.
//! After `Ready` main hands its end of the channel to the daemon (see `operation`).

use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::Child;
use super::channel::{Channel, Deadline, Received};
use super::death::Witness;
use crate::cgroup::OomCounts;
use crate::error::{At, Error, Kind, Result};

/// What main is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToMain {
    Map,
    OffsetTime,
    InitForked { pid: i32 },
    Entered,
    Listener { fd: i32 },
    Ready,
    Failed(Error),
}

/// What main answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromMain {
    Proceed,
}

/// Main's view of a process it has made, in one phase of the protocol: each wait consumes it.
#[derive(Debug)]
pub(super) struct Peer<Phase> {
    pub(super) channel: Channel,
    pub(super) child: Child,
    who: &'static str,
    witness: Rc<Witness>,
    deadline: Deadline,
    phase: PhantomData<Phase>,
}

/// An intermediate that makes namespaces.
#[derive(Debug)]
pub(super) struct Mapping;
/// An init or tenant that enters its namespaces.
#[derive(Debug)]
pub(super) struct Entering;
/// An init or tenant that builds its world.
#[derive(Debug)]
pub(super) struct Building;

impl<Phase> Peer<Phase> {
    pub(super) fn new(
        who: &'static str,
        channel: Channel,
        child: Child,
        witness: &Rc<Witness>,
        deadline: Deadline,
    ) -> Self {
        Peer { channel, child, who, witness: Rc::clone(witness), deadline, phase: PhantomData }
    }

    fn next<Next>(self) -> Peer<Next> {
        let Peer { channel, child, who, witness, deadline, .. } = self;
        Peer { channel, child, who, witness, deadline, phase: PhantomData }
    }

    pub(super) fn proceed(&self) -> Result<()> {
        self.channel.send(&FromMain::Proceed, &[]).map_err(|error| self.lost(error))
    }

    fn receive(&self, awaited: &str) -> Result<(ToMain, Vec<OwnedFd>)> {
        match self.channel.receive(awaited, &self.deadline)? {
            Received::Message(ToMain::Failed(error), _) => Err(error.at(self.who)),
            Received::Message(message, fds) => Ok((message, fds)),
            Received::End | Received::Nothing => {
                Err(self.death()).at_with(|| format!("await {awaited}"))
            }
        }
    }

    /// A send to a process that is gone fails with EPIPE, and a write to its files with ESRCH; why
    /// it is gone may lie in the channel.
    pub(super) fn lost(&self, error: Error) -> Error {
        match error.errno() {
            Some(nix::errno::Errno::EPIPE | nix::errno::Errno::ESRCH) => match self.receive("word")
            {
                Err(why) => why,
                Ok(_) => self.death(),
            },
            _ => error,
        }
    }

    fn death(&self) -> Error {
        self.witness.explain(self.who, &self.child)
    }

    fn unexpected(&self, awaited: &str, message: &ToMain) -> Error {
        Error::new(Kind::Corrupt(format!("{} said {message:?}, not {awaited}", self.who)))
    }
}

/// What an intermediate asks for.
pub(super) enum Wish {
    Map,
    OffsetTime,
    /// It has forked init, and ends.
    Forked(Child),
}

impl Peer<Mapping> {
    pub(super) fn wish(&self) -> Result<Wish> {
        match self.receive("word from the intermediate")? {
            (ToMain::Map, _) => Ok(Wish::Map),
            (ToMain::OffsetTime, _) => Ok(Wish::OffsetTime),
            (ToMain::InitForked { pid }, fds) => match fds.into_iter().next() {
                Some(pidfd) => Ok(Wish::Forked(Child { pid, pidfd })),
                None => Err(Error::new(Kind::Corrupt("InitForked came without a pidfd".into()))),
            },
            (other, _) => Err(self.unexpected("Map, OffsetTime or InitForked", &other)),
        }
    }
}

impl Peer<Entering> {
    /// Waits until all namespaces are entered.
    pub(super) fn entered(self) -> Result<Peer<Building>> {
        match self.receive("entry into the namespaces")? {
            (ToMain::Entered, _) => Ok(self.next()),
            (other, _) => Err(self.unexpected("Entered", &other)),
        }
    }

    /// The plan has nothing to do between the namespaces and the rootfs.
    pub(super) fn skip_entered(self) -> Peer<Building> {
        self.next()
    }
}

impl Peer<Building> {
    /// Waits for the number of its seccomp notify fd.
    pub(super) fn listener(&self) -> Result<i32> {
        match self.receive("seccomp listener")? {
            (ToMain::Listener { fd }, _) => Ok(fd),
            (other, _) => Err(self.unexpected("Listener", &other)),
        }
    }

    /// Waits until it waits for start.
    pub(super) fn ready(self) -> Result<Waiting> {
        match self.receive("end of the set-up")? {
            (ToMain::Ready, fds) => Ok(Waiting {
                channel: self.channel,
                console: fds.into_iter().next(),
                who: self.who,
                oom_kills_before: self.witness.oom_kills_before(),
            }),
            (other, _) => Err(self.unexpected("Ready", &other)),
        }
    }
}

/// A process that waits for start.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) channel: Channel,
    pub(super) console: Option<OwnedFd>,
    pub(super) who: &'static str,
    /// See [`Witness::oom_kills_before`].
    pub(super) oom_kills_before: OomCounts,
}

/// A made process's view of main.
pub(super) struct ToParent<'a> {
    pub(super) channel: &'a Channel,
}

impl ToParent<'_> {
    pub(super) fn tell(&self, message: &ToMain, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.channel.send(message, fds)
    }

    /// Tells, and waits until main has done its part. Main has the deadline: its end is noticed.
    pub(super) fn ask(&self, message: &ToMain) -> Result<()> {
        self.tell(message, &[])?;
        match self.channel.receive_forever::<FromMain>()? {
            Received::Message(FromMain::Proceed, _) => Ok(()),
            Received::End | Received::Nothing => Err(Error::new(Kind::PeerDied {
                who: "main".into(),
                how: "its channel has ended".into(),
            })),
        }
    }
}
