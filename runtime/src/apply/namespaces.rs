//! Namespaces that are joined by path, and the flags for those that are new.
//!
//! Every path is opened and its type checked by main, before anything of the container exists:
//! what it stands for cannot change any more, and a wrong one is an error without effects.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{Mode, OFlags};

use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::{Namespace, Namespaces};
use crate::sys::process::{self, SingleThreaded};

/// One kind of namespace: its name in /proc/pid/ns, and its CLONE_NEW* flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// Name of the file in /proc/pid/ns.
    pub name: &'static str,
    /// Its name in the OCI spec.
    pub field: &'static str,
    /// CLONE_NEW*.
    pub flag: u64,
}

macro_rules! types {
    ($($constant:ident $name:literal $field:literal $flag:literal)*) => {
        $(#[doc = concat!("The ", $name, " namespace, namespaces(7).")]
        pub const $constant: Type = Type { name: $name, field: $field, flag: $flag };)*
    };
}

types! {
    USER "user" "user" 0x1000_0000
    MOUNT "mnt" "mount" 0x0002_0000
    PID "pid" "pid" 0x2000_0000
    NET "net" "network" 0x4000_0000
    IPC "ipc" "ipc" 0x0800_0000
    UTS "uts" "uts" 0x0400_0000
    CGROUP "cgroup" "cgroup" 0x0200_0000
    TIME "time" "time" 0x0000_0080
}

/// The container's namespaces with their types, in the order in which they are joined: the mount
/// namespace last, because the paths of the others are seen from the host.
pub fn each(namespaces: &Namespaces) -> [(Type, &Namespace); 8] {
    [
        (USER, &namespaces.user),
        (PID, &namespaces.pid),
        (TIME, &namespaces.time),
        (NET, &namespaces.net),
        (IPC, &namespaces.ipc),
        (UTS, &namespaces.uts),
        (CGROUP, &namespaces.cgroup),
        (MOUNT, &namespaces.mount),
    ]
}

/// The flags that make init's new namespaces in its own clone. The user and time namespace are
/// the intermediate's to make, the cgroup namespace init's, once it is in its cgroup: its root is
/// the cgroup of who makes it (cgroup_namespaces(7)).
pub fn flags_at_clone(namespaces: &Namespaces) -> u64 {
    let own = [USER, TIME, CGROUP];
    each(namespaces)
        .into_iter()
        .filter(|(kind, namespace)| **namespace == Namespace::New && !own.contains(kind))
        .fold(0, |flags, (kind, _)| flags | kind.flag)
}

/// The flags for setns(2) with the pidfd of the container's init: all in which it may differ
/// from the runtime.
pub fn flags_to_join(namespaces: &Namespaces) -> u64 {
    each(namespaces)
        .into_iter()
        .filter(|(_, namespace)| **namespace != Namespace::Host)
        .fold(0, |flags, (kind, _)| flags | kind.flag)
}

/// Namespaces to be joined, opened.
#[derive(Debug, Default)]
pub struct Joins {
    /// In the order of [`each`].
    open: Vec<(Type, String, OwnedFd)>,
}

impl Joins {
    /// Opens the files of all namespaces that are given by path.
    ///
    /// # Errors
    /// A path that cannot be opened, or stands for a namespace of another type, by its field.
    pub fn open(namespaces: &Namespaces) -> Result<Joins> {
        let mut joins = Joins::default();
        for (kind, namespace) in each(namespaces) {
            if let Namespace::Join(path) = namespace {
                let file = open(kind, path)
                    .and_then(|file| refuse_host(kind, path, file))
                    .at_with(|| format!("linux.namespaces: {}", kind.field))?;
                joins.open.push((kind, path.display().to_string(), file));
            }
        }
        Ok(joins)
    }

    /// Joins those of which `wanted` says so, and takes them out of the list. With a user
    /// namespace to join as well, some may be joined only before it and some only after: what is
    /// refused with EPERM stays in the list when `refused` is [`Refused::Later`].
    ///
    /// # Errors
    /// setns(2), with the namespace's path.
    pub fn join(
        &mut self,
        single: &SingleThreaded,
        refused: Refused,
        wanted: impl Fn(Type) -> bool,
    ) -> Result<()> {
        for (kind, path, file) in std::mem::take(&mut self.open) {
            if !wanted(kind) {
                self.open.push((kind, path, file));
                continue;
            }
            match process::setns(single, file.as_fd(), kind.flag) {
                Err(Errno::EPERM) if refused == Refused::Later => {
                    self.open.push((kind, path, file));
                }
                other => other.call(|| format!("setns({path}, {})", kind.name))?,
            }
        }
        Ok(())
    }

    /// The file of a namespace that is to be joined.
    pub fn get(&self, wanted: Type) -> Option<&OwnedFd> {
        self.open.iter().find(|(kind, ..)| *kind == wanted).map(|(_, _, file)| file)
    }
}

/// What [`Joins::join`] does about EPERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is an error.
    Error,
    /// It is tried again after the user namespace has been joined.
    Later,
}

/// A container changes the root of its mount namespace and takes away what was there before: the
/// host's must never be that. By pid 1 too, which may be in another one than the runtime.
fn refuse_host(kind: Type, path: &Path, file: OwnedFd) -> Result<OwnedFd> {
    if kind != MOUNT {
        return Ok(file);
    }
    let wanted = rustix::fs::fstat(&file).call(|| format!("fstat({path:?})"))?;
    for pid in ["self", "1"] {
        // Pid 1's is hidden from an ordinary user, who cannot join it either.
        let Ok(host) = rustix::fs::stat(format!("/proc/{pid}/ns/mnt")) else { continue };
        if (host.st_dev, host.st_ino) == (wanted.st_dev, wanted.st_ino) {
            return Err(Error::argument(path.display().to_string(), "is the host's"));
        }
    }
    Ok(file)
}

/// Opens an nsfs file and compares its type (ioctl_ns(2), NS_GET_NSTYPE).
fn open(kind: Type, path: &Path) -> Result<OwnedFd> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("open({path:?}, O_RDONLY)"))?;
    let found = crate::sys::nsfs::namespace_type(file.as_fd())
        .call(|| format!("ioctl({path:?}, NS_GET_NSTYPE)"))
        .map_err(|error| match error.errno() {
            Some(Errno::ENOTTY) => Error::new(Kind::Argument {
                name: format!("{}", path.display()),
                why: "is not a namespace".into(),
            }),
            _ => error,
        })?;
    if found != kind.flag {
        return Err(Error::argument(
            format!("{}", path.display()),
            format!("is a namespace of another type than {}", kind.field),
        ));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_host() -> Namespaces {
        let host = || Namespace::Host;
        Namespaces {
            user: host(),
            mount: host(),
            pid: host(),
            net: host(),
            ipc: host(),
            uts: host(),
            cgroup: host(),
            time: host(),
            time_offsets: Vec::new(),
        }
    }

    #[test]
    fn the_hosts_mount_namespace_is_not_joined() {
        let path = "/proc/self/ns/mnt";
        let namespaces = Namespaces { mount: Namespace::Join(path.into()), ..of_host() };
        let error = Joins::open(&namespaces).unwrap_err().to_string();
        assert_eq!(error, format!("linux.namespaces: mount: {path}: is the host's"));
    }
}
