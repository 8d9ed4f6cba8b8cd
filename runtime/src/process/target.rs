//! What init and a tenant have in common: from an entered container to the user's program.
//!
//! On entry the process is root in the container's namespaces, root directory and cgroup, with its
//! standard streams in place. It becomes the user's process step by step, says `Ready`, and waits.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::channel::Channel;
use super::gate::Gate;
use super::hooks;
use super::operation::{FromStarted, ToTarget};
use super::protocol::{ToMain, ToParent};
use crate::apply::program::Program;
use crate::apply::{cwd, home, identity, keyring, lsm, rlimits, scheduling, seccomp};
use crate::error::{At, Call, Result};
use crate::plan::{Plan, Process, Seccomp};
use crate::sys::fd;
use crate::sys::phases;
use crate::sys::process::{self, SingleThreaded};
use crate::sys::procfs::Procfs;

/// The number of the first descriptor behind the standard streams.
const FIRST_EXTRA: u32 = 3;

/// How long it may take until somebody cleans up behind a create whose main has died.
const UNTIL_PUT_BACK: Duration = Duration::from_secs(30);

/// How a process that waits for start is started, and what it leaves open for its program.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// Without one it is the daemon that starts it.
    pub(super) gate: Option<Gate>,
    /// See [`super::ExtraFds`].
    pub(super) extra: Vec<OwnedFd>,
}

impl Handover {
    /// Decides what is open from here on: the standard streams, the channel, what the start takes,
    /// and the console, which is on its way to the daemon. All of it is close-on-exec, by how it
    /// was opened, and above the future places of the extra descriptors.
    ///
    /// That all else is close-on-exec too does not do: execve(2) finds the program first, and
    /// `/proc/self/fd/N/..` leads through a directory of the host's (its /proc, say) to the host's
    /// programs (CVE-2024-21626). It is done before a filter may forbid close_range(2),
    /// which is newer than many profiles.
    fn settle<'a>(
        self,
        single: &SingleThreaded,
        daemon: &'a Channel,
        console: Option<&OwnedFd>,
    ) -> Result<Settled<'a>> {
        let settled = self.above_extra(daemon)?;
        let kept: Vec<BorrowedFd<'_>> =
            settled.descriptors().chain([daemon.as_fd()]).chain(console.map(AsFd::as_fd)).collect();
        process::close_all_but(single, &kept).call(|| format!("close_range(all but {kept:?})"))?;
        Ok(settled)
    }

    fn above_extra(self, daemon: &Channel) -> Result<Settled<'_>> {
        let gate = self.gate.map(Gate::into_channels);
        if self.extra.is_empty() {
            let starter = gate.map_or(Starter::Daemon(daemon), Starter::gate);
            return Ok(Settled { starter, extra: self.extra });
        }
        let above = FIRST_EXTRA + u32::try_from(self.extra.len()).unwrap_or(u32::MAX);
        let (hear, speak) = gate.as_ref().map_or((daemon, daemon), |(hear, speak)| (hear, speak));
        let starter = Starter::gate((hear.above(above)?, speak.above(above)?));
        let extra =
            self.extra.iter().map(|fd| super::fd_above(fd, above)).collect::<Result<_>>()?;
        Ok(Settled { starter, extra })
    }
}

/// A [`Handover`] for which all is prepared.
struct Settled<'a> {
    starter: Starter<'a>,
    extra: Vec<OwnedFd>,
}

impl Settled<'_> {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let starter = match &self.starter {
            Starter::Daemon(_) => [None, None],
            Starter::Gate { hear, speak } => {
                [hear.as_ref().map(Channel::as_fd), Some(speak.as_fd())]
            }
        };
        starter.into_iter().flatten().chain(self.extra.iter().map(AsFd::as_fd))
    }
}

/// By what a process hears of its start, and tells how it went.
enum Starter<'a> {
    Daemon(&'a Channel),
    Gate { hear: Option<Channel>, speak: Channel },
}

impl Starter<'_> {
    fn gate((hear, speak): (Channel, Channel)) -> Self {
        Starter::Gate { hear: Some(hear), speak }
    }

    fn hear(&self) -> Result<Option<ToTarget>> {
        match self {
            Starter::Daemon(channel) => channel.await_word(),
            Starter::Gate { hear, .. } => hear.as_ref().map_or(Ok(None), |hear| hear.await_word()),
        }
    }

    fn say(&self, word: &FromStarted) -> Result<()> {
        match self {
            Starter::Daemon(channel) => channel.say(word),
            Starter::Gate { speak, .. } => speak.say(word),
        }
    }

    /// Closes the gate behind a start: an execve closes both of its FIFOs in no certain order,
    /// and who has seen the end of one must not find somebody waiting at the other.
    fn close_gate(&mut self) {
        if let Starter::Gate { hear, .. } = self {
            drop(hear.take());
        }
    }
}

/// Whom a process becomes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) process: &'a Process,
    /// The container's.
    pub(super) id: &'a str,
    pub(super) filter: Option<&'a Seccomp>,
}

/// What a process has open until then, beside its channel and its standard streams.
#[derive(Debug)]
pub(super) struct Possessions<'c> {
    pub(super) handover: Handover,
    pub(super) procfs: Procfs,
    pub(super) console: Option<&'c OwnedFd>,
}

