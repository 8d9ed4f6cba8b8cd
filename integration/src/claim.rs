//! What a test program is a list of.

use std::time::Duration;

use crate::containerd::Version;
use crate::test::Test;
use crate::{host, rootless};

/// A claim: a name that says what holds, and the function that shows it.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    pub(crate) body: fn(&Test),
    pub(crate) limit: Duration,
    pub(crate) alone: bool,
    pub(crate) once: bool,
    pub(crate) own_network: bool,
    pub(crate) needs: Needs,
}

/// What kind of machine a claim is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Any.
    Nothing,
    /// Controllers in hierarchies of cgroup v1.
    CgroupV1,
    /// cgroup v2 and nothing else.
    CgroupV2,
    /// A tmpfs can be mounted idmapped.
    IdmappedTmpfs,
    /// An overlay takes idmapped layers.
    IdmappedLayers,
    /// AppArmor is on.
    AppArmor,
    /// AppArmor is off.
    NoAppArmor,
    /// SELinux is on, with the guest's policy.
    SeLinux,
    /// SELinux is off.
    NoSeLinux,
    /// systemd as PID 1, with cgroup v2 alone.
    Systemd,
    /// No systemd.
    NoSystemd,
    /// [`Self::Systemd`], and the user that `rootless` knows.
    UsersSystemd,
}

impl Needs {
    pub(crate) fn missing(self) -> Option<&'static str> {
        let (v2, systemd) = (host::is_pure_cgroup_v2(), host::has_systemd());
        match self {
            Self::CgroupV1 if v2 => Some("needs cgroup v1"),
            Self::CgroupV2 if !v2 => Some("needs a host with cgroup v2 alone"),
            Self::Systemd if !(v2 && systemd) => Some("needs systemd, and cgroup v2 alone"),
            Self::UsersSystemd if !(v2 && systemd && host::has_user(rootless::USER)) => {
                Some("needs systemd, cgroup v2 alone, and the user 60001")
            }
            Self::NoSystemd if systemd => Some("needs a host without systemd"),
            Self::IdmappedTmpfs if host::kernel() < (6, 3) => {
                Some("needs idmapped mounts of tmpfs, Linux 6.3")
            }
            Self::IdmappedLayers if host::kernel() < (6, 15) => {
                Some("needs an overlay that takes idmapped layers, Linux 6.15")
            }
            Self::AppArmor if !host::has_apparmor() => Some("needs AppArmor"),
            Self::NoAppArmor if host::has_apparmor() => Some("needs a host without AppArmor"),
            Self::SeLinux if !host::has_selinux() => Some("needs SELinux"),
            Self::NoSeLinux if host::has_selinux() => Some("needs a host without SELinux"),
            _ => None,
        }
    }
}

impl Claim {
    /// A claim that ends within a minute and may run beside others.
    #[must_use]
    pub const fn new(module: &'static str, name: &'static str, body: fn(&Test)) -> Self {
        let limit = Duration::from_secs(60);
        let needs = Needs::Nothing;
        Self { module, name, body, limit, alone: false, once: false, own_network: false, needs }
    }

    /// Takes up to so many seconds.
    #[must_use]
    pub const fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Runs while no other does.
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Has nothing to do with containerd's version: runs once.
    #[must_use]
    pub const fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Runs in a network namespace of its own, with all it starts: links, addresses and packet
    /// filters that it makes are not the host's, and end with it.
    #[must_use]
    pub const fn own_network(mut self) -> Self {
        self.own_network = true;
        self
    }

    /// Says something about one kind of machine only.
    #[must_use]
    pub const fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    pub(crate) fn versions(&self) -> &'static [Version] {
        if self.once { &[Version::V2] } else { &Version::ALL }
    }

    /// `module::name`, without the test program's own name.
    pub(crate) fn path(&self) -> String {
        let module = self.module.split_once("::").map_or(self.module, |(_, rest)| rest);
        format!("{module}::{}", self.name)
    }
}
