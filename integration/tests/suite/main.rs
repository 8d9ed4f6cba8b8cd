//! The claims of this project about containers on real containerds. See docs/testing.md.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is how it fails")]

mod bad_input;
mod crash;
mod ctr_exec;
mod ctr_run;
mod ctr_tty;
mod facts;
mod lifecycle;
mod pod;
mod restart;
mod rpc;
mod scale;

use std::process::ExitCode;

fn main() -> ExitCode {
    myshim_integration::runner::main(&[
        ctr_run::CLAIMS,
        ctr_exec::CLAIMS,
        ctr_tty::CLAIMS,
        lifecycle::CLAIMS,
        pod::CLAIMS,
        restart::CLAIMS,
        crash::CLAIMS,
        bad_input::CLAIMS,
        rpc::CLAIMS,
        scale::CLAIMS,
    ])
}
