//! Intel RDT: a container's resource group in resctrl (runtime-spec, config-linux.md, "IntelRdt";
//! kernel documentation, filesystems/resctrl.rst).
//!
//! ```text
//! <root>/schemata, tasks, info/last_cmd_status
//! <root>/<closID>/schemata, tasks           a class of service: limits
//! <root>/<closID>/mon_groups/<id>/tasks     a monitoring group: counters of one container
//! ```
//!
//! Groups are directories whose files the kernel makes and unmakes with them.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::IntelRdt;

/// The groups of a container, and which of them are its own. Part of the state file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdtGroups {
    /// What its processes join, in order: the class, then the monitoring group.
    pub joined: Vec<PathBuf>,
    /// What was made for it and goes with it, in order.
    pub made: Vec<PathBuf>,
    /// A class that the spec names and that was made: another container may have joined it.
    pub made_named: Option<PathBuf>,
}

/// Makes (or, for a class that the spec names, finds) the groups of the container `id` below
/// `root`, where resctrl is mounted, and sets the class's limits.
///
/// # Errors
/// [`Kind::Field`] when a named class has other limits than those wanted, or none are wanted and
/// it is not there; else the call that failed with the kernel's last_cmd_status. Nothing is left
/// then.
pub fn prepare(root: &Path, rdt: &IntelRdt, id: &str) -> Result<RdtGroups> {
    let mut groups = RdtGroups::default();
    match fill(&mut groups, root, rdt, id) {
        Ok(()) => Ok(groups),
        Err(error) => Err(match groups.remove() {
            Ok(()) => error,
            Err(second) => error.at(format!("(and on the way back: {second})")),
        }),
    }
}

fn fill(groups: &mut RdtGroups, root: &Path, rdt: &IntelRdt, id: &str) -> Result<()> {
    let class = class_directory(root, rdt);
    let must_exist = rdt.clos_id_given && rdt.schemata.is_empty();
    let found = if must_exist { require(&class, rdt) } else { make(root, &class) }?;
    groups.joined.push(class.clone());
    match found {
        Found::Made if rdt.clos_id_given => groups.made_named = Some(class.clone()),
        Found::Made => groups.made.push(class.clone()),
        Found::There => {}
    }
    if rdt.enable_monitoring {
        let monitoring = class.join("mon_groups").join(id);
        if make(root, &monitoring)? == Found::Made {
            // Before the class; though the kernel would remove both with that.
            groups.made.insert(0, monitoring.clone());
        }
        groups.joined.push(monitoring);
    }
    set_schemata(root, &class, rdt, found)
}

/// `/` is the root group itself.
fn class_directory(root: &Path, rdt: &IntelRdt) -> PathBuf {
    if rdt.clos_id == "/" { root.to_owned() } else { root.join(&rdt.clos_id) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Made,
    There,
}

fn make(root: &Path, directory: &Path) -> Result<Found> {
    match mkdirat(CWD, directory, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(Found::Made),
        Err(Errno::EXIST) => Ok(Found::There),
        Err(errno) => Err(explained(root, format!("mkdir({directory:?}, 0755)"), errno)),
    }
}

fn require(class: &Path, rdt: &IntelRdt) -> Result<Found> {
    match rustix::fs::stat(class) {
        Ok(_) => Ok(Found::There),
        Err(Errno::NOENT) => Err(Error::field(
            "linux.intelRdt.closID",
            format!("class {:?} does not exist, and there are no schemata to make it", rdt.clos_id),
        )),
        Err(errno) => Err(errno).call(|| format!("stat({class:?})")),
    }
}

/// Two writes: the kernel refuses one with two values for a domain, and `schemata` override the
/// others.
fn set_schemata(root: &Path, class: &Path, rdt: &IntelRdt, found: Found) -> Result<()> {
    let (first, last) = rdt.schemata.split_at(rdt.lines_to_match.min(rdt.schemata.len()));
    if found == Found::There && rdt.clos_id_given {
        must_match(class, first)?;
    } else {
        write_lines(root, class, first)?;
    }
    write_lines(root, class, last)
}

fn write_lines(root: &Path, class: &Path, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    write_file(root, &class.join("schemata"), &text)
}

/// Others may run in a class that the spec names: what they have is not changed.
fn must_match(class: &Path, wanted: &[String]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let path = class.join("schemata");
    let present = std::fs::read_to_string(&path).call(|| format!("read({path:?})"))?;
    let has = |domain: Domain<'_>| present.lines().flat_map(domains).any(|other| other == domain);
    let differs = wanted.iter().find(|line| !domains(line).all(has));
    differs.map_or(Ok(()), |line| {
        let why = format!("class {class:?} exists and does not have {line:?}");
        Err(Error::field("linux.intelRdt", why))
    })
}

/// One value of a schemata line: `L3:0=ff;1=f0` has two.
#[derive(Debug, Clone, Copy)]
struct Domain<'a> {
    resource: &'a str,
    id: &'a str,
    value: &'a str,
}

