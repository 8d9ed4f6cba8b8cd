//! `linux.namespaces`, the maps of user namespaces, the offsets of time namespaces.

use std::collections::BTreeMap;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType};

use super::host::{Host, Privilege};
use super::{IdMap, IdMaps, Namespace, Namespaces, TimeOffset};
use crate::error::{Error, Result};
use crate::spec::Spec;

/// Lines that uid_map and gid_map can have (user_namespaces(7), since Linux 4.15).
const MAX_ID_MAP_LINES: usize = 340;

/// Bytes of a hostname and of a domainname (`__NEW_UTS_LEN`).
const MAX_UTS_NAME: usize = 64;

/// The namespaces of a container and what belongs to them.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) namespaces: Namespaces,
    pub(super) id_maps: Option<IdMaps>,
    pub(super) joined_id_maps: Option<IdMaps>,
    pub(super) hostname: Option<String>,
    pub(super) domainname: Option<String>,
}

impl Planned {
    /// What is known of the container's user namespace, new or joined.
    pub(super) fn known_id_maps(&self) -> Option<&IdMaps> {
        self.id_maps.as_ref().or(self.joined_id_maps.as_ref())
    }
}

pub(super) fn plan(spec: &Spec, host: &Host) -> Result<Planned> {
    let linux = spec.linux.as_ref();
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let mut namespaces = list(listed)?;
    if host.privilege == Privilege::User && namespaces.user == Namespace::Host {
        let why = "a user namespace is needed: the runtime is not root";
        return Err(Error::field("linux.namespaces", why));
    }
    namespaces.time_offsets = time_offsets(linux, &namespaces.time)?;
    let (id_maps, joined_id_maps) = match (&namespaces.user, id_maps(linux)?) {
        (Namespace::Host, None) | (Namespace::Join(_), None) => (None, None),
        (Namespace::New, Some(maps)) => (Some(maps), None),
        // containerd's CRI names a user namespace and repeats its maps.
        (Namespace::Join(_), Some(maps)) => (None, Some(maps)),
        (Namespace::New, None) => {
            return Err(Error::field("linux.uidMappings", "a new user namespace needs mappings"));
        }
        (Namespace::Host, Some(_)) => {
            let why = "mappings need a user namespace in linux.namespaces";
            return Err(Error::field("linux.uidMappings", why));
        }
    };
    let hostname = uts_name("hostname", spec.hostname.as_deref(), &namespaces)?;
    let domainname = uts_name("domainname", spec.domainname.as_deref(), &namespaces)?;
    Ok(Planned { namespaces, id_maps, joined_id_maps, hostname, domainname })
}

/// Whose mounts would be the host's, and nobody's to take back.
pub(super) fn require_mount(namespaces: &Namespaces) -> Result<()> {
    match namespaces.mount {
        Namespace::Host => {
            let why = "a container without a mount namespace, new or joined, is not made";
            Err(Error::field("linux.namespaces", why))
        }
        Namespace::New | Namespace::Join(_) => Ok(()),
    }
}

fn list(listed: &[LinuxNamespace]) -> Result<Namespaces> {
    let mut namespaces = Namespaces {
        user: Namespace::Host,
        mount: Namespace::Host,
        pid: Namespace::Host,
        net: Namespace::Host,
        ipc: Namespace::Host,
        uts: Namespace::Host,
        cgroup: Namespace::Host,
        time: Namespace::Host,
        time_offsets: Vec::new(),
    };
    for (index, namespace) in listed.iter().enumerate() {
        let slot = match namespace.typ() {
            LinuxNamespaceType::User => &mut namespaces.user,
            LinuxNamespaceType::Mount => &mut namespaces.mount,
            LinuxNamespaceType::Pid => &mut namespaces.pid,
            LinuxNamespaceType::Network => &mut namespaces.net,
            LinuxNamespaceType::Ipc => &mut namespaces.ipc,
            LinuxNamespaceType::Uts => &mut namespaces.uts,
            LinuxNamespaceType::Cgroup => &mut namespaces.cgroup,
            LinuxNamespaceType::Time => &mut namespaces.time,
        };
        if *slot != Namespace::Host {
            let path = format!("linux.namespaces[{index}].type");
            let why = format!("the {} namespace is listed twice", namespace.typ());
            return Err(Error::field(path, why));
        }
        *slot = match namespace.path() {
            Some(path) if path.is_absolute() => Namespace::Join(path.clone()),
            Some(path) if !path.as_os_str().is_empty() => {
                let field = format!("linux.namespaces[{index}].path");
                return Err(Error::field(field, format!("{path:?} is not absolute")));
            }
            _ => Namespace::New,
        };
    }
    Ok(namespaces)
}

