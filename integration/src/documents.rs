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

fn all_functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["runtime", "shim", "integration"] {
        functions(&workspace().join(folder), &mut names);
    }
    names
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_the_table_of_the_specification_names_exists() {
    let names = all_functions();
    let table = fs::read_to_string(workspace().join("docs/oci.md")).unwrap();
    let shown = table.lines().filter_map(|line| line.strip_suffix('|')?.rsplit_once('|'));
    let named: Vec<&str> = shown.flat_map(|(_, cell)| quoted(cell)).collect();
    let missing: Vec<&&str> = named.iter().filter(|name| !names.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/oci.md names what is not there: {missing:#?}");
    assert!(named.len() > 100, "only {} names: is the table read?", named.len());
}

/// The text of all claims.
fn claims() -> String {
    let mut text = String::new();
    let mut folders = vec![workspace().join("integration/tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                text.push_str(&fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    text
}

#[test]
fn every_claim_and_file_that_the_table_of_hazards_names_exists() {
    let (names, claims) = (all_functions(), claims());
    let table = fs::read_to_string(workspace().join("docs/hazards.md")).unwrap();
    let mut count = 0;
    for line in table.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let shown: Vec<&str> = quoted(cells.last().unwrap()).collect();
        for name in &shown {
            assert!(names.contains(*name), "there is no {name}: {line}");
        }
        count += shown.len();
        let cure = if cells.len() > 2 { cells[1] } else { "" };
        for file in quoted(cure) {
            assert!(workspace().join(file).exists(), "there is no {file}: {line}");
        }
        // What was seen to fail says at its claim without what.
        let told = |name: &&str| {
            let (_, body) = claims.split_once(&format!("fn {name}(")).unwrap_or_default();
            body.split("\n}\n").next().unwrap_or_default().contains("Seen to fail")
        };
        assert!(!cure.contains('\u{2717}') || shown.iter().any(told), "not told: {line}");
    }
    assert!(count > 80, "only {count} names: is the table read?");
}