fn domains(line: &str) -> impl Iterator<Item = Domain<'_>> {
    let (resource, values) = line.split_once(':').unwrap_or((line, ""));
    values.split(';').map(move |value| {
        let (id, value) = value.split_once('=').unwrap_or((value, ""));
        Domain { resource: resource.trim(), id: id.trim(), value: value.trim() }
    })
}

impl PartialEq for Domain<'_> {
    /// The kernel prints leading zeros or not, as it likes.
    fn eq(&self, other: &Self) -> bool {
        let bare = |value: &str| value.trim_start_matches('0').to_ascii_lowercase();
        self.resource == other.resource
            && bare(self.id) == bare(other.id)
            && bare(self.value) == bare(other.value)
    }
}

impl RdtGroups {
    /// Moves the process `pid` into the groups; what it forks later is in them too.
    ///
    /// # Errors
    /// The write that failed, with the kernel's last_cmd_status.
    pub fn join(&self, root: &Path, pid: i32) -> Result<()> {
        let step = || format!("process {pid} into its resource groups");
        for group in &self.joined {
            write_file(root, &group.join("tasks"), &format!("{pid}\n")).at_with(step)?;
        }
        Ok(())
    }

    /// Removes what was made; that it is gone already is no error. A named class stays while
    /// others are in it: the kernel would move them into the root group.
    ///
    /// # Errors
    /// The first failure; the others are tried nevertheless.
    pub fn remove(&self) -> Result<()> {
        let mut result = Ok(());
        let abandoned = self.made_named.iter().filter(|class| !is_occupied(class));
        for group in self.made.iter().chain(abandoned) {
            let removed = match unlinkat(CWD, group, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(errno).call(|| format!("rmdir({group:?})")),
            };
            result = result.and(removed);
        }
        result
    }
}

/// Where the tasks cannot be read, the attempt to remove the class tells why.
fn is_occupied(class: &Path) -> bool {
    std::fs::read(class.join("tasks")).is_ok_and(|tasks| !tasks.is_empty())
}

/// One write is one command.
fn write_file(root: &Path, path: &Path, text: &str) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::from_raw_mode(0o644))
        .call(|| format!("openat(AT_FDCWD, {path:?}, O_WRONLY)"))?;
    let call = || format!("write({path:?}, {text:?})");
    match rustix::io::write(&file, text.as_bytes()) {
        Ok(written) if written == text.len() => Ok(()),
        Ok(written) => {
            Err(Error::new(Kind::Corrupt(format!("{}: only {written} bytes taken", call()))))
        }
        Err(errno) => Err(explained(root, call(), errno)),
    }
}

