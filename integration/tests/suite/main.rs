//! The claims of this project about containers on real containerds. See docs/testing.md.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is how it fails")]

mod ctr_run;

use std::process::ExitCode;

fn main() -> ExitCode {
    myshim_integration::runner::main(&[ctr_run::CLAIMS])
}
