//! What the bundle alleges: config.json, process.json and resources, parsed but not believed.
//!
//! The types are those of the oci-spec crate, except where it refuses what the specification
//! allows, or loses a difference that matters (see [`Process`] and [`process`]): those are our
//! own. Properties that are not known are ignored, as the specification demands; a value that
//! does not fit its property is an [`Error::field`] with the property's JSON path.
//!
//! On exit nothing but syntax, types and `ociVersion` has been judged; that is the plan's part.

mod json;
pub mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hooks, Linux, LinuxResources, Mount};
use serde::Deserialize;

use crate::error::{At, Error, Result};
pub use json::read_file;
pub use process::Process;

/// The file in the bundle.
pub const CONFIG_JSON: &str = "config.json";

/// The largest document that is read, in bytes.
pub const MAX_BYTES: u64 = 8 << 20;

/// config.json: OCI runtime specification, config.md.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Spec {
    pub oci_version: String,
    pub root: Option<Root>,
    pub mounts: Option<Vec<Mount>>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub hooks: Option<Hooks>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub linux: Option<Linux>,
}

/// `root`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Root {
    pub path: PathBuf,
    pub readonly: Option<bool>,
}

impl Spec {
    /// Reads `config.json` of a bundle.
    ///
    /// # Errors
    /// The file cannot be read, is larger than [`MAX_BYTES`], or does not parse: see
    /// [`Spec::from_json`].
    pub fn load(bundle: &Path) -> Result<Spec> {
        let path = bundle.join(CONFIG_JSON);
        let text = json::read_file(&path)?;
        Spec::from_json(&text).at_with(|| path.display().to_string())
    }

    /// Parses the text of a config.json.
    ///
    /// # Errors
    /// It is not JSON, a property has a wrong type or an unknown value, a required one is
    /// missing, a string has a NUL byte in it, or `ociVersion` is not 1.x.
    pub fn from_json(text: &[u8]) -> Result<Spec> {
        let spec: Spec = json::parse(text, "", CONFIG_JSON)?;
        check_version(&spec.oci_version)?;
        Ok(spec)
    }
}

/// Parses the text of a process.json: the `process` property on its own.
///
/// # Errors
/// As [`Spec::from_json`]; paths begin with `process`.
pub fn process_from_json(text: &str) -> Result<Process> {
    json::parse(text.as_bytes(), "process", "process")
}

/// Parses the text of resources: the `linux.resources` property on its own.
///
/// # Errors
/// As [`Spec::from_json`]; paths begin with `linux.resources`.
pub fn resources_from_json(text: &str) -> Result<LinuxResources> {
    json::parse(text.as_bytes(), "linux.resources", "linux.resources")
}

