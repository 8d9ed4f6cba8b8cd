//! What main does from outside once init has entered its namespaces and before it builds the
//! root: Intel RDT, hooks of the runtime's namespaces, network devices; and, later, the hand-over
//! of a seccomp listener.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::main::Main;
use super::protocol::{Building, Peer};
use super::undo::Undo;
use crate::apply::hooks::{self, HookPoint};
use crate::apply::oci_state::{OciState, Status};
use crate::apply::{net_devices, seccomp_agent};
use crate::container::State;
use crate::error::{At, Call, Result};
use crate::plan::{Plan, SeccompListener};

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
    state: &State,
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
    let path = format!("/proc/{pid}/ns/net");
    let target = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({path}, O_RDONLY)"))?;
    let moved = net_devices::move_into(main.single, &plan.net_devices, target.as_fd())
        .at("linux.netDevices")?;
    undo.push("put the network devices back", move || moved.put_back());
    Ok(())
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
