//! `process`: of a container's init, or of a tenant, which takes over from the container what its
//! own process.json does not say.

use std::collections::HashSet;

use oci_spec::runtime::{Linux, LinuxPersonalityDomain, PosixRlimit, PosixRlimitType, User};

use super::host::{Host, Lsm};
use super::namespaces::host_id;
use super::{Capabilities, ExecCpuAffinity, IdMaps, Process, Rlimit, Terminal};
use super::{capabilities, scheduling};
use crate::error::{Error, Result};
use crate::spec;

/// umask(2) where the spec names none: what runc and crun set.
const DEFAULT_UMASK: u32 = 0o022;

/// (uid_t) -1 means "leave it as it is" to setresuid(2), setgroups(2) and chown(2): taking it for
/// an id would leave the process what it is, which is root.
const NO_ID: u32 = u32::MAX;

/// What a process is planned with, beside its own property.
pub(super) struct Context<'a> {
    pub(super) host: &'a Host,
    /// The maps of the container's user namespace, as far as they are known.
    pub(super) id_maps: Option<&'a IdMaps>,
    pub(super) inherited: Inherited<'a>,
}

/// Where the process gets from what it does not say itself.
pub(super) enum Inherited<'a> {
    /// It is the init: from the container's own properties.
    Init { linux: Option<&'a Linux>, new_keyring: bool },
    /// It is a tenant: from the init.
    Tenant(&'a Process),
}

pub(super) fn plan(
    spec: &spec::Process,
    context: &Context<'_>,
    warnings: &mut Vec<String>,
) -> Result<Process> {
    let init = match &context.inherited {
        Inherited::Tenant(init) => Some(*init),
        Inherited::Init { .. } => None,
    };
    let capabilities = match (&spec.capabilities, init) {
        (Some(sets), _) => capabilities::plan(sets, context.host, warnings)?,
        (None, Some(init)) => init.capabilities,
        (None, None) => Capabilities::default(),
    };
    let rlimits = rlimits(spec.rlimits.as_deref().unwrap_or_default())?;
    let scheduler = spec.scheduler.as_ref().map(scheduling::scheduler).transpose()?;
    let io_priority = spec.io_priority.map(scheduling::io_priority).transpose()?;
    let affinity =
        spec.exec_cpu_affinity.as_ref().map(scheduling::exec_cpu_affinity).transpose()?;
    let (memory_policy, personality, new_keyring) = of_the_container(&context.inherited)?;
    let cwd = spec.cwd.clone();
    if !cwd.is_absolute() {
        return Err(Error::field("process.cwd", format!("{cwd:?} is not absolute")));
    }
    Ok(Process {
        args: args(spec)?,
        env: env(spec.env.as_deref().unwrap_or_default())?,
        cwd,
        terminal: terminal(spec)?,
        uid: id(spec.user.uid(), context.id_maps.map(|maps| &*maps.uids), "process.user.uid")?,
        gid: id(spec.user.gid(), context.id_maps.map(|maps| &*maps.gids), "process.user.gid")?,
        groups: groups(&spec.user, context.id_maps)?,
        umask: umask(&spec.user, init)?,
        capabilities,
        rlimits: init.filter(|_| rlimits.is_empty()).map_or(rlimits, |init| init.rlimits.clone()),
        // Absent is false, for a tenant as well: a client written in Go cannot say false
        // otherwise (omitempty).
        no_new_privileges: spec.no_new_privileges.unwrap_or(false),
        oom_score_adj: oom_score_adj(spec)?.or(init.and_then(|init| init.oom_score_adj)),
        apparmor_profile: apparmor_profile(spec, context.host)?
            .or_else(|| init.and_then(|init| init.apparmor_profile.clone())),
        selinux_label: selinux_label(spec, context.host)?
            .or_else(|| init.and_then(|init| init.selinux_label.clone())),
        scheduler: scheduler.or(init.and_then(|init| init.scheduler)),
        io_priority: io_priority.or(init.and_then(|init| init.io_priority)),
        exec_cpu_affinity: affinity
            .or_else(|| init.map(|init| init.exec_cpu_affinity.clone()))
            .unwrap_or_else(ExecCpuAffinity::default),
        memory_policy,
        personality,
        new_keyring,
    })
}

type OfTheContainer = (Option<super::MemoryPolicy>, Option<u64>, bool);

/// What all processes of a container have in common.
fn of_the_container(inherited: &Inherited<'_>) -> Result<OfTheContainer> {
    match inherited {
        Inherited::Init { linux, new_keyring } => {
            let policy = linux.and_then(|linux| linux.memory_policy().as_ref());
            let policy = policy.map(scheduling::memory_policy).transpose()?;
            Ok((policy, linux.map(personality).transpose()?.flatten(), *new_keyring))
        }
        Inherited::Tenant(init) => {
            Ok((init.memory_policy.clone(), init.personality, init.new_keyring))
        }
    }
}

fn args(spec: &spec::Process) -> Result<Vec<String>> {
    match &spec.args {
        Some(args) if !args.is_empty() => Ok(args.clone()),
        _ => Err(Error::field("process.args", "is empty")),
    }
}

/// `KEY=value` in the order of the spec; of a key that comes twice the last one counts, as in
/// runc. An empty HOME is as good as none: it is looked up inside the container.
fn env(entries: &[String]) -> Result<Vec<String>> {
    let mut seen = HashSet::with_capacity(entries.len());
    let mut kept = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate().rev() {
        let key = match entry.split_once('=') {
            Some(("", _)) => return Err(refuse_env(index, "has an empty name")),
            Some((key, _)) => key,
            None => return Err(refuse_env(index, "has no '='")),
        };
        if seen.insert(key) && entry != "HOME=" {
            kept.push(entry.clone());
        }
    }
    kept.reverse();
    Ok(kept)
}

fn refuse_env(index: usize, why: &str) -> Error {
    Error::field(format!("process.env[{index}]"), why)
}

fn terminal(spec: &spec::Process) -> Result<Option<Terminal>> {
    if !spec.terminal.unwrap_or(false) {
        return Ok(None);
    }
    let Some(size) = spec.console_size else {
        return Ok(Some(Terminal { rows: 0, columns: 0 }));
    };
    let cells = |cells: u64, field: &str| {
        let why = format!("{cells} does not fit a terminal, at most 65535 do");
        u16::try_from(cells).map_err(|_| Error::field(format!("process.consoleSize.{field}"), why))
    };
    Ok(Some(Terminal { rows: cells(size.height, "height")?, columns: cells(size.width, "width")? }))
}

fn id(id: u32, maps: Option<&[super::IdMap]>, path: &str) -> Result<u32> {
    if id == NO_ID {
        return Err(Error::field(path, "4294967295 is not an id"));
    }
    match maps {
        Some(maps) if host_id(maps, id).is_none() => {
            Err(Error::field(path, format!("{id} is not mapped in the user namespace")))
        }
        _ => Ok(id),
    }
}

fn groups(user: &User, maps: Option<&IdMaps>) -> Result<Vec<u32>> {
    let maps = maps.map(|maps| &*maps.gids);
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    let group = |(index, gid): (usize, &u32)| {
        id(*gid, maps, "").map_err(|error| match error.kind() {
            crate::error::Kind::Field { why, .. } => {
                Error::field(format!("process.user.additionalGids[{index}]"), why.clone())
            }
            _ => error,
        })
    };
    groups.iter().enumerate().map(group).collect()
}

fn umask(user: &User, init: Option<&Process>) -> Result<u32> {
    match user.umask() {
        Some(umask) if umask > 0o777 => {
            Err(Error::field("process.user.umask", format!("{umask} is more than 511 (0o777)")))
        }
        Some(umask) => Ok(umask),
        None => Ok(init.map_or(DEFAULT_UMASK, |init| init.umask)),
    }
}

fn rlimits(listed: &[PosixRlimit]) -> Result<Vec<Rlimit>> {
    let mut planned: Vec<Rlimit> = Vec::with_capacity(listed.len());
    for (index, rlimit) in listed.iter().enumerate() {
        let resource = resource(rlimit.typ());
        if planned.iter().any(|other| other.resource == resource) {
            let path = format!("process.rlimits[{index}].type");
            return Err(Error::field(path, format!("{} is listed twice", rlimit.typ())));
        }
        if rlimit.soft() > rlimit.hard() {
            let why = format!("{} is above the hard limit {}", rlimit.soft(), rlimit.hard());
            return Err(Error::field(format!("process.rlimits[{index}].soft"), why));
        }
        planned.push(Rlimit { resource, soft: rlimit.soft(), hard: rlimit.hard() });
    }
    Ok(planned)
}

#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "the numbers are unsigned with glibc and signed with musl"
)]
fn resource(kind: PosixRlimitType) -> u32 {
    let resource = match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    u32::try_from(resource).unwrap_or_default()
}

