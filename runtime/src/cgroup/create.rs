//! Making a container's cgroup.
//!
//! On entry nothing is there, or a leaf without processes that an earlier runtime left. On exit
//! each hierarchy has the directory with all limits and the device rules in force, and no
//! process in it yet; or nothing is there that was not there before.
//!
//! Parents that had to be made (`/default` of `/default/web`) stay when the container goes, as
//! with runc: other containers share them, and the next one is made faster. Only a create that
//! fails removes those it made itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::absent::is_denied;
use super::{
    Access, Cgroup, CgroupDirectory, CgroupPaths, CgroupPlan, Hierarchy, Layout, UnitPlan, Version,
    Write, device_control, files, processes, write,
};
use crate::error::{At, Call, Error, Kind, Result};

/// A cgroup just made, with the knowledge of how to undo that.
#[derive(Debug)]
pub struct Created {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// The directories that were made, parents before their children.
    made: Vec<PathBuf>,
}

impl Created {
    /// Removes what was made, and nothing else: a leaf that was there before stays, and so does
    /// a parent that another container uses by now. The container's processes are gone.
    ///
    /// # Errors
    /// As for [`Cgroup::remove`].
    pub fn undo(self) -> Result<()> {
        let mut leaves = self.cgroup.paths.clone();
        if let Some(unit) = leaves.unit.take() {
            let removed = Cgroup { paths: leaves }.remove();
            return unit.stop().and(removed);
        }
        leaves.directories.retain(|directory| self.made.contains(&directory.path));
        Cgroup { paths: leaves }.remove()?;
        remove_made(&self.made)
    }
}

impl Cgroup {
    /// Makes the cgroup in every hierarchy and sets its limits.
    ///
    /// `resident` is a process that is put into the cgroup of a unit that systemd makes; it may
    /// end when another one is in there, and [`Cgroup::resident_has_left`] is to be told then.
    ///
    /// The v2 hierarchy beside v1 ones (“hybrid”) is used for what only it has (cgroup.kill,
    /// events, controllers); when it cannot be written and no limit needs it, it is left out.
    ///
    /// # Errors
    /// `AlreadyExists` when the cgroup is there and has processes in it or is frozen; `Call`
    /// with file and value for what the kernel refuses, at the step of the spec's field.
    pub fn create(plan: &CgroupPlan, layout: &Layout, resident: Option<u32>) -> Result<Created> {
        if let Some(unit) = plan.unit() {
            let paths = build_unit(plan, unit, layout, resident)?;
            return Ok(Created { cgroup: Cgroup { paths }, made: Vec::new() });
        }
        let mut made = Vec::new();
        match build(plan, layout, &mut made) {
            Ok(paths) => Ok(Created { cgroup: Cgroup { paths }, made }),
            Err(error) => match remove_made(&made) {
                Ok(()) => Err(error),
                Err(undo) => Err(error.at(format!("undo left something behind ({undo})"))),
            },
        }
    }
}

/// Makes the unit, and in its directory what systemd knows nothing of.
fn build_unit(
    plan: &CgroupPlan,
    unit: &UnitPlan,
    layout: &Layout,
    resident: Option<u32>,
) -> Result<CgroupPaths> {
    let Some(hierarchy) = &layout.v2 else {
        return Err(Error::new(Kind::Unsupported("there is no cgroup v2 hierarchy".into())));
    };
    unit.start(resident)?;
    let leaf = below(&hierarchy.mount_point, &plan.path);
    let furnish = || {
        let directory = open_v2(hierarchy, &plan.path, leaf, &needed_controllers(plan))?;
        let directories = vec![directory];
        let paths = CgroupPaths { directories, unit: Some(unit.unit.clone()) };
        let writes: Vec<Write> = match resident {
            Some(_) => plan.writes.iter().map(Write::with_room_for_one).collect(),
            None => plan.writes.clone(),
        };
        write::apply(&writes, &paths).at("set limits")?;
        set_device_rules(plan, &paths)?;
        Ok(paths)
    };
    furnish().map_err(|error: Error| {
        let undone = unit.unit.stop().err();
        error.with_undo(undone.into_iter().collect())
    })
}

fn build(plan: &CgroupPlan, layout: &Layout, made: &mut Vec<PathBuf>) -> Result<CgroupPaths> {
    let mut paths = CgroupPaths::default();
    for hierarchy in &layout.v1 {
        let leaf = make_leaf(hierarchy, &plan.path, made)
            .at_with(|| format!("make the cgroup in hierarchy {}", hierarchy.title()))?;
        if hierarchy.controllers.iter().any(|controller| controller == "cpuset") {
            inherit_cpuset(&hierarchy.mount_point, &leaf, made.contains(&leaf))?;
        }
        let controllers = hierarchy.controllers.clone();
        paths.directories.push(CgroupDirectory { version: Version::V1, controllers, path: leaf });
    }
    if let Some(hierarchy) = &layout.v2 {
        let needed = needed_controllers(plan);
        let before = made.len();
        match make_v2(hierarchy, &plan.path, &needed, made) {
            Ok(directory) => paths.directories.push(directory),
            Err(error) if is_optional(layout, plan) && is_denied(&error) => {
                remove_made(&made.split_off(before))?;
            }
            Err(error) => return Err(error.at("make the cgroup in hierarchy v2")),
        }
    }
    write::apply(&plan.writes, &paths).at("set limits")?;
    set_device_rules(plan, &paths)?;
    Ok(paths)
}