fn time_offsets(linux: Option<&Linux>, time: &Namespace) -> Result<Vec<TimeOffset>> {
    let Some(offsets) = linux.and_then(|linux| linux.time_offsets().as_ref()) else {
        return Ok(Vec::new());
    };
    let sorted: BTreeMap<_, _> = offsets.iter().collect();
    if !sorted.is_empty() && *time != Namespace::New {
        // The kernel takes offsets only before the first process is in the namespace.
        return Err(Error::field("linux.timeOffsets", "offsets need a new time namespace"));
    }
    let offset = |(clock, offset): (&String, &oci_spec::runtime::LinuxTimeOffset)| {
        let path = || format!("linux.timeOffsets.{clock}");
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::field(path(), "only monotonic and boottime have offsets"));
        }
        let nanosecs = offset.nanosecs().unwrap_or_default();
        if nanosecs >= 1_000_000_000 {
            return Err(Error::field(format!("{}.nanosecs", path()), "must be below 1000000000"));
        }
        Ok(TimeOffset { clock: clock.clone(), secs: offset.secs().unwrap_or_default(), nanosecs })
    };
    sorted.into_iter().map(offset).collect()
}

fn id_maps(linux: Option<&Linux>) -> Result<Option<IdMaps>> {
    let list = |maps: &Option<Vec<LinuxIdMapping>>| maps.clone().filter(|maps| !maps.is_empty());
    let uids = linux.and_then(|linux| list(linux.uid_mappings()));
    let gids = linux.and_then(|linux| list(linux.gid_mappings()));
    match (uids, gids) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(Error::field("linux.gidMappings", "missing beside uidMappings")),
        (None, Some(_)) => Err(Error::field("linux.uidMappings", "missing beside gidMappings")),
        (Some(uids), Some(gids)) => {
            let uids = id_map(&uids, "linux.uidMappings")?;
            let gids = id_map(&gids, "linux.gidMappings")?;
            // The container is set up by its root.
            for (maps, path) in [(&uids, "linux.uidMappings"), (&gids, "linux.gidMappings")] {
                if host_id(maps, 0).is_none() {
                    return Err(Error::field(path, "id 0 is not mapped"));
                }
            }
            Ok(Some(IdMaps { uids, gids }))
        }
    }
}

/// Checks a list of mappings as the kernel does (kernel/user_namespace.c, map_write), which
/// would say no more than EINVAL.
pub(super) fn id_map(listed: &[LinuxIdMapping], path: &str) -> Result<Vec<IdMap>> {
    let lines = listed.iter().map(|map| IdMap {
        container: map.container_id(),
        host: map.host_id(),
        size: map.size(),
    });
    let lines: Vec<IdMap> = lines.collect();
    check_id_map(&lines).map_err(|(index, why)| match index {
        Some(index) => Error::field(format!("{path}[{index}]"), why),
        None => Error::field(path, why),
    })?;
    Ok(lines)
}

/// See [`id_map`]; the index is that of the line at fault.
pub(super) fn check_id_map(
    lines: &[IdMap],
) -> std::result::Result<(), (Option<usize>, &'static str)> {
    if lines.len() > MAX_ID_MAP_LINES {
        return Err((None, "more than 340 mappings"));
    }
    let overlap = |a: u32, b: u32, a_size: u32, b_size: u32| {
        a < b.saturating_add(b_size) && b < a.saturating_add(a_size)
    };
    for (index, map) in lines.iter().enumerate() {
        if map.size == 0 {
            return Err((Some(index), "has size 0"));
        }
        if map.container.checked_add(map.size).is_none() || map.host.checked_add(map.size).is_none()
        {
            return Err((Some(index), "reaches beyond the last id"));
        }
        for other in lines.iter().take(index) {
            if overlap(map.container, other.container, map.size, other.size)
                || overlap(map.host, other.host, map.size, other.size)
            {
                return Err((Some(index), "overlaps another mapping"));
            }
        }
    }
    Ok(())
}

