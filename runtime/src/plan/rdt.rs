//! `linux.intelRdt`.

use oci_spec::runtime::LinuxIntelRdt;

use super::IntelRdt;
use crate::error::{Error, Result};

/// `container_id` is the group's name where the spec gives none.
#[allow(deprecated, reason = "clients of before 1.3 still send enableCMT and enableMBM")]
pub(super) fn plan(
    rdt: &LinuxIntelRdt,
    container_id: &str,
    warnings: &mut Vec<String>,
) -> Result<IntelRdt> {
    let given = rdt.clos_id().as_deref().filter(|id| !id.is_empty());
    // `/` is resctrl's root group.
    if given.is_some_and(|id| matches!(id, "." | "..") || id.len() > 1 && id.contains('/')) {
        return Err(Error::field("linux.intelRdt.closID", "is not the name of a directory"));
    }
    let mut schemata = Vec::new();
    for (schema, field) in
        [(rdt.l3_cache_schema(), "l3CacheSchema"), (rdt.mem_bw_schema(), "memBwSchema")]
    {
        let schema = schema.as_deref().filter(|schema| !schema.is_empty());
        schemata.extend(schema.map(|line| (line, format!("linux.intelRdt.{field}"))));
    }
    let lines_to_match = schemata.len();
    // Last, as they override the two above.
    let lines = rdt.schemata().as_deref().unwrap_or_default().iter().enumerate();
    schemata.extend(
        lines.map(|(index, line)| (line.as_str(), format!("linux.intelRdt.schemata[{index}]"))),
    );
    let line = |(line, path): (&str, String)| {
        if line.contains('\n') {
            return Err(Error::field(path, "has more than one line"));
        }
        Ok(line.to_owned())
    };
    for (enabled, field) in [(rdt.enable_cmt(), "enableCMT"), (rdt.enable_mbm(), "enableMBM")] {
        if enabled.unwrap_or(false) {
            warnings.push(format!("linux.intelRdt.{field}: ignored, it is enableMonitoring now"));
        }
    }
    Ok(IntelRdt {
        clos_id: given.unwrap_or(container_id).to_owned(),
        clos_id_given: given.is_some(),
        schemata: schemata.into_iter().map(line).collect::<Result<_>>()?,
        lines_to_match,
        enable_monitoring: rdt.enable_monitoring().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: &str) -> Result<IntelRdt> {
        plan(&serde_json::from_str(json).unwrap(), "c1", &mut Vec::new())
    }

    #[test]
    fn schemata_are_written_last() {
        let rdt = plan_of(
            r#"{"schemata":["L3:0=f","MB:0=20"],"memBwSchema":"MB:0=70","l3CacheSchema":"L3:0=ff",
            "enableMonitoring":true}"#,
        );
        let rdt = rdt.unwrap();
        assert_eq!(rdt.schemata, ["L3:0=ff", "MB:0=70", "L3:0=f", "MB:0=20"]);
        assert_eq!((rdt.clos_id.as_str(), rdt.clos_id_given), ("c1", false));
        assert!(rdt.enable_monitoring);
    }

    #[test]
    fn a_class_is_a_directory_or_the_root() {
        assert_eq!(plan_of(r#"{"closID":"/"}"#).unwrap().clos_id, "/");
        for id in [".", "..", "a/b", "/a"] {
            let refusal = plan_of(&format!(r#"{{"closID":"{id}"}}"#)).unwrap_err().to_string();
            assert!(refusal.starts_with("linux.intelRdt.closID: "), "{refusal}");
        }
    }

    #[test]
    fn a_schema_of_two_lines_is_refused() {
        assert_eq!(
            plan_of(r#"{"schemata":["a","b\nc"]}"#).unwrap_err().to_string(),
            "linux.intelRdt.schemata[1]: has more than one line"
        );
    }
}