fn set_device_rules(plan: &CgroupPlan, paths: &CgroupPaths) -> Result<()> {
    let Some(devices) = &plan.devices else { return Ok(()) };
    device_control::enforce(devices, paths).at("set device rules")
}

impl Cgroup {
    /// To be called when the process that a unit was made with has ended, and another one is in:
    /// until then the limit on processes has room for both.
    ///
    /// # Errors
    /// `Call` for what the kernel refuses.
    pub fn resident_has_left(&self, plan: &CgroupPlan) -> Result<()> {
        let limits: Vec<Write> =
            plan.writes.iter().filter(|write| write.limits_processes()).cloned().collect();
        match write::apply(&limits, &self.paths).at("set limits") {
            // The other one has ended as well, and the unit with it: its end will be told.
            Err(_) if self.paths.v2().is_some_and(|v2| !v2.exists()) => Ok(()),
            result => result,
        }
    }
}

fn is_optional(layout: &Layout, plan: &CgroupPlan) -> bool {
    let has_devices = layout.v1.iter().flat_map(|h| &h.controllers).any(|c| c == "devices");
    has_devices && plan.writes.iter().all(|write| write.version == Version::V1)
}

fn needed_controllers(plan: &CgroupPlan) -> BTreeSet<&str> {
    let v2 = plan.writes.iter().filter(|write| write.version == Version::V2);
    v2.map(|write| write.controller.as_str()).filter(|controller| !controller.is_empty()).collect()
}

/// Makes the directory and those above it that are not there. The usual case, where the parent
/// is there, is one mkdir(2).
fn make_leaf(hierarchy: &Hierarchy, path: &Path, made: &mut Vec<PathBuf>) -> Result<PathBuf> {
    if hierarchy.access == Access::ReadOnly {
        return Err(Error::new(Kind::Unsupported(format!(
            "{} is mounted read-only",
            hierarchy.mount_point.display()
        ))));
    }
    let leaf = below(&hierarchy.mount_point, path);
    // A parent may be removed between two steps, by the undo of another create.
    for _ in 0..8 {
        match rustix::fs::mkdir(&leaf, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                made.push(leaf.clone());
                return Ok(leaf);
            }
            Err(Errno::EXIST) => {
                refuse_in_use(&leaf)?;
                return Ok(leaf);
            }
            Err(Errno::NOENT) => make_parents(&hierarchy.mount_point, path, made)?,
            Err(errno) => return Err(errno).call(|| format!("mkdir({})", leaf.display())),
        }
    }
    Err(Errno::NOENT).call(|| format!("mkdir({})", leaf.display()))
}

fn make_parents(mount_point: &Path, path: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    for parent in parents(path) {
        let parent = below(mount_point, parent);
        match rustix::fs::mkdir(&parent, Mode::from_raw_mode(0o755)) {
            Ok(()) => made.push(parent),
            // NOENT: another create's undo removed the one above; the caller begins anew.
            Err(Errno::EXIST | Errno::NOENT) => {}
            Err(errno) => return Err(errno).call(|| format!("mkdir({})", parent.display())),
        }
    }
    Ok(())
}

/// The paths above this one, from the top, without the top itself.
fn parents(path: &Path) -> Vec<&Path> {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
    parents.pop();
    parents.reverse();
    parents
}

/// `path`, which is absolute, below a mount point.
fn below(mount_point: &Path, path: &Path) -> PathBuf {
    mount_point.join(path.strip_prefix("/").unwrap_or(path))
}

/// A cgroup that is there already may be used when it is empty: a runtime before us may have
/// died, or a manager prepared it. One with processes belongs to somebody; in a frozen one init
/// would stop before it could say anything.
fn refuse_in_use(leaf: &Path) -> Result<()> {
    let pids = processes::in_directory(leaf)?;
    let frozen = [("cgroup.freeze", "1"), ("freezer.state", "FROZEN")]
        .iter()
        .any(|(file, frozen)| files::try_read(&leaf.join(file)).is_ok_and(|c| c.trim() == *frozen));
    match (pids.as_slice(), frozen) {
        ([], false) => Ok(()),
        ([], true) => Err(Error::new(Kind::AlreadyExists(format!(
            "cgroup {} (it is frozen)",
            leaf.display()
        )))),
        (pids, _) => Err(Error::new(Kind::AlreadyExists(format!(
            "cgroup {} (with processes {pids:?} in it)",
            leaf.display()
        )))),
    }
}

/// A new v1 cpuset is empty, and no process can enter it before it has CPUs and memory nodes
/// (cgroup.clone_children would copy them, but is off by default and not ours to set on
/// parents). Parents that are empty, too, are filled from the top.
fn inherit_cpuset(mount_point: &Path, leaf: &Path, is_new: bool) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        match leaf.parent() {
            Some(parent) if is_new => fill_from_parent(mount_point, parent, file)
                .and_then(|inherited| files::write(&leaf.join(file), inherited.trim())),
            _ => fill_from_parent(mount_point, leaf, file).map(drop),
        }
        .at("copy the cpuset of the parent")?;
    }
    Ok(())
}

