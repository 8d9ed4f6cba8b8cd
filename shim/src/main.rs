//! The program: see the library beside it, which exists so that integration/fuzz can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    containerd_shim_myshim::main()
}
