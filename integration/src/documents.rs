//! What documents say of tests is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::containerd::workspace;

/// The names of all functions below a folder, without what cargo builds.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let after = text.split("fn ").skip(1);
            names.extend(after.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_test_that_the_table_of_the_specification_names_exists() {
    let mut names = BTreeSet::new();
    for folder in ["runtime", "shim", "integration"] {
        functions(&workspace().join(folder), &mut names);
    }
    let table = fs::read_to_string(workspace().join("docs/oci.md")).unwrap();
    let shown = table.lines().filter_map(|line| line.strip_suffix('|')?.rsplit_once('|'));
    let named: Vec<&str> = shown.flat_map(|(_, cell)| cell.split('`').skip(1).step_by(2)).collect();
    let missing: Vec<&&str> = named.iter().filter(|name| !names.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/oci.md names what is not there: {missing:#?}");
    assert!(named.len() > 100, "only {} names: is the table read?", named.len());
}
