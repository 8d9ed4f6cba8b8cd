//! Hooks that init runs itself, in the container's namespaces.

use crate::apply::hooks::{self, HookPoint};
use crate::apply::oci_state::{OciState, Status};
use crate::error::Result;
use crate::plan::Plan;
use crate::sys::process::SingleThreaded;

/// After the mounts, before the root is entered.
pub(super) fn create_container(single: &SingleThreaded, plan: &Plan) -> Result<()> {
    let state = OciState::of(plan, Status::Creating, Some(own_pid()));
    hooks::run(single, HookPoint::CreateContainer, &plan.hooks.create_container, &state)
}

/// At start, before the user's program.
pub(super) fn start_container(single: &SingleThreaded, plan: &Plan) -> Result<()> {
    let state = OciState::of(plan, Status::Created, Some(own_pid()));
    hooks::run(single, HookPoint::StartContainer, &plan.hooks.start_container, &state)
}

/// As the hook sees it, which runs in the container's pid namespace.
fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}
