//! See the claim.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| shim::fuzz::bootstrap(input));
