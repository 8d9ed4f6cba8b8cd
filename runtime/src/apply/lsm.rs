//! AppArmor and SELinux: the label that the process gets at its execve.
//!
//! Written through a verified procfs: an image that fakes /proc must not swallow it
//! (CVE-2019-16884, CVE-2025-52881).

use nix::errno::Errno;

use crate::error::{At, Error, Kind, Result};
use crate::plan::Process;
use crate::sys::procfs::Procfs;

/// Sets the labels for the next execve, as the spec names them. That the LSM is in use was seen by
/// the plan, on the host: inside the container its file system may not be in sight.
///
/// # Errors
/// A profile or label that the kernel does not know.
pub fn label_exec(procfs: &Procfs, process: &Process) -> Result<()> {
    if let Some(profile) = &process.apparmor_profile {
        apparmor(procfs, profile).at("process.apparmorProfile")?;
    }
    if let Some(label) = &process.selinux_label {
        selinux(procfs, label).at("process.selinuxLabel")?;
    }
    Ok(())
}

/// `attr/apparmor/exec` is AppArmor's own file (Linux 5.1), which no other LSM answers for.
fn apparmor(procfs: &Procfs, profile: &str) -> Result<()> {
    let command = format!("exec {profile}");
    match procfs.write("self/attr/apparmor/exec", command.as_bytes()) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => {
            Err(Error::new(Kind::NotFound(format!("AppArmor profile {profile:?} is not loaded"))))
        }
        other => other,
    }
}

fn selinux(procfs: &Procfs, label: &str) -> Result<()> {
    let named = || format!("SELinux label {label:?}");
    procfs.write("self/attr/exec", label.as_bytes()).at_with(named)
}

/// Sets the label of keys that are made from now on until the execve, which takes it back: a
/// process may not use a session keyring that has the runtime's label and not its own.
///
/// # Errors
/// As for [`label_exec`].
pub fn label_keys(procfs: &Procfs, process: &Process) -> Result<()> {
    let Some(label) = &process.selinux_label else { return Ok(()) };
    let named = || format!("SELinux label {label:?}");
    let written = procfs.write("self/attr/keycreate", label.as_bytes()).at_with(named);
    written.at("process.selinuxLabel")
}
