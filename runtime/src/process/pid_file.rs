//! The pid file that a client asked for.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat, renameat};

use crate::error::{At, Call, Error, Result};

/// A pid file to be written. Its directory is open: an exec's main is in the container's mount
/// namespace when the pid is known.
pub(super) struct PidFile {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl PidFile {
    /// Opens the directory of the file, when there is to be one.
    pub(super) fn prepare(path: Option<&Path>) -> Result<Option<PidFile>> {
        let Some(path) = path else { return Ok(None) };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::argument("pid file", format!("{path:?} is no file's path")));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, parent, flags, Mode::empty())
            .call(|| format!("open({parent:?}, O_PATH|O_DIRECTORY)"))
            .at("pid file")?;
        Ok(Some(PidFile { directory, name: name.to_owned(), path: path.to_owned() }))
    }

    /// Writes the pid in decimal: whoever reads the file finds all of it, or none.
    pub(super) fn write(&self, pid: i32) -> Result<()> {
        let mut temporary = OsString::from(".");
        temporary.push(&self.name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        openat(&self.directory, &temporary, flags, Mode::from_raw_mode(0o644))
            .map_err(std::io::Error::from)
            .and_then(|file| File::from(file).write_all(pid.to_string().as_bytes()))
            .and_then(|()| {
                let directory = self.directory.as_fd();
                Ok(renameat(directory, &temporary, directory, &self.name)?)
            })
            .call(|| format!("write({:?}, \"{pid}\")", self.path))
            .at("pid file")
    }
}
