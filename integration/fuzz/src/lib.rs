//! libFuzzer's side: how inputs are made up that get past a parser of JSON.
//!
//! The claims are `runtime::fuzz` and those of the shim; fuzz_targets has a program for each.

mod json;

pub use json::mutate;

/// A target whose input is JSON.
#[macro_export]
macro_rules! json_target {
    ($claim:path) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $claim(input));
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::mutate(data, size, max_size, seed, libfuzzer_sys::fuzzer_mutate)
        });
    };
}

/// A target whose input is JSON behind a first byte.
#[macro_export]
macro_rules! message_target {
    ($claim:path) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $claim(input));
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            // Now and then the tag, too.
            if size < 2 || seed % 64 == 0 {
                return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
            }
            let mutate = libfuzzer_sys::fuzzer_mutate;
            1 + $crate::mutate(&mut data[1..], size - 1, max_size - 1, seed, mutate)
        });
    };
}
