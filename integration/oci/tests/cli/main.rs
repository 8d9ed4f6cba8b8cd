//! The command line on the real kernel: a bundle with busybox, as root. Every claim compares the
//! host before and after.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is how it fails")]

mod bench;
mod errors;
mod exec;
mod life;
mod limits;
mod rootless;
mod start;
mod streams;
