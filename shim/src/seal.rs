//! A copy of this program that a container cannot write to.
//!
//! Processes of the shim enter containers before they execute the user's program, and a process
//! in there that may open /proc/PID/exe gets hold of the file that the shim runs from. If it can
//! be written to, the container owns the host with the next start (CVE-2019-5736). So the daemon
//! never runs from the installed file, but
//!
//! 1. from a read-only overlay over its folder. It has no upper layer, so that nobody, whatever
//!    his privileges, can write through it (a read-only bind mount can be made writable by who
//!    may remount it). It is mounted nowhere and lasts as long as the daemon runs. Pages are
//!    those of the installed file, so any number of daemons share them;
//! 2. or, where that cannot be had, from a sealed copy in memory (memfd_create(2)).
//!
//! Which of the two is decided once, at start, and logged by the daemon with the reason.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use runtime::{At, Call, Error, Kind, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::serve_args::Sealed;

const SELF: &str = "/proc/self/exe";

/// A program to be executed at [`SealedProgram::path`], while this lives.
#[derive(Debug)]
pub(crate) struct SealedProgram {
    /// How it is sealed.
    pub(crate) how: Sealed,
    /// Below /proc/self/fd: valid for this process and for a child that has not executed yet.
    pub(crate) path: PathBuf,
    /// The overlay, or the copy.
    _fd: OwnedFd,
}

impl SealedProgram {
    /// Seals the running program. An overlay of nothing but lower layers needs a second one:
    /// `other_layer` is any other folder, and hides nothing.
    ///
    /// # Errors
    /// When neither way is to be had. The program is then not executed at all.
    pub(crate) fn new(other_layer: &Path) -> Result<SealedProgram> {
        match overlay(other_layer) {
            Ok(program) => Ok(program),
            Err(error) => memfd(error.to_string()).at("seal the program"),
        }
    }
}

fn overlay(other_layer: &Path) -> Result<SealedProgram> {
    let installed = fs::read_link(SELF).call(|| format!("readlink({SELF:?})"))?;
    let (Some(dir), Some(name)) = (installed.parent(), installed.file_name()) else {
        return Err(Error::argument(SELF, "has no folder"));
    };
    // An upgrade may have put another file there since: its `serve` need not be ours.
    let inode = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    if inode(&installed) != inode(Path::new(SELF)) {
        let why = format!("{} is another file now", installed.display());
        return Err(Error::new(Kind::State(why)));
    }
    let layers = [escaped(dir)?, escaped(other_layer)?].join(":");
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .call(|| "fsopen(\"overlay\")".to_owned())?;
    rustix::mount::fsconfig_set_string(&context, "lowerdir", &layers)
        .call(|| format!("fsconfig([overlay], \"lowerdir\", {layers:?})"))?;
    // Off, or some kernels write to their log that they cannot have it; they may also not know it.
    match rustix::mount::fsconfig_set_string(&context, "xino", "off") {
        Ok(()) | Err(_) => {}
    }
    rustix::mount::fsconfig_create(&context)
        .call(|| format!("fsconfig([overlay over {layers}], CREATE)"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .call(|| "fsmount([overlay], RDONLY|NOSUID|NODEV)".to_owned())?;
    let path = fd_path(&mount).join(name);
    Ok(SealedProgram { how: Sealed::Overlay, path, _fd: mount })
}

/// overlayfs separates layers by `:`, and takes `\` before one that belongs to a name.
fn escaped(dir: &Path) -> Result<String> {
    let dir = dir.to_str().ok_or_else(|| Error::argument("folder", "its name is not UTF-8"))?;
    Ok(dir.replace('\\', "\\\\").replace(':', "\\:"))
}

fn memfd(because: String) -> Result<SealedProgram> {
    let mut installed = File::open(SELF).call(|| format!("open({SELF:?})"))?;
    let mut copy = File::from(new_memfd()?);
    std::io::copy(&mut installed, &mut copy).call(|| format!("copy({SELF:?}, [memfd])"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)
        .call(|| "fcntl([memfd], F_ADD_SEALS, SHRINK|GROW|WRITE|SEAL)".to_owned())?;
    let copy = OwnedFd::from(copy);
    let path = fd_path(&copy);
    Ok(SealedProgram { how: Sealed::Memfd { because }, path, _fd: copy })
}

fn new_memfd() -> Result<OwnedFd> {
    const NAME: &str = "containerd-shim-myshim-v2";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(NAME, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there is no MFD_EXEC, and every memfd can be executed.
        Err(Errno::INVAL) => rustix::fs::memfd_create(NAME, flags),
        made => made,
    }
    .call(|| format!("memfd_create({NAME:?}, ALLOW_SEALING|EXEC)"))
}

fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses_to_be_written(program: &SealedProgram, errno: Errno) {
        let error = File::options().write(true).open(&program.path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
    }

    fn is_this_program(program: &SealedProgram) {
        assert!(fs::read(&program.path).unwrap() == fs::read(SELF).unwrap());
        let listed = std::process::Command::new(&program.path).arg("--list").output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("an_overlay_cannot_be_written_to"), "{listed}");
    }

    #[test]
    fn an_overlay_cannot_be_written_to() {
        let program = overlay(&std::env::temp_dir()).unwrap();
        is_this_program(&program);
        refuses_to_be_written(&program, Errno::ROFS);
        assert_eq!(program.how, Sealed::Overlay);
    }

    #[test]
    fn a_copy_in_memory_cannot_be_written_to() {
        let program = memfd("a test".to_owned()).unwrap();
        is_this_program(&program);
        let file = File::options().write(true).open(&program.path).unwrap();
        let error = std::io::Write::write(&mut &file, b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error()));
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn a_folder_with_a_colon_in_its_name_is_no_two_layers() {
        assert_eq!(escaped(Path::new(r"/a:b\c")).unwrap(), r"/a\:b\\c");
    }
}
