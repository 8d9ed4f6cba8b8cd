//! containerd-shim-myshim-v2.
#![allow(dead_code, reason = "until the front merges")]
mod bridge;
mod cell;
mod io;
mod readiness;
mod reaper;
mod serve_args;
fn main() {}
