//! A D-Bus client as small as one conversation needs: it connects, makes a few calls one after
//! the other, and waits for a signal, all under one deadline, in the calling thread.
//!
//! ```text
//!  value    what is said, and its wire form     D-Bus specification, "Type System", "Marshalling"
//!  message  headers around it                   "Message Protocol"
//!  connection  socket, authentication, waiting  "Authentication Protocol", "Message Bus"
//! ```
//!
//! Why it is not a library: docs/decisions/systemd.md.

mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod message;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use connection::{Connection, Peer};
pub(crate) use message::{Call, Refusal};
pub use value::Value;
