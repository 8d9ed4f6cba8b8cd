//! Init: pid 1 of the container, from its clone to the execve of the user's program.
//!
//! On entry it is in the namespaces that its clone made, and (v2) in the container's cgroup. It
//! changes nothing but itself, its own namespaces and what is mounted in them.

use std::os::fd::OwnedFd;

use super::channel::{Channel, Deadline};
use super::fork::{Came, Grants, Way};
use super::main::Main;
use super::protocol::{ToMain, ToParent};
use super::target::{self, Handover, Identity, Possessions, Target};
use super::{hooks, intermediate, rendezvous};
use crate::apply::namespaces::{self as ns, Joins, Refused};
use crate::apply::rootfs::{
    self, EmptyMountNamespace, OldTree, PreparedRootfs, Root, Surroundings, Visit,
};
use crate::apply::{console, hostname, network, scheduling, stdio, sysctl};
use crate::cgroup::{self, CgroupPaths, OomKills};
use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::{MountIdMap, Namespace, Plan};
use crate::sys::phases;
use crate::sys::process::{self, SingleThreaded};
use crate::sys::procfs::Procfs;

/// All that main has prepared for init, with the host's privileges and paths.
pub(super) struct Setup<'a> {
    pub(super) plan: &'a Plan,
    pub(super) joins: Joins,
    pub(super) entry: crate::cgroup::Entry,
    pub(super) cgroup: CgroupPaths,
    /// None: it is left to init.
    pub(super) rootfs: Option<PreparedRootfs>,
    pub(super) old_tree: OldTree<'a>,
    pub(super) stdio: Vec<OwnedFd>,
    pub(super) handover: Handover,
    /// How long main waits for init.
    pub(super) deadline: Deadline,
}

impl<'a> Way<'a> for Setup<'a> {
    const WHO: &'static str = "init";

    fn takes_intermediate(&self) -> bool {
        let wanted = &self.plan.namespaces;
        wanted.user != Namespace::Host
            || wanted.time != Namespace::Host
            || matches!(wanted.pid, Namespace::Join(_))
    }

    fn entry(&self) -> &cgroup::Entry {
        &self.entry
    }

    fn flags_at_clone(&self) -> u64 {
        ns::flags_at_clone(&self.plan.namespaces)
    }

    fn grants(&self) -> Grants<'a> {
        Grants {
            id_maps: self.plan.id_maps.as_ref(),
            time_offsets: &self.plan.namespaces.time_offsets,
        }
    }

    fn oom_kills(&self) -> Option<OomKills> {
        OomKills::since_birth(&self.cgroup)
    }

    fn lead_from_main(&mut self, _main: &Main<'_>) -> Result<()> {
        Ok(())
    }

    fn lead_from_intermediate(
        &mut self,
        main: &ToParent<'_>,
        single: &SingleThreaded,
    ) -> Result<()> {
        let wanted = &self.plan.namespaces;
        if wanted.user != Namespace::Host {
            // Those that belong to the host's user namespace can be joined only from there.
            self.joins
                .join(single, Refused::Later, |kind| kind != ns::USER && kind != ns::MOUNT)?;
            enter_user_namespace(self, main, single).at("enter user namespace")?;
        }
        self.joins.join(single, Refused::Error, |kind| kind != ns::MOUNT)?;
        if wanted.time == Namespace::New {
            process::unshare(single, ns::TIME.flag).call(|| "unshare(CLONE_NEWTIME)".into())?;
            main.ask(&ToMain::OffsetTime).at("time namespace")?;
        }
        Ok(())
    }

    fn visit(&self, main: &Main<'_>) -> Result<Option<Visit>> {
        match self.old_tree {
            OldTree::Empty => main.empty.map(EmptyMountNamespace::enter).transpose(),
            OldTree::Host { .. } => Ok(None),
        }
    }

    fn deadline(&self) -> Deadline {
        self.deadline
    }

    fn run(self, channel: &Channel, single: &SingleThreaded, came: Came) -> ! {
        super::set_name(c"init:namespaces");
        let plan = self.plan;
        let main = ToParent { channel };
        match establish(self, &main, single, came) {
            Ok(target) => target.serve(single, Some(plan)),
            Err(error) => target::fail(&main, Some(plan), error),
        }
    }
}

/// Makes or joins it, and becomes its root: until then this process has no id there, and no file
/// it makes would have an owner.
fn enter_user_namespace(
    setup: &mut Setup<'_>,
    main: &ToParent<'_>,
    single: &SingleThreaded,
) -> Result<()> {
    if setup.plan.namespaces.user == Namespace::New {
        process::unshare(single, ns::USER.flag).call(|| "unshare(CLONE_NEWUSER)".into())?;
        main.ask(&ToMain::Map)?;
    } else {
        setup.joins.join(single, Refused::Error, |kind| kind == ns::USER)?;
    }
    intermediate::become_root()
}

