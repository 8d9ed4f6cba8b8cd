//! See the claim.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| runtime::fuzz::unit_property(input));
