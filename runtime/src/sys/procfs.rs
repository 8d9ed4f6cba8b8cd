//! A procfs that is known to be one.
//!
//! An image or a volume can put anything at /proc, and a racing mount can redirect one file of it
//! (CVE-2019-16884, CVE-2025-52881). Here the root of the instance is verified once, and each file
//! is reached from there without leaving that mount.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::mount::{FsContext, Tree};
use crate::{Call, Error, Kind, Result};

/// PROC_ROOT_INO of linux/proc_ns.h: only the root of an instance has it.
const PROC_ROOT_INO: u64 = 1;

/// PROC_SUPER_MAGIC of linux/magic.h.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// A verified root of a procfs instance.
#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl AsFd for Procfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Procfs {
    /// The procfs at /proc when there is one, otherwise a detached instance for the caller's pid
    /// namespace.
    ///
    /// # Errors
    /// EPERM: /proc is not a procfs, and no new one may be mounted.
    pub fn open() -> Result<Procfs> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())
            && let Ok(procfs) = Procfs::verified(fd)
        {
            return Ok(procfs);
        }
        FsContext::open("proc")?.mount(0).map(Procfs::from)
    }

    /// This descriptor, if it is the root of a procfs instance.
    ///
    /// # Errors
    /// Unsupported, when it is not.
    pub fn verified(fd: OwnedFd) -> Result<Procfs> {
        let raw = fd.as_raw_fd();
        let file_system = rustix::fs::fstatfs(&fd).call(|| format!("fstatfs([{raw}]</proc>)"))?;
        let stat = rustix::fs::fstat(&fd).call(|| format!("fstat([{raw}]</proc>)"))?;
        if u64::try_from(file_system.f_type) != Ok(PROC_SUPER_MAGIC) || stat.st_ino != PROC_ROOT_INO
        {
            return Err(Error::new(Kind::Unsupported("/proc is not a procfs".to_owned())));
        }
        Ok(Procfs(fd))
    }

    /// Opens a file by its path below /proc; `self/` is the caller.
    ///
    /// # Errors
    /// EXDEV: something is mounted over it. ELOOP: a magic link. Otherwise those of open(2).
    pub fn open_file(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        // Ordinary links are the kernel's own here (self, net, mounts) and stay inside.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
            .call(|| format!("openat2([{}]</proc>, {path:?})", self.0.as_raw_fd()))
    }

    /// Writes all bytes with one write(2), as the files of procfs want it.
    ///
    /// # Errors
    /// Those of [`Procfs::open_file`] and of the file; a short write is an error without errno.
    pub fn write(&self, path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let path = path.as_ref();
        let file = self.open_file(path, OFlags::WRONLY)?;
        let describe = || {
            format!(
                "write([{}]</proc/{}>, {} bytes)",
                file.as_raw_fd(),
                path.display(),
                bytes.len()
            )
        };
        let written = rustix::io::write(&file, bytes).call(describe)?;
        if written == bytes.len() {
            return Ok(());
        }
        Err(Error::call(describe(), Errno::EIO))
    }

    /// Reads a file to its end.
    ///
    /// # Errors
    /// Those of [`Procfs::open_file`] and of the file.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let file = self.open_file(path, OFlags::RDONLY)?;
        let mut content = Vec::with_capacity(4096);
        loop {
            if content.capacity() - content.len() < 1024 {
                content.reserve(4096);
            }
            let read = rustix::io::read(&file, rustix::buffer::spare_capacity(&mut content))
                .call(|| format!("read([{}]</proc/{}>)", file.as_raw_fd(), path.display()))?;
            if read == 0 {
                return Ok(content);
            }
        }
    }

    /// Where a descriptor of the caller points to, as a path from the caller's root.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn path_of(&self, fd: BorrowedFd<'_>) -> Result<PathBuf> {
        let link = format!("self/fd/{}", fd.as_raw_fd());
        let target = rustix::fs::readlinkat(&self.0, link.as_str(), Vec::with_capacity(256))
            .call(|| format!("readlinkat([{}]</proc>, {link:?})", self.0.as_raw_fd()))?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes())))
    }
}

impl From<Tree> for Procfs {
    /// A mount that the caller made of a new procfs needs no check.
    fn from(tree: Tree) -> Procfs {
        Procfs(tree.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::rootfs::tests::{alone, bind, filesystem};

    #[test]
    fn a_directory_that_is_no_procfs_is_not_taken_for_one() {
        alone(module_path!(), "a_directory_that_is_no_procfs_is_not_taken_for_one", |scene| {
            scene.make_directory("image/proc/self/attr");
            scene.write("image/proc/self/attr/exec", "fake");
            let rootfs = scene.rootfs(vec![]);
            let root = scene.enter(&rootfs);
            assert!(std::fs::exists("/proc/self/attr/exec").unwrap());
            // Detached: nothing is mounted for it.
            let before = root.procfs().unwrap().read("self/mountinfo").unwrap();
            let status = Procfs::open().unwrap().read("self/status").unwrap();
            assert!(status.starts_with(b"Name:"));
            assert_eq!(Procfs::open().unwrap().read("self/mountinfo").unwrap(), before);
        });
    }

    /// CVE-2025-52881.
    #[test]
    fn a_file_of_procfs_that_is_covered_is_not_written() {
        alone(module_path!(), "a_file_of_procfs_that_is_covered_is_not_written", |scene| {
            scene.write("redirect", "");
            let rootfs = scene.rootfs(vec![
                filesystem("/proc", "proc", &[]),
                bind(&scene.path("redirect"), "/proc/sys/kernel/ns_last_pid"),
            ]);
            let redirect = scene.path("redirect");
            let root = scene.enter(&rootfs);
            let procfs = root.procfs().unwrap();
            let error = procfs.write("sys/kernel/ns_last_pid", b"1").unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EXDEV), "{error}");
            let error = procfs.write("self/cwd/x", b"1").unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ELOOP), "{error}");
            let error = procfs.write("../x", b"1").unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EXDEV), "{error}");
            procfs.write("self/oom_score_adj", b"500").unwrap();
            assert_eq!(procfs.read("self/oom_score_adj").unwrap(), b"500\n");
            drop(redirect);
        });
    }
}
