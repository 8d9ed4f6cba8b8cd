//! The process's standard streams.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{Dev, FileType, OFlags, Uid};

use super::rootfs::Root;
use crate::plan::Process;
use crate::sys::inside::{self, Links};
use crate::{Call, Error, Kind, Result};

/// The null device's numbers, kernel documentation Documentation/admin-guide/devices.txt.
fn null() -> Dev {
    rustix::fs::makedev(1, 3)
}

/// Becomes the leader of a new session, without a controlling terminal: setsid(2).
///
/// # Errors
/// EPERM: the caller leads a process group already.
pub fn new_session() -> Result<()> {
    rustix::process::setsid().map(drop).call(|| "setsid()".to_owned())
}

/// Makes three descriptors 0, 1 and 2, and gives them to the process's user.
///
/// # Errors
/// An argument error for another number of descriptors; EMFILE; those of [`give_to`].
pub fn connect(streams: Vec<OwnedFd>, process: &Process) -> Result<()> {
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(streams).map_err(|streams| {
        Error::argument("stdio", format!("{} descriptors in place of three", streams.len()))
    })?;
    let [stdin, stdout, stderr] = [lift(stdin)?, lift(stdout)?, lift(stderr)?];
    put([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    give_to(process.uid)
}

/// Makes a pseudo terminal the three streams and the controlling terminal, and gives it to the
/// process's user. The caller leads a session without a terminal ([`new_session`]).
///
/// # Errors
/// EPERM: the caller leads no session; those of [`give_to`].
pub fn connect_terminal(slave: OwnedFd, process: &Process) -> Result<()> {
    let slave = lift(slave)?;
    let slave = slave.as_fd();
    put([slave; 3])?;
    rustix::process::ioctl_tiocsctty(slave).call(|| "ioctl(TIOCSCTTY)".to_owned())?;
    give_to(process.uid)
}

/// Puts the descriptors in the place of 0, 1 and 2, where they stay open over execve(2).
fn put([stdin, stdout, stderr]: [BorrowedFd<'_>; 3]) -> Result<()> {
    rustix::stdio::dup2_stdin(stdin).call(|| "dup2(stdin, 0)".to_owned())?;
    rustix::stdio::dup2_stdout(stdout).call(|| "dup2(stdout, 1)".to_owned())?;
    rustix::stdio::dup2_stderr(stderr).call(|| "dup2(stderr, 2)".to_owned())
}

/// The same descriptor above 2: dup2(2) onto one stream must not close the source of another,
/// nor dropping a source one of the streams.
fn lift(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, 3).call(|| "fcntl(F_DUPFD_CLOEXEC, 3)".to_owned())
}

/// Gives the streams to the container's user, so that it can open them again by /dev/stdout.
/// Never /dev/null: it may be the host's.
///
/// # Errors
/// Those of fchown(2), except where the owner cannot or need not be changed: EPERM and EINVAL
/// (not mapped in the user namespace), EROFS.
fn give_to(uid: u32) -> Result<()> {
    for stream in streams() {
        let stat = rustix::fs::fstat(stream).call(|| "fstat(<stdio>)".to_owned())?;
        if stat.st_uid == uid || is_null(&stat) {
            continue;
        }
        match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None) {
            Ok(())
            | Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL | rustix::io::Errno::ROFS) => {
            }
            Err(errno) => return Err(errno).call(|| format!("fchown(<stdio>, {uid})")),
        }
    }
    Ok(())
}

/// Where one of init's streams is the host's /dev/null, makes it the container's. A container
/// without a /dev/null keeps the host's: it is the same device. Not for a tenant: what is at
/// /dev/null when it comes is the container's to say.
///
/// # Errors
/// Unsupported: the container's /dev/null is something else.
pub fn use_own_null(root: &Root) -> Result<()> {
    let mut own = None;
    for (number, stream) in streams().into_iter().enumerate() {
        let stat = rustix::fs::fstat(stream).call(|| "fstat(<stdio>)".to_owned())?;
        if !is_null(&stat) {
            continue;
        }
        let null = match own.take() {
            Some(null) => null,
            None => match open_null(root) {
                Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(()),
                result => result?,
            },
        };
        match number {
            0 => rustix::stdio::dup2_stdin(&null),
            1 => rustix::stdio::dup2_stdout(&null),
            _ => rustix::stdio::dup2_stderr(&null),
        }
        .call(|| format!("dup2(</dev/null>, {number})"))?;
        own = Some(null);
    }
    Ok(())
}

