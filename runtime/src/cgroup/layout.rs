//! Which hierarchies this host has: from /proc/self/mountinfo, proc_pid_mountinfo(5).

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Version, files};
use crate::error::{At, Call, Error, Kind, Result};

/// The hierarchies of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The v1 hierarchies, in the order they are mounted.
    pub v1: Vec<Hierarchy>,
    /// The v2 hierarchy: the only one, or (“hybrid”) one beside those of v1.
    pub v2: Option<Hierarchy>,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Its controllers; none for a named v1 hierarchy. Pseudo controllers of v2 (freezer,
    /// devices, perf_event) are not listed by the kernel, and not here.
    pub controllers: Vec<String>,
    /// The name of a named v1 hierarchy (`systemd`).
    pub name: Option<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Which of its directories is mounted there: `/`, unless it is a part of the tree, as in a
    /// container without a cgroup namespace.
    pub root: PathBuf,
    /// Whether the mount allows changes.
    pub access: Access,
}

/// What a mount allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Mounted read-write.
    ReadWrite,
    /// Mounted read-only.
    ReadOnly,
}

impl Layout {
    /// The hierarchies that are mounted for this process. Reads mountinfo once, and the
    /// controllers of v2 when it is mounted.
    ///
    /// # Errors
    /// `Unsupported` where no hierarchy is mounted.
    pub fn detect() -> Result<Layout> {
        let path = "/proc/self/mountinfo";
        let mountinfo = files::try_read_list(Path::new(path)).call(|| format!("read({path})"))?;
        let mut layout = Layout::parse(&mountinfo);
        if let Some(v2) = &mut layout.v2 {
            let controllers = files::read(&v2.mount_point.join("cgroup.controllers"))
                .at("find the cgroup v2 controllers")?;
            v2.controllers = controllers.split_whitespace().map(str::to_owned).collect();
        }
        if layout.v1.is_empty() && layout.v2.is_none() {
            return Err(Error::new(Kind::Unsupported(
                "no cgroup hierarchy is mounted (mount cgroup2 on /sys/fs/cgroup)".to_owned(),
            )));
        }
        Ok(layout)
    }

    /// All of them, v1 first.
    pub fn hierarchies(&self) -> impl Iterator<Item = (Version, &Hierarchy)> {
        let v1 = self.v1.iter().map(|hierarchy| (Version::V1, hierarchy));
        v1.chain(self.v2.iter().map(|hierarchy| (Version::V2, hierarchy)))
    }

    /// Whether v2 is all there is, so that the host's metrics are those of v2.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    fn parse(mountinfo: &str) -> Layout {
        let mut layout = Layout::default();
        for mount in mountinfo.lines().filter_map(parse_mount) {
            match mount {
                (Version::V1, hierarchy) => {
                    // A hierarchy that is bound elsewhere, too, counts where it was first.
                    if !layout.v1.iter().any(|known| known.is_same_as(&hierarchy)) {
                        layout.v1.push(hierarchy);
                    }
                }
                (Version::V2, hierarchy) => {
                    layout.v2.get_or_insert(hierarchy);
                }
            }
        }
        layout
    }
}

impl Hierarchy {
    fn is_same_as(&self, other: &Hierarchy) -> bool {
        self.controllers == other.controllers && self.name == other.name
    }

    /// What a message calls it: `memory`, `cpu,cpuacct`, `name=systemd` or `v2`.
    pub fn title(&self) -> String {
        match (&self.name, self.controllers.is_empty()) {
            (Some(name), true) => format!("name={name}"),
            (_, false) => self.controllers.join(","),
            (None, true) => "v2".to_owned(),
        }
    }
}

/// A line like `36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices`.
fn parse_mount(line: &str) -> Option<(Version, Hierarchy)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let version = match filesystem.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let super_options = filesystem.nth(1).unwrap_or_default();
    let mut mount = mount.split(' ').skip(3);
    let root = unescape(mount.next()?);
    let mount_point = unescape(mount.next()?);
    let mount_options = mount.next()?;
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let access = match read_only(mount_options) || read_only(super_options) {
        true => Access::ReadOnly,
        false => Access::ReadWrite,
    };
    let (controllers, name) = match version {
        Version::V1 => parse_v1_options(super_options),
        Version::V2 => (Vec::new(), None),
    };
    Some((version, Hierarchy { controllers, name, mount_point, root, access }))
}

/// A v1 hierarchy's super block options are its controllers and a few flags, cgroups(7).
fn parse_v1_options(options: &str) -> (Vec<String>, Option<String>) {
    const FLAGS: [&str; 8] = [
        "rw",
        "ro",
        "none",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "favordynmods",
    ];
    let mut controllers = Vec::new();
    let mut name = None;
    for option in options.split(',') {
        match option.split_once('=') {
            Some(("name", value)) => name = Some(value.to_owned()),
            Some(_) => {}
            None if FLAGS.contains(&option) => {}
            None => controllers.push(option.to_owned()),
        }
    }
    (controllers, name)
}

/// mountinfo writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'\\', [a, b, c, ..]) => std::str::from_utf8(&[*a, *b, *c])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(first));
        rest = tail.get(if escaped.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/system\\040d rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
38 31 0:35 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
40 31 0:32 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn a_hybrid_host_has_v1_hierarchies_and_one_of_v2() {
        let layout = Layout::parse(HYBRID);
        let titles: Vec<String> = layout.hierarchies().map(|(_, h)| h.title()).collect();
        assert_eq!(titles, ["cpu,cpuacct", "memory", "name=systemd", "v2"]);
        assert!(!layout.is_unified());
    }

    #[test]
    fn a_read_only_mount_of_a_subtree_is_known_as_such() {
        let layout = Layout::parse(HYBRID);
        assert_eq!(layout.v1[1].access, Access::ReadOnly);
        assert_eq!(layout.v1[1].root, Path::new("/docker/ab"));
        assert_eq!(layout.v1[0].access, Access::ReadWrite);
    }

    #[test]
    fn an_escaped_mount_point_is_read_as_it_is() {
        let layout = Layout::parse(HYBRID);
        assert_eq!(layout.v1[2].mount_point, Path::new("/sys/fs/cgroup/system d"));
        assert_eq!(unescape("a\\134b\\0"), Path::new("a\\b\\0"));
    }

    #[test]
    fn this_host_has_a_layout() {
        let layout = Layout::detect().unwrap();
        assert!(layout.hierarchies().count() > 0);
        for (_, hierarchy) in layout.hierarchies() {
            assert!(hierarchy.mount_point.join("cgroup.procs").exists());
        }
    }
}
