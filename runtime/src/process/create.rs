//! Main's part of a create.
//!
//! On entry nothing of the container exists. On success its init waits for start and the state
//! says so; on failure nothing is left but dead processes, which the daemon has been told of.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::channel::Deadline;
use super::fork;
use super::gate::Gate;
use super::init::Setup;
use super::main::{Main, Outcome};
use super::operation::Then;
use super::pid_file::PidFile;
use super::placeholder::Placeholder;
use super::protocol::{Building, Entering, Peer};
use super::target::Handover;
use super::undo::Undo;
use super::{CreateRequest, Facts, StartedBy, rendezvous, upkeep};
use crate::apply::id_maps::{self, MapWriter};
use crate::apply::intel_rdt::{self, RdtGroups};
use crate::apply::namespaces::Joins;
use crate::apply::oci_state::{OciState, Status};
use crate::apply::own;
use crate::apply::rootfs::{self, EmptyMountNamespace, OldTree};
use crate::cgroup::{Cgroup, CgroupDirectory, CgroupPaths, Layout, UnitPlan};
use crate::container::{ProcessId, State, StateDir};
use crate::error::{At, Call, Error, Result};
use crate::plan::host::Privilege;
use crate::plan::{MountIdMap, Namespace, Plan};
use crate::spec::Spec;
use crate::sys::phases;

/// Any step of the chain is done in milliseconds. What can take longer is an overloaded host, a
/// network file system, and hooks, which have a time of their own.
const CHAIN_DEADLINE: Duration = Duration::from_secs(60);
/// For a hook without a timeout, which the spec lets run for ever: no client waits longer.
const HOOK_DEADLINE: Duration = Duration::from_secs(600);

/// Makes the container.
pub(super) fn run(main: &Main<'_>, request: &CreateRequest, fds: Vec<OwnedFd>) -> Result<Outcome> {
    let host = main.host;
    phases::mark(c"plan");
    let mut plan = {
        let spec = Spec::load(&request.bundle)?;
        Plan::new(request, &spec, host)?
    };
    plan.process.env.extend(request.options.extra_fds.environment());
    let mut undo = Undo::default();
    let made = make(main, request, &plan, &host.cgroups, fds, &mut undo);
    undo.settle(made)
}

fn make<'a>(
    main: &'a Main<'_>,
    request: &CreateRequest,
    plan: &'a Plan,
    layout: &Layout,
    mut stdio: Vec<OwnedFd>,
    undo: &mut Undo<'a>,
) -> Result<Outcome> {
    let extra = request.options.extra_fds.split_off(&mut stdio)?;
    let joins = Joins::open(&plan.namespaces)?;
    let pid_file = PidFile::prepare(request.pid_file.as_deref())?;
    phases::mark(c"state");
    let (dir, mut state) = record(request, plan, layout, undo)?;
    phases::mark(c"mounts");
    let mut rootfs = match main.host.privilege {
        // It may mount nothing here: its init will, as root of its own namespaces.
        Privilege::User => None,
        _ => Some(prepare_rootfs(main, plan, (&dir, &mut state), undo)?),
    };
    phases::mark(c"cgroup");
    let placeholder = make_placeholder(main, plan)?;
    let (cgroup, warning) = make_cgroup(main, plan, placeholder.as_ref(), undo)?;
    if let Some(rootfs) = &mut rootfs {
        rootfs.copy_cgroups(&plan.rootfs, cgroup.paths()).at("rootfs")?;
    }
    let entry = cgroup.entry()?;
    state.rdt = make_rdt_groups(main, plan, undo)?;
    if state.rdt.is_some() {
        dir.update(&state)?;
    }
    let own = own::prepare(&plan.process)?;
    let handover = Handover { gate: gate(request, &dir)?, extra };
    let old_tree = match main.empty {
        Some(_) if EmptyMountNamespace::suits(plan) => OldTree::Empty,
        _ => OldTree::Host { site: &plan.site },
    };
    let paths = cgroup.paths().clone();
    let setup = Setup {
        plan,
        joins,
        entry,
        cgroup: paths.clone(),
        rootfs,
        old_tree,
        stdio,
        handover,
        deadline: deadline(plan),
    };
    phases::mark(c"clone");
    let peer = fork::fork(main, setup, undo)?;
    relieve(placeholder, &cgroup, plan)?;
    // From here there is a container, and its end has hooks (runtime.md, "Lifecycle", 12 and 13).
    undo.afterwards("poststop hooks", || poststop(main, plan));
    let pid = peer.child.pid;
    state.init = ProcessId::of(pid)?;
    state.cgroup = paths.clone();
    dir.update(&state)?;
    let waiting = meet(main, plan, (&dir, &state), peer, undo)?.ready()?;
    if let Some(pid_file) = pid_file {
        pid_file.write(pid)?;
    }
    // Until the daemon has the answer, the devices are those of a create that may fail.
    let unfinished = (!plan.net_devices.is_empty()).then_some(dir);
    let then = match rendezvous::needed(plan) {
        // Hooks have a directory of their own.
        true => Then::Ends,
        false => own.restore().into(),
    };
    Ok(Outcome::Created { facts: facts(plan, &paths, warning), waiting, unfinished, then })
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
    let unit = plan.cgroup.unit().map(|unit| unit.unit.clone());
    CgroupPaths { directories: directories.collect(), unit }
}

