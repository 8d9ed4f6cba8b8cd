//! What of the host is configuration: cgroups, systemd, security modules, privileges, programs.

use std::fs;
use std::path::{Path, PathBuf};

use runtime::cgroup::{Access, Version};
use runtime::plan::host::{Lsm, Privilege};
use runtime::{Call, Error, Result};

use super::Without::{Nothing, This};
use super::{Bench, Probe};

pub(super) const PROBES: &[Probe] = &[
    Probe { name: "root", without: Nothing, look: root },
    Probe {
        name: "CAP_SYS_RESOURCE",
        without: This(
            "oom_score_adj cannot be lowered: set restrict_oom_score_adj = true in containerd's CRI",
        ),
        look: may_lower,
    },
    Probe { name: "cgroups", without: Nothing, look: cgroups },
    Probe {
        name: "cgroup cpu",
        without: This("limits of CPU time are refused"),
        look: |bench| controller(bench, "cpu"),
    },
    Probe {
        name: "cgroup cpuset",
        without: This("limits to some CPUs are refused"),
        look: |bench| controller(bench, "cpuset"),
    },
    Probe {
        name: "cgroup memory",
        without: This("limits of memory are refused, no OOM events"),
        look: |bench| controller(bench, "memory"),
    },
    Probe {
        name: "cgroup pids",
        without: This("limits of processes are refused"),
        look: |bench| controller(bench, "pids"),
    },
    Probe {
        name: "cgroup io",
        without: This("limits of block devices are refused"),
        look: |bench| either(bench, "io", "blkio"),
    },
    Probe {
        name: "cgroup hugetlb",
        without: This("limits of huge pages are refused"),
        look: |bench| controller(bench, "hugetlb"),
    },
    Probe { name: "systemd", without: This("SystemdCgroup = true is refused"), look: systemd },
    Probe {
        name: "security labels",
        without: This("process.apparmorProfile and process.selinuxLabel are refused"),
        look: labels,
    },
    Probe { name: "Intel RDT", without: This("linux.intelRdt is refused"), look: resctrl },
    Probe {
        name: "newuidmap, newgidmap",
        without: This("only root has user namespaces with more than one id"),
        look: map_programs,
    },
];

fn root(bench: &Bench) -> Result<String> {
    match bench.host.privilege {
        Privilege::Root => Ok("of the host".to_owned()),
        Privilege::RootOfNamespace => {
            Ok("of a user namespace: what belongs to the host cannot be changed".to_owned())
        }
        Privilege::User => Err(Error::argument("user", "is not root")),
    }
}

/// CAP_SYS_RESOURCE of linux/capability.h.
const SYS_RESOURCE: u32 = 24;

fn may_lower(_: &Bench) -> Result<String> {
    let path = "/proc/self/status";
    let text = fs::read_to_string(path).call(|| format!("read({path:?})"))?;
    let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    match effective.map(|set| set >> SYS_RESOURCE & 1) {
        Some(1) => Ok("effective".to_owned()),
        _ => Err(Error::argument("CAP_SYS_RESOURCE", "is not effective")),
    }
}

fn cgroups(bench: &Bench) -> Result<String> {
    let layout = &bench.host.cgroups;
    let locked = layout.hierarchies().find(|(_, hierarchy)| hierarchy.access == Access::ReadOnly);
    if let Some((_, hierarchy)) = locked {
        let path = hierarchy.mount_point.display().to_string();
        return Err(Error::argument(path, "is mounted read-only"));
    }
    Ok(match (layout.is_unified(), layout.v2.is_some()) {
        (true, _) => "v2".to_owned(),
        (false, true) => format!("v1, with v2 beside it (hybrid): {} hierarchies", layout.v1.len()),
        (false, false) => format!("v1: {} hierarchies", layout.v1.len()),
    })
}

fn controller(bench: &Bench, name: &str) -> Result<String> {
    let has = |(_, hierarchy): &(Version, &runtime::cgroup::Hierarchy)| {
        hierarchy.controllers.iter().any(|controller| controller == name)
    };
    match bench.host.cgroups.hierarchies().find(has) {
        Some((_, hierarchy)) => Ok(hierarchy.mount_point.display().to_string()),
        None => Err(Error::argument(format!("controller {name}"), "is in no hierarchy")),
    }
}

fn either(bench: &Bench, v2: &str, v1: &str) -> Result<String> {
    controller(bench, v2).or_else(|_| controller(bench, v1))
}

fn systemd(_: &Bench) -> Result<String> {
    // sd_booted(3).
    fs::metadata("/run/systemd/system").call(|| "stat(/run/systemd/system)".to_owned())?;
    let bus = "/run/dbus/system_bus_socket";
    fs::metadata(bus).call(|| format!("stat({bus})"))?;
    Ok("runs this host".to_owned())
}

fn labels(bench: &Bench) -> Result<String> {
    match bench.host.lsm {
        Lsm::AppArmor => Ok("AppArmor".to_owned()),
        Lsm::SeLinux => Ok("SELinux".to_owned()),
        Lsm::None => Err(Error::argument("security modules", "neither AppArmor nor SELinux")),
    }
}

fn resctrl(bench: &Bench) -> Result<String> {
    let info = bench.host.resctrl.join("info");
    fs::metadata(&info).call(|| format!("stat({info:?})"))?;
    Ok(bench.host.resctrl.display().to_string())
}

fn map_programs(_: &Bench) -> Result<String> {
    let find = |name: &str| -> Result<PathBuf> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut places = path.split(':').map(|dir| Path::new(dir).join(name));
        places.find(|place| place.exists()).ok_or_else(|| Error::argument(name, "is not in PATH"))
    };
    Ok(format!("{}, {}", find("newuidmap")?.display(), find("newgidmap")?.display()))
}
