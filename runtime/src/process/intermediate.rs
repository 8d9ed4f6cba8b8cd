//! The intermediate: enters the namespaces that only children enter, and clones init or a tenant
//! into them.
//!
//! Needed only where one clone3 from main cannot do it: a pid or time namespace is entered by
//! children alone, the offsets of a time namespace are written before the first of them, and main
//! must stay outside of a user namespace to write its maps, or to reach what is the host's.
//!
//! On entry it is a fork of main in the container's v2 cgroup. On exit the target runs, and this
//! process is gone. Everything it changes is itself.

use std::os::fd::AsFd;

use rustix::thread::{Gid, Uid};

use super::channel::Channel;
use super::fork::{self, Came, Way};
use super::protocol::{ToMain, ToParent};
use crate::error::{At, Call, Result};
use crate::sys::process::{self, Forked, SingleThreaded};
use crate::sys::shared_pid::SharedPid;

/// The intermediate's whole life. `main` is its own channel, `target` the end that the process it
/// clones will use, whose pid comes into `born`.
pub(super) fn run<'a, W: Way<'a>>(
    mut way: W,
    main: &Channel,
    target: &Channel,
    single: &SingleThreaded,
    born: &SharedPid,
) -> ! {
    let parent = ToParent { channel: main };
    let told = match fork_target(&mut way, &parent, single, born) {
        Ok(Forked::Child(single)) => {
            // Main reads the end of this channel as the intermediate's.
            crate::sys::fd::close_inherited(&single, main.as_fd());
            way.run(target, &single, Came::ThroughIntermediate)
        }
        Ok(Forked::Parent { pid, pidfd }) => parent
            .tell(&ToMain::InitForked { pid }, &[pidfd.as_fd()])
            .or_else(|error| parent.tell(&ToMain::Failed(error), &[])),
        Err(error) => parent.tell(&ToMain::Failed(error), &[]),
    };
    process::exit(if told.is_ok() { 0 } else { 1 })
}

fn fork_target<'a, W: Way<'a>>(
    way: &mut W,
    main: &ToParent<'_>,
    single: &SingleThreaded,
    born: &SharedPid,
) -> Result<Forked> {
    super::set_name(c"inter:cgroup");
    way.entry().join_self().at("join cgroup")?;
    super::set_name(c"inter:namespace");
    way.lead_from_intermediate(main, single)?;
    super::set_name(c"inter:fork");
    fork::clone(single, way.flags_at_clone(), None, Some(born))
        .at_with(|| format!("fork {}", W::WHO))
}

/// uid and gid 0 of the user namespace.
pub(super) fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).call(|| "setresgid(0, 0, 0)".into())?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).call(|| "setresuid(0, 0, 0)".into())
}
