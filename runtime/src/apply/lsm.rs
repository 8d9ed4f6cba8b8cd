//! AppArmor and SELinux: the label that the process gets at its execve.
//!
//! Written through a verified procfs: an image that fakes /proc must not swallow it
//! (CVE-2019-16884, CVE-2025-52881).

use std::path::Path;

use crate::error::{At, Error, Kind, Result};
use crate::plan::Process;
use crate::sys::procfs::Procfs;

/// Sets the labels for the next execve, as the spec names them.
///
/// # Errors
/// An LSM that this kernel does not run, or a profile or label that it does not know.
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
        Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => {
            Err(Error::new(Kind::Unsupported("AppArmor is not enabled in this kernel".into())))
        }
        other => other,
    }
}

fn selinux(procfs: &Procfs, label: &str) -> Result<()> {
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(Error::new(Kind::Unsupported("SELinux is not enabled on this host".into())));
    }
    procfs.write("self/attr/exec", label.as_bytes())
}
