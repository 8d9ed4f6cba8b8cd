//! The systemd driver: the cgroup is that of a transient unit, which systemd makes.
//!
//! ```text
//!  slice:prefix:name ─▶ UnitPlan ─▶ start ─▶ the unit's directory ─▶ limits and device rules,
//!                       (properties)                                  as with any cgroup
//! ```
//!
//! systemd knows of a container by its unit, and of each limit that it has a property for, so
//! that it does not write another value when it writes the cgroup's files anew. All the rest is
//! done in the unit's directory, which is delegated to us.
//!
//! systemd makes no scope without a process. A placeholder of the runtime's is in it until init
//! is born there, and the unit ends by itself when its last process has ended: nothing is left of
//! a create that was killed.

mod annotation;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
mod manager;
mod name;
mod properties;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::name::UnitName;
use super::{Driver, Layout, Write};
use crate::dbus::Value;
use crate::error::{At, Error, Kind, Result};

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use fuzz::{annotated, unit_path};
pub use manager::Manager;
pub use properties::Property;

const FIELD: &str = "linux.cgroupsPath";

/// What sd_booted(3) looks for.
const BOOTED: &str = "/run/systemd/system";

/// By which systemd knows of memory.oom.group. Scopes have it since systemd 253; it cannot be
/// changed later.
const OOM_POLICY: &str = "OOMPolicy";

/// A unit that holds a container's cgroup; part of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name: `prefix-name.scope`, or that of a slice.
    pub name: String,
    /// Whose it is.
    pub manager: Manager,
    /// By which it is known from another one of its name: it names the container's state.
    pub description: String,
}

/// A unit to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitPlan {
    /// Which one.
    pub unit: Unit,
    /// Its cgroup, below the mount point.
    pub path: PathBuf,
    /// All of its properties but the process in it.
    pub properties: Vec<Property>,
}

/// What decides on the driver.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The client's option `SystemdCgroup`.
    pub option: bool,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a Path>,
    /// The container.
    pub id: &'a str,
    /// Its state directory, of which there is one on this host.
    pub state_dir: &'a Path,
}

impl Manager {
    /// The systemd to ask: the host's, or for who is not root there the user's own. None where
    /// there is none.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn detect(is_host_root: bool) -> Result<Option<Manager>> {
        if !Path::new(BOOTED).is_dir() {
            return Ok(None);
        }
        if is_host_root {
            let own = super::files::read(Path::new("/proc/1/cgroup"))?;
            return Ok(Some(Manager::system(&own)));
        }
        let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
        let given =
            address.strip_prefix("unix:path=").and_then(|path| path.split([',', ';']).next());
        let bus = match (given, std::env::var_os("XDG_RUNTIME_DIR")) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(directory)) => Path::new(&directory).join("bus"),
            (None, None) => return Ok(None),
        };
        Ok(Some(Manager::User { bus }))
    }
}

impl Wish<'_> {
    /// The driver: systemd when the client says so, or the path has the form
    /// `slice:prefix:name`.
    ///
    /// # Errors
    /// `Field` for a path that is no unit's; `Unsupported` where systemd or cgroup v2 is missing.
    pub fn driver(self, manager: Option<&Manager>, layout: &Layout) -> Result<Driver> {
        let path = self.cgroups_path.filter(|path| !path.as_os_str().is_empty());
        if !(self.option || path.is_some_and(name::is_for_systemd)) {
            return Ok(Driver::Cgroupfs);
        }
        let default_slice = manager.map_or("system.slice", Manager::default_slice);
        let default = PathBuf::from(format!("{default_slice}:myshim:{}", self.id));
        let path = path.unwrap_or(&default);
        let name = UnitName::parse(path, default_slice)?;
        let missing = |what: &str| {
            let why = format!("{FIELD}: {path:?}: the systemd cgroup driver needs {what}");
            Error::new(Kind::Unsupported(why))
        };
        let Some(manager) = manager else {
            return Err(missing(&format!("systemd, which this host does not run ({BOOTED})")));
        };
        if !layout.is_unified() {
            return Err(missing("cgroup v2 alone, and this host has v1 hierarchies"));
        }
        let root = manager.root().at(FIELD)?;
        let root = root.strip_prefix("/").unwrap_or(&root);
        let path = Path::new("/").join(root).join(name.path());
        let description = format!("myshim container {} ({})", self.id, self.state_dir.display());
        let properties = basic(&name, &description);
        let unit = Unit { name: name.unit, manager: manager.clone(), description };
        Ok(Driver::Systemd(UnitPlan { unit, path, properties }))
    }
}

/// What every unit of ours has, whatever its limits.
fn basic(name: &UnitName, description: &str) -> Vec<Property> {
    let yes = |name: &str| Property::new(name, Value::Bool(true));
    let mut properties = vec![
        Property::new("Description", Value::text(description)),
        // Without it nothing is left of a unit that has failed.
        Property::new("CollectMode", Value::text("inactive-or-failed")),
        // At shutdown, systemd stops the client that knows how to stop its containers.
        Property::new("DefaultDependencies", Value::Bool(false)),
        yes("CPUAccounting"),
        yes("MemoryAccounting"),
        yes("IOAccounting"),
        yes("TasksAccounting"),
        // The driver does not decide on limits; systemd's default is 15 % of the host's.
        Property::new("TasksMax", Value::U64(u64::MAX)),
    ];
    if !name.unit.ends_with(".slice") {
        properties.push(Property::new("Slice", Value::text(&name.slice)));
        properties.push(yes("Delegate"));
    }
    properties
}

impl UnitPlan {
    /// Adds what systemd is to know of these writes, and what the annotations say.
    pub(super) fn complete(
        &mut self,
        writes: &[Write],
        annotations: &BTreeMap<String, String>,
    ) -> Result<()> {
        let limits = properties::of(writes)?;
        let given = annotation::properties(annotations, &limits)?;
        let is_given =
            |property: &Property| limits.iter().chain(&given).any(|own| own.name == property.name);
        self.properties.retain(|property| !is_given(property));
        if writes.iter().any(properties::kills_all_at_oom) {
            self.properties.push(Property::new(OOM_POLICY, Value::text("kill")));
        }
        self.properties.extend(limits);
        self.properties.extend(given);
        Ok(())
    }

    /// Whether systemd makes it only with a process in it.
    pub fn needs_process(&self) -> bool {
        !self.unit.is_slice()
    }

    /// Makes the unit.
    pub(super) fn start(&self, resident: Option<u32>) -> Result<()> {
        manager::start(self, resident).at("systemd")
    }
}

impl Unit {
    fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Tells systemd of limits that are about to be written.
    pub(super) fn tell(&self, writes: &[Write]) -> Result<()> {
        let properties = properties::of(writes)?;
        match properties.is_empty() {
            true => Ok(()),
            false => manager::set(self, &properties).at("systemd"),
        }
    }

    /// Takes the unit away, when it is still there and ours. Its processes have ended.
    ///
    /// # Errors
    /// What systemd says, or that it says nothing. A scope ends by itself then, when systemd
    /// comes to it: see [`Unit::ends_by_itself`].
    pub(super) fn stop(&self) -> Result<()> {
        manager::stop(self).at("systemd")
    }

    /// Whether systemd forgets it when its last process has ended.
    pub(super) fn ends_by_itself(&self) -> bool {
        !self.is_slice()
    }
}

#[cfg(test)]
mod tests;
