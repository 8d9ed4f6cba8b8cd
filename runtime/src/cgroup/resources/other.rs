//! `linux.resources.pids`, `.hugepageLimits`, `.rdma` and `.network`.

use std::collections::{BTreeMap, HashMap};

use oci_spec::runtime::{LinuxHugepageLimit, LinuxNetwork, LinuxPids, LinuxRdma};

use super::{Compiler, Missing, Version};
use crate::error::{Error, Result};

/// A negative limit is none. 0 is a limit: the container's process may run, and fork nothing.
/// It is written as 1, which means that: with 0 the kernel would refuse to clone the process
/// into the cgroup at all (and systemd, the other driver, takes no 0).
pub(super) fn pids(pids: &LinuxPids, to: &mut Compiler<'_>) -> Result<()> {
    const FIELD: &str = "linux.resources.pids.limit";
    let version = to.version_of(FIELD, "pids", "pids")?;
    let value = match pids.limit() {
        ..0 => "max".to_owned(),
        limit => limit.max(1).to_string(),
    };
    to.write(FIELD, version, "pids.max", value);
    Ok(())
}

/// Each limit holds for pages in use and for pages reserved by mmap(2): without the second one
/// a process gets SIGBUS at the first touch of a page, in place of an error from mmap.
pub(super) fn hugepages(limits: &[LinuxHugepageLimit], to: &mut Compiler<'_>) -> Result<()> {
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{index}]");
        let size = limit.page_size();
        if !is_page_size(size) {
            let why = format!("{size:?} is not like `2MB`: a number, then KB, MB or GB");
            return Err(Error::field(format!("{field}.pageSize"), why));
        }
        if limit.limit() < 0 {
            return Err(Error::field(format!("{field}.limit"), "must not be negative"));
        }
        let version = to.version_of(&field, "hugetlb", "hugetlb")?;
        let file = match version {
            Version::V1 => "limit_in_bytes",
            Version::V2 => "max",
        };
        let value = limit.limit().to_string();
        to.write(&field, version, &format!("hugetlb.{size}.{file}"), &value);
        // Since Linux 5.7.
        let reserved = format!("hugetlb.{size}.rsvd.{file}");
        to.write_first(&field, version, &[(&reserved, value)], Missing::Ignore);
    }
    Ok(())
}

fn is_page_size(size: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    number.is_some_and(|number| {
        !number.starts_with('0') && number.parse::<u64>().is_ok() && !number.starts_with('+')
    })
}

/// `mlx5_0 hca_handle=2 hca_object=2000`; what is not given stays.
pub(super) fn rdma(limits: &HashMap<String, LinuxRdma>, to: &mut Compiler<'_>) -> Result<()> {
    for (device, limit) in limits.iter().collect::<BTreeMap<_, _>>() {
        let field = format!("linux.resources.rdma[{device:?}]");
        word(&field, device)?;
        let handles = limit.hca_handles().map(|handles| format!(" hca_handle={handles}"));
        let objects = limit.hca_objects().map(|objects| format!(" hca_object={objects}"));
        let limits: String = handles.into_iter().chain(objects).collect();
        if !limits.is_empty() {
            let version = to.version_of(&field, "rdma", "rdma")?;
            to.write(&field, version, "rdma.max", format!("{device}{limits}"));
        }
    }
    Ok(())
}

/// v1 only: v2 left marking packets to BPF programs and to netfilter's cgroup match.
pub(super) fn network(network: &LinuxNetwork, to: &mut Compiler<'_>) -> Result<()> {
    const CLASS: &str = "linux.resources.network.classID";
    if let Some(class) = network.class_id().filter(|&class| class != 0) {
        to.require_v1(CLASS, "net_cls")?;
        to.write(CLASS, Version::V1, "net_cls.classid", class);
    }
    for (index, priority) in network.priorities().iter().flatten().enumerate() {
        let field = format!("linux.resources.network.priorities[{index}]");
        word(&format!("{field}.name"), priority.name())?;
        to.require_v1(&field, "net_prio")?;
        let value = format!("{} {}", priority.name(), priority.priority());
        to.write(&field, Version::V1, "net_prio.ifpriomap", value);
    }
    Ok(())
}

/// A name that goes into a line of words.
fn word(field: &str, name: &str) -> Result<()> {
    match name.is_empty() || name.contains(char::is_whitespace) {
        true => Err(Error::field(field, "must be a name without white space")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_size_cannot_name_another_file() {
        assert!(is_page_size("2MB") && is_page_size("64KB") && is_page_size("1GB"));
        for size in ["", "MB", "2", "02MB", "+2MB", "-2MB", "2mb", "2MB/..", "../2MB"] {
            assert!(!is_page_size(size), "{size}");
        }
    }
}
