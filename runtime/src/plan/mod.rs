//! From what the bundle alleges to what will be done.
//!
//! [`Plan::new`] answers every question before the first effect; nothing after it reads the spec.
//! A plan renders as JSON, for snapshot tests and for debugging.

mod types;

pub use types::*;
