//! Main's part of what is done to a container that exists: delete, update, freeze, kill, and the
//! poststart hooks. Each may block, which is why the daemon leaves it to a main.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::main::Main;
use super::{
    DeleteRequest, FreezeRequest, Freezer, KillAllRequest, PoststartRequest, UpdateRequest,
};
use crate::apply::hooks::{self, HookPoint};
use crate::apply::oci_state::{OciState, Status};
use crate::apply::rootfs;
use crate::cgroup::Cgroup;
use crate::container::{ProcessId, State, StateDir};
use crate::error::{At, Call, Error, Result};
use crate::spec;
use crate::sys::process::SingleThreaded;

/// Kills what is left, runs the poststop hooks, removes cgroup and state.
pub(super) fn delete(main: &Main<'_>, request: &DeleteRequest) -> Result<()> {
    delete_container(&request.state_dir, main.single)
}

/// Removes what is left of the container whose state is in `state_dir`: for a main, and for a
/// program that stands in for a daemon that is gone. That there is no state is no error, and a
/// second call finds none.
///
/// # Errors
/// What could not be removed (all else was), or poststop hooks that failed; in that case the
/// state is gone, for it is the hooks that have to be mended and not the container.
pub fn delete_container(state_dir: &std::path::Path, single: &SingleThreaded) -> Result<()> {
    let dir = StateDir::open(state_dir);
    let Some(state) = dir.load()? else { return dir.remove() };
    let cgroup = Cgroup::open(&state.cgroup);
    if let Some(init) = state.init {
        // Whoever thaws is killed before it can run.
        cgroup.kill_all(Signal::KILL.as_raw()).at("kill")?;
        kill(init)?;
    }
    cgroup.remove().at("remove cgroup")?;
    if let Some(site) = &state.rootfs_on_host {
        rootfs::detach_from_host(site).at("unmount rootfs")?;
    }
    if let Some(groups) = &state.rdt {
        groups.remove().at("remove the RDT groups")?;
    }
    let failed = poststop(&state, single);
    dir.remove()?;
    failed.into_iter().next().map_or(Ok(()), Err)
}

/// Init itself, wherever it may have moved to. The pidfd is compared after it was opened: until
/// then the number could have become another process's.
fn kill(init: ProcessId) -> Result<()> {
    let Some(pid) = Pid::from_raw(init.pid) else { return Ok(()) };
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        other => other.call(|| format!("pidfd_open({})", init.pid))?,
    };
    if !init.exists()? {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
        Err(Errno::SRCH) => Ok(()),
        other => other.call(|| format!("pidfd_send_signal([{}], SIGKILL)", init.pid)),
    }
}

fn poststop(state: &State, single: &SingleThreaded) -> Vec<Error> {
    // A create that did not come to an init has no life to end.
    if state.init.is_none() {
        return Vec::new();
    }
    let stopped = OciState::of_container(&state.container, Status::Stopped, None);
    hooks::run_all(single, HookPoint::Poststop, &state.hooks.poststop, &stopped)
}

/// Runs the poststart hooks.
pub(super) fn poststart(main: &Main<'_>, request: &PoststartRequest) -> Result<()> {
    let state = StateDir::open(&request.state_dir).require()?;
    let running =
        OciState::of_container(&state.container, Status::Running, state.init.map(|init| init.pid));
    hooks::run(main.single, HookPoint::Poststart, &state.hooks.poststart, &running)
}

/// Changes limits.
pub(super) fn update(request: &UpdateRequest) -> Result<()> {
    let state = StateDir::open(&request.state_dir).require()?;
    let resources = spec::resources_from_json(&request.resources)?;
    // What this kernel takes as best effort was told at create; an update changes numbers only.
    Cgroup::open(&state.cgroup).update(&resources).at("update").map(drop)
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
