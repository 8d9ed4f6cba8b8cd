//! What is said to systemd: org.freedesktop.systemd1(5).
//!
//! ```text
//!  StartTransientUnit(name, "fail", properties, []) ─▶ job     JobRemoved(job, "done")
//!  SetUnitProperties(name, runtime, properties)
//!  GetUnit(name) ─▶ is it ours? ─▶ StopUnit(name, "replace") ─▶ job     JobRemoved(job, …)
//!                                  ResetFailedUnit(name)
//! ```
//!
//! Each is one conversation under one deadline. systemd tells the end of a job to the client that
//! caused it, so nothing is subscribed to but a match at the bus, before the call.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::properties::Property;
use super::{OOM_POLICY, Unit, UnitPlan};
use crate::dbus::{Call, Connection, Peer, Refusal, Value};
use crate::error::{At, Error, Kind, Result};

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// For making and changing a unit: a busy systemd takes long, a client's patience is 30 s or more.
const PATIENCE: Duration = Duration::from_secs(20);
/// For taking a unit away: containerd gives a delete 5 s in all.
const SHORT_PATIENCE: Duration = Duration::from_secs(3);

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// systemd's own socket, for root: where there is no bus (yet, or at all).
const PRIVATE: &str = "/run/systemd/private";

/// Which systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manager {
    /// The host's.
    System {
        /// The cgroup below which its slices are, `/` but in a container.
        root: PathBuf,
    },
    /// The one of the user whose session this is.
    User {
        /// The socket of its bus.
        bus: PathBuf,
    },
}

impl Manager {
    /// The host's, as PID 1 says in `/proc/1/cgroup`: it is in `init.scope`.
    pub(super) fn system(cgroup_of_pid_1: &str) -> Manager {
        let own = cgroup_of_pid_1.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let root = Path::new(own.strip_suffix("/init.scope").unwrap_or(own));
        Manager::System { root: Path::new("/").join(root) }
    }

    /// The cgroup below which its slices are.
    pub(super) fn root(&self) -> Result<PathBuf> {
        match self {
            Manager::System { root } => Ok(root.clone()),
            Manager::User { .. } => Conversation::open(self, PATIENCE)
                .and_then(|mut systemd| systemd.get(OBJECT, MANAGER, "ControlGroup"))
                .at("ask systemd for its cgroup")
                .map(PathBuf::from),
        }
    }

    /// The slice of what names none.
    pub(super) fn default_slice(&self) -> &'static str {
        match self {
            Manager::System { .. } => "system.slice",
            Manager::User { .. } => "user.slice",
        }
    }

    fn connect(&self, within: Duration) -> Result<(Connection, Peer)> {
        match self {
            Manager::User { bus } => {
                Connection::open(bus, Peer::Bus, within).map(|bus| (bus, Peer::Bus))
            }
            Manager::System { .. } => {
                use nix::errno::Errno::{ECONNREFUSED, ENOENT};
                match Connection::open(Path::new(SYSTEM_BUS), Peer::Bus, within) {
                    Err(error) if matches!(error.errno(), Some(ENOENT | ECONNREFUSED)) => {
                        Connection::open(Path::new(PRIVATE), Peer::Service, within)
                            .map(|connection| (connection, Peer::Service))
                            .at_with(|| format!("after {error}"))
                    }
                    other => other.map(|bus| (bus, Peer::Bus)),
                }
            }
        }
    }
}

struct Conversation {
    connection: Connection,
    peer: Peer,
}

impl Conversation {
    fn open(manager: &Manager, within: Duration) -> Result<Conversation> {
        manager.connect(within).map(|(connection, peer)| Conversation { connection, peer })
    }

    /// Before a call that causes a job.
    fn listen_for_jobs_of(&mut self, unit: &str) -> Result<()> {
        if self.peer == Peer::Service {
            return Ok(());
        }
        self.connection.listen(&format!(
            "type='signal',sender='{SERVICE}',path='{OBJECT}',interface='{MANAGER}',\
             member='JobRemoved',arg2='{unit}'"
        ))
    }

    fn call(
        &mut self,
        member: &str,
        unit: &str,
        rest: impl IntoIterator<Item = Value>,
    ) -> Result<std::result::Result<String, Refusal>> {
        let arguments: Vec<Value> = [Value::text(unit)].into_iter().chain(rest).collect();
        let call = Call {
            destination: SERVICE,
            path: OBJECT,
            interface: MANAGER,
            member,
            arguments: &arguments,
        };
        self.connection.call(&call, &format!("{member}({unit})"))
    }

    fn refused(&self, member: &str, unit: &str, refusal: &Refusal) -> Error {
        self.connection.refused(&format!("{member}({unit})"), refusal)
    }

    fn get(&mut self, path: &str, interface: &str, property: &str) -> Result<String> {
        let arguments = [Value::text(interface), Value::text(property)];
        let call = Call {
            destination: SERVICE,
            path,
            interface: PROPERTIES,
            member: "Get",
            arguments: &arguments,
        };
        let what = format!("Get({path}, {property})");
        let answer = self.connection.call(&call, &what)?;
        answer.map_err(|refusal| self.connection.refused(&what, &refusal))
    }

