//! Forking init, directly or through an intermediate.

use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::channel::{Channel, Deadline};
use super::death::Witness;
use super::init::{self, Entry, Setup};
use super::main::Main;
use super::operation::Role;
use super::protocol::{Entering, Mapping, Peer, Wish};
use super::undo::Undo;
use super::{Child, intermediate};
use crate::apply::id_maps::{self, MapWriter};
use crate::apply::rootfs::{EmptyMountNamespace, OldTree, Visit};
use crate::apply::{namespaces, time_offsets};
use crate::cgroup::OomKills;
use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::{IdMaps, Namespace, Namespaces, Plan};
use crate::sys::process::{self, Clone, Forked, SingleThreaded};
use crate::sys::shared_pid::SharedPid;

/// How long a killed process may take to be gone, in milliseconds: its namespaces and mounts go
/// with it.
const KILLED_WITHIN_MS: u64 = 10_000;

/// Whether one clone3 from main cannot make init: see [`intermediate`].
fn takes_intermediate(namespaces: &Namespaces) -> bool {
    namespaces.user != Namespace::Host
        || namespaces.time != Namespace::Host
        || matches!(namespaces.pid, Namespace::Join(_))
}

/// Forks init. It is killed by `undo`; the daemon knows it already, and reaps it.
pub(super) fn fork(
    main: &Main<'_>,
    setup: Setup<'_>,
    deadline: Deadline,
    undo: &mut Undo<'_>,
) -> Result<Peer<Entering>> {
    let (ours, theirs) = Channel::pair()?;
    let witness = Rc::new(Witness::new(OomKills::since_birth(&setup.cgroup))?);
    let child = if takes_intermediate(&setup.plan.namespaces) {
        let terms = Terms { witness: &witness, deadline };
        through_intermediate(main, setup, &ours, theirs, terms, undo)?
    } else {
        directly(main, setup, &ours, theirs)?
    };
    undo_by_killing(&child, undo)?;
    main.announce(&child, Role::Target)?;
    Ok(Peer::new("init", ours, child, &witness, deadline))
}

/// How long main waits for a process, and who explains its death.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) witness: &'a Rc<Witness>,
    pub(super) deadline: Deadline,
}

fn directly(main: &Main<'_>, setup: Setup<'_>, ours: &Channel, theirs: Channel) -> Result<Child> {
    let flags = super::CLONE_PARENT | namespaces::flags_at_clone(&setup.plan.namespaces);
    match clone_init(main, flags, &setup).at("fork init")? {
        Forked::Parent { pid, pidfd } => Ok(Child { pid, pidfd }),
        Forked::Child(single) => {
            leave_main(&single, main, &[ours]);
            init::run(setup, &theirs, &single, Entry::Own)
        }
    }
}

fn through_intermediate(
    main: &Main<'_>,
    setup: Setup<'_>,
    init_ours: &Channel,
    init_theirs: Channel,
    terms: Terms<'_>,
    undo: &mut Undo<'_>,
) -> Result<Child> {
    let plan = setup.plan;
    let (ours, theirs) = Channel::pair()?;
    let born = SharedPid::new().call(|| "mmap(MAP_SHARED|MAP_ANONYMOUS)".into())?;
    let child = match clone_init(main, super::CLONE_PARENT, &setup).at("fork intermediate")? {
        Forked::Parent { pid, pidfd } => Child { pid, pidfd },
        Forked::Child(single) => {
            leave_main(&single, main, &[&ours, init_ours]);
            intermediate::run(setup, &theirs, init_theirs, &single, &born)
        }
    };
    drop((setup, theirs, init_theirs));
    undo_by_killing(&child, undo)?;
    main.announce(&child, Role::Intermediate)?;
    let peer = Peer::new("intermediate", ours, child, terms.witness, terms.deadline);
    fulfil(main, plan, peer).map_err(|error| claim_born(main, &born, undo, error))
}

/// Where the intermediate failed or died after it had forked: the daemon has a child that it must
/// hear of, or that child is a zombie for ever, and the end of a pid namespace waits for it.
pub(super) fn claim_born(
    main: &Main<'_>,
    born: &SharedPid,
    undo: &mut Undo<'_>,
    error: Error,
) -> Error {
    let Some(pid) = born.get() else { return error };
    let claimed = Pid::from_raw(pid)
        .ok_or(Errno::INVAL)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
        .call(|| format!("pidfd_open({pid})"))
        .and_then(|pidfd| {
            let child = Child { pid, pidfd };
            undo_by_killing(&child, undo)?;
            main.announce(&child, Role::Target)
        });
    error.with_undo(claimed.err().into_iter().collect())
}

/// Does what the intermediate asks for until it has forked init.
fn fulfil(main: &Main<'_>, plan: &Plan, peer: Peer<Mapping>) -> Result<Child> {
    loop {
        match peer.wish()? {
            Wish::Map => {
                if let Some(maps) = &plan.id_maps {
                    write_maps(main, peer.child.pid, maps).at("write id maps")?;
                }
            }
            Wish::OffsetTime => time_offsets::write(peer.child.pid, &plan.namespaces.time_offsets)?,
            Wish::Forked(init) => return Ok(init),
        }
        peer.proceed()?;
    }
}

fn write_maps(main: &Main<'_>, pid: i32, maps: &IdMaps) -> Result<()> {
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let writer = MapWriter::choose(maps, &search_path)?;
    writer.write(main.single, id_maps::open_proc(pid)?.as_fd(), pid, maps)
}

/// A fork that is born in the container's v2 cgroup, where there is one, and sees the mounts that
/// init begins with.
fn clone_init(main: &Main<'_>, flags: u64, setup: &Setup<'_>) -> Result<Forked> {
    let visit = match setup.old_tree {
        OldTree::Empty => main.empty.map(EmptyMountNamespace::enter).transpose()?,
        OldTree::Host { .. } => None,
    };
    let cgroup = setup.entry.clone_into.as_ref().map(AsFd::as_fd);
    let forked = process::clone3(main.single, &Clone { flags, cgroup, ..Clone::default() });
    if !matches!(forked, Ok(Forked::Child(_))) {
        visit.map_or(Ok(()), Visit::end)?;
    }
    forked.call(|| {
        let into = if cgroup.is_some() { "|CLONE_INTO_CGROUP" } else { "" };
        format!("clone3({flags:#x}|CLONE_PIDFD{into})")
    })
}

/// A fork closes main's channels: the end of a channel must mean the end of main.
pub(super) fn leave_main(single: &SingleThreaded, main: &Main<'_>, channels: &[&Channel]) {
    let daemon = [&main.daemon.requests, &main.daemon.news];
    for channel in channels.iter().copied().chain(daemon) {
        crate::sys::fd::close_inherited(single, channel.as_fd());
    }
}

pub(super) fn undo_by_killing(child: &Child, undo: &mut Undo<'_>) -> Result<()> {
    let pidfd = child.pidfd.try_clone().call(|| "fcntl(pidfd, F_DUPFD_CLOEXEC)".into())?;
    let pid = child.pid;
    undo.push("end the process", move || {
        match rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL) {
            Err(Errno::SRCH) => return Ok(()),
            other => other.call(|| format!("pidfd_send_signal([{pid}], SIGKILL)"))?,
        }
        crate::sys::socket::wait_readable(pidfd.as_fd(), KILLED_WITHIN_MS).map_err(|_| {
            Error::new(Kind::Deadline {
                awaited: format!("end of process {pid} after SIGKILL"),
                after_ms: KILLED_WITHIN_MS,
            })
        })
    });
    Ok(())
}
