//! Forking a process into its container, directly or through an intermediate: init and tenant
//! alike.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::channel::{Channel, Deadline};
use super::death::Witness;
use super::main::Main;
use super::operation::Role;
use super::protocol::{Entering, Mapping, Peer, ToParent, Wish};
use super::undo::Undo;
use super::{Child, intermediate};
use crate::apply::id_maps::{self, MapWriter};
use crate::apply::time_offsets;
use crate::cgroup::{self, OomKills};
use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::{IdMaps, TimeOffset};
use crate::sys::process::{self, Clone, Forked, SingleThreaded};
use crate::sys::shared_pid::SharedPid;

/// How long a killed process may take to be gone, in milliseconds: its namespaces and mounts go
/// with it.
const KILLED_WITHIN_MS: u64 = 10_000;

/// The way of a process into its container; `'a` is how long main knows the container's plan.
pub(super) trait Way<'a> {
    /// Who goes it: the name in errors.
    const WHO: &'static str;

    /// Whether one clone3 from main does not do: see [`intermediate`].
    fn takes_intermediate(&self) -> bool;

    /// The cgroups at its end.
    fn entry(&self) -> &cgroup::Entry;

    /// Namespaces that the clone of the process itself makes.
    fn flags_at_clone(&self) -> u64;

    /// What main writes for the intermediate.
    fn grants(&self) -> Grants<'a>;

    /// The OOM kills by which a death is explained.
    fn oom_kills(&self) -> Option<OomKills>;

    /// Moves main to where it clones the process (or the intermediate, as `came` says), and tells
    /// by their flags which namespaces it has to come back from.
    fn visit(&self, main: &Main<'_>, came: Came) -> Result<u64>;

    /// What the intermediate does to itself before it clones, in the cgroups by then.
    fn lead_from_intermediate(
        &mut self,
        main: &ToParent<'_>,
        single: &SingleThreaded,
    ) -> Result<()>;

    /// How long main waits for the process, from the moment on at which it is there: a time
    /// namespace that main joins sets its clock.
    fn deadline(&self) -> Deadline;

    /// The whole life of the process, up to the user's program.
    fn run(self, channel: &Channel, single: &SingleThreaded, came: Came) -> !;
}

/// Where a process was cloned, and so what it has entered already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// By main. It has to join the v1 cgroups itself.
    Directly,
    /// By the intermediate, which has joined all cgroups.
    ThroughIntermediate,
}

/// What an intermediate may ask main to write.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Grants<'a> {
    pub(super) id_maps: Option<&'a IdMaps>,
    pub(super) time_offsets: &'a [TimeOffset],
}

/// Forks the process. It is killed by `undo`; the daemon knows it already, and reaps it.
pub(super) fn fork<'a, W: Way<'a>>(
    main: &Main<'_>,
    way: W,
    undo: &mut Undo<'_>,
) -> Result<Peer<Entering>> {
    let (ours, theirs) = Channel::pair()?;
    let witness = Rc::new(Witness::new(way.oom_kills())?);
    let (child, deadline) = if way.takes_intermediate() {
        through_intermediate(main, way, (&ours, theirs), &witness, undo)?
    } else {
        directly(main, way, (&ours, &theirs), undo)?
    };
    Ok(Peer::new(W::WHO, ours, child, &witness, deadline))
}

/// From here on a process is known to the daemon, and ends when the operation fails. Where that
/// cannot be it ends now: the daemon looks for what has ended untold, and only as long as it takes.
fn take_on(main: &Main<'_>, child: &Child, role: Role, undo: &mut Undo<'_>) -> Result<()> {
    main.announce(child, role).and_then(|()| undo_by_killing(child, undo)).map_err(|error| {
        let killed = kill(child.pidfd.as_fd(), child.pid);
        Error::death_of_main(format!("it cannot answer for process {}: {error}", child.pid))
            .with_undo(killed.err().into_iter().collect())
    })
}

fn directly<'a, W: Way<'a>>(
    main: &Main<'_>,
    way: W,
    (ours, theirs): (&Channel, &Channel),
    undo: &mut Undo<'_>,
) -> Result<(Child, Deadline)> {
    let (forked, away) = clone_from_main(main, &way, Came::Directly, way.flags_at_clone())
        .at_with(|| format!("fork {}", W::WHO))?;
    match forked {
        Forked::Parent { pid, pidfd } => {
            let child = Child { pid, pidfd };
            take_on(main, &child, Role::Target, undo)?;
            come_back(main, away)?;
            Ok((child, way.deadline()))
        }
        Forked::Child(single) => {
            leave_main(&single, main, &[ours]);
            way.run(theirs, &single, Came::Directly)
        }
    }
}

fn through_intermediate<'a, W: Way<'a>>(
    main: &Main<'_>,
    way: W,
    (target_ours, target_theirs): (&Channel, Channel),
    witness: &Rc<Witness>,
    undo: &mut Undo<'_>,
) -> Result<(Child, Deadline)> {
    let (grants, deadline) = (way.grants(), way.deadline());
    let (ours, theirs) = Channel::pair()?;
    let born = SharedPid::new().call(|| "mmap(MAP_SHARED|MAP_ANONYMOUS)".into())?;
    let through = Came::ThroughIntermediate;
    let (forked, away) = clone_from_main(main, &way, through, 0).at("fork intermediate")?;
    let child = match forked {
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
        Forked::Child(single) => {
            leave_main(&single, main, &[&ours, target_ours]);
            intermediate::run(way, &theirs, &target_theirs, &single, &born)
        }
    };
    drop((way, theirs, target_theirs));
    take_on(main, &child, Role::Intermediate, undo)
        .and_then(|()| come_back(main, away))
        .map_err(|error| claim_born(main, &born, &child, undo, error))?;
    let peer = Peer::new("intermediate", ours, child, witness, deadline);
    let target = fulfil(main, grants, &peer);
    let target = target.map_err(|error| claim_born(main, &born, &peer.child, undo, error))?;
    take_on(main, &target, Role::Target, undo)?;
    Ok((target, deadline))
}

