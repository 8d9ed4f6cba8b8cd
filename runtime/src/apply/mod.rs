//! One verb per part of the plan, called from the process chain.

pub mod console;
pub mod rootfs;
pub mod stdio;
pub mod sysctl;