/// Version 1 of the specification only adds to what was before, so any 1.x is understood:
/// what we do not know in it are properties, and those are to be ignored.
fn check_version(version: &str) -> Result<()> {
    let mut numbers = version.split(['-', '+']).next().unwrap_or_default().split('.');
    let mut number = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    match (number(), number(), number()) {
        (Some(1), Some(_), Some(_)) => Ok(()),
        (Some(_), Some(_), Some(_)) => {
            Err(Error::field("ociVersion", format!("{version:?} is not supported, only 1.x is")))
        }
        _ => Err(Error::field("ociVersion", format!("{version:?} is not a semantic version"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Spec::from_json(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_path() {
        let text = r#"{"ociVersion":"1.0.2","mounts":[{"destination":"/a"},{"destination":7}]}"#;
        assert_eq!(
            refusal(text),
            "mounts[1].destination: invalid type: integer `7`, expected path string"
        );
    }

    #[test]
    fn an_unknown_value_is_refused_with_its_path() {
        let text = r#"{"ociVersion":"1.0.2","linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW",
            "syscalls":[{"names":["a"],"action":"SCMP_ACT_ALLOW"},{"names":["b"],"action":"NO"}]}}}"#;
        let refusal = refusal(text);
        assert!(
            refusal.starts_with("linux.seccomp.syscalls[1].action: unknown variant `NO`"),
            "{refusal}"
        );
        assert!(!refusal.contains("line"), "{refusal}");
    }

    #[test]
    fn a_missing_property_is_named_by_its_own_path() {
        assert_eq!(refusal("{}"), "ociVersion: missing");
        let text = r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"path":"/a"}]}}"#;
        assert_eq!(refusal(text), "linux.namespaces[0].type: missing");
    }

    #[test]
    fn an_object_in_place_of_a_word_is_refused_with_its_path() {
        let text = r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":{}}]}}"#;
        assert_eq!(refusal(text), "linux.namespaces[0].type: expected value");
        let error = resources_from_json("[true]").unwrap_err().to_string();
        assert!(error.starts_with("linux.resources[0]: "), "{error}");
    }

    #[test]
    fn what_is_not_json_is_refused_with_line_and_column() {
        assert_eq!(
            refusal("{\"ociVersion\": \"1.0.2\",\n}"),
            "config.json: trailing comma at line 2 column 1"
        );
        assert_eq!(refusal(""), "config.json: EOF while parsing a value at line 1 column 0");
    }

    #[test]
    fn a_nul_byte_is_refused_wherever_it_could_reach_the_kernel() {
        let text = r#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["a","b\u0000c"]}}"#;
        assert_eq!(refusal(text), "process.args[1]: contains a NUL byte");
        let text = r#"{"ociVersion":"1.0.2","annotations":{"a":"b\u0000c"}}"#;
        assert!(Spec::from_json(text.as_bytes()).is_ok());
        let text = r#"{"ociVersion":"1.0.2","hostname":"a\\u0000"}"#;
        assert!(Spec::from_json(text.as_bytes()).is_ok());
    }

    #[test]
    fn only_version_1_is_accepted() {
        for version in ["1.0.0", "1.0.0-rc5", "1.0.2-dev", "1.2.1+dev", "1.3.0", "1.99.0"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
        assert_eq!(
            refusal(r#"{"ociVersion":"2.0.0"}"#),
            "ociVersion: \"2.0.0\" is not supported, only 1.x is"
        );
        for version in ["", "1", "1.0", "one.two.three", "0.9.0"] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }

    #[test]
    fn unknown_properties_are_ignored() {
        let text = r#"{"ociVersion":"1.0.2","vm":{"x":1},"linux":{"fromTheFuture":true}}"#;
        assert!(Spec::from_json(text.as_bytes()).is_ok());
    }

    #[test]
    fn the_lists_that_go_writes_as_null_are_empty() {
        let text = r#"{"ociVersion":"1.0.2","mounts":null,"hooks":null,"annotations":null,
            "process":{"user":{"uid":0,"gid":0,"additionalGids":null},"args":null,"env":null,
            "cwd":"/","capabilities":{"bounding":null},"rlimits":null},
            "linux":{"namespaces":null,"devices":null,"resources":{"devices":null}}}"#;
        assert!(Spec::from_json(text.as_bytes()).is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Spec::load(Path::new("/nonexistent-bundle")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "open(\"/nonexistent-bundle/config.json\", O_RDONLY): ENOENT: \
             No such file or directory"
        );
    }

    #[test]
    fn a_file_that_is_too_large_or_no_file_is_refused() {
        let bundle = std::env::temp_dir().join(format!("myshim-spec-{}", std::process::id()));
        std::fs::create_dir_all(&bundle).unwrap();
        let path = bundle.join(CONFIG_JSON);
        std::fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let too_large = Spec::load(&bundle).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let directory = Spec::load(&bundle).unwrap_err().to_string();
        std::fs::remove_dir_all(&bundle).unwrap();
        assert!(too_large.contains("at most 8388608"), "{too_large}");
        assert!(directory.contains("not a regular file"), "{directory}");
    }
}
