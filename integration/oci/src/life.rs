//! What is done to a container that exists.

use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::signal::Signal;
use runtime::apply::oci_state::Status;
use runtime::plan::Namespace;
use runtime::process::{
    DeleteRequest, FreezeRequest, Freezer, KillAllRequest, PoststartRequest, Request, StartOutcome,
    start_container,
};
use runtime::sys::child::pidfd_send_signal;
use runtime::{Call, Error, Kind, Result};

use crate::args::{Args, Operands, Takes};
use crate::container::{self, Container};
use crate::{Context, chain};

const SIGKILL: i32 = 9;
/// The largest number of a signal on Linux.
const LAST_SIGNAL: i32 = 64;

fn of_one(context: &Context, words: Vec<String>) -> Result<Container> {
    let mut args = Args::parse(words, &[], Operands::Between)?;
    Container::open(&context.root, &args.operand("container id")?)
}

/// `start ID`.
pub(crate) fn start(context: &Context, words: Vec<String>) -> Result<()> {
    let container = of_one(context, words)?;
    match start_container(&container.dir)? {
        StartOutcome::Executed => {}
        StartOutcome::Failed(error) => return Err(error),
        StartOutcome::Died(death) => return Err(death.explain(None)),
    }
    if container.state.hooks.poststart.is_empty() {
        return Ok(());
    }
    let state_dir = container.dir.clone();
    let done = chain::run(&Request::Poststart(PoststartRequest { state_dir }));
    // runtime.md, Lifecycle, step 10: the container is stopped then.
    done.map_err(|error| match signal_all(&container, SIGKILL) {
        Ok(()) => error,
        Err(undo) => error.with_undo(vec![undo]),
    })
}

/// `kill [--all] ID [SIGNAL]`.
pub(crate) fn kill(context: &Context, words: Vec<String>) -> Result<()> {
    let mut args = Args::parse(words, &[("all|a", Takes::Nothing)], Operands::Between)?;
    let container = Container::open(&context.root, &args.operand("container id")?)?;
    let signal = signal(args.optional().as_deref().unwrap_or("SIGTERM"))?;
    if args.has("all") {
        return signal_all(&container, signal);
    }
    let init = container.init()?;
    // Without a pid namespace of its own the others do not end with init; frozen, none does.
    let shared = container.state.container.namespaces.pid != Namespace::New;
    if signal == SIGKILL && (shared || container.status()? == Status::Paused) {
        return signal_all(&container, signal);
    }
    pidfd_send_signal(init.as_fd(), signal).call(|| format!("pidfd_send_signal([init], {signal})"))
}

fn signal_all(container: &Container, signal: i32) -> Result<()> {
    let state_dir = container.dir.clone();
    chain::run(&Request::KillAll(KillAllRequest { state_dir, signal }))
}

/// A signal by its number or its name, with SIG or without.
fn signal(text: &str) -> Result<i32> {
    let unknown = || Error::argument("signal", format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=LAST_SIGNAL).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let by_name = |signal: &Signal| signal.as_str() == name;
    let number = |signal: Signal| (1..=LAST_SIGNAL).find(|n| Signal::try_from(*n) == Ok(signal));
    Signal::iterator().find(by_name).and_then(number).ok_or_else(unknown)
}

/// `delete [--force] ID`.
pub(crate) fn delete(context: &Context, words: Vec<String>) -> Result<()> {
    let mut args = Args::parse(words, &[("force|f", Takes::Nothing)], Operands::Between)?;
    let (id, force) = (args.operand("container id")?, args.has("force"));
    let dir = container::directory(&context.root, &id)?;
    match Container::open(&context.root, &id) {
        Ok(container) if !force => match container.status()? {
            Status::Stopped | Status::Created => {}
            status => {
                return Err(Error::new(Kind::State(format!(
                    "cannot delete container {id} that is not stopped: {}",
                    format!("{status:?}").to_lowercase()
                ))));
            }
        },
        Err(error) if !force => return Err(error),
        // There, or too broken to be looked at.
        _ => {}
    }
    chain::run(&Request::Delete(DeleteRequest { state_dir: dir.clone() }))?;
    forget(&dir)
}

/// Removes a state's directory in which nothing of the library's is left.
pub(crate) fn forget(dir: &Path) -> Result<()> {
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).call(|| format!("rmdir({dir:?})"))
        }
        _ => Ok(()),
    }
}

/// `pause ID`.
pub(crate) fn pause(context: &Context, words: Vec<String>) -> Result<()> {
    let container = of_one(context, words)?;
    match container.status()? {
        Status::Created | Status::Running => freeze(&container, Freezer::Frozen),
        other => Err(Error::new(Kind::State(format!("container not running: {other:?}")))),
    }
}

/// `resume ID`.
pub(crate) fn resume(context: &Context, words: Vec<String>) -> Result<()> {
    let container = of_one(context, words)?;
    match container.status()? {
        Status::Paused => freeze(&container, Freezer::Thawed),
        other => Err(Error::new(Kind::State(format!("container not paused: {other:?}")))),
    }
}

fn freeze(container: &Container, freezer: Freezer) -> Result<()> {
    let state_dir = container.dir.clone();
    chain::run(&Request::Freeze(FreezeRequest { state_dir, freezer }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_number_and_two_names() {
        assert_eq!(signal("9").unwrap(), 9);
        assert_eq!(signal("KILL").unwrap(), 9);
        assert_eq!(signal("sigterm").unwrap(), 15);
        assert_eq!(signal("64").unwrap(), 64);
        for wrong in ["0", "65", "-1", "SIGNOPE", ""] {
            assert!(signal(wrong).is_err(), "{wrong}");
        }
    }
}
