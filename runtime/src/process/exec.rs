//! Main's part of an exec, and the tenant's life.
//!
//! Main joins all of the container's namespaces with one setns(2) and clones the tenant, which is
//! then in the container in every respect but its identity. Whatever the host's paths are needed
//! for is opened before. Where main has to stay outside, an intermediate goes first, born in the
//! container's cgroup.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::channel::{Channel, Deadline};
use super::fork::{self, Came, Grants, Way};
use super::main::{Main, Outcome};
use super::pid_file::PidFile;
use super::protocol::ToParent;
use super::target::{self, Handover, Identity, Possessions, Target};
use super::undo::Undo;
use super::{ExecRequest, Facts, WhenPaused, intermediate, rendezvous};
use crate::apply::namespaces;
use crate::apply::oci_state::{OciState, Status};
use crate::apply::rootfs::Visit;
use crate::apply::scheduling::{self, Cpus};
use crate::apply::{console, own, stdio};
use crate::cgroup::{self, Cgroup, Freeze, OomKills};
use crate::container::{ProcessId, State, StateDir};
use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::{Namespace, Process, ProcessPlan, SeccompListener};
use crate::sys::phases;
use crate::sys::process::{self, SingleThreaded};
use crate::sys::procfs::Procfs;

const DEADLINE: Duration = Duration::from_secs(60);

/// All that main has prepared for the tenant.
struct Setup<'a> {
    state: &'a State,
    process: &'a Process,
    entry: cgroup::Entry,
    init: OwnedFd,
    stdio: Vec<OwnedFd>,
    handover: Handover,
}

/// Makes the tenant.
pub(super) fn run(
    main: &Main<'_>,
    request: &ExecRequest,
    mut fds: Vec<OwnedFd>,
) -> Result<Outcome> {
    if fds.is_empty() {
        return Err(Error::new(Kind::Corrupt("exec came without init's pidfd".into())));
    }
    let init = fds.remove(0);
    let extra = request.extra_fds.split_off(&mut fds)?;
    phases::mark(c"plan");
    let state = StateDir::open(&request.state_dir).require()?;
    let plan = ProcessPlan::new(&request.process, &state.container, main.host)?;
    let id = running(&state)?;
    phases::mark(c"cgroup");
    let setup = Setup {
        state: &state,
        process: &plan.process,
        entry: enter_cgroup(&state, id, request.when_paused)?,
        init,
        stdio: fds,
        handover: Handover { extra, gate: None },
    };
    let mut undo = Undo::default();
    let made = make(main, request, setup, &mut undo);
    undo.settle(made)
}

fn make(
    main: &Main<'_>,
    request: &ExecRequest,
    setup: Setup<'_>,
    undo: &mut Undo<'_>,
) -> Result<Outcome> {
    let state = setup.state;
    let pid_file = PidFile::prepare(request.pid_file.as_deref())?;
    own::prepare(setup.process)?;
    phases::mark(c"clone");
    let peer = fork::fork(main, setup, undo)?.skip_entered();
    if let Some(groups) = &state.rdt {
        groups.join(&main.host.resctrl, peer.child.pid).at("linux.intelRdt")?;
    }
    if let Some(listener) = listener_of(state) {
        // The tenant's own pid is beside the state, which is the container's.
        let init = state.init.map(|init| init.pid);
        let told = OciState::of_container(&state.container, Status::Running, init);
        rendezvous::hand_over(listener, &told, &peer)?;
    }
    let pid = peer.child.pid;
    let waiting = peer.ready()?;
    if let Some(pid_file) = pid_file {
        pid_file.write(pid)?;
    }
    Ok(Outcome::Created { facts: facts(state), waiting, unfinished: None })
}

/// The container's init, which must be there: it holds the namespaces.
fn running(state: &State) -> Result<ProcessId> {
    match state.init {
        Some(init) if init.exists()? => Ok(init),
        _ => Err(Error::new(Kind::State(format!(
            "container {:?} is not running",
            state.container.id
        )))),
    }
}

fn enter_cgroup(state: &State, init: ProcessId, when_paused: WhenPaused) -> Result<cgroup::Entry> {
    let cgroup = Cgroup::open(&state.cgroup);
    if when_paused == WhenPaused::Refuse && cgroup.freezer_state()? == Some(Freeze::Frozen) {
        return Err(Error::new(Kind::State("cannot exec in a paused container".into())));
    }
    cgroup.entry_beside(init.pid)
}