/// Where the intermediate failed or died after it had forked: the daemon has a child that it must
/// hear of, or that child is a zombie for ever, and the end of a pid namespace waits for it.
fn claim_born(
    main: &Main<'_>,
    born: &SharedPid,
    intermediate: &Child,
    undo: &mut Undo<'_>,
    error: Error,
) -> Error {
    // It may be about to fork.
    if let Err(second) = kill(intermediate.pidfd.as_fd(), intermediate.pid) {
        return error.with_undo(vec![second]);
    }
    let Some(pid) = born.get() else { return error };
    let claimed = Pid::from_raw(pid)
        .ok_or(Errno::INVAL)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
        .call(|| format!("pidfd_open({pid})"))
        .and_then(|pidfd| {
            let child = Child { pid, pidfd };
            take_on(main, &child, Role::Target, undo)
        });
    error.with_undo(claimed.err().into_iter().collect())
}

/// Does what the intermediate asks for until it has forked the process.
fn fulfil(main: &Main<'_>, grants: Grants<'_>, peer: &Peer<Mapping>) -> Result<Child> {
    loop {
        match peer.wish()? {
            Wish::Map => write_maps(main, peer.child.pid, grants.id_maps).at("write id maps"),
            Wish::OffsetTime => time_offsets::write(peer.child.pid, grants.time_offsets),
            Wish::Forked(target) => return Ok(target),
        }
        .map_err(|error| peer.lost(error))?;
        peer.proceed()?;
    }
}

fn write_maps(main: &Main<'_>, pid: i32, maps: Option<&IdMaps>) -> Result<()> {
    let maps = maps.ok_or_else(|| Error::new(Kind::Corrupt("the plan has none".into())))?;
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let writer = MapWriter::choose(maps, &search_path)?;
    writer.write(main.single, id_maps::open_proc(pid)?.as_fd(), pid, maps)
}

/// A fork that is born in the container's v2 cgroup, where there is one; and the namespaces that
/// main has to [come back](come_back) from, once it has told of the fork.
fn clone_from_main<'a, W: Way<'a>>(
    main: &Main<'_>,
    way: &W,
    came: Came,
    flags: u64,
) -> Result<(Forked, u64)> {
    let away = way.visit(main, came)?;
    let cgroup = way.entry().clone_into.as_ref().map(AsFd::as_fd);
    match clone(main.single, flags, cgroup, None) {
        Ok(forked) => Ok((forked, away)),
        Err(error) => come_back(main, away).and(Err(error)),
    }
}

/// Main is where it was before, if it can be: all that it does later is done among the host's files.
fn come_back(main: &Main<'_>, away: u64) -> Result<()> {
    if away == 0 || !main.can_return() {
        return Ok(());
    }
    main.base.back(main.single, away).map_err(|error| {
        // Where nothing of the host is, it can undo nothing.
        Error::death_of_main(format!("it is lost in other namespaces: {error}"))
    })
}

/// A fork whose parent is the daemon.
pub(super) fn clone(
    single: &SingleThreaded,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    told: Option<&SharedPid>,
) -> Result<Forked> {
    let flags = super::CLONE_PARENT | flags;
    process::clone3(single, &Clone { flags, cgroup, told, ..Clone::default() }).call(|| {
        let into = if cgroup.is_some() { "|CLONE_INTO_CGROUP" } else { "" };
        format!("clone3({flags:#x}|CLONE_PIDFD{into})")
    })
}

/// A fork closes main's channels: the end of a channel must mean the end of main. And what leads
/// back to the host.
fn leave_main(single: &SingleThreaded, main: &Main<'_>, channels: &[&Channel]) {
    let daemon = [&main.daemon.requests, &main.daemon.news];
    let channels = channels.iter().copied().chain(daemon).map(AsFd::as_fd);
    for fd in channels.chain(main.base.descriptors()) {
        crate::sys::fd::close_inherited(single, fd);
    }
}

fn undo_by_killing(child: &Child, undo: &mut Undo<'_>) -> Result<()> {
    let pidfd = child.pidfd.try_clone().call(|| "fcntl(pidfd, F_DUPFD_CLOEXEC)".into())?;
    let pid = child.pid;
    undo.push("end the process", move || kill(pidfd.as_fd(), pid));
    Ok(())
}

fn kill(pidfd: BorrowedFd<'_>, pid: i32) -> Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL) {
        Err(Errno::SRCH) => return Ok(()),
        other => other.call(|| format!("pidfd_send_signal([{pid}], SIGKILL)"))?,
    }
    crate::sys::socket::wait_readable(pidfd, KILLED_WITHIN_MS).map_err(|_| {
        Error::new(Kind::Deadline {
            awaited: format!("end of process {pid} after SIGKILL"),
            after_ms: KILLED_WITHIN_MS,
        })
    })
}
