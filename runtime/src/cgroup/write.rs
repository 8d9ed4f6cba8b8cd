//! A limit as the kernel takes it: a value for a file.

use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{CgroupPaths, Version, files};
use crate::error::{At, Error, Kind, Result};

/// One value that goes to one file of a container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The field of the spec it comes from, as a JSON path.
    pub field: String,
    /// In which version's hierarchy the file is.
    pub version: Version,
    /// The controller whose file it is; empty for the files that every v2 cgroup has.
    pub controller: String,
    /// Where to: the first of these files that exists gets its value.
    pub choices: Vec<Choice>,
    /// What it means that none of them exists.
    pub missing: Missing,
}

/// A file and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The file's name in the cgroup's directory.
    pub file: String,
    /// What is written to it.
    pub value: String,
}

/// What it means that a kernel does not have a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    /// The limit cannot be set: an error.
    Refuse,
    /// The kernel has nothing that could be limited, and the value asks for no more than that.
    Ignore,
}

/// Writes all of them, in order.
///
/// The kernel checks some values against others (memory against memory+swap, the cpu quota
/// against period and burst) and answers EINVAL when they come in the wrong order; which order
/// is right depends on what is set now. So what it refuses is tried again once the others are
/// set, until nothing moves any more.
pub(super) fn apply(writes: &[Write], paths: &CgroupPaths) -> Result<()> {
    let mut pending: Vec<&Write> = writes.iter().collect();
    while !pending.is_empty() {
        let mut refused = Vec::new();
        let mut first_error = None;
        for write in &pending {
            match write.perform(paths) {
                Ok(()) => {}
                Err(error) if error.errno() == Some(nix::errno::Errno::EINVAL) => {
                    refused.push(*write);
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match first_error {
            Some(error) if refused.len() == pending.len() => return Err(error),
            _ => pending = refused,
        }
    }
    Ok(())
}

impl Write {
    /// Whether it limits the number of processes.
    pub(super) fn limits_processes(&self) -> bool {
        self.choices.iter().any(|choice| choice.file == "pids.max")
    }

    /// The same; a limit on the number of processes lets one more in.
    pub(super) fn with_room_for_one(&self) -> Write {
        let mut write = self.clone();
        for choice in write.choices.iter_mut().filter(|choice| choice.file == "pids.max") {
            if let Ok(limit) = choice.value.parse::<u64>() {
                choice.value = limit.saturating_add(1).to_string();
            }
        }
        write
    }

    fn perform(&self, paths: &CgroupPaths) -> Result<()> {
        let directory = match self.version {
            Version::V1 => paths.v1(&self.controller),
            Version::V2 => paths.v2(),
        };
        let Some(directory) = directory else {
            return Err(Error::new(Kind::Unsupported(format!(
                "the container has no cgroup in the hierarchy of {}",
                self.controller
            ))))
            .at(self.field.clone());
        };
        for choice in &self.choices {
            match files::try_write(&directory.join(&choice.file), &choice.value) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(choice.failed(directory, errno)).at(self.field.clone()),
            }
        }
        match (self.missing, self.choices.first()) {
            (Missing::Refuse, Some(choice)) => {
                Err(choice.failed(directory, Errno::NOENT)).at(self.field.clone())
            }
            _ => Ok(()),
        }
    }
}

impl Choice {
    fn failed(&self, directory: &Path, errno: Errno) -> Error {
        let path = directory.join(&self.file);
        let refused = match (self.file.as_str(), errno) {
            // The kernel could not reclaim enough: it never kills for a v1 limit.
            ("memory.limit_in_bytes", Errno::BUSY) => "memory.usage_in_bytes",
            ("memory.memsw.limit_in_bytes", Errno::BUSY) => "memory.memsw.usage_in_bytes",
            _ => {
                let call = format!("write({}, {:?})", path.display(), self.value);
                return Error::call(call, errno);
            }
        };
        let usage = files::try_read(&directory.join(refused)).unwrap_or_default();
        Error::new(Kind::State(format!(
            "{} bytes are less than what is in use ({} bytes) and cannot be reclaimed: \
             the limit stays as it is",
            self.value,
            usage.trim()
        )))
    }
}
