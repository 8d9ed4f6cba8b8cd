//! The claims of this project about real clients other than `ctr`. See docs/testing.md.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is how it fails")]

mod cri_limits;
mod cri_pods;
mod cri_security;
mod cri_streams;
mod docker;
mod documents;
mod kubernetes;
mod nerdctl;
mod nerdctl_rootless;
mod operator;

use std::process::ExitCode;

fn main() -> ExitCode {
    myshim_integration::runner::main(&[
        cri_pods::CLAIMS,
        cri_streams::CLAIMS,
        cri_limits::CLAIMS,
        cri_security::CLAIMS,
        nerdctl::CLAIMS,
        nerdctl_rootless::CLAIMS,
        docker::CLAIMS,
        operator::CLAIMS,
        documents::CLAIMS,
        kubernetes::CLAIMS,
    ])
}
