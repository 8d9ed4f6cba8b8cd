//! Main's part of a create.
//!
//! On entry nothing of the container exists. On success its init waits for start and the state
//! says so; on failure nothing is left but dead processes, which the daemon has been told of.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::channel::Deadline;
use super::fork;
use super::gate::Gate;
use super::init::Setup;
use super::main::{Main, Outcome};
use super::pid_file::PidFile;
use super::protocol::{Building, Entering, Peer};
use super::target::Handover;
use super::undo::Undo;
use super::{CreateRequest, Facts, StartedBy, rendezvous};
use crate::apply::namespaces::Joins;
use crate::apply::{own, rootfs};
use crate::cgroup::{Cgroup, CgroupDirectory, CgroupPaths, Layout};
use crate::container::{ProcessId, State, StateDir};
use crate::error::{At, Error, Kind, Result};
use crate::plan::{Host, MountIdMap, Namespace, Plan};
use crate::spec::Spec;

/// Any step of the chain is done in milliseconds. What can take longer is an overloaded host, a
/// network file system, and hooks, which have a time of their own.
const CHAIN_DEADLINE: Duration = Duration::from_secs(60);
/// For a hook without a timeout, which the spec lets run for ever: no client waits longer.
const HOOK_DEADLINE: Duration = Duration::from_secs(600);

/// Makes the container.
pub(super) fn run(main: &Main<'_>, request: &CreateRequest, fds: Vec<OwnedFd>) -> Result<Outcome> {
    let host = Host::read(None)?;
    let mut plan = {
        let spec = Spec::load(&request.bundle)?;
        Plan::new(request, &spec, &host)?
    };
    plan.process.env.extend(request.options.extra_fds.environment());
    let mut undo = Undo::default();
    let made = make(main, request, &plan, &host.cgroups, fds, &mut undo);
    undo.settle(made)
}

fn make<'a>(
    main: &Main<'_>,
    request: &CreateRequest,
    plan: &'a Plan,
    layout: &Layout,
    mut stdio: Vec<OwnedFd>,
    undo: &mut Undo<'a>,
) -> Result<Outcome> {
    let extra = request.options.extra_fds.split_off(&mut stdio)?;
    let joins = Joins::open(&plan.namespaces)?;
    let pid_file = PidFile::prepare(request.pid_file.as_deref())?;
    let (dir, mut state) = record(request, plan, layout, undo)?;
    let rootfs = prepare_rootfs(main, plan, &mut state, undo)?;
    let cgroup = make_cgroup(plan, layout, undo)?;
    let entry = cgroup.entry()?;
    own::prepare(&plan.process)?;
    let handover = Handover { gate: gate(request, &dir)?, extra };
    let cgroups = cgroup.paths().clone();
    let setup = Setup { plan, joins, entry, cgroup: cgroups, rootfs, stdio, handover };
    let peer = fork::fork(main, setup, deadline(plan), undo)?;
    let pid = peer.child.pid;
    state.init = ProcessId::of(pid)?;
    state.cgroup = cgroup.paths().clone();
    dir.update(&state)?;
    let (start, console) = meet(main, plan, peer)?.ready()?;
    if let Some(pid_file) = pid_file {
        pid_file.write(pid)?;
    }
    Ok(Outcome::Created { facts: facts(plan, cgroup.paths()), start, console })
}

/// Writes down what is about to be made, before any of it is: a main that is killed leaves
/// nothing that delete does not find.
fn record(
    request: &CreateRequest,
    plan: &Plan,
    layout: &Layout,
    undo: &mut Undo<'_>,
) -> Result<(StateDir, State)> {
    let dir = StateDir::create(&request.state_dir)?;
    let removed = dir.clone();
    undo.push("remove state", move || removed.remove());
    let state = State::planned(plan, planned_cgroup(plan, layout));
    dir.save(&state)?;
    Ok((dir, state))
}

fn gate(request: &CreateRequest, dir: &StateDir) -> Result<Option<Gate>> {
    match request.options.started_by {
        StartedBy::Daemon => Ok(None),
        StartedBy::Anyone => Gate::make(dir).at("make the gate").map(Some),
    }
}

fn planned_cgroup(plan: &Plan, layout: &Layout) -> CgroupPaths {
    let below = plan.cgroup.path.strip_prefix("/").unwrap_or(&plan.cgroup.path);
    let directories = layout.hierarchies().map(|(version, hierarchy)| CgroupDirectory {
        version,
        controllers: hierarchy.controllers.clone(),
        path: hierarchy.mount_point.join(below),
    });
    CgroupPaths { directories: directories.collect() }
}

/// The root as detached mounts. Only hooks that look for it on the host make it be mounted there.
fn prepare_rootfs(
    main: &Main<'_>,
    plan: &Plan,
    state: &mut State,
    undo: &mut Undo<'_>,
) -> Result<rootfs::PreparedRootfs> {
    let mut user_namespace = |_: &MountIdMap| Err(Error::new(Kind::Unsupported("idmap".into())));
    let mut rootfs = rootfs::prepare(&plan.rootfs, &plan.site, &mut user_namespace).at("rootfs")?;
    let hooks = &plan.hooks;
    if !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty()) {
        rootfs.attach_on_host(&plan.site)?;
        state.rootfs_on_host = Some(plan.site.clone());
        let site = plan.site.clone();
        undo.push("unmount rootfs", move || rootfs::detach_from_host(&site));
    }
    Ok(rootfs)
}

fn make_cgroup(plan: &Plan, layout: &Layout, undo: &mut Undo<'_>) -> Result<Cgroup> {
    let created = Cgroup::create(&plan.cgroup, layout).at("create cgroup")?;
    let cgroup = created.cgroup.clone();
    undo.push("remove cgroup", move || created.undo());
    Ok(cgroup)
}

/// What main does for the container from outside, while init waits for it.
fn meet(main: &Main<'_>, plan: &Plan, peer: Peer<Entering>) -> Result<Peer<Building>> {
    let peer = if rendezvous::needed(plan) {
        let peer = peer.entered()?;
        rendezvous::attend(main, plan, &peer)?;
        peer.proceed()?;
        peer
    } else {
        peer.skip_entered()
    };
    Ok(peer)
}

/// How long main waits for init in all.
fn deadline(plan: &Plan) -> Deadline {
    let hooks = plan.hooks.create_container.iter();
    let hooks: Duration = hooks
        .map(|hook| hook.timeout_secs.map_or(HOOK_DEADLINE, Duration::from_secs))
        .fold(Duration::ZERO, Duration::saturating_add);
    Deadline::after(CHAIN_DEADLINE.saturating_add(hooks))
}

fn facts(plan: &Plan, cgroup: &CgroupPaths) -> Facts {
    Facts {
        cgroup: cgroup.clone(),
        private_pid_namespace: plan.namespaces.pid == Namespace::New,
        has_poststart: !plan.hooks.poststart.is_empty(),
        warnings: plan.warnings.iter().chain(&plan.cgroup.warnings).cloned().collect(),
    }
}
