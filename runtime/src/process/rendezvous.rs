//! What main does from outside once init has entered its namespaces and before it builds the
//! root: Intel RDT, hooks of the runtime's namespaces, network devices; and, later, the hand-over
//! of a seccomp listener.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::main::Main;
use super::protocol::{Building, Peer};
use super::undo::Undo;
use crate::apply::hooks::{self, HookPoint};
use crate::apply::oci_state::{OciState, Status};
use crate::apply::{net_devices, seccomp_agent};
use crate::container::{State, StateDir};
use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::{Plan, SeccompListener};
use crate::sys::process::SingleThreaded;

/// An agent that takes longer is dead or deaf: the process it would serve hangs meanwhile.
const AGENT_DEADLINE: Duration = Duration::from_secs(10);

/// Whether there is anything to do: without, init does not wait.
pub(super) fn needed(plan: &Plan) -> bool {
    !(plan.hooks.prestart.is_empty()
        && plan.hooks.create_runtime.is_empty()
        && plan.net_devices.is_empty()
        && plan.intel_rdt.is_none())
}

/// Does it.
pub(super) fn attend<'a>(
    main: &Main<'_>,
    plan: &'a Plan,
    (dir, state): (&StateDir, &State),
    pid: i32,
    undo: &mut Undo<'a>,
) -> Result<()> {
    if let Some(groups) = &state.rdt {
        groups.join(&main.host.resctrl, pid).at("linux.intelRdt")?;
    }
    // Hooks of the runtime's namespaces run in the bundle, as with runc.
    rustix::process::chdir(&plan.bundle).call(|| format!("chdir({:?})", plan.bundle))?;
    let told = OciState::of(plan, Status::Creating, Some(pid));
    hooks::run(main.single, HookPoint::Prestart, &plan.hooks.prestart, &told)?;
    hooks::run(main.single, HookPoint::CreateRuntime, &plan.hooks.create_runtime, &told)?;
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let target = open_net_namespace(pid)?;
    let record = |devices: &_| dir.record_net_devices(devices);
    let moved = net_devices::move_into(main.single, &plan.net_devices, target.as_fd(), record)
        .at("linux.netDevices")?;
    undo.push("put the network devices back", move || moved.put_back());
    Ok(())
}

fn open_net_namespace(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/net");
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({path}, O_RDONLY)"))
}

/// Puts the network devices of a create back whose main has died, as long as its init, which
/// waits for this (see [`super::target`]), holds their namespace.
pub(super) fn put_devices_back(
    single: &SingleThreaded,
    dir: &StateDir,
    state: &State,
) -> Result<()> {
    let (Some(record), Some(init)) = (dir.recorded_net_devices()?, state.init) else {
        return Ok(());
    };
    let target = match init.open()? {
        Some(_) => open_net_namespace(init.pid)?,
        None => return Err(Error::new(Kind::State("their namespace is gone".into()))),
    };
    net_devices::put_back(single, &record, target.as_fd())
}

/// Fetches the listener out of the process, which says its number, and gives it to the agent.
pub(super) fn hand_over(
    listener: &SeccompListener,
    told: &OciState<'_>,
    peer: &Peer<Building>,
) -> Result<()> {
    let fd = peer.listener()?;
    let notify = pidfd_getfd(&peer.child.pidfd, fd, PidfdGetfdFlags::empty())
        .call(|| format!("pidfd_getfd([{}], {fd})", peer.child.pid))?;
    seccomp_agent::hand_over(listener, notify.as_fd(), peer.child.pid, told, AGENT_DEADLINE)
        .at("linux.seccomp.listenerPath")?;
    peer.proceed()
}
