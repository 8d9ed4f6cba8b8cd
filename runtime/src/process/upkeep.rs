//! Main's part of what is done to a container that exists: delete, update, freeze, kill, and the
//! poststart hooks. Each may block, which is why the daemon leaves it to a main.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Signal;

use super::main::{Main, Outcome};
use super::operation::{News, Then};
use super::rendezvous::put_devices_back;
use super::{
    DeleteRequest, FreezeRequest, Freezer, KillAllRequest, PoststartRequest, UpdateRequest,
};
use crate::apply::hooks::{self, HookPoint};
use crate::apply::oci_state::{OciState, Status};
use crate::apply::rootfs;
use crate::cgroup::Cgroup;
use crate::container::{ProcessId, State, StateDir};
use crate::error::{At, Call, Error, Result};
use crate::plan::Hook;
use crate::spec;
use crate::sys::phases;
use crate::sys::process::SingleThreaded;

/// Kills what is left, runs the poststop hooks, removes cgroup and state. `orphans` are pidfds of
/// processes that the state may not know.
pub(super) fn delete(
    main: &Main<'_>,
    request: &DeleteRequest,
    orphans: &[OwnedFd],
) -> Result<Outcome> {
    let (warnings, then) = delete_all(&request.state_dir, orphans, main.single)?;
    Ok(Outcome::Done(warnings, then))
}

/// Removes what is left of the container whose state is in `state_dir`: for a main, and for a
/// program that stands in for a daemon that is gone. That there is no state is no error, and a
/// second call finds none.
///
/// # Errors
/// What could not be removed; the state stays, for another try. Poststop hooks that fail are
/// warnings: the rest goes on (runtime.md, lifecycle 13).
pub fn delete_container(state_dir: &Path, single: &SingleThreaded) -> Result<Vec<String>> {
    delete_all(state_dir, &[], single).map(|(warnings, _)| warnings)
}

fn delete_all(
    state_dir: &Path,
    orphans: &[OwnedFd],
    single: &SingleThreaded,
) -> Result<(Vec<String>, Then)> {
    let dir = StateDir::open(state_dir);
    let state = dir.load_without_filter();
    // First: with the last process goes the namespace that they are in.
    let devices = match &state {
        Ok(Some(state)) => put_devices_back(single, &dir, state).at("put network devices back"),
        Ok(None) | Err(_) => Ok(()),
    };
    orphans.iter().try_for_each(|pidfd| kill(pidfd).call(|| "pidfd_send_signal(orphan)".into()))?;
    let Some(state) = state? else { return dir.remove().map(|()| (Vec::new(), Then::Waits)) };
    let cgroup = Cgroup::open(&state.cgroup);
    if let Some(init) = state.init {
        phases::mark(c"kill");
        // Whoever thaws is killed before it can run.
        cgroup.kill_all(Signal::KILL.as_raw()).at("kill")?;
        kill_init(init)?;
    }
    phases::mark(c"cgroup");
    cgroup.remove().at("remove cgroup")?;
    let mut warnings = cgroup.release_unit().at("remove cgroup")?;
    phases::mark(c"state");
    if let Some(site) = &state.rootfs_on_host {
        rootfs::detach_from_host(site).at("unmount rootfs")?;
    }
    if let Some(groups) = &state.rdt {
        groups.remove().at("remove the RDT groups")?;
    }
    let failed = poststop(&state, single);
    dir.remove()?;
    devices?;
    warnings.extend(failed.iter().map(Error::to_string));
    // Hooks run in the bundle, and this process with them.
    let then = if state.hooks.poststop.is_empty() { Then::Waits } else { Then::Ends };
    Ok((warnings, then))
}

/// Init itself, wherever it may have moved to.
fn kill_init(init: ProcessId) -> Result<()> {
    let Some(pidfd) = init.open()? else { return Ok(()) };
    kill(&pidfd).call(|| format!("pidfd_send_signal([{}], SIGKILL)", init.pid))
}

fn kill(pidfd: &OwnedFd) -> std::result::Result<(), Errno> {
    match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
        Err(Errno::SRCH) => Ok(()),
        other => other,
    }
}

fn poststop(state: &State, single: &SingleThreaded) -> Vec<Error> {
    // A create that did not come to an init has no life to end.
    if state.init.is_none() {
        return Vec::new();
    }
    let stopped = OciState::of_container(&state.container, Status::Stopped, None);
    run_poststop(single, &state.hooks.poststop, &stopped)
}

/// Runs all of the hooks in the bundle, and returns what failed.
pub(super) fn run_poststop(
    single: &SingleThreaded,
    hooks: &[Hook],
    stopped: &OciState<'_>,
) -> Vec<Error> {
    let entered = enter_bundle(hooks, stopped.bundle).err();
    let failed = hooks::run_all(single, HookPoint::Poststop, hooks, stopped);
    entered.into_iter().chain(failed).collect()
}

/// Hooks of the runtime's namespaces run in the bundle, as with runc.
fn enter_bundle(hooks: &[Hook], bundle: &Path) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    rustix::process::chdir(bundle).call(|| format!("chdir({bundle:?})"))
}

/// Runs the poststart hooks.
pub(super) fn poststart(main: &Main<'_>, request: &PoststartRequest) -> Result<()> {
    let state = StateDir::open(&request.state_dir).require()?;
    let running =
        OciState::of_container(&state.container, Status::Running, state.init.map(|init| init.pid));
    enter_bundle(&state.hooks.poststart, running.bundle)?;
    hooks::run(main.single, HookPoint::Poststart, &state.hooks.poststart, &running)
}

/// Changes limits.
pub(super) fn update(main: &Main<'_>, request: &UpdateRequest) -> Result<Vec<String>> {
    let state = StateDir::open(&request.state_dir).require()?;
    let resources = spec::resources_from_json(&request.resources)?;
    let throttles = |memory_high: &str| {
        let throttles = News::Throttles { memory_high: memory_high.to_owned() };
        main.daemon.news.send(&throttles, &[])
    };
    Cgroup::open(&state.cgroup).update(&resources, throttles).at("update")
}

/// Freezes or thaws.
pub(super) fn freeze(request: &FreezeRequest) -> Result<()> {
    let cgroup = Cgroup::open(&StateDir::open(&request.state_dir).require()?.cgroup);
    match request.freezer {
        Freezer::Frozen => cgroup.freeze(),
        Freezer::Thawed => cgroup.thaw(),
    }
}

/// Signals all processes of the cgroup.
pub(super) fn kill_all(request: &KillAllRequest) -> Result<()> {
    let state = StateDir::open(&request.state_dir).require()?;
    Cgroup::open(&state.cgroup).kill_all(request.signal).at("kill all")
}
