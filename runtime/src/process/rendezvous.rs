//! What main does from outside once init has entered its namespaces and before it builds the
//! root: Intel RDT, hooks of the runtime's namespaces, network devices; and, later, the hand-over
//! of a seccomp listener.

use super::main::Main;
use super::protocol::{Building, Peer};
use crate::apply::hooks::{self, HookPoint};
use crate::apply::oci_state::{OciState, Status};
use crate::error::Result;
use crate::plan::Plan;

/// Whether there is anything to do: without, init does not wait.
pub(super) fn needed(plan: &Plan) -> bool {
    !(plan.hooks.prestart.is_empty()
        && plan.hooks.create_runtime.is_empty()
        && plan.net_devices.is_empty()
        && plan.intel_rdt.is_none())
}

/// Does it.
pub(super) fn attend(main: &Main<'_>, plan: &Plan, peer: &Peer<Building>) -> Result<()> {
    let state = creating(plan, peer.child.pid);
    hooks::run(main.single, HookPoint::Prestart, &plan.hooks.prestart, &state)?;
    hooks::run(main.single, HookPoint::CreateRuntime, &plan.hooks.create_runtime, &state)
}

/// The state that hooks and seccomp agents are told of during a create.
pub(super) fn creating(plan: &Plan, pid: i32) -> OciState<'_> {
    OciState::of(plan, Status::Creating, Some(pid))
}
