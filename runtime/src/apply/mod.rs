//! One verb per part of the plan, called from the process chain.

pub mod base;
mod command;
pub mod console;
pub mod cwd;
pub mod home;
pub mod hooks;
pub mod hostname;
pub mod id_maps;
pub mod identity;
pub mod intel_rdt;
pub mod keyring;
pub mod lsm;
pub mod namespaces;
pub mod net_devices;
pub mod network;
pub mod oci_state;
pub mod own;
pub mod program;
pub mod rlimits;
pub mod rootfs;
pub mod scheduling;
pub mod seccomp;
pub mod seccomp_agent;
pub mod stdio;
pub mod sysctl;
pub mod time_offsets;
