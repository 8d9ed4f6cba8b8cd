//! `runtimeoptions.v1.Options`: TOML, in it or in a file.

use std::path::Path;

use runtime::{Error, Result};
use serde::Deserialize;

use super::message::{Field, fields, utf8};
use super::{Options, warn_of};

/// The keys of config/myshim.toml, which documents them. They are spelled as in the options of
/// containerd's handlers for runc.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
#[allow(clippy::struct_excessive_bools, reason = "they are keys of a configuration file")]
pub(super) struct Keys {
    no_pivot_root: bool,
    no_new_keyring: bool,
    systemd_cgroup: bool,
    shim_cgroup: String,
    io_uid: u32,
    io_gid: u32,
    criu_image_path: String,
    criu_work_path: String,
    binary_name: String,
    root: String,
    criu_path: String,
    /// containerd sends the handler's whole section, with the key that says of what type it is.
    #[allow(dead_code, reason = "accepted, says nothing")]
    type_url: String,
    /// The same; empty, or the file would have been read.
    #[allow(dead_code, reason = "accepted, says nothing")]
    config_path: String,
}

/// `runtimeoptions.v1.Options`: 1 type_url, 2 config_path, 3 config_body.
pub(super) fn runtime_options(value: &[u8]) -> Result<Options> {
    let (mut path, mut body) = (String::new(), Vec::new());
    for (number, field) in fields(value)? {
        match (number, field) {
            (2, Field::Bytes(bytes)) => path = utf8("config_path", bytes)?,
            (3, Field::Bytes(bytes)) => body = bytes,
            _ => {}
        }
    }
    if path.is_empty() {
        return toml_options(&utf8("config_body", body)?, "config_body");
    }
    let source = format!("config_path {path}");
    let text = runtime::spec::read_file(Path::new(&path))
        .map_err(|error| Error::argument(&*source, error.to_string()))?;
    toml_options(&utf8(&source, text)?, &path)
}

pub(super) fn toml_options(text: &str, source: &str) -> Result<Options> {
    let keys: Keys = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
        let line = line.map(|line| format!(" line {line}")).unwrap_or_default();
        Error::argument(format!("{source}{line}"), error.message())
    })?;
    let mut warnings = Vec::new();
    warn_of(&mut warnings, "BinaryName", &keys.binary_name);
    warn_of(&mut warnings, "Root", &keys.root);
    warn_of(&mut warnings, "CriuPath", &keys.criu_path);
    Ok(Options {
        no_pivot_root: keys.no_pivot_root,
        no_new_keyring: keys.no_new_keyring,
        systemd_cgroup: keys.systemd_cgroup,
        shim_cgroup: keys.shim_cgroup,
        io_uid: keys.io_uid,
        io_gid: keys.io_gid,
        criu_image_path: keys.criu_image_path,
        criu_work_path: keys.criu_work_path,
        warnings,
    })
}
