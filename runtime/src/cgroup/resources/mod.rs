//! `linux.resources` as writes to the files of a cgroup.
//!
//! On entry the values are what the spec alleges. On exit each is known to be in range, to have
//! a controller on this host, and is in the words of that controller's version.

mod block_io;
mod cpu;
mod memory;
mod other;
mod unified;

use oci_spec::runtime::LinuxResources;

use super::{CgroupPaths, Choice, Layout, Missing, Version, Write, files};
use crate::error::{Error, Kind, Result};

/// Turns all of it but the devices into writes.
pub(super) fn compile(resources: &LinuxResources, compiler: &mut Compiler<'_>) -> Result<()> {
    if let Some(cpu) = resources.cpu() {
        cpu::compile(cpu, compiler)?;
    }
    if let Some(memory) = resources.memory() {
        memory::compile(memory, compiler)?;
    }
    if let Some(pids) = resources.pids() {
        other::pids(pids, compiler)?;
    }
    if let Some(block_io) = resources.block_io() {
        block_io::compile(block_io, compiler)?;
    }
    if let Some(limits) = resources.hugepage_limits() {
        other::hugepages(limits, compiler)?;
    }
    if let Some(rdma) = resources.rdma() {
        other::rdma(rdma, compiler)?;
    }
    if let Some(network) = resources.network() {
        other::network(network, compiler)?;
    }
    if let Some(unified) = resources.unified() {
        unified::compile(unified, compiler)?;
    }
    Ok(())
}

/// Collects the writes, and knows for whom.
pub(super) struct Compiler<'a> {
    v1: Vec<String>,
    v2: Option<Vec<String>>,
    /// The cgroup whose limits are changed; none when it is yet to be made.
    present: Option<&'a CgroupPaths>,
    writes: Vec<Write>,
    warnings: Vec<String>,
}

impl<'a> Compiler<'a> {
    /// For a cgroup that is yet to be made.
    pub(super) fn for_new(layout: &Layout) -> Compiler<'static> {
        let v1 = layout.v1.iter().flat_map(|hierarchy| hierarchy.controllers.clone()).collect();
        let v2 = layout.v2.as_ref().map(|hierarchy| hierarchy.controllers.clone());
        Compiler { v1, v2, present: None, writes: Vec::new(), warnings: Vec::new() }
    }

    /// For a cgroup that exists: what the resources do not name stays.
    pub(super) fn for_present(paths: &'a CgroupPaths) -> Compiler<'a> {
        let of = |version| paths.directories.iter().filter(move |d| d.version == version);
        let v1 = of(Version::V1).flat_map(|directory| directory.controllers.clone()).collect();
        let v2 = of(Version::V2).map(|directory| directory.controllers.clone()).next();
        Compiler { v1, v2, present: Some(paths), writes: Vec::new(), warnings: Vec::new() }
    }

    /// The writes in order, and what is to be logged.
    pub(super) fn finish(self) -> (Vec<Write>, Vec<String>) {
        (self.writes, self.warnings)
    }

    /// Which version's hierarchy has this controller.
    fn version_of(&self, field: &str, v1: &str, v2: &str) -> Result<Version> {
        if self.v1.iter().any(|controller| controller == v1) {
            return Ok(Version::V1);
        }
        if self.has_v2(v2) {
            return Ok(Version::V2);
        }
        let name = if self.v2.is_some() { v2 } else { v1 };
        Err(unsupported(field, &format!("there is no cgroup controller {name} for the container")))
    }

    /// Makes sure that a controller is there which only v1 has.
    fn require_v1(&self, field: &str, controller: &str) -> Result<()> {
        match self.v1.iter().any(|known| known == controller) {
            true => Ok(()),
            false => Err(unsupported(
                field,
                &format!("needs the cgroup v1 controller {controller}, which is not mounted"),
            )),
        }
    }

    fn has_v2(&self, controller: &str) -> bool {
        self.v2.iter().flatten().any(|known| known == controller)
    }

    /// The present content of a v2 file of the cgroup whose limits are changed.
    fn present_v2(&self, file: &str) -> Result<Option<String>> {
        match self.present.and_then(CgroupPaths::v2) {
            Some(directory) => Ok(Some(files::read(&directory.join(file))?.trim().to_owned())),
            None => Ok(None),
        }
    }

    fn write(&mut self, field: &str, version: Version, file: &str, value: impl ToString) {
        self.write_first(field, version, &[(file, value.to_string())], Missing::Refuse);
    }

    fn write_first(
        &mut self,
        field: &str,
        version: Version,
        choices: &[(&str, String)],
        missing: Missing,
    ) {
        let controller = choices.first().map_or("", |(file, _)| controller_of(file));
        self.writes.push(Write {
            field: field.to_owned(),
            version,
            controller: controller.to_owned(),
            choices: choices
                .iter()
                .map(|(file, value)| Choice { file: (*file).to_owned(), value: value.clone() })
                .collect(),
            missing,
        });
    }

    fn warn(&mut self, field: &str, why: &str) {
        self.warnings.push(format!("{field}: {why}"));
    }
}

/// The controller a file belongs to is the first part of its name; `cgroup.*` belong to none.
fn controller_of(file: &str) -> &str {
    match file.split_once('.') {
        Some(("cgroup", _)) | None => "",
        Some((controller, _)) => controller,
    }
}

fn unsupported(field: &str, why: &str) -> Error {
    Error::new(Kind::Unsupported(format!("{field}: {why}")))
}

/// `max` for −1, as v2 says it.
fn or_max(value: i64) -> String {
    match value {
        -1 => "max".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests;