    fn end_of_job(&mut self, member: &str, unit: &str, job: &str) -> Result<String> {
        self.connection.end_of_job(job, &format!("{member}({unit})"))
    }
}

fn is_missing(refusal: &Refusal) -> bool {
    refusal.name == "org.freedesktop.systemd1.NoSuchUnit"
}

/// `a(sv)`.
fn pairs(properties: &[Property]) -> Value {
    let pair = |property: &Property| {
        let value = Value::Variant(Box::new(property.value.clone()));
        Value::Struct(vec![Value::text(&property.name), value])
    };
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

/// What StartTransientUnit wants beside the name: a mode, properties, and other units to make.
fn transient(properties: &[Property]) -> [Value; 3] {
    let others = Value::Array("(sa(sv))".into(), Vec::new());
    [Value::text("fail"), pairs(properties), others]
}

/// Makes the unit, with this process in it, and waits until it is there.
///
/// # Errors
/// `AlreadyExists` when there is a unit of this name; `State` when systemd refuses or fails to
/// make it; `Deadline` when it says nothing.
pub(super) fn start(plan: &UnitPlan, resident: Option<u32>) -> Result<()> {
    const MEMBER: &str = "StartTransientUnit";
    let name = plan.unit.name.as_str();
    let mut systemd =
        Conversation::open(&plan.unit.manager, PATIENCE).at_with(|| format!("{MEMBER}({name})"))?;
    systemd.listen_for_jobs_of(name)?;
    let mut properties = plan.properties.clone();
    if let Some(pid) = resident {
        let pids = Value::Array("u".into(), vec![Value::U32(pid)]);
        properties.push(Property::new("PIDs", pids));
    }
    let mut answer = systemd.call(MEMBER, name, transient(&properties))?;
    if answer.as_ref().is_err_and(|refusal| refusal.text.contains(OOM_POLICY)) {
        // Before 253: the limit is in the file alone, until systemd writes that anew.
        properties.retain(|property| property.name != OOM_POLICY);
        answer = systemd.call(MEMBER, name, transient(&properties))?;
    }
    let job = match answer {
        Ok(job) => job,
        Err(refusal) if refusal.name == "org.freedesktop.systemd1.UnitExists" => {
            return Err(Error::new(Kind::AlreadyExists(format!("systemd unit {name}"))));
        }
        Err(refusal) => return Err(systemd.refused(MEMBER, name, &refusal)),
    };
    match systemd.end_of_job(MEMBER, name, &job)?.as_str() {
        "done" => Ok(()),
        result => {
            let why = format!("{MEMBER}({name}): the job ended with {result:?}");
            let undone = stop(&plan.unit).err();
            Err(Error::new(Kind::State(why)).with_undo(undone.into_iter().collect()))
        }
    }
}

/// Changes limits, until the unit ends.
///
/// # Errors
/// As for [`start`].
pub(super) fn set(unit: &Unit, properties: &[Property]) -> Result<()> {
    const MEMBER: &str = "SetUnitProperties";
    let name = unit.name.as_str();
    let mut systemd =
        Conversation::open(&unit.manager, PATIENCE).at_with(|| format!("{MEMBER}({name})"))?;
    match systemd.call(MEMBER, name, [Value::Bool(true), pairs(properties)])? {
        Ok(_) => Ok(()),
        Err(refusal) => Err(systemd.refused(MEMBER, name, &refusal)),
    }
}

/// Stops the unit, and waits until systemd has forgotten it. That it is gone, as is usual when
/// its processes have ended, or is somebody else's, is no error: then nothing is done.
///
/// # Errors
/// As for [`start`].
pub(super) fn stop(unit: &Unit) -> Result<()> {
    const MEMBER: &str = "StopUnit";
    let name = unit.name.as_str();
    let mut systemd = Conversation::open(&unit.manager, SHORT_PATIENCE)
        .at_with(|| format!("{MEMBER}({name})"))?;
    systemd.listen_for_jobs_of(name)?;
    let path = match systemd.call("GetUnit", name, [])? {
        Ok(path) => path,
        Err(refusal) if is_missing(&refusal) => return Ok(()),
        Err(refusal) => return Err(systemd.refused("GetUnit", name, &refusal)),
    };
    let description = systemd.get(&path, "org.freedesktop.systemd1.Unit", "Description")?;
    if description != unit.description {
        return Ok(());
    }
    match systemd.call(MEMBER, name, [Value::text("replace")])? {
        // However the job ends: what counts is whether the unit is still known after it.
        Ok(job) => drop(systemd.end_of_job(MEMBER, name, &job)?),
        Err(refusal) if is_missing(&refusal) => return Ok(()),
        Err(refusal) => return Err(systemd.refused(MEMBER, name, &refusal)),
    }
    // A unit that has ended is forgotten before the next call is looked at, unless it has failed.
    match systemd.call("ResetFailedUnit", name, [])? {
        Err(refusal) if !is_missing(&refusal) => {
            Err(systemd.refused("ResetFailedUnit", name, &refusal))
        }
        _ => Ok(()),
    }
}
