//! A pseudo terminal of the container's own devpts.
//!
//! On entry the root's mounts are there. The master is for the daemon, the slave for the process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::rootfs::Root;
use crate::plan::Terminal;
use crate::sys::inside::{self, Links};
use crate::sys::mount::{Depth, Tree};
use crate::{At, Call, Error, Kind, Result};

/// DEVPTS_SUPER_MAGIC of linux/magic.h.
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Both ends of a pseudo terminal.
#[derive(Debug)]
pub struct Console {
    /// The daemon's end.
    pub master: OwnedFd,
    /// The process's end.
    pub slave: OwnedFd,
}

/// Opens a pseudo terminal for the container's init, and binds its end on /dev/console.
///
/// # Errors
/// Unsupported: there is no devpts at /dev/pts. ENOSPC: its `max` is reached.
pub fn open(root: &Root, terminal: Terminal) -> Result<Console> {
    let console = open_inside(root.as_fd(), terminal)?;
    bind(root.as_fd(), &console)?;
    Ok(console)
}

/// Opens a pseudo terminal for a tenant, which has joined the container's mount namespace: in
/// what is at /dev/pts there.
///
/// # Errors
/// Those of [`open`].
pub fn open_in_container(terminal: Terminal) -> Result<Console> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(CWD, c"/", flags, Mode::empty()).call(|| "openat(\"/\")".to_owned())?;
    open_inside(root.as_fd(), terminal)
}

fn open_inside(root: BorrowedFd<'_>, terminal: Terminal) -> Result<Console> {
    let pts =
        inside::open(root, Path::new("dev/pts"), Links::Follow, OFlags::PATH | OFlags::DIRECTORY)
            .at("devpts")?;
    let file_system = rustix::fs::fstatfs(&pts).call(|| "fstatfs(</dev/pts>)".to_owned())?;
    if u64::try_from(file_system.f_type) != Ok(DEVPTS_SUPER_MAGIC) {
        return Err(Error::new(Kind::Unsupported(
            "a terminal needs a devpts on the container's /dev/pts".to_owned(),
        )));
    }
    // In a devpts only the kernel makes files; not to leave the mount excludes one bound over it.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat2(&pts, c"ptmx", flags, Mode::empty(), resolve)
        .call(|| format!("openat2([{}]</dev/pts>, \"ptmx\")", pts.as_raw_fd()))?;
    rustix::pty::unlockpt(&master).call(|| "ioctl(TIOCSPTLCK)".to_owned())?;
    // By its descriptor and not by /dev/pts/N, which may lead elsewhere (CVE-2025-52565).
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, flags).call(|| "ioctl(TIOCGPTPEER)".to_owned())?;
    if terminal.rows != 0 || terminal.columns != 0 {
        resize(master.as_fd(), terminal)?;
    }
    Ok(Console { master, slave })
}

/// Sets the window size, ioctl_tty(2) TIOCSWINSZ.
///
/// # Errors
/// ENOTTY.
pub fn resize(terminal: BorrowedFd<'_>, size: Terminal) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).call(|| "ioctl(TIOCSWINSZ)".to_owned())
}

/// Binds the slave on /dev/console inside the root. A link there is of the image and is replaced.
fn bind(root: BorrowedFd<'_>, console: &Console) -> Result<()> {
    let source = Tree::copy_fd(console.slave.as_fd(), Depth::Mount)?;
    let (directory, name) = inside::make_parent(root, Path::new("dev/console"))?;
    let mode = Mode::from_raw_mode(0o600);
    let make = || {
        rustix::fs::mknodat(&directory, &name, FileType::RegularFile, mode, 0)
            .call(|| "mknodat(</dev>, \"console\")".to_owned())
    };
    match make() {
        Ok(()) => {}
        Err(error) if error.errno() == Some(nix::errno::Errno::EEXIST) => {
            let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)
                .call(|| "fstatat(</dev>, \"console\")".to_owned())?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                rustix::fs::unlinkat(&directory, &name, AtFlags::empty())
                    .call(|| "unlinkat(</dev>, \"console\")".to_owned())?;
                make()?;
            }
        }
        Err(error) => return Err(error),
    }
    source.attach_at(directory.as_fd(), &name).at("/dev/console")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;
    use crate::apply::rootfs::tests::{
        Scene, alone, bind as bind_mount, default_devices, default_mounts,
    };
    use crate::plan::Rootfs;

    const SIZE: Terminal = Terminal { rows: 31, columns: 97 };

    fn rootfs(scene: &Scene) -> Rootfs {
        Rootfs { devices: default_devices(), ..scene.rootfs(default_mounts()) }
    }

    #[test]
    fn the_console_is_of_the_containers_own_devpts() {
        alone(module_path!(), "the_console_is_of_the_containers_own_devpts", |scene| {
            let rootfs = rootfs(scene);
            let root = scene.enter(&rootfs);
            let console = open(&root, SIZE).unwrap();
            let size = rustix::termios::tcgetwinsize(&console.slave).unwrap();
            assert_eq!((size.ws_row, size.ws_col), (31, 97));
            let slave = rustix::fs::fstat(&console.slave).unwrap();
            let bound = std::fs::metadata("/dev/console").unwrap();
            assert_eq!((bound.dev(), bound.ino()), (slave.st_dev, slave.st_ino));
            assert_eq!(std::fs::metadata("/dev/pts/0").unwrap().ino(), slave.st_ino);

            let (mut master, mut slave) =
                (std::fs::File::from(console.master), std::fs::File::from(console.slave));
            slave.write_all(b"hello\n").unwrap();
            let mut read = [0; 7];
            master.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"hello\r\n");

            let other = open_in_container(Terminal { rows: 0, columns: 0 }).unwrap();
            assert!(std::fs::metadata("/dev/pts/1").unwrap().file_type().is_char_device());
            drop(other);
        });
    }

    #[test]
    fn a_link_in_the_place_of_the_console_is_replaced() {
        alone(module_path!(), "a_link_in_the_place_of_the_console_is_replaced", |scene| {
            scene.write("victim", "");
            let mut rootfs = rootfs(scene);
            rootfs.mounts.retain(|mount| mount.destination != Path::new("/dev"));
            scene.link(scene.path("victim").to_str().unwrap(), "image/dev/console");
            let root = scene.enter(&rootfs);
            open(&root, SIZE).unwrap();
            let console = std::fs::symlink_metadata("/dev/console").unwrap();
            assert!(console.file_type().is_char_device());
            assert!(!scene.mounts().contains("/victim"));
        });
    }

    /// CVE-2025-52565.
    #[test]
    fn a_faked_ptmx_is_not_opened() {
        alone(module_path!(), "a_faked_ptmx_is_not_opened", |scene| {
            let with = |fake| {
                let mut rootfs = rootfs(scene);
                rootfs.mounts.push(fake);
                rootfs
            };
            scene.make_directory("pts");
            scene.write("pts/ptmx", "");
            let fakes = [
                (bind_mount(&scene.path("pts"), "/dev/pts"), "needs a devpts"),
                (bind_mount(&scene.path("pts/ptmx"), "/dev/pts/ptmx"), "EXDEV"),
            ];
            for (fake, words) in fakes {
                let root = scene.build(&with(fake)).unwrap();
                let error = open(&root, SIZE).unwrap_err().to_string();
                assert!(error.contains(words), "{error}");
            }
        });
    }
}
