//! The intermediate: makes or joins the user, pid and time namespace, and clones init into them.
//!
//! Needed only where one clone3 from main cannot do it: a pid or time namespace is entered by
//! children alone, the offsets of a time namespace are written before the first of them, and main
//! must stay outside of the user namespace to write its maps.
//!
//! On entry it is a fork of main in the container's v2 cgroup. On exit init runs, and this process
//! is gone. Everything it changes is itself.

use std::os::fd::AsFd;

use rustix::thread::{Gid, Uid};

use super::Child;
use super::channel::Channel;
use super::init::{self, Entry, Setup};
use super::protocol::{ToMain, ToParent};
use crate::apply::namespaces::{self, MOUNT, Refused, TIME, USER};
use crate::error::{At, Call, Result};
use crate::plan::Namespace;
use crate::sys::process::{self, Clone, Forked, SingleThreaded};
use crate::sys::shared_pid::SharedPid;

/// The intermediate's whole life. `main` is its own channel, `init` the end that init will use;
/// init's pid comes into `born`.
pub(super) fn run(
    setup: Setup<'_>,
    main: &Channel,
    init: Channel,
    single: &SingleThreaded,
    born: &SharedPid,
) -> ! {
    super::set_name(c"inter:cgroup");
    let parent = ToParent { channel: main };
    let told = match fork_init(setup, &parent, init, single, born) {
        Ok(child) => parent.tell(&ToMain::InitForked { pid: child.pid }, &[child.pidfd.as_fd()]),
        Err(error) => parent.tell(&ToMain::Failed(error), &[]),
    };
    process::exit(if told.is_ok() { 0 } else { 1 })
}

fn fork_init(
    mut setup: Setup<'_>,
    main: &ToParent<'_>,
    init: Channel,
    single: &SingleThreaded,
    born: &SharedPid,
) -> Result<Child> {
    setup.entry.join_self().at("join cgroup")?;
    super::set_name(c"inter:namespace");
    let wanted = &setup.plan.namespaces;
    if wanted.user != Namespace::Host {
        // Those that belong to the host's user namespace can be joined only from there.
        setup.joins.join(single, Refused::Later, |kind| kind != USER && kind != MOUNT)?;
        enter_user_namespace(&mut setup, main, single).at("enter user namespace")?;
    }
    setup.joins.join(single, Refused::Error, |kind| kind != MOUNT)?;
    if wanted.time == Namespace::New {
        process::unshare(single, TIME.flag).call(|| "unshare(CLONE_NEWTIME)".into())?;
        main.ask(&ToMain::OffsetTime).at("time namespace")?;
    }
    super::set_name(c"inter:fork");
    let flags = super::CLONE_PARENT | namespaces::flags_at_clone(wanted);
    let forked = process::clone3(single, &Clone { flags, told: Some(born), ..Clone::default() })
        .call(|| format!("clone3({flags:#x})"))
        .at("fork init")?;
    match forked {
        Forked::Parent { pid, pidfd } => Ok(Child { pid, pidfd }),
        Forked::Child(single) => {
            process_closes(&single, main);
            init::run(setup, &init, &single, Entry::Inherited)
        }
    }
}

/// Init must not keep the intermediate's channel open: main reads its end as the intermediate's.
fn process_closes(single: &SingleThreaded, main: &ToParent<'_>) {
    crate::sys::fd::close_inherited(single, main.channel.as_fd());
}

/// Makes or joins it, and becomes its root: until then this process has no id there, and no file
/// it makes would have an owner.
fn enter_user_namespace(
    setup: &mut Setup<'_>,
    main: &ToParent<'_>,
    single: &SingleThreaded,
) -> Result<()> {
    if setup.plan.namespaces.user == Namespace::New {
        process::unshare(single, USER.flag).call(|| "unshare(CLONE_NEWUSER)".into())?;
        main.ask(&ToMain::Map)?;
    } else {
        setup.joins.join(single, Refused::Error, |kind| kind == USER)?;
    }
    become_root()
}

/// uid and gid 0 of the user namespace.
pub(super) fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).call(|| "setresgid(0, 0, 0)".into())?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).call(|| "setresuid(0, 0, 0)".into())
}