fn fill_from_parent(mount_point: &Path, directory: &Path, file: &str) -> Result<String> {
    let own = files::read(&directory.join(file))?;
    match directory.parent() {
        Some(parent) if own.trim().is_empty() && directory != mount_point => {
            let inherited = fill_from_parent(mount_point, parent, file)?;
            files::write(&directory.join(file), inherited.trim())?;
            Ok(inherited)
        }
        _ => Ok(own),
    }
}

/// Makes the v2 leaf with all controllers that can be had, since metrics come from them.
fn make_v2(
    hierarchy: &Hierarchy,
    path: &Path,
    needed: &BTreeSet<&str>,
    made: &mut Vec<PathBuf>,
) -> Result<CgroupDirectory> {
    let leaf = make_leaf(hierarchy, path, made)?;
    open_v2(hierarchy, path, leaf, needed)
}

fn open_v2(
    hierarchy: &Hierarchy,
    path: &Path,
    leaf: PathBuf,
    needed: &BTreeSet<&str>,
) -> Result<CgroupDirectory> {
    let controllers = match leaf.parent() {
        Some(parent) => enable_controllers(hierarchy, path, parent, needed)?,
        None => Vec::new(),
    };
    let kind = files::read(&leaf.join("cgroup.type"))?;
    match kind.trim() {
        "domain" | "domain threaded" => {}
        kind => {
            return Err(Error::new(Kind::Unsupported(format!(
                "cgroup {} is {kind}: a parent is threaded, and only threads of that parent's \
                 processes can be in it; choose another linux.cgroupsPath",
                leaf.display()
            ))));
        }
    }
    Ok(CgroupDirectory { version: Version::V2, controllers, path: leaf })
}

/// A directory has the files of those controllers that every directory above it lists in its
/// cgroup.subtree_control. Returns those of the leaf.
fn enable_controllers(
    hierarchy: &Hierarchy,
    path: &Path,
    parent: &Path,
    needed: &BTreeSet<&str>,
) -> Result<Vec<String>> {
    let wanted = &hierarchy.controllers;
    let enabled = enabled_in(parent)?;
    if wanted.iter().all(|controller| enabled.contains(controller)) {
        return Ok(enabled);
    }
    for directory in std::iter::once(Path::new("/")).chain(parents(path)) {
        let directory = below(&hierarchy.mount_point, directory);
        let enabled = enabled_in(&directory)?;
        let missing = wanted.iter().map(String::as_str);
        let missing = missing.filter(|name| !enabled.iter().any(|enabled| enabled == name));
        enable_missing(&directory, missing.collect(), needed)?;
    }
    enabled_in(parent)
}

/// Controllers that work in threaded cgroups as well (cgroups(7)).
const THREADED: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];

/// One controller at a time: a write of several is refused as a whole when one is not to be had
/// (cpu while there are realtime processes, one that the parent does not have).
///
/// Threaded ones go last. Where the cgroup has processes the kernel refuses the others with EBUSY,
/// and would take these by making it the root of a threaded subtree, in which no container can be.
fn enable_missing(directory: &Path, mut missing: Vec<&str>, needed: &BTreeSet<&str>) -> Result<()> {
    missing.sort_by_key(|name| (THREADED.contains(name), !needed.contains(name)));
    let path = directory.join("cgroup.subtree_control");
    for controller in &missing {
        let Err(error) = files::write(&path, &format!("+{controller}")) else { continue };
        let busy = error.errno() == Some(nix::errno::Errno::EBUSY);
        if needed.contains(controller) || busy && missing.iter().any(|name| needed.contains(name)) {
            return Err(why_not_enabled(error));
        }
        // Without this controller nothing is lost but its metrics.
        if busy {
            break;
        }
    }
    Ok(())
}

fn why_not_enabled(error: Error) -> Error {
    let why = match error.errno() {
        Some(nix::errno::Errno::EBUSY) => {
            "the cgroup above has processes of its own, so its children can have no limits \
             (cgroups(7), no internal processes)"
        }
        Some(nix::errno::Errno::EOPNOTSUPP) => "the cgroup above is threaded",
        _ => "enable a controller that a limit needs",
    };
    error.at(why)
}

fn enabled_in(directory: &Path) -> Result<Vec<String>> {
    let content = files::read(&directory.join("cgroup.subtree_control"))?;
    Ok(content.split_whitespace().map(str::to_owned).collect())
}

/// Removes what was made, children first. What others use by now stays.
fn remove_made(made: &[PathBuf]) -> Result<()> {
    for directory in made.iter().rev() {
        match rustix::fs::rmdir(directory) {
            Ok(()) | Err(Errno::BUSY | Errno::NOTEMPTY | Errno::NOENT) => {}
            Err(errno) => return Err(errno).call(|| format!("rmdir({})", directory.display())),
        }
    }
    Ok(())
}
