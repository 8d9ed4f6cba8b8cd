//! The id maps of idmapped mounts (mount_setattr(2), since Linux 5.12), in the three ways they
//! are written:
//!
//! - `uidMappings` and `gidMappings` of a mount (the specification);
//! - `uidmap=0:1000:10,10:5000:1` and `gidmap=…` (containerd's snapshotters): container, host,
//!   size;
//! - `idmap=uids=0-1000-10#10-5000-1;gids=…` (crun): the same three; after an `@` the host id is
//!   one of the container.

use oci_spec::runtime;

use super::namespaces::{check_id_map, host_id, id_map};
use super::options::Recursion;
use super::{IdMap, IdMaps, MountIdMap};
use crate::error::{Error, Result};

/// The maps a mount has as properties.
pub(super) fn listed(mount: &runtime::Mount, field: &str) -> Result<Option<MountIdMap>> {
    let nonempty =
        |maps: &Option<Vec<runtime::LinuxIdMapping>>| maps.clone().filter(|maps| !maps.is_empty());
    match (nonempty(mount.uid_mappings()), nonempty(mount.gid_mappings())) {
        (None, None) => Ok(None),
        (Some(uids), Some(gids)) => {
            let uids = id_map(&uids, &format!("{field}.uidMappings"))?;
            let gids = id_map(&gids, &format!("{field}.gidMappings"))?;
            Ok(Some(MountIdMap::Maps(IdMaps { uids, gids })))
        }
        (Some(_), None) => {
            Err(Error::field(format!("{field}.gidMappings"), "missing beside uidMappings"))
        }
        (None, Some(_)) => {
            Err(Error::field(format!("{field}.uidMappings"), "missing beside gidMappings"))
        }
    }
}

/// Option words with the ones about id maps taken out.
#[derive(Debug, Default)]
pub(super) struct Words<'a> {
    uids: Option<(usize, &'a str)>,
    gids: Option<(usize, &'a str)>,
    separators: Separators,
    /// `idmap=` or `ridmap=`.
    pub(super) recursion: Option<Recursion>,
    /// All the other words.
    pub(super) rest: Vec<(usize, &'a str)>,
}

/// Between lines, and between the numbers of a line.
#[derive(Debug, Clone, Copy, Default)]
struct Separators {
    lines: char,
    numbers: char,
}

const CONTAINERD: Separators = Separators { lines: ',', numbers: ':' };
const CRUN: Separators = Separators { lines: '#', numbers: '-' };

impl<'a> Words<'a> {
    pub(super) fn take(data: &[(usize, &'a str)], field: &str) -> Result<Words<'a>> {
        let mut words = Words::default();
        for &(index, word) in data {
            match word.split_once('=') {
                Some(("uidmap", map)) => {
                    words.separators = CONTAINERD;
                    words.uids = Some((index, map));
                }
                Some(("gidmap", map)) => {
                    words.separators = CONTAINERD;
                    words.gids = Some((index, map));
                }
                Some(("idmap", maps)) => words.crun(index, maps, Recursion::No, field)?,
                Some(("ridmap", maps)) => words.crun(index, maps, Recursion::Yes, field)?,
                _ => words.rest.push((index, word)),
            }
        }
        Ok(words)
    }

    fn crun(
        &mut self,
        index: usize,
        maps: &'a str,
        recursion: Recursion,
        field: &str,
    ) -> Result<()> {
        self.recursion = Some(recursion);
        self.separators = CRUN;
        for part in maps.split(';') {
            match part.split_once('=') {
                Some(("uids", map)) => self.uids = Some((index, map)),
                Some(("gids", map)) => self.gids = Some((index, map)),
                _ => {
                    let path = format!("{field}.options[{index}]");
                    return Err(Error::field(path, format!("{part:?} is not uids=… or gids=…")));
                }
            }
        }
        Ok(())
    }

    /// The maps these words give; `known` are those of the container's user namespace.
    pub(super) fn maps(&self, known: Option<&IdMaps>, field: &str) -> Result<Option<MountIdMap>> {
        match (self.uids, self.gids) {
            (None, None) => Ok(None),
            (Some((uid_index, uids)), Some((gid_index, gids))) => {
                let path = format!("{field}.options[{uid_index}]");
                let uids = self.lines(uids, known.map(|maps| maps.uids.as_slice()), &path)?;
                let path = format!("{field}.options[{gid_index}]");
                let gids = self.lines(gids, known.map(|maps| maps.gids.as_slice()), &path)?;
                Ok(Some(MountIdMap::Maps(IdMaps { uids, gids })))
            }
            (Some((index, _)), None) | (None, Some((index, _))) => {
                let path = format!("{field}.options[{index}]");
                Err(Error::field(path, "maps for user and group ids go together"))
            }
        }
    }

    fn lines(&self, text: &str, known: Option<&[IdMap]>, path: &str) -> Result<Vec<IdMap>> {
        let line = |line| self.line(line, known).map_err(|why| Error::field(path, why));
        let lines = text.split(self.separators.lines).map(line).collect::<Result<Vec<_>>>()?;
        check_id_map(&lines).map_err(|(_, why)| Error::field(path, format!("{text:?} {why}")))?;
        Ok(lines)
    }

    fn line(&self, text: &str, known: Option<&[IdMap]>) -> std::result::Result<IdMap, String> {
        let (relative, numbers) = match text.strip_prefix('@') {
            Some(numbers) => (true, numbers),
            None => (false, text),
        };
        let mut numbers = numbers.split(self.separators.numbers).map(str::parse::<u32>);
        let map = match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(container)), Some(Ok(host)), Some(Ok(size)), None) => {
                IdMap { container, host, size }
            }
            _ => return Err(format!("{text:?} is not three ids")),
        };
        if !relative {
            return Ok(map);
        }
        let maps = known.ok_or_else(|| format!("{text:?} needs the container's own id maps"))?;
        match host_id(maps, map.host) {
            Some(host) => Ok(IdMap { host, ..map }),
            None => Err(format!("{text:?} is not mapped in the container")),
        }
    }
}
