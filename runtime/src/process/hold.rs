//! For tests of deaths, in a build with the feature `hold` alone: stops a process of the chain
//! before it sends a message.
//!
//! `MYSHIM_HOLD` in the daemon's environment is `NAME/MESSAGE`: the process whose name begins with
//! NAME stops itself (SIGSTOP) before it sends MESSAGE, for example `inter/InitForked`. Whoever
//! holds it so may kill it there, or let it go on with SIGCONT.

use rustix::process::{Signal, getpid, kill_process};

/// `bytes` is a message as it goes over a channel: a tag, and JSON that begins with its name.
pub(super) fn before_sending(bytes: &[u8]) {
    let Ok(wanted) = std::env::var("MYSHIM_HOLD") else { return };
    let Some((name, message)) = wanted.split_once('/') else { return };
    let text = String::from_utf8_lossy(bytes.get(1..).unwrap_or_default());
    let is_message = text.trim_start_matches(['{', '"']).split('"').next() == Some(message);
    // Fails for a bad pointer only; then it is the name of none.
    let own = rustix::thread::name().unwrap_or_default();
    if is_message && own.to_bytes().starts_with(name.as_bytes()) {
        // It cannot fail for the process itself.
        kill_process(getpid(), Signal::STOP).unwrap_or_default();
    }
}
