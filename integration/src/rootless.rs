//! A containerd of an ordinary user: under rootlesskit, as root of a user namespace of its own.
//!
//! The user is there in a private mount namespace alone, where files of the test cover
//! /etc/passwd, /etc/subuid and the others: the host has no such user. Programs are bound into the
//! test's folder, because the user need not be able to reach the checkout.
//!
//! Where systemd runs and the user is a true one, as in the guest, the containerd can be in a scope
//! of the user's own systemd ([`UsersSystemd`]).

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::containerd::{Daemon, Endpoint, Services, Version, shim_dir, tools, workspace};
use crate::{command, wait};

/// An id that is nobody's.
pub const USER: u32 = 60_001;
/// The first of the further ids that /etc/subuid gives to the user.
pub const FIRST_SUBUID: u32 = 2_000_000;

/// As root in a new mount namespace, with $1 the folder, $2 to $4 those of containerd, shim and
/// rootlesskit, $5 the script below, $6 what network there is, $7 a cgroup to be in, or nothing, $8
/// XDG_RUNTIME_DIR, $9 what to run rootlesskit with.
const AS_USER: &str = r#"
set -e
[ -z "$7" ] || echo $$ >"$7/cgroup.procs"
mount --make-rprivate /
cd "$1"
cp /etc/passwd passwd
cp /etc/group group
echo "someone:x:60001:60001::/:/bin/sh" >>passwd
echo "someone:x:60001:" >>group
echo "someone:2000000:65536" >subuid
cp subuid subgid
for file in passwd group subuid subgid; do mount --bind $file /etc/$file; done
mount --bind "$2" bin
mount --bind "$3" shim
mount --bind "$4" kit
exec setpriv --reuid 60001 --regid 60001 --clear-groups --pdeathsig TERM \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$1" XDG_RUNTIME_DIR="$8" \
    $9 kit/rootlesskit --state-dir="$1/containerd-rootless" --net="$6" --copy-up=/run \
    sh -c "$5" "$1"
"#;

/// As the user, in rootlesskit's namespaces. What its /run has of the host's /run are links into
/// folders of root; containerd-rootless.sh removes this one likewise.
const AS_ROOT_OF_THE_NAMESPACE: &str = r#"
rm -f /run/containerd
exec env -i PATH="$0/shim" XDG_RUNTIME_DIR="$XDG_RUNTIME_DIR" "$0/bin/containerd" --config "$0/config.toml"
"#;

/// Where the user's containerd is.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In the cgroups of the test.
    Here,
    /// There, with a network namespace of the user's in which there is no more than `lo`.
    WithoutNetwork,
    /// In this directory of cgroup v2.
    Cgroup(&'a Path),
    /// In a scope of the user's systemd.
    Scope(&'a UsersSystemd),
}

/// Starts one in `dir`, which becomes the user's with the folder above it.
///
/// # Panics
/// When it does not come up; the message carries its log.
#[must_use]
pub fn start(version: Version, dir: &Path, namespace: &str, place: Place<'_>) -> Daemon {
    fs::create_dir_all(dir).unwrap();
    for name in ["bin", "shim", "kit"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    for path in [dir.parent().unwrap(), dir] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    let mut daemon = Daemon::configured(version, dir, namespace, &Services::Tasks);
    daemon.run(command(daemon.endpoint(), place));
    let child = wait::until("the pid of rootlesskit's child", || {
        fs::read_to_string(dir.join("containerd-rootless/child_pid")).ok()?.trim().parse().ok()
    });
    daemon.set_inside(child);
    daemon
}

fn command(endpoint: &Endpoint, place: Place<'_>) -> Command {
    let net = if matches!(place, Place::WithoutNetwork) { "none" } else { "host" };
    let none = Path::new("");
    let (cgroup, runtime_dir, with) = match place {
        Place::Here | Place::WithoutNetwork => (none, endpoint.dir.as_path(), ""),
        Place::Cgroup(cgroup) => (cgroup, endpoint.dir.as_path(), ""),
        Place::Scope(systemd) => (none, systemd.runtime_dir.as_path(), SCOPE),
    };
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--mount", "--", "sh", "-c", AS_USER, "sh"]).arg(&endpoint.dir);
    command.arg(endpoint.version.bin()).arg(workspace().join(shim_dir(endpoint.version)));
    command.arg(tools().join("rootless")).arg(AS_ROOT_OF_THE_NAMESPACE);
    command.arg(net).arg(cgroup).arg(runtime_dir).arg(with);
    command
}

const SCOPE: &str = "systemd-run --user --scope --quiet --property=Delegate=yes";

/// The systemd of the user, who has no session: stopped when dropped.
#[derive(Debug)]
pub struct UsersSystemd {
    unit: String,
    runtime_dir: PathBuf,
}

impl UsersSystemd {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let unit = format!("user@{USER}.service");
        systemctl(&["start", &unit]);
        Self { unit, runtime_dir: PathBuf::from(format!("/run/user/{USER}")) }
    }

    /// What `systemctl --user` says.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn systemctl(&self, args: &[&str]) -> String {
        let mut command = Command::new("/usr/bin/setpriv");
        command.arg(format!("--reuid={USER}")).arg(format!("--regid={USER}"));
        command.args(["--clear-groups", "--", "systemctl", "--user"]).args(args);
        command.env("XDG_RUNTIME_DIR", &self.runtime_dir);
        command::run(command, command::LIMIT).ok()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let mut command = Command::new("systemctl");
        command.args(["show", "--property=MainPID", "--value", &self.unit]);
        command::run(command, command::LIMIT).ok().trim().parse().unwrap()
    }

    /// Its cgroup.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        let slice = format!("/sys/fs/cgroup/user.slice/user-{USER}.slice");
        Path::new(&slice).join(&self.unit)
    }
}

impl Drop for UsersSystemd {
    fn drop(&mut self) {
        systemctl(&["stop", &self.unit, &format!("user-{USER}.slice")]);
    }
}

fn systemctl(args: &[&str]) {
    let mut command = Command::new("systemctl");
    command.args(args);
    command::run(command, command::LIMIT).ok();
}

/// `program`, started by the user outside of rootlesskit's namespaces, as at a login: it finds the
/// way in by itself.
///
/// # Panics
/// When the daemon is down.
#[must_use]
pub fn as_user(daemon: &Daemon, program: &Path) -> Command {
    let dir = &daemon.endpoint().dir;
    let mut command = Command::new("/usr/bin/nsenter");
    command.arg(format!("--target={}", daemon.pid().unwrap())).args(["--mount", "--"]);
    command.arg("/usr/bin/setpriv").arg(format!("--reuid={USER}")).arg(format!("--regid={USER}"));
    command.args(["--clear-groups", "--"]).arg(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", dir).env("XDG_RUNTIME_DIR", dir).current_dir("/");
    command
}

/// `program`, which is in the daemon's folder, in the namespaces of the process `pid`.
pub(crate) fn inside(pid: u32, program: &Path) -> Command {
    let mut command = Command::new("/usr/bin/nsenter");
    command.arg(format!("--target={pid}"));
    command.args(["--user", "--mount", "--setuid=0", "--setgid=0", "--"]).arg(program);
    command
}