/// The container's /dev/null, looked at before it is opened: opening a device may do things.
fn open_null(root: &Root) -> Result<OwnedFd> {
    let path = Path::new("dev/null");
    check_null(&inside::locate(root.as_fd(), path, Links::Refuse)?)?;
    let null = inside::open(root.as_fd(), path, Links::Refuse, OFlags::RDWR | OFlags::NOCTTY)?;
    check_null(&null)?;
    Ok(null)
}

fn check_null(fd: &OwnedFd) -> Result<()> {
    let stat = rustix::fs::fstat(fd).call(|| "fstat(</dev/null>)".to_owned())?;
    if is_null(&stat) {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported("the container's /dev/null is not the null device".into())))
}

fn is_null(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == null()
}

fn streams() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::apply::console;
    use crate::apply::rootfs::tests::{alone, default_devices, default_mounts};
    use crate::plan::{Capabilities, ExecCpuAffinity, Rootfs, Terminal};

    fn process(uid: u32) -> Process {
        Process {
            args: vec!["true".to_owned()],
            env: Vec::new(),
            cwd: "/".into(),
            terminal: None,
            uid,
            gid: 0,
            groups: Vec::new(),
            umask: 0o022,
            capabilities: Capabilities::default(),
            rlimits: Vec::new(),
            no_new_privileges: true,
            oom_score_adj: None,
            apparmor_profile: None,
            selinux_label: None,
            scheduler: None,
            io_priority: None,
            exec_cpu_affinity: ExecCpuAffinity::default(),
            memory_policy: None,
            personality: None,
            new_keyring: false,
        }
    }

    #[test]
    fn streams_go_to_the_user_but_never_dev_null() {
        alone(module_path!(), "streams_go_to_the_user_but_never_dev_null", |scene| {
            scene.write("out", "");
            let host_null = File::open("/dev/null").unwrap();
            let before = host_null.metadata().unwrap().uid();
            let open = |path| File::options().write(true).open(path).unwrap();
            let (out, null) = (open(scene.path("out")), File::open("/dev/null").unwrap());
            let log = out.try_clone().unwrap();
            let streams = vec![null.into(), out.into(), open(scene.path("out")).into()];
            let devices = default_devices();
            let root = scene.enter(&Rootfs { devices, ..scene.rootfs(default_mounts()) });
            connect(streams, &process(1234)).unwrap();
            use_own_null(&root).unwrap();
            assert_eq!(log.metadata().unwrap().uid(), 1234);
            assert_eq!(host_null.metadata().unwrap().uid(), before);
            let own = std::fs::metadata("/dev/null").unwrap();
            let stdin = rustix::fs::fstat(rustix::stdio::stdin()).unwrap();
            assert_eq!((stdin.st_dev, stdin.st_ino), (own.dev(), own.ino()));
            assert_eq!(own.uid(), 0);
            rustix::io::write(rustix::stdio::stdout(), b"hello").unwrap();
            assert_eq!(log.metadata().unwrap().len(), 5);
        });
    }

    #[test]
    fn a_terminal_becomes_the_controlling_terminal() {
        alone(module_path!(), "a_terminal_becomes_the_controlling_terminal", |scene| {
            let devices = default_devices();
            let root = scene.enter(&Rootfs { devices, ..scene.rootfs(default_mounts()) });
            let console = console::open(&root, Terminal { rows: 0, columns: 0 }).unwrap();
            // Closing the master is a SIGHUP for the session's leader.
            let _master = std::mem::ManuallyDrop::new(console.master);
            new_session().unwrap();
            connect_terminal(console.slave, &process(1234)).unwrap();
            let tty = File::open("/dev/tty").unwrap();
            let session = rustix::termios::tcgetsid(&tty).unwrap();
            assert_eq!(session, rustix::process::getpid());
            assert_eq!(std::fs::metadata("/dev/pts/0").unwrap().uid(), 1234);
            assert_eq!(std::fs::metadata("/dev/console").unwrap().uid(), 1234);
        });
    }
}
