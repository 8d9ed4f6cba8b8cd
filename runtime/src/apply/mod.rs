//! One verb per part of the plan, called from the process chain.

pub mod home;
pub mod identity;
pub mod namespaces;
pub mod program;