/// The root as detached mounts. Only hooks that look for it on the host make it be mounted there.
fn prepare_rootfs(
    main: &Main<'_>,
    plan: &Plan,
    (dir, state): (&StateDir, &mut State),
    undo: &mut Undo<'_>,
) -> Result<rootfs::PreparedRootfs> {
    let mut user_namespace = |map: &MountIdMap| user_namespace_of(main, plan, map);
    let mut rootfs = rootfs::prepare(&plan.rootfs, &plan.site, &mut user_namespace).at("rootfs")?;
    let hooks = &plan.hooks;
    if !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty()) {
        // Written down first: a main that is killed undoes nothing, and delete knows the state.
        state.rootfs_on_host = Some(plan.site.clone());
        dir.update(state)?;
        rootfs.attach_on_host(&plan.site)?;
        let site = plan.site.clone();
        undo.push("unmount rootfs", move || rootfs::detach_from_host(&site));
    }
    Ok(rootfs)
}

/// The user namespace whose maps an idmapped mount takes over. The container's own does not exist
/// yet, but one with the same maps is as good: the kernel copies the maps.
fn user_namespace_of(main: &Main<'_>, plan: &Plan, map: &MountIdMap) -> Result<OwnedFd> {
    let maps = match map {
        MountIdMap::Maps(maps) => maps,
        MountIdMap::Container => plan.id_maps.as_ref().ok_or_else(|| {
            Error::field("linux.uidMappings", "missing, and a mount asks for the container's maps")
        })?,
        MountIdMap::Namespace(path) => {
            return rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .call(|| format!("open({path:?}, O_RDONLY)"));
        }
    };
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let writer = MapWriter::choose(maps, &search_path)?;
    id_maps::namespace_for(main.single, &writer, maps).at("user namespace of an idmapped mount")
}

fn make_rdt_groups(main: &Main<'_>, plan: &Plan, undo: &mut Undo<'_>) -> Result<Option<RdtGroups>> {
    let Some(rdt) = &plan.intel_rdt else { return Ok(None) };
    let groups = intel_rdt::prepare(&main.host.resctrl, rdt, &plan.id).at("linux.intelRdt")?;
    let made = groups.clone();
    undo.push("remove the RDT groups", move || made.remove());
    Ok(Some(groups))
}

