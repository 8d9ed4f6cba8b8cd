//! containerd-shim-myshim-v2.
fn main() {}
