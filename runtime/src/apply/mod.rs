//! One verb per part of the plan, called from the process chain.

pub mod console;
pub mod cwd;
pub mod home;
pub mod hostname;
pub mod identity;
pub mod lsm;
pub mod namespaces;
pub mod own;
pub mod program;
pub mod rootfs;
pub mod seccomp;
pub mod stdio;
pub mod sysctl;
pub mod time_offsets;
