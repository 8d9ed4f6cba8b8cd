//! The working directory.
//!
//! It must be inside the container's root: a descriptor of the host that leaked could be its
//! `/proc/self/fd/N` (CVE-2024-21626). After every change the kernel is asked where we are.

use std::path::Path;

use rustix::io::Errno;

use crate::error::{Call, Error, Result};

/// Whether the working directory has been entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// It has.
    Yes,
    /// Root was not permitted (a network file system that squashes it, say): try as the user.
    NotYet,
}

/// Makes init's working directory when the image does not have it, as runc does.
///
/// # Errors
/// mkdir(2).
pub fn make(cwd: &Path) -> Result<()> {
    // An existing one is the usual case, and one stat(2) is less than a mkdir per component.
    if rustix::fs::stat(cwd).is_ok() {
        return Ok(());
    }
    std::fs::create_dir_all(cwd).call(|| format!("mkdir({cwd:?}, 0755)"))
}

/// Enters it before the process becomes the user.
///
/// # Errors
/// chdir(2), but for EACCES; a directory outside of the root.
pub fn enter_as_root(cwd: &Path) -> Result<Inside> {
    match rustix::process::chdir(cwd) {
        Err(Errno::ACCESS) => Ok(Inside::NotYet),
        other => {
            other.call(|| format!("chdir({cwd:?})"))?;
            verify(cwd).map(|()| Inside::Yes)
        }
    }
}

/// Enters it as the user, where root could not.
///
/// # Errors
/// chdir(2); a directory outside of the root.
pub fn enter_as_user(cwd: &Path, inside: Inside) -> Result<()> {
    match inside {
        Inside::Yes => Ok(()),
        Inside::NotYet => {
            rustix::process::chdir(cwd).call(|| format!("chdir({cwd:?})"))?;
            verify(cwd)
        }
    }
}

/// getcwd(2) says ENOENT for a deleted directory and "(unreachable)" for one outside of the root.
fn verify(cwd: &Path) -> Result<()> {
    let found = rustix::process::getcwd(Vec::new()).call(|| "getcwd()".into())?;
    if found.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(Error::field("process.cwd", format!("{cwd:?} is outside of the container's root")))
}