/// For a unit of systemd that needs a process before there is an init.
fn make_placeholder(main: &Main<'_>, plan: &Plan) -> Result<Option<Placeholder>> {
    let needed = plan.cgroup.unit().is_some_and(UnitPlan::needs_process);
    needed.then(|| Placeholder::fork(main.single)).transpose().at("create cgroup")
}

/// Init is in its cgroup: the unit no longer needs another process.
fn relieve(placeholder: Option<Placeholder>, cgroup: &Cgroup, plan: &Plan) -> Result<()> {
    let Some(placeholder) = placeholder else { return Ok(()) };
    placeholder.end().and_then(|()| cgroup.resident_has_left(&plan.cgroup)).at("create cgroup")
}

/// The cgroup, and a warning where there is none.
fn make_cgroup(
    main: &Main<'_>,
    plan: &Plan,
    placeholder: Option<&Placeholder>,
    undo: &mut Undo<'_>,
) -> Result<(Cgroup, Option<String>)> {
    let resident = placeholder.map(Placeholder::pid);
    let created = Cgroup::create(&plan.cgroup, &main.host.cgroups, resident).at("create cgroup");
    let created = match created {
        Err(error) if main.host.privilege != Privilege::Root => {
            return Cgroup::none(&plan.cgroup, error).map(|(none, why)| (none, Some(why)));
        }
        other => other?,
    };
    let cgroup = created.cgroup.clone();
    undo.push("remove cgroup", move || created.undo());
    // Root's already: nothing to do for a container without a user of its own.
    match plan.cgroup_owner() {
        Some(owner @ 1..) if main.host.privilege == Privilege::Root => cgroup.delegate(owner)?,
        _ => {}
    }
    Ok((cgroup, None))
}

/// What main does for the container from outside, while init waits for it.
fn meet<'a>(
    main: &Main<'_>,
    plan: &'a Plan,
    state: (&StateDir, &State),
    peer: Peer<Entering>,
    undo: &mut Undo<'a>,
) -> Result<Peer<Building>> {
    let peer = if rendezvous::needed(plan) {
        let peer = peer.entered()?;
        rendezvous::attend(main, plan, state, peer.child.pid, undo)?;
        peer.proceed()?;
        peer
    } else {
        peer.skip_entered()
    };
    if let Some(listener) = plan.seccomp.as_ref().and_then(|seccomp| seccomp.listener.as_ref()) {
        let told = OciState::of(plan, Status::Creating, Some(peer.child.pid));
        rendezvous::hand_over(listener, &told, &peer)?;
    }
    Ok(peer)
}

/// After a create that failed, as at a delete: all of them run, and a failure changes nothing.
fn poststop(main: &Main<'_>, plan: &Plan) -> Result<()> {
    let stopped = OciState::of(plan, Status::Stopped, None);
    upkeep::run_poststop(main.single, &plan.hooks.poststop, &stopped)
        .into_iter()
        .next()
        .map_or(Ok(()), Err)
}

/// How long main waits for init in all, its own hooks included, for which init waits.
fn deadline(plan: &Plan) -> Deadline {
    let hooks = &plan.hooks;
    let hooks: Duration = [&hooks.prestart, &hooks.create_runtime, &hooks.create_container]
        .into_iter()
        .flatten()
        .map(|hook| hook.timeout_secs.map_or(HOOK_DEADLINE, Duration::from_secs))
        .fold(Duration::ZERO, Duration::saturating_add);
    Deadline::after(CHAIN_DEADLINE.saturating_add(hooks))
}

fn facts(plan: &Plan, cgroup: &CgroupPaths, warning: Option<String>) -> Facts {
    Facts {
        cgroup: cgroup.clone(),
        private_pid_namespace: plan.namespaces.pid == Namespace::New,
        has_poststart: !plan.hooks.poststart.is_empty(),
        warnings: plan
            .warnings
            .iter()
            .chain(&plan.cgroup.warnings)
            .cloned()
            .chain(warning)
            .collect(),
    }
}