fn oom_score_adj(spec: &spec::Process) -> Result<Option<i32>> {
    match spec.oom_score_adj {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::field("process.oomScoreAdj", format!("{score} is not from -1000 to 1000")))
        }
        score => Ok(score),
    }
}

fn apparmor_profile(spec: &spec::Process, host: &Host) -> Result<Option<String>> {
    match spec.apparmor_profile.as_deref() {
        None | Some("") => Ok(None),
        Some(profile) if host.lsm == Lsm::AppArmor => Ok(Some(profile.to_owned())),
        // Without AppArmor every process is unconfined already.
        Some("unconfined") => Ok(None),
        Some(_) => {
            Err(Error::field("process.apparmorProfile", "AppArmor is not enabled on this host"))
        }
    }
}

fn selinux_label(spec: &spec::Process, host: &Host) -> Result<Option<String>> {
    match spec.selinux_label.as_deref() {
        None | Some("") => Ok(None),
        Some(label) if host.lsm == Lsm::SeLinux => Ok(Some(label.to_owned())),
        Some(_) => Err(Error::field("process.selinuxLabel", "SELinux is not enabled on this host")),
    }
}

fn personality(linux: &Linux) -> Result<Option<u64>> {
    let Some(personality) = linux.personality() else {
        return Ok(None);
    };
    if personality.flags().as_deref().is_some_and(|flags| !flags.is_empty()) {
        // The specification has the property, and no value for it.
        return Err(Error::field("linux.personality.flags[0]", "no flag is supported"));
    }
    Ok(Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0x0000,
        LinuxPersonalityDomain::PerLinux32 => 0x0008,
    }))
}

#[cfg(test)]
mod tests;
