//! What a plan has to know of the host: read once, cheaply, and a plain struct for tests.

use std::path::PathBuf;

use nix::sys::stat::stat;
use nix::unistd::geteuid;
use rustix::system::uname;

use crate::cgroup::{Layout, Manager};
use crate::error::{Call, Error, Kind, Result};

/// Inode number of the initial user namespace's nsfs file (`PROC_USER_INIT_INO`,
/// include/linux/proc_ns.h): fixed since Linux 3.8.
const INITIAL_USER_NAMESPACE_INODE: u64 = 0xEFFF_FFFD;

/// Documentation/filesystems/resctrl.rst of the kernel.
const RESCTRL: &str = "/sys/fs/resctrl";

/// Facts about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Major and minor version of the kernel.
    pub kernel: (u32, u32),
    /// The highest capability the kernel knows (/proc/sys/kernel/cap_last_cap).
    pub last_capability: u8,
    /// Which cgroup hierarchies there are.
    pub cgroups: Layout,
    /// The systemd that makes cgroups, where there is one.
    pub systemd: Option<Manager>,
    /// What we may do.
    pub privilege: Privilege,
    /// Device and inode of our own network namespace's nsfs file.
    pub net_namespace: (u64, u64),
    /// Linux security modules that label processes.
    pub lsm: Lsm,
    /// The version of libseccomp: with it, what a profile compiles to can change.
    pub libseccomp: (u32, u32, u32),
    /// Where resctrl is mounted, when it is (Intel RDT).
    pub resctrl: PathBuf,
    /// A directory for compiled seccomp filters (made with mode 0700); None: none are kept.
    pub seccomp_cache: Option<PathBuf>,
}

/// What the runtime may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Root in the initial user namespace.
    Root,
    /// Root in a user namespace: what belongs to that one can be changed, the host cannot.
    RootOfNamespace,
    /// Not root at all.
    User,
}

/// Which label a process may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lsm {
    /// AppArmor profiles.
    AppArmor,
    /// SELinux labels.
    SeLinux,
    /// Neither.
    None,
}

impl Host {
    /// Reads the facts: a handful of system calls, none of which blocks.
    ///
    /// # Errors
    /// /proc or /sys cannot be read as proc(5) and sysfs(5) say.
    pub fn read(seccomp_cache: Option<PathBuf>) -> Result<Host> {
        let net = namespace_id("/proc/self/ns/net")?;
        let user = namespace_id("/proc/self/ns/user")?;
        let initial = user.1 == INITIAL_USER_NAMESPACE_INODE;
        let privilege = match (geteuid().is_root(), initial) {
            (true, true) => Privilege::Root,
            (true, false) => Privilege::RootOfNamespace,
            (false, _) => Privilege::User,
        };
        Ok(Host {
            kernel: kernel_version()?,
            last_capability: last_capability()?,
            cgroups: Layout::detect()?,
            systemd: Manager::detect(privilege == Privilege::Root)?,
            privilege,
            net_namespace: net,
            lsm: lsm(),
            libseccomp: super::seccomp::library_version()?,
            resctrl: RESCTRL.into(),
            seccomp_cache,
        })
    }
}

/// Device and inode of an nsfs file: equal for equal namespaces (namespaces(7)).
pub(super) fn namespace_id(path: &str) -> Result<(u64, u64)> {
    let stat = stat(path).call(|| format!("stat({path:?})"))?;
    Ok((stat.st_dev, stat.st_ino))
}

fn kernel_version() -> Result<(u32, u32)> {
    let uname = uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(Error::new(Kind::Corrupt(format!("kernel release {release:?} has no version")))),
    }
}

fn last_capability() -> Result<u8> {
    let path = "/proc/sys/kernel/cap_last_cap";
    let text = std::fs::read_to_string(path).call(|| format!("read({path:?})"))?;
    text.trim()
        .parse()
        .map_err(|_| Error::new(Kind::Corrupt(format!("{path} says {text:?}, not a number"))))
}

fn lsm() -> Lsm {
    // Both exist only where the module is in use: selinuxfs is mounted by init after the policy
    // was loaded, AppArmor's parameter turns to Y when it is the one that labels tasks.
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
    if enabled.is_ok_and(|text| text.first() == Some(&b'Y')) {
        Lsm::AppArmor
    } else if std::fs::exists("/sys/fs/selinux/enforce").unwrap_or(false) {
        Lsm::SeLinux
    } else {
        Lsm::None
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Host {
    /// A host for tests: root on a recent kernel, without LSM and cache.
    pub(crate) fn example() -> Host {
        Host {
            kernel: (6, 18),
            cgroups: unified(),
            systemd: None,
            last_capability: 40,
            privilege: Privilege::Root,
            net_namespace: (4, 0xF000_0000),
            lsm: Lsm::None,
            libseccomp: (2, 5, 4),
            resctrl: RESCTRL.into(),
            seccomp_cache: None,
        }
    }
}

/// cgroup v2 alone, with every controller.
#[cfg(any(test, feature = "fuzzing"))]
fn unified() -> Layout {
    let controllers = "cpuset cpu io memory hugetlb pids rdma misc";
    let hierarchy = crate::cgroup::Hierarchy {
        controllers: controllers.split(' ').map(str::to_owned).collect(),
        name: None,
        mount_point: PathBuf::from("/sys/fs/cgroup"),
        root: PathBuf::from("/"),
        access: crate::cgroup::Access::ReadWrite,
    };
    Layout { v1: Vec::new(), v2: Some(hierarchy) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_this_host_can_be_read() {
        let host = Host::read(None).unwrap();
        assert!(host.kernel >= (5, 7), "{:?}", host.kernel);
        assert!((37..64).contains(&host.last_capability));
        assert!(host.libseccomp >= (2, 5, 0));
    }
}