fn establish<'a>(
    mut setup: Setup<'a>,
    main: &ToParent<'a>,
    single: &SingleThreaded,
    came: Came,
) -> Result<Target<'a>> {
    let plan = setup.plan;
    stdio::new_session()?;
    enter(&mut setup, single, came)?;
    if rendezvous::needed(plan) {
        main.ask(&ToMain::Entered)?;
    }
    let Setup { rootfs, old_tree, cgroup, stdio, handover, joins, entry, .. } = setup;
    drop((joins, entry));
    let surroundings = Surroundings {
        namespaces: &plan.namespaces,
        cgroups: &cgroup,
        cgroup_path: &plan.cgroup.path,
        old_tree,
    };
    super::set_name(c"init:rootfs");
    let (procfs, console) = build_world(plan, rootfs, &surroundings, stdio, single)?;
    super::set_name(c"init:identity");
    let identity = Identity { process: &plan.process, id: &plan.id, filter: plan.seccomp.as_ref() };
    let possessions = Possessions { handover, procfs, console: console.as_ref() };
    let target = Target::establish(&identity, possessions, main, single)?;
    super::set_name(c"init:ready");
    target::ready(main, console)?;
    Ok(target)
}

/// The cgroup before the cgroup namespace, whose root is the cgroup of who makes it.
fn enter(setup: &mut Setup<'_>, single: &SingleThreaded, came: Came) -> Result<()> {
    let wanted = &setup.plan.namespaces;
    if came == Came::Directly {
        setup.entry.join_self().at("join cgroup")?;
        setup.joins.join(single, Refused::Error, |kind| kind != ns::MOUNT)?;
    }
    scheduling::set_affinity(scheduling::Cpus::All).at("CPU affinity")?;
    if wanted.cgroup == Namespace::New {
        process::unshare(single, ns::CGROUP.flag).call(|| "unshare(CLONE_NEWCGROUP)".into())?;
    }
    setup.joins.join(single, Refused::Error, |kind| kind == ns::MOUNT)?;
    if wanted.net == Namespace::New {
        network::loopback_up()?;
    }
    Ok(())
}

/// The root, all that is in it, and the standard streams. Returns the procfs for later writes
/// and the console's master.
fn build_world(
    plan: &Plan,
    rootfs: Option<PreparedRootfs>,
    surroundings: &Surroundings<'_>,
    streams: Vec<OwnedFd>,
    single: &SingleThreaded,
) -> Result<(Procfs, Option<OwnedFd>)> {
    let rootfs = rootfs.map_or_else(|| prepare_rootfs(plan, surroundings), Ok).at("rootfs")?;
    let root = rootfs::build(&plan.rootfs, rootfs, surroundings).at("rootfs")?;
    let procfs = root.procfs()?;
    hooks::create_container(single, plan)?;
    phases::mark(c"init:pivot");
    root.enter(&plan.rootfs).at("enter rootfs")?;
    let console = connect(plan, &root, streams).at("standard streams")?;
    root.ensure_directory(&plan.process.cwd).at("working directory")?;
    root.seal(&plan.rootfs).at("rootfs")?;
    hostname::set(plan)?;
    sysctl::apply(&procfs, &plan.sysctls)?;
    root.hide(&plan.rootfs).at("rootfs")?;
    Ok((procfs, console))
}

/// What is else main's part, from init's copy of the host's mounts.
fn prepare_rootfs(plan: &Plan, surroundings: &Surroundings<'_>) -> Result<PreparedRootfs> {
    let mut user_namespace = |_: &MountIdMap| {
        Err(Error::new(Kind::Unsupported("a mount with an id map takes root of the host".into())))
    };
    let mut rootfs = rootfs::prepare(&plan.rootfs, &plan.site, &mut user_namespace)?;
    rootfs.copy_cgroups(&plan.rootfs, surroundings.cgroups)?;
    Ok(rootfs)
}

/// The standard streams: those that the daemon has passed, or a terminal's, whose master is
/// returned.
fn connect(plan: &Plan, root: &Root, streams: Vec<OwnedFd>) -> Result<Option<OwnedFd>> {
    let Some(terminal) = plan.process.terminal else {
        return stdio::connect(streams, &plan.process).map(|()| None);
    };
    let console = console::open(root, terminal)?;
    stdio::connect_terminal(console.slave, &plan.process)?;
    Ok(Some(console.master))
}