/// An errno of resctrl says little; the reason is in a file, and stays there until the next command.
fn explained(root: &Path, call: String, errno: Errno) -> Error {
    let status = std::fs::read_to_string(root.join("info/last_cmd_status"));
    let reason = status.map(|text| text.trim().to_owned()).unwrap_or_default();
    match reason.as_str() {
        "" | "ok" => Error::call(call, errno),
        reason => Error::call(format!("{call} ({reason})"), errno),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with the files of resctrl: unlike the kernel it neither checks what is written
    /// nor makes and unmakes a group's files with its directory.
    struct FolderLikeResctrl(PathBuf);

    impl FolderLikeResctrl {
        fn new(name: &str) -> FolderLikeResctrl {
            let root = std::env::temp_dir().join(format!("resctrl-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("info")).unwrap();
            fs::write(root.join("info/last_cmd_status"), "ok\n").unwrap();
            FolderLikeResctrl(root)
        }

        fn group(&self, name: &str, schemata: &str) {
            fs::create_dir_all(self.0.join(name).join("mon_groups")).unwrap();
            fs::write(self.0.join(name).join("schemata"), schemata).unwrap();
            fs::write(self.0.join(name).join("tasks"), "").unwrap();
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.0.join(path)).unwrap()
        }

        fn has(&self, path: &str) -> bool {
            self.0.join(path).exists()
        }

        /// What the kernel does with the files of a group that is removed.
        fn drop_files(&self, group: &str) {
            for file in ["schemata", "tasks"] {
                fs::remove_file(self.0.join(group).join(file)).ok();
            }
        }
    }

    impl Drop for FolderLikeResctrl {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn named(class: &str, schemata: &[&str], lines_to_match: usize) -> IntelRdt {
        IntelRdt {
            clos_id: class.into(),
            clos_id_given: true,
            schemata: schemata.iter().map(|line| (*line).into()).collect(),
            lines_to_match,
            enable_monitoring: false,
        }
    }

    #[test]
    fn in_a_folder_like_resctrl_a_container_gets_a_class_that_goes_with_it() {
        let resctrl = FolderLikeResctrl::new("own");
        let rdt = IntelRdt { clos_id_given: false, ..named("web", &["L3:0=f", "MB:0=20"], 2) };
        let groups = prepare(&resctrl.0, &rdt, "web").unwrap();
        assert_eq!(resctrl.read("web/schemata"), "L3:0=f\nMB:0=20\n");
        groups.join(&resctrl.0, 42).unwrap();
        assert_eq!(resctrl.read("web/tasks"), "42\n");
        resctrl.drop_files("web");
        groups.remove().unwrap();
        assert!(!resctrl.has("web"));
        groups.remove().unwrap();
    }

    #[test]
    fn in_a_folder_like_resctrl_a_named_class_that_was_made_stays_while_others_are_in_it() {
        let resctrl = FolderLikeResctrl::new("shared");
        let groups = prepare(&resctrl.0, &named("gold", &["L3:0=f"], 1), "web").unwrap();
        groups.join(&resctrl.0, 42).unwrap();
        groups.remove().unwrap();
        assert!(resctrl.has("gold"));
        fs::write(resctrl.0.join("gold/tasks"), "").unwrap();
        fs::remove_file(resctrl.0.join("gold/schemata")).unwrap();
        // The folder cannot be removed with a file in it, but it is tried.
        assert!(groups.remove().unwrap_err().to_string().contains("ENOTEMPTY"));
    }

    #[test]
    fn in_a_folder_like_resctrl_the_lines_of_schemata_are_written_last() {
        let resctrl = FolderLikeResctrl::new("last");
        let rdt = named("gold", &["L3:0=f", "MB:0=20", "L3:0=ff"], 2);
        prepare(&resctrl.0, &rdt, "web").unwrap();
        // The folder keeps the last write only.
        assert_eq!(resctrl.read("gold/schemata"), "L3:0=ff\n");
    }

    #[test]
    fn in_a_folder_like_resctrl_a_class_that_exists_is_joined_and_never_removed() {
        let resctrl = FolderLikeResctrl::new("existing");
        resctrl.group("gold", "    MB:0=100\n    L3:0=0ff;1=0f\n");
        let groups = prepare(&resctrl.0, &named("gold", &["L3:1=F"], 1), "web").unwrap();
        assert!(resctrl.read("gold/schemata").starts_with("    MB:0=100"));
        groups.join(&resctrl.0, 42).unwrap();
        groups.remove().unwrap();
        assert_eq!(resctrl.read("gold/tasks"), "42\n");
    }

    #[test]
    fn in_a_folder_like_resctrl_a_class_with_other_limits_is_refused() {
        let resctrl = FolderLikeResctrl::new("other");
        resctrl.group("gold", "L3:0=ff\n");
        let error = prepare(&resctrl.0, &named("gold", &["L3:0=f"], 1), "web").unwrap_err();
        assert!(error.to_string().ends_with("exists and does not have \"L3:0=f\""), "{error}");
        assert_eq!(resctrl.read("gold/schemata"), "L3:0=ff\n");
    }

    #[test]
    fn in_a_folder_like_resctrl_a_named_class_without_schemata_must_exist() {
        let resctrl = FolderLikeResctrl::new("missing");
        let error = prepare(&resctrl.0, &named("gold", &[], 0), "web").unwrap_err().to_string();
        assert!(
            error.starts_with("linux.intelRdt.closID: class \"gold\" does not exist"),
            "{error}"
        );
        assert!(!resctrl.has("gold"));
    }

    #[test]
    fn in_a_folder_like_resctrl_the_class_named_slash_is_the_root() {
        let resctrl = FolderLikeResctrl::new("slash");
        let groups = prepare(&resctrl.0, &named("/", &[], 0), "web").unwrap();
        groups.join(&resctrl.0, 42).unwrap();
        assert_eq!(resctrl.read("tasks"), "42\n");
        groups.remove().unwrap();
    }

    #[test]
    fn in_a_folder_like_resctrl_a_monitoring_group_is_made_joined_and_removed_alone() {
        let resctrl = FolderLikeResctrl::new("monitoring");
        resctrl.group("gold", "L3:0=ff\n");
        let rdt = IntelRdt { enable_monitoring: true, ..named("gold", &[], 0) };
        let groups = prepare(&resctrl.0, &rdt, "web").unwrap();
        groups.join(&resctrl.0, 42).unwrap();
        assert_eq!(resctrl.read("gold/tasks"), "42\n");
        assert_eq!(resctrl.read("gold/mon_groups/web/tasks"), "42\n");
        resctrl.drop_files("gold/mon_groups/web");
        groups.remove().unwrap();
        assert!(!resctrl.has("gold/mon_groups/web"));
        assert!(resctrl.has("gold/tasks"));
    }

    #[test]
    fn in_a_folder_like_resctrl_a_failure_half_way_removes_what_was_made() {
        let resctrl = FolderLikeResctrl::new("half");
        // The folder has no mon_groups in a new class, so that this step fails.
        let rdt = IntelRdt { enable_monitoring: true, ..named("new", &["L3:0=f"], 1) };
        let error = prepare(&resctrl.0, &rdt, "web").unwrap_err().to_string();
        assert!(error.contains("mon_groups/web\", 0755): ENOENT"), "{error}");
        assert!(!resctrl.has("new"));
    }

    #[test]
    fn in_a_folder_like_resctrl_the_reason_of_a_failure_is_told() {
        let resctrl = FolderLikeResctrl::new("reason");
        fs::write(resctrl.0.join("info/last_cmd_status"), "Non-consecutive 1-bits in mask\n")
            .unwrap();
        let error = explained(&resctrl.0, "write(…)".into(), Errno::INVAL);
        assert_eq!(
            error.to_string(),
            "write(…) (Non-consecutive 1-bits in mask): EINVAL: Invalid argument"
        );
    }
}
