//! Id maps of a user namespace, user_namespaces(7).
//!
//! Written once, by a process outside, while one inside waits. Each map is one write.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, CWD, Mode, OFlags, accessat, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, getegid, geteuid, waitid};
use rustix::thread::{CapabilitySet, capabilities};

use super::command::{Command, End};
use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::{IdMap, IdMaps};
use crate::sys::process::{self, Clone, Forked, SingleThreaded};

/// The most lines of a map (UID_GID_MAP_MAX_EXTENTS, Linux 4.15).
const MOST_LINES: usize = 340;
/// newuidmap and newgidmap look into two files; more time than that is a fault of theirs.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(10);
/// CLONE_NEWUSER of linux/sched.h.
const NEWUSER: u64 = 0x1000_0000;

/// Who writes the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapWriter {
    /// We, with CAP_SETUID and CAP_SETGID: any ids. setgroups(2) stays allowed.
    Ourselves,
    /// We, without them: only our own ids can be mapped, and setgroups(2) is denied first, as
    /// else a process could drop a group that it is locked out by (CVE-2014-8989).
    OwnIds,
    /// newuidmap(1) and newgidmap(1), which have the capabilities and look into /etc/subuid and
    /// /etc/subgid. They deny setgroups(2) themselves where it must be.
    Programs {
        /// Absolute.
        newuidmap: PathBuf,
        /// Absolute.
        newgidmap: PathBuf,
    },
}

impl MapWriter {
    /// Who can write these maps: by our effective capabilities, our ids, and the programs that
    /// `search_path` (a PATH) has.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] when a program is needed and is not there.
    pub fn choose(maps: &IdMaps, search_path: &OsStr) -> Result<MapWriter> {
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
        let ours = capabilities(None).call(|| "capget(0)".into())?;
        if ours.effective.contains(needed) {
            return Ok(MapWriter::Ourselves);
        }
        let only = |maps: &[IdMap], id| matches!(maps, [map] if map.host == id && map.size == 1);
        if only(&maps.uids, geteuid().as_raw()) && only(&maps.gids, getegid().as_raw()) {
            return Ok(MapWriter::OwnIds);
        }
        Ok(MapWriter::Programs {
            newuidmap: find("newuidmap", search_path)?,
            newgidmap: find("newgidmap", search_path)?,
        })
    }

    /// Writes both maps of the user namespace of the process `pid`, whose directory in /proc is
    /// `proc` (see [`open_proc`]).
    ///
    /// # Errors
    /// The write that failed with its lines, or what the program printed.
    pub fn write(
        &self,
        single: &SingleThreaded,
        proc: BorrowedFd<'_>,
        pid: i32,
        maps: &IdMaps,
    ) -> Result<()> {
        check_size(&maps.uids, "linux.uidMappings")?;
        check_size(&maps.gids, "linux.gidMappings")?;
        if let MapWriter::Programs { newuidmap, newgidmap } = self {
            run(single, newuidmap, pid, &maps.uids)?;
            return run(single, newgidmap, pid, &maps.gids);
        }
        write_file(proc, "uid_map", &lines(&maps.uids))?;
        if *self == MapWriter::OwnIds {
            write_file(proc, "setgroups", "deny")?;
        }
        write_file(proc, "gid_map", &lines(&maps.gids))
    }
}

/// The directory of a process that is ours and not reaped: later, its number may be another's,
/// the descriptor never is.
///
/// # Errors
/// The errno of openat(2): ENOENT when it is gone.
pub fn open_proc(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}");
    openat(CWD, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat(AT_FDCWD, {path:?}, O_PATH|O_DIRECTORY)"))
}

/// A user namespace with these maps and nobody in it, for an idmapped mount (mount_setattr(2)).
///
/// # Errors
/// The call that failed. The process that made the namespace is gone in any case.
pub fn namespace_for(
    single: &SingleThreaded,
    writer: &MapWriter,
    maps: &IdMaps,
) -> Result<OwnedFd> {
    let (waits, releases) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe2(O_CLOEXEC)".to_owned())?;
    let clone = Clone { flags: NEWUSER, exit_signal: Signal::CHILD.as_raw(), ..Clone::default() };
    match process::clone3(single, &clone).call(|| "clone3(CLONE_NEWUSER)".into())? {
        Forked::Child(_) => {
            // The end of the stream: the maps are written, or the parent is gone.
            drop(releases);
            let ended = rustix::io::read(&waits, &mut [0_u8; 1][..]);
            process::exit(i32::from(ended.is_err()))
        }
        Forked::Parent { pid, pidfd } => {
            let namespace = map_and_open(single, writer, pid, maps);
            drop(releases);
            rustix::io::retry_on_intr(|| {
                waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
            })
            .call(|| format!("waitid(P_PIDFD, <{pid}>, WEXITED)"))?;
            namespace
        }
    }
}

fn map_and_open(
    single: &SingleThreaded,
    writer: &MapWriter,
    pid: i32,
    maps: &IdMaps,
) -> Result<OwnedFd> {
    let proc = open_proc(pid)?;
    writer.write(single, proc.as_fd(), pid, maps).at("user namespace for an idmapped mount")?;
    openat(&proc, "ns/user", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat(</proc/{pid}>, \"ns/user\")"))
}

/// The kernel takes a map in one write, of less than a page.
fn check_size(maps: &[IdMap], field: &str) -> Result<()> {
    if maps.len() > MOST_LINES {
        return Err(Error::field(field, format!("{} lines, at most {MOST_LINES}", maps.len())));
    }
    let (length, page) = (lines(maps).len(), rustix::param::page_size());
    if length >= page {
        let why = format!("{length} bytes as a map, the kernel takes less than {page}");
        return Err(Error::field(field, why));
    }
    Ok(())
}

fn lines(maps: &[IdMap]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.container, map.host, map.size)).collect()
}

fn write_file(proc: BorrowedFd<'_>, name: &str, text: &str) -> Result<()> {
    let file = openat(proc, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat(</proc/pid>, {name:?}, O_WRONLY)"))?;
    let call = || format!("write(</proc/pid/{name}>, {text:?})");
    let written = rustix::io::write(&file, text.as_bytes()).call(call)?;
    if written != text.len() {
        return Err(Error::new(Kind::Corrupt(format!("{}: only {written} bytes taken", call()))));
    }
    Ok(())
}

fn run(single: &SingleThreaded, program: &Path, pid: i32, maps: &[IdMap]) -> Result<()> {
    let ids = maps.iter().flat_map(|map| [map.container, map.host, map.size]);
    let mut args = vec![program.display().to_string(), pid.to_string()];
    args.extend(ids.map(|id| id.to_string()));
    let outcome = Command::new(program, &args, &[])
        .and_then(|command| command.run(single, &[], Some(PROGRAM_TIMEOUT)))
        .at_with(|| program.display().to_string())?;
    if outcome.end != End::Exited(0) {
        return Err(Error::new(Kind::Unsupported(format!("{}: {outcome}", args.join(" ")))));
    }
    Ok(())
}

/// An absolute path: relative entries of a PATH mean nothing to a daemon.
fn find(program: &str, search_path: &OsStr) -> Result<PathBuf> {
    std::env::split_paths(search_path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|path| accessat(CWD, path, Access::EXEC_OK, rustix::fs::AtFlags::empty()).is_ok())
        .ok_or_else(|| {
            let why = "without CAP_SETUID and CAP_SETGID, maps of other than our own ids need";
            Error::new(Kind::Unsupported(format!("{why} {program}, which is not in $PATH")))
        })
}

#[cfg(test)]
mod tests;
