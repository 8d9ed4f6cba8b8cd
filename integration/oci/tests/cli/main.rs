//! The command line on the real kernel: a bundle with busybox, as root. Every claim compares the
//! host before and after.

mod bench;
mod errors;
mod exec;
mod life;
mod limits;
mod start;
mod streams;