impl<'a> Way<'a> for Setup<'a> {
    const WHO: &'static str = "tenant";

    /// Main itself goes into the container where it has nothing left to do outside of it. A user
    /// namespace would take its privileges over the host's cgroups; an agent's socket and resctrl
    /// are the host's files.
    fn takes_intermediate(&self) -> bool {
        self.state.container.namespaces.user != Namespace::Host
            || listener_of(self.state).is_some()
            || self.state.rdt.is_some()
    }

    fn entry(&self) -> &cgroup::Entry {
        &self.entry
    }

    fn flags_at_clone(&self) -> u64 {
        0
    }

    fn grants(&self) -> Grants<'a> {
        Grants::default()
    }

    fn oom_kills(&self) -> Option<OomKills> {
        OomKills::since_now(&self.state.cgroup)
    }

    /// All but the cgroup namespace, from which main would not see where it is itself: with the
    /// mount option nsdelegate, CLONE_INTO_CGROUP fails with ENOENT then (cgroup_procs_write_permission
    /// in kernel/cgroup/cgroup.c). The tenant joins that one.
    fn lead_from_main(&mut self, main: &Main<'_>) -> Result<()> {
        let flags = namespaces::flags_to_join(&self.state.container.namespaces);
        join(self, main.single, flags & !namespaces::CGROUP.flag)
    }

    fn lead_from_intermediate(&mut self, _: &ToParent<'_>, single: &SingleThreaded) -> Result<()> {
        join(self, single, namespaces::flags_to_join(&self.state.container.namespaces))
    }

    fn visit(&self, _main: &Main<'_>) -> Result<Option<Visit>> {
        Ok(None)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(DEADLINE)
    }

    fn run(self, channel: &Channel, single: &SingleThreaded, came: Came) -> ! {
        super::set_name(c"tenant:entry");
        let main = ToParent { channel };
        match establish(self, &main, single, came) {
            Ok(target) => target.serve(single, None),
            Err(error) => target::fail(&main, None, error),
        }
    }
}

fn listener_of(state: &State) -> Option<&SeccompListener> {
    state.container.seccomp.as_ref().and_then(|seccomp| seccomp.listener.as_ref())
}

/// Joins these of the container's namespaces.
fn join(setup: &Setup<'_>, single: &SingleThreaded, flags: u64) -> Result<()> {
    let namespaces = &setup.state.container.namespaces;
    join_namespaces(setup, single, flags)?;
    if namespaces.user != Namespace::Host {
        intermediate::become_root().at("become root of the user namespace")?;
    }
    Ok(())
}

fn join_namespaces(setup: &Setup<'_>, single: &SingleThreaded, flags: u64) -> Result<()> {
    process::setns(single, setup.init.as_fd(), flags)
        .call(|| format!("setns([init's pidfd], {flags:#x})"))
        .at("join namespaces")
}

fn establish<'a>(
    setup: Setup<'a>,
    main: &ToParent<'a>,
    single: &SingleThreaded,
    came: Came,
) -> Result<Target<'a>> {
    stdio::new_session()?;
    let cgroup_namespace = &setup.state.container.namespaces.cgroup;
    if came == Came::Directly && *cgroup_namespace != Namespace::Host {
        join_namespaces(&setup, single, namespaces::CGROUP.flag)?;
    }
    let Setup { state, process, entry, stdio: streams, handover, init } = setup;
    drop(init);
    let affinity = &process.exec_cpu_affinity;
    if !affinity.initial.is_empty() {
        scheduling::set_affinity(Cpus::These(&affinity.initial)).at("process.execCPUAffinity")?;
    }
    if came == Came::Directly {
        entry.join_self().at("join cgroup")?;
    }
    drop(entry);
    let wanted =
        if affinity.r#final.is_empty() { Cpus::All } else { Cpus::These(&affinity.r#final) };
    scheduling::set_affinity(wanted).at("process.execCPUAffinity")?;
    let procfs = Procfs::open()?;
    let console = connect(process, streams).at("standard streams")?;
    super::set_name(c"tenant:identity");
    let (id, filter) = (&*state.container.id, state.container.seccomp.as_ref());
    let possessions = Possessions { handover, procfs, console: console.as_ref() };
    let target = Target::establish(&Identity { process, id, filter }, possessions, main, single)?;
    super::set_name(c"tenant:ready");
    target::ready(main, console)?;
    Ok(target)
}

/// As init's, but for /dev/console, which stays init's.
fn connect(process: &Process, streams: Vec<OwnedFd>) -> Result<Option<OwnedFd>> {
    let Some(terminal) = process.terminal else {
        return stdio::connect(streams, process).map(|()| None);
    };
    let console = console::open_in_container(terminal)?;
    stdio::connect_terminal(console.slave, process)?;
    Ok(Some(console.master))
}

fn facts(state: &State) -> Facts {
    Facts {
        cgroup: state.cgroup.clone(),
        private_pid_namespace: state.container.namespaces.pid == Namespace::New,
        has_poststart: false,
        warnings: Vec::new(),
    }
}
