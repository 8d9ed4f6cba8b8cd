//! How a container ended, kept in its bundle.
//!
//! The daemon writes it when init has ended, before it says so to anybody. `delete` answers with
//! it when the daemon is gone: so containerd learns the true status, not a made up 137.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use runtime::{Call, Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// Where a container's state is, below its bundle.
pub(crate) const STATE_DIR: &str = "myshim";
const NAME: &str = "exit.json";
const NEW_NAME: &str = "exit.json.new";

/// How a container's init ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Its pid while it lived.
    pub(crate) pid: u32,
    /// As a shell has it: its exit code, or 128 + the signal's number.
    pub(crate) status: u32,
    /// Seconds since 1970.
    seconds: u64,
    /// And nanoseconds.
    nanoseconds: u32,
}

impl Exit {
    /// The end of process `pid`.
    pub(crate) fn new(pid: u32, status: u32, exited_at: SystemTime) -> Exit {
        // A clock before 1970 is no reason to lose the status.
        let since = exited_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Exit { pid, status, seconds: since.as_secs(), nanoseconds: since.subsec_nanos() }
    }

    /// When it ended.
    pub(crate) fn exited_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::new(self.seconds, self.nanoseconds)
    }

    /// Keeps it in the state folder, which is there. Atomic; not synced, as a bundle does not
    /// survive a reboot.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, state_dir: &Path) -> Result<()> {
        let (new, path) = (state_dir.join(NEW_NAME), state_dir.join(NAME));
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::new(Kind::Corrupt(format!("encode {NAME}: {error}"))))?;
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .call(|| format!("open({new:?}, O_CREAT|O_TRUNC, 0600)"))?;
        file.write_all(&bytes).call(|| format!("write({new:?})"))?;
        fs::rename(&new, &path).call(|| format!("rename({new:?}, {path:?})"))
    }

    /// None: init has not ended while a daemon watched.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub(crate) fn read(state_dir: &Path) -> Result<Option<Exit>> {
        let path = state_dir.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::call(format!("read({path:?})"), error)),
        };
        let exit = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(Kind::Corrupt(format!("{}: {error}", path.display()))))?;
        Ok(Some(exit))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_exit_is_read_as_it_was_written() {
        let dir = std::env::temp_dir().join(format!("myshim-exit-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        assert_eq!(Exit::read(&dir).unwrap(), None);
        let exit = Exit::new(4711, 137, UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789));
        Exit::new(1, 0, SystemTime::now()).write(&dir).unwrap();
        exit.write(&dir).unwrap();
        assert_eq!(Exit::read(&dir).unwrap(), Some(exit));
        assert_eq!(exit.exited_at(), UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789));
        let mode = dir.join(NAME).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::write(dir.join(NAME), "{").unwrap();
        assert!(Exit::read(&dir).is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
