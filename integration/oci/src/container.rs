//! A container by its id: its state, and what can be told of it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use runtime::apply::oci_state::{OciState, Status};
use runtime::container::{State, StateDir};
use runtime::{Call, Error, Kind, Result, process};
use serde_json::{Value, json};

use crate::date;

/// A container that exists.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) state: State,
}

impl Container {
    /// The container of this id.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Container> {
        let dir = directory(root, id)?;
        match StateDir::open(&dir).load()? {
            Some(state) => Ok(Container { id: id.to_owned(), dir, state }),
            None => Err(Error::new(Kind::State("container does not exist".into()))),
        }
    }

    /// Where it is in its life.
    pub(crate) fn status(&self) -> Result<Status> {
        process::status(&self.dir)
    }

    /// Its init, which has to run.
    pub(crate) fn init(&self) -> Result<OwnedFd> {
        let running = self.state.init.map(|init| init.open()).transpose()?.flatten();
        running.ok_or_else(|| Error::new(Kind::State("container not running".into())))
    }

    /// The state as the specification has it, and a little more, as other runtimes.
    pub(crate) fn describe(&self) -> Result<Value> {
        let status = self.status()?;
        let pid = self.state.init.map_or(0, |init| init.pid);
        let pid = if status == Status::Stopped { 0 } else { pid };
        let state = OciState::of_container(&self.state.container, status, Some(pid)).to_json()?;
        let mut state: Value = serde_json::from_slice(&state)
            .map_err(|error| Error::new(Kind::Corrupt(format!("state: {error}"))))?;
        let made = std::fs::metadata(&self.dir).and_then(|meta| meta.modified());
        let made = made.call(|| format!("stat({:?})", self.dir))?;
        let made = made.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        if let Some(state) = state.as_object_mut() {
            state.insert("created".into(), json!(date::rfc3339(made)));
            state.insert("owner".into(), json!(""));
        }
        Ok(state)
    }
}

/// Where the state of a container is. The id becomes a file's name.
pub(crate) fn directory(root: &Path, id: &str) -> Result<PathBuf> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || !id.chars().all(good) || id == "." || id == ".." {
        return Err(Error::argument(
            "container id",
            format!("invalid container ID format: {id:?}"),
        ));
    }
    Ok(root.join(id))
}
