//! `ctr run`: flags, exit codes, errors.

use myshim_integration::runner::Claim;
use myshim_integration::{Test, claims};

pub(crate) const CLAIMS: &[Claim] = claims![a_container_prints_and_ends_with_0];

fn a_container_prints_and_ends_with_0(t: &Test) {
    assert_eq!(t.run(&[], &["echo", "hello"]).ok(), "hello\n");
}
