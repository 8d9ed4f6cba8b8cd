//! A containerd of an ordinary user: under rootlesskit, as root of a user namespace of its own.
//!
//! The user is there in a private mount namespace alone, where files of the test cover
//! /etc/passwd, /etc/subuid and the others: the host has no such user. Programs are bound into the
//! test's folder, because the user need not be able to reach the checkout.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::containerd::{Daemon, Endpoint, Services, Version, shim_dir, tools, workspace};
use crate::wait;

/// An id that is nobody's.
pub const USER: u32 = 60_001;
/// The first of the further ids that /etc/subuid gives to the user.
pub const FIRST_SUBUID: u32 = 2_000_000;

/// As root in a new mount namespace: the folder, and those of containerd, shim and rootlesskit.
const AS_USER: &str = r#"
set -e
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
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$1" XDG_RUNTIME_DIR="$1" \
    kit/rootlesskit --state-dir="$1/containerd-rootless" --net="$6" --copy-up=/run \
    sh -c "$5" "$1"
"#;

/// As the user, in rootlesskit's namespaces. What its /run has of the host's /run are links into
/// folders of root; containerd-rootless.sh removes this one likewise.
const AS_ROOT_OF_THE_NAMESPACE: &str = r#"
rm -f /run/containerd
exec env -i PATH="$0/shim" "$0/bin/containerd" --config "$0/config.toml"
"#;

/// Starts one in `dir`, which becomes the user's with the folder above it.
///
/// # Panics
/// When it does not come up; the message carries its log.
#[must_use]
pub fn start(version: Version, dir: &Path, namespace: &str) -> Daemon {
    start_on(version, dir, namespace, "host")
}

/// As [`start`], with a network namespace of the user's, in which there is no more than `lo`.
///
/// # Panics
/// When it does not come up; the message carries its log.
#[must_use]
pub fn start_without_network(version: Version, dir: &Path, namespace: &str) -> Daemon {
    start_on(version, dir, namespace, "none")
}

fn start_on(version: Version, dir: &Path, namespace: &str, net: &str) -> Daemon {
    fs::create_dir_all(dir).unwrap();
    for name in ["bin", "shim", "kit"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    for path in [dir.parent().unwrap(), dir] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    let mut daemon = Daemon::configured(version, dir, namespace, &Services::Tasks);
    daemon.run(command(daemon.endpoint(), net));
    let child = wait::until("the pid of rootlesskit's child", || {
        fs::read_to_string(dir.join("containerd-rootless/child_pid")).ok()?.trim().parse().ok()
    });
    daemon.set_inside(child);
    daemon
}

fn command(endpoint: &Endpoint, net: &str) -> Command {
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--mount", "--", "sh", "-c", AS_USER, "sh"]).arg(&endpoint.dir);
    command.arg(endpoint.version.bin()).arg(workspace().join(shim_dir(endpoint.version)));
    command.arg(tools().join("rootless")).arg(AS_ROOT_OF_THE_NAMESPACE);
    command.arg(net);
    command
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
