//! One verb per part of the plan, called from the process chain.

mod command;
pub mod hooks;
pub mod id_maps;
pub mod intel_rdt;
pub mod keyring;
pub mod net_devices;
pub mod network;
pub mod oci_state;
pub mod rlimits;
pub mod scheduling;
pub mod seccomp_agent;
