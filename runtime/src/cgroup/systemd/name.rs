//! Names of units and slices, systemd.unit(5) and systemd.slice(5).

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const FIELD: &str = "linux.cgroupsPath";

/// systemd's limit (UNIT_NAME_MAX, without the NUL).
const LONGEST: usize = 255;

const SLICE: &str = ".slice";

/// `slice:prefix:name` of `linux.cgroupsPath`, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitName {
    /// The unit: `prefix-name.scope`, or `name` when that is a slice.
    pub(super) unit: String,
    /// The slice it is in.
    pub(super) slice: String,
}

/// Whether a path is meant for systemd: three parts, the first of which is a slice or empty.
pub(super) fn is_for_systemd(path: &Path) -> bool {
    path.to_str().and_then(parts).is_some_and(|(slice, ..)| {
        slice.is_empty() || (slice.ends_with(SLICE) && !slice.contains('/'))
    })
}

fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let (slice, rest) = path.split_once(':')?;
    let (prefix, name) = rest.split_once(':')?;
    (!name.contains(':')).then_some((slice, prefix, name))
}

impl UnitName {
    /// Parses `slice:prefix:name`; an empty slice is `default_slice`.
    ///
    /// # Errors
    /// `Field` for what has not these three parts, or makes no name of a unit.
    pub(super) fn parse(path: &Path, default_slice: &str) -> Result<UnitName> {
        let refuse = |why: &str| Error::field(FIELD, format!("{path:?}: {why}"));
        let Some((slice, prefix, name)) = path.to_str().and_then(parts) else {
            return Err(refuse(
                "the systemd cgroup driver needs the form `slice:prefix:name`, for example \
                 `system.slice:myshim:web`",
            ));
        };
        let slice = if slice.is_empty() { default_slice } else { slice };
        if !is_slice(slice) {
            return Err(refuse(&format!("{slice:?} is not the name of a slice")));
        }
        let unit = match (prefix, name) {
            (_, "") => return Err(refuse("the name is empty")),
            (_, name) if name.ends_with(SLICE) => name.to_owned(),
            ("", name) => format!("{name}.scope"),
            (prefix, name) => format!("{prefix}-{name}.scope"),
        };
        if unit.len() > LONGEST || !unit.chars().all(may_be_in_a_name) {
            let why = format!(
                "{unit:?} is not the name of a unit: at most {LONGEST} letters, digits and `-_.\\`"
            );
            return Err(refuse(&why));
        }
        if unit.ends_with(SLICE) && (!is_slice(&unit) || parent(&unit) != slice) {
            let why = format!("the slice {unit} is not one of {slice}");
            return Err(refuse(&why));
        }
        Ok(UnitName { unit, slice: slice.to_owned() })
    }

    /// The unit's directory, below that of the manager.
    pub(super) fn path(&self) -> PathBuf {
        expand(&self.slice).join(&self.unit)
    }
}

/// `:` is in no name here, since it separates; `@` would make it an instance of a template.
fn may_be_in_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '\\')
}

/// A slice's name says where it is: `a-b.slice` is in `a.slice`; `-.slice` is the root.
fn is_slice(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(SLICE) else { return false };
    let valid = !stem.is_empty() && stem.split('-').all(|part| !part.is_empty());
    name.len() <= LONGEST && name.chars().all(may_be_in_a_name) && (valid || stem == "-")
}

fn parent(slice: &str) -> String {
    match slice.strip_suffix(SLICE).and_then(|stem| stem.rsplit_once('-')) {
        Some((parent, _)) if !parent.is_empty() => format!("{parent}{SLICE}"),
        _ => format!("-{SLICE}"),
    }
}

/// Where a slice is below the root slice: `a-b.slice` is `a.slice/a-b.slice`.
fn expand(slice: &str) -> PathBuf {
    let stem = slice.strip_suffix(SLICE).unwrap_or(slice);
    if stem == "-" {
        return PathBuf::new();
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.filter_map(|end| stem.get(..end)).map(|part| format!("{part}{SLICE}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> String {
        match UnitName::parse(Path::new(path), "system.slice") {
            Ok(name) => format!("{} in {}", name.unit, name.path().display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn three_parts_name_a_scope_in_a_slice() {
        assert_eq!(
            parsed("system.slice:docker:web"),
            "docker-web.scope in system.slice/docker-web.scope"
        );
        assert_eq!(
            parsed("kubepods-burstable-podab_c.slice:cri-containerd:0123"),
            "cri-containerd-0123.scope in kubepods.slice/kubepods-burstable.slice/\
             kubepods-burstable-podab_c.slice/cri-containerd-0123.scope"
        );
        assert_eq!(parsed(":x:web"), "x-web.scope in system.slice/x-web.scope");
        assert_eq!(parsed("-.slice:x:web"), "x-web.scope in x-web.scope");
        assert_eq!(parsed("a.slice::web"), "web.scope in a.slice/web.scope");
    }

    #[test]
    fn a_name_that_is_a_slice_is_one() {
        assert_eq!(parsed("a.slice:x:a-b.slice"), "a-b.slice in a.slice/a-b.slice");
        assert_eq!(parsed("-.slice:x:a.slice"), "a.slice in a.slice");
        assert_eq!(
            parsed("b.slice:x:a-b.slice"),
            "linux.cgroupsPath: \"b.slice:x:a-b.slice\": the slice a-b.slice is not one of b.slice"
        );
    }

    #[test]
    fn what_is_no_unit_is_refused_with_the_field_and_the_value() {
        for path in [
            "/default/web",
            "system.slice:web",
            "system.slice:x:y:z",
            "system:x:web",
            "a--b.slice:x:web",
            "-a.slice:x:web",
            "a-.slice:x:web",
            ".slice:x:web",
            "a/b.slice:x:web",
            "system.slice:x:a/b",
            "system.slice:x:",
            "system.slice:x:we b",
            "system.slice:x:web@1",
            "system.slice:ä:web",
        ] {
            assert!(
                parsed(path).starts_with(&format!("linux.cgroupsPath: {path:?}: ")),
                "{path}: {}",
                parsed(path)
            );
        }
        let long = format!("system.slice:x:{}", "a".repeat(300));
        assert!(parsed(&long).contains("is not the name of a unit"));
    }

    #[test]
    fn the_form_alone_tells_what_is_meant_for_systemd() {
        for path in ["system.slice:docker:web", ":x:web", "-.slice:a:b"] {
            assert!(is_for_systemd(Path::new(path)), "{path}");
        }
        for path in ["/default/web", "a:b:c", "/a.slice:b:c", "a.slice:b", "a.slice:b:c:d", ""] {
            assert!(!is_for_systemd(Path::new(path)), "{path}");
        }
    }
}
