//! The border to the kernel: the only module with unsafe code and with raw descriptors.
//!
//! Its premises are values: [`SingleThreaded`] for what may be done only by a process with one
//! thread, owned and borrowed fds for everything that is open.

pub mod inside;
pub mod mount;
pub mod procfs;
#[cfg(test)]
pub(crate) mod testing;
