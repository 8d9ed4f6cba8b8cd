//! The demonstration behind `make demo`.

fn main() {}