/// A process that has only to execute the user's program.
pub(super) struct Target<'a> {
    program: Program,
    handover: Settled<'a>,
    /// A filter that is loaded as the last thing, so that it need not allow what comes before.
    filter: Option<&'a Seccomp>,
    /// What the execve enters: the policy may refuse that.
    selinux_label: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Becomes the user's process.
    pub(super) fn establish(
        identity: &Identity<'a>,
        possessions: Possessions<'_>,
        main: &ToParent<'a>,
        single: &SingleThreaded,
    ) -> Result<Target<'a>> {
        let Identity { process: plan, id, filter } = *identity;
        let Possessions { handover, procfs, console } = possessions;
        if plan.new_keyring {
            lsm::label_keys(&procfs, plan).at("session keyring")?;
            keyring::join(id).at("session keyring")?;
        }
        lsm::label_exec(&procfs, plan)?;
        drop(procfs);
        let handover = handover.settle(single, main.channel, console)?;
        scheduling::apply(plan).at("scheduling")?;
        rlimits::apply(&plan.rlimits).at("process.rlimits")?;
        // As root first: a working directory may be reachable only for root, as with runc.
        let inside = cwd::enter_as_root(&plan.cwd).at("working directory")?;
        // Without no_new_privs loading takes CAP_SYS_ADMIN, which the identity may not have; a
        // listener must be handed over while the container is still `creating`.
        let early = filter.filter(|filter| !plan.no_new_privileges || filter.listener.is_some());
        identity::limit_privileges(plan).at("no new privileges")?;
        if let Some(filter) = early.filter(|_| !plan.no_new_privileges) {
            load(filter, main)?;
        }
        identity::assume(plan).at("identity")?;
        cwd::enter_as_user(&plan.cwd, inside).at("working directory")?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(plan.umask));
        let program = Program::find(plan, home::of(plan).at("HOME")?)?;
        if let Some(filter) = early.filter(|_| plan.no_new_privileges) {
            load(filter, main)?;
        }
        Ok(Target {
            program,
            handover,
            filter: filter.filter(|_| early.is_none()),
            selinux_label: plan.selinux_label.as_deref(),
        })
    }

    /// Waits for start, and executes the program; `init` is the plan of a
    /// container whose startContainer hooks come before. Never returns.
    pub(super) fn serve(mut self, single: &SingleThreaded, init: Option<&Plan>) -> ! {
        match self.handover.starter.hear() {
            Ok(Some(ToTarget::Start)) => {}
            // Nobody will ever start it: the container is being deleted, or its daemon is dead.
            Ok(None) => end_alone(init, 0),
            Err(error) => {
                drop(self.handover.starter.say(&FromStarted::Failed(error.at("await start"))));
                end_alone(init, 1)
            }
        }
        let Err(error) = init
            .map_or(Ok(()), |plan| self.run_hooks(single, plan))
            .and_then(|()| self.execute(single));
        drop(self.handover.starter.say(&FromStarted::Failed(error)));
        process::exit(1)
    }

    fn run_hooks(&self, single: &SingleThreaded, plan: &Plan) -> Result<()> {
        if plan.hooks.start_container.is_empty() {
            return Ok(());
        }
        self.handover.starter.say(&FromStarted::Hooks)?;
        hooks::start_container(single, plan)
    }

    fn execute(&mut self, single: &SingleThreaded) -> Result<std::convert::Infallible> {
        fd::lay_out(single, &self.handover.extra, FIRST_EXTRA)
            .call(|| format!("dup2(fd, {FIRST_EXTRA}…)"))?;
        self.handover.starter.close_gate();
        self.handover.starter.say(&FromStarted::Executing)?;
        process::default_sigpipe();
        if let Some(filter) = self.filter {
            seccomp::load(filter).at("seccomp")?;
        }
        let error = self.program.execute();
        Err(match self.selinux_label {
            Some(label) => error.at(format!("process.selinuxLabel {label:?}")),
            None => error,
        })
    }
}

/// Says that the process waits for start.
pub(super) fn ready(main: &ToParent<'_>, console: Option<OwnedFd>) -> Result<()> {
    let fds: Vec<BorrowedFd<'_>> = console.iter().map(AsFd::as_fd).collect();
    main.tell(&ToMain::Ready, &fds)
}

/// Sends the error to main and ends the process; `init` is the plan of a container.
pub(super) fn fail(main: &ToParent<'_>, init: Option<&Plan>, error: crate::Error) -> ! {
    match main.tell(&ToMain::Failed(error), &[]) {
        Ok(()) => process::exit(1),
        // A main that does not hear it is gone, and the daemon says so.
        Err(_) => end_alone(init, 1),
    }
}

/// The end of a process that nobody waits for. An init with network devices of the host is what
/// their namespace lasts by: it stays until it is killed, by who has put them back, or for so long.
fn end_alone(init: Option<&Plan>, status: i32) -> ! {
    if init.is_some_and(|plan| !plan.net_devices.is_empty()) {
        super::set_name(c"init:orphaned");
        std::thread::sleep(UNTIL_PUT_BACK);
    }
    process::exit(status)
}

/// Loads the filter. Its listener goes to main by number (pidfd_getfd(2)): to send it would take
/// calls that the filter may notify of, with nobody to answer yet.
fn load(filter: &Seccomp, main: &ToParent<'_>) -> Result<()> {
    phases::mark(c"seccomp");
    match seccomp::load(filter).at("seccomp")? {
        Some(listener) => main.ask(&ToMain::Listener { fd: listener.as_raw_fd() }).at("seccomp"),
        None => Ok(()),
    }
}