/// What an id of the container is outside.
pub(super) fn host_id(maps: &[IdMap], id: u32) -> Option<u32> {
    maps.iter().find_map(|map| {
        let offset = id.checked_sub(map.container).filter(|offset| *offset < map.size)?;
        map.host.checked_add(offset)
    })
}

fn uts_name(field: &str, name: Option<&str>, namespaces: &Namespaces) -> Result<Option<String>> {
    match name {
        None | Some("") => Ok(None),
        Some(_) if namespaces.uts == Namespace::Host => {
            Err(Error::field(field, "needs a UTS namespace in linux.namespaces"))
        }
        Some(name) if name.len() > MAX_UTS_NAME => {
            Err(Error::field(field, format!("has {} bytes, at most 64", name.len())))
        }
        Some(name) => Ok(Some(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn plan_of(text: &str) -> Result<Planned> {
        let text = format!(r#"{{"ociVersion":"1.3.0",{text}}}"#);
        plan(&Spec::from_json(text.as_bytes()).unwrap(), &Host::example())
    }

    fn refusal(text: &str) -> String {
        plan_of(text).unwrap_err().to_string()
    }

    const USER: &str = r#""namespaces":[{"type":"user"}]"#;
    const ROOT_MAP: &str = r#"[{"containerID":0,"hostID":1000,"size":10}]"#;

    #[test]
    fn what_is_not_listed_is_the_hosts() {
        let namespaces = plan_of(r#""linux":{}"#).unwrap().namespaces;
        assert_eq!(namespaces.mount, Namespace::Host);
        assert_eq!(
            require_mount(&namespaces).unwrap_err().to_string(),
            "linux.namespaces: a container without a mount namespace, new or joined, is not made"
        );
        assert_eq!(namespaces.user, Namespace::Host);
    }

    #[test]
    fn a_path_means_joining_and_an_empty_one_a_new_namespace() {
        let text = r#""linux":{"namespaces":[{"type":"network","path":"/a"},
            {"type":"pid","path":""},{"type":"time"}]}"#;
        let namespaces = plan_of(text).unwrap().namespaces;
        assert_eq!(namespaces.net, Namespace::Join(PathBuf::from("/a")));
        assert_eq!(namespaces.pid, Namespace::New);
        assert_eq!(namespaces.time, Namespace::New);
        assert_eq!(namespaces.ipc, Namespace::Host);
    }

    #[test]
    fn a_namespace_listed_twice_is_refused() {
        assert_eq!(
            refusal(r#""linux":{"namespaces":[{"type":"pid"},{"type":"pid","path":"/a"}]}"#),
            "linux.namespaces[1].type: the pid namespace is listed twice"
        );
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert_eq!(
            refusal(r#""linux":{"namespaces":[{"type":"pid","path":"proc/1/ns/pid"}]}"#),
            "linux.namespaces[0].path: \"proc/1/ns/pid\" is not absolute"
        );
    }

    #[test]
    fn names_need_a_uts_namespace_new_or_joined() {
        assert_eq!(
            refusal(r#""hostname":"a""#),
            "hostname: needs a UTS namespace in linux.namespaces"
        );
        assert_eq!(
            refusal(r#""domainname":"a""#),
            "domainname: needs a UTS namespace in linux.namespaces"
        );
        let text = r#""hostname":"a","linux":{"namespaces":[{"type":"uts","path":"/a"}]}"#;
        assert_eq!(plan_of(text).unwrap().hostname.as_deref(), Some("a"));
        assert_eq!(plan_of(r#""hostname":"""#).unwrap().hostname, None);
        let long = "a".repeat(65);
        let text = format!(r#""hostname":"{long}","linux":{{"namespaces":[{{"type":"uts"}}]}}"#);
        assert_eq!(refusal(&text), "hostname: has 65 bytes, at most 64");
    }

    #[test]
    fn a_new_user_namespace_needs_maps_of_root() {
        assert_eq!(
            refusal(&format!(r#""linux":{{{USER}}}"#)),
            "linux.uidMappings: a new user namespace needs mappings"
        );
        let text = format!(r#""linux":{{{USER},"uidMappings":{ROOT_MAP}}}"#);
        assert_eq!(refusal(&text), "linux.gidMappings: missing beside uidMappings");
        let text = format!(
            r#""linux":{{{USER},"uidMappings":[{{"containerID":1,"hostID":5,"size":1}}],
            "gidMappings":{ROOT_MAP}}}"#
        );
        assert_eq!(refusal(&text), "linux.uidMappings: id 0 is not mapped");
    }

    #[test]
    fn maps_without_a_user_namespace_are_refused() {
        let text = format!(r#""linux":{{"uidMappings":{ROOT_MAP},"gidMappings":{ROOT_MAP}}}"#);
        assert_eq!(
            refusal(&text),
            "linux.uidMappings: mappings need a user namespace in linux.namespaces"
        );
    }

    #[test]
    fn maps_beside_a_joined_user_namespace_are_kept_to_be_compared() {
        let text = format!(
            r#""linux":{{"namespaces":[{{"type":"user","path":"/a"}}],
            "uidMappings":{ROOT_MAP},"gidMappings":{ROOT_MAP}}}"#
        );
        let planned = plan_of(&text).unwrap();
        assert_eq!(planned.id_maps, None);
        assert_eq!(planned.joined_id_maps.unwrap().uids[0].host, 1000);
    }

    #[test]
    fn maps_that_the_kernel_would_refuse_are_refused_by_their_line() {
        let map = |lines: &[(u32, u32, u32)]| {
            let line = |&(container, host, size): &(u32, u32, u32)| IdMap { container, host, size };
            check_id_map(&lines.iter().map(line).collect::<Vec<_>>())
        };
        assert_eq!(map(&[(0, 0, 0)]), Err((Some(0), "has size 0")));
        assert_eq!(map(&[(0, u32::MAX, 2)]), Err((Some(0), "reaches beyond the last id")));
        assert_eq!(map(&[(0, 0, 5), (4, 10, 1)]), Err((Some(1), "overlaps another mapping")));
        assert_eq!(map(&[(0, 0, 5), (5, 4, 1)]), Err((Some(1), "overlaps another mapping")));
        assert_eq!(map(&[(0, 0, 5), (5, 5, 1)]), Ok(()));
        assert_eq!(map(&[(0, 0, u32::MAX)]), Ok(()));
    }

    #[test]
    fn an_id_is_translated_by_the_line_it_falls_in() {
        let maps = [
            IdMap { container: 0, host: 1000, size: 10 },
            IdMap { container: 10, host: 5000, size: 1 },
        ];
        assert_eq!(host_id(&maps, 9), Some(1009));
        assert_eq!(host_id(&maps, 10), Some(5000));
        assert_eq!(host_id(&maps, 11), None);
    }

    #[test]
    fn time_offsets_need_a_new_time_namespace_and_a_clock_that_has_them() {
        let text = r#""linux":{"timeOffsets":{"monotonic":{"secs":1}}}"#;
        assert_eq!(refusal(text), "linux.timeOffsets: offsets need a new time namespace");
        let new = r#""namespaces":[{"type":"time"}]"#;
        let text = format!(r#""linux":{{{new},"timeOffsets":{{"realtime":{{"secs":1}}}}}}"#);
        assert_eq!(
            refusal(&text),
            "linux.timeOffsets.realtime: only monotonic and boottime have offsets"
        );
        let text = format!(
            r#""linux":{{{new},"timeOffsets":{{"monotonic":{{"secs":-1,"nanosecs":5}},
            "boottime":{{}}}}}}"#
        );
        let offsets = plan_of(&text).unwrap().namespaces.time_offsets;
        assert_eq!(offsets[0], TimeOffset { clock: "boottime".into(), secs: 0, nanosecs: 0 });
        assert_eq!(offsets[1], TimeOffset { clock: "monotonic".into(), secs: -1, nanosecs: 5 });
    }

    #[test]
    fn who_is_not_root_needs_a_user_namespace() {
        let spec = Spec::from_json(br#"{"ociVersion":"1.3.0"}"#).unwrap();
        let host = |privilege| Host { privilege, ..Host::example() };
        let refusal = plan(&spec, &host(Privilege::User)).unwrap_err().to_string();
        assert!(refusal.starts_with("linux.namespaces: a user namespace is needed"), "{refusal}");
        assert!(plan(&spec, &host(Privilege::RootOfNamespace)).is_ok());
    }
}
