//! What main does from outside once init has entered its namespaces and before it builds the
//! root: hooks of the runtime's namespace, network devices, Intel RDT; and, later, the hand-over
//! of a seccomp listener.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::Child;
use super::main::Main;
use super::protocol::{Building, Peer};
use crate::apply::hooks::{self, HookPoint};
use crate::apply::oci_state::{OciState, Status};
use crate::error::{Call, Result};
use crate::plan::{Plan, SeccompListener};

/// Whether there is anything to do: without, init does not wait.
pub(super) fn needed(plan: &Plan) -> bool {
    !(plan.hooks.prestart.is_empty()
        && plan.hooks.create_runtime.is_empty()
        && plan.net_devices.is_empty()
        && plan.intel_rdt.is_none())
}
