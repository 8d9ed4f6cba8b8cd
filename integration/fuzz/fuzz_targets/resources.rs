//! See the claim.

#![no_main]

myshim_fuzz::json_target!(runtime::fuzz::resources);
