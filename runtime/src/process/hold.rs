//! For tests of deaths, in a build with the feature `hold` alone: holds a process half way.
//!
//! `MYSHIM_HOLD` in the daemon's environment is `NAME/MESSAGE`: the process whose name begins with
//! NAME waits before it sends MESSAGE, for example `inter/InitForked`. In place of it there may be
//! `MYSHIM_HOLD_FILE`, a file that has such a text in it whenever something is to be held. SIGPWR is
//! blocked while a process waits, by which it can be told from outside (SigBlk of
//! /proc/pid/status); SIGCONT lets it go on. It cannot stop itself: the kernel spares pid 1 of a pid
//! namespace its own SIGSTOP.

use nix::sys::signal::{SigSet, Signal};

/// `bytes` is a message as it goes over a channel: a tag, and JSON that begins with its name.
pub(super) fn before_sending(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes.get(1..).unwrap_or_default());
    // The answer of an operation has the message as its end.
    let text = text.strip_prefix("{\"end\":").unwrap_or(&text);
    let message = text.trim_start_matches(['{', '"']).split('"').next().unwrap_or_default();
    // Fails for a bad pointer only; then it is the name of none.
    let own = rustix::thread::name().unwrap_or_default();
    hold(&own.to_string_lossy(), message);
}

/// Waits if this place is wanted: a process's name, and what it is about to do.
pub fn hold(own: &str, message: &str) {
    let file = || std::fs::read_to_string(std::env::var_os("MYSHIM_HOLD_FILE")?).ok();
    let Some(wanted) = std::env::var("MYSHIM_HOLD").ok().or_else(file) else { return };
    let Some((name, wanted)) = wanted.split_once('/') else { return };
    if message == wanted && own.starts_with(name) {
        // None of the calls can fail with these arguments.
        wait().unwrap_or_default();
    }
}

fn wait() -> nix::Result<()> {
    let go: SigSet = [Signal::SIGCONT].into_iter().collect();
    let blocked: SigSet = [Signal::SIGCONT, Signal::SIGPWR].into_iter().collect();
    blocked.thread_block()?;
    go.wait()?;
    blocked.thread_unblock()
}
