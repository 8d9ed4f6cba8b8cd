//! See the claim.

#![no_main]

myshim_fuzz::message_target!(runtime::fuzz::channel);
