//! Whether what came of a fault is what ought to.

use std::time::Duration;

use myshim_integration::inject::{Fault, Seen};
use nix::errno::Errno;

use super::tolerated;

/// What came of a fault.
pub(super) enum Outcome {
    /// An error that names the call.
    Told,
    /// A success, for a reason that is written down.
    Tolerated,
    /// The process made fewer calls this time.
    NotReached,
    /// Neither, and what it was.
    Wrong(String),
}

/// Nothing takes longer, on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// `text` is the error's, None of a success.
pub(super) fn judge(
    operation: &str,
    struck: &Seen,
    fault: Fault,
    text: Option<&str>,
    took: Duration,
) -> Outcome {
    let Seen { name, comm, place, what } = struck;
    let at = format!("{operation}: {comm} {}/{}", place.process, place.nth);
    let about = format!("{at} {name}({what}) {}", shown(fault));
    if took > LONG {
        return Outcome::Wrong(format!("{about} takes {took:?}: {text:?}"));
    }
    match (text, fault) {
        (None, _) if tolerated::by(operation, struck, fault) => Outcome::Tolerated,
        (None, _) => Outcome::Wrong(format!("{about}: success")),
        (Some(text), Fault::Kills) if tells_death(text, comm) => Outcome::Told,
        (Some(text), Fault::Fails(errno)) if tells(text, struck, errno.raw_os_error()) => {
            Outcome::Told
        }
        (Some(text), _) => Outcome::Wrong(format!("{about}: {text:?}")),
    }
}

fn tells_death(text: &str, comm: &str) -> bool {
    let died = text.contains("ended before it answered");
    // Of one that was ready and waits for its start it is the exit that tells how.
    let is_ready = comm.ends_with(":ready");
    died && (text.contains("SIGKILL") || is_ready)
        || is_ready && text == "cannot start a stopped process"
        || text.contains(" hook ") && text.contains("SIGKILL")
}

fn tells(text: &str, seen: &Seen, errno: i32) -> bool {
    let desc = Errno::from_raw(errno).desc();
    let errno = format!("{:?}", Errno::from_raw(errno));
    let names = |word: &&str| text.contains(&format!("{word}("));
    text.contains(&errno) && tolerated::words_for(&seen.name).iter().any(names)
        || tolerated::told_otherwise(seen, (&errno, desc), text)
}

pub(super) fn shown(fault: Fault) -> String {
    match fault {
        Fault::Kills => "killed".to_owned(),
        Fault::Fails(errno) => format!("{:?}", Errno::from_raw(errno.raw_os_error())),
    }
}
