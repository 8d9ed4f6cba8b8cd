//! config/deny.toml, as far as it can be held without cargo-deny: see docs/decisions/dependencies.md.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::containerd::workspace;

fn texts(value: &toml::Value) -> BTreeSet<String> {
    let items = value.as_array().unwrap();
    items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// All packages that are compiled on this machine, for the program or its tests.
fn packages(manifest: &str) -> Vec<Value> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", &target]);
    let out = cargo.arg("--manifest-path").arg(workspace().join(manifest)).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let compiled: BTreeSet<String> =
        nodes.iter().map(|node| node["id"].as_str().unwrap().to_owned()).collect();
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    let is_compiled = |package: &Value| compiled.contains(package["id"].as_str().unwrap());
    packages.into_iter().filter(is_compiled).collect()
}

/// An SPDX expression: OR binds less than AND; an exception only adds to what is allowed.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    let outside = |word: &str| {
        let mut depth = 0;
        expression.char_indices().find_map(|(at, c)| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            (depth == 0 && expression[at..].starts_with(word)).then_some(at)
        })
    };
    for (word, both) in [(" OR ", false), (" AND ", true)] {
        if let Some(at) = outside(word) {
            let left = is_allowed(&expression[..at], allowed);
            let right = is_allowed(&expression[at + word.len()..], allowed);
            return if both { left && right } else { left || right };
        }
    }
    match expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => is_allowed(inner, allowed),
        None => allowed.contains(expression.split(" WITH ").next().unwrap_or_default()),
    }
}

#[test]
fn every_dependency_has_an_allowed_licence_and_comes_from_the_registry() {
    let text = std::fs::read_to_string(workspace().join("config/deny.toml")).unwrap();
    let deny: toml::Table = text.parse().unwrap();
    let allowed = texts(&deny["licenses"]["allow"]);
    let banned = deny["bans"]["deny"].as_array().unwrap();
    let banned: BTreeSet<&str> = banned.iter().map(|ban| ban["crate"].as_str().unwrap()).collect();
    for key in ["unknown-registry", "unknown-git"] {
        assert_eq!(deny["sources"][key].as_str(), Some("deny"));
    }
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let mut count = 0;
    for package in ["Cargo.toml", "integration/fuzz/Cargo.toml"].into_iter().flat_map(packages) {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(name), "{name} is banned");
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_allowed(licence, &allowed), "{name} has the licence {licence:?}");
        let source = package["source"].as_str();
        assert!(source.is_none() || source == Some(registry), "{name} comes from {source:?}");
        for dependency in package["dependencies"].as_array().unwrap() {
            let wild = dependency["req"] == "*" && dependency["path"].is_null() && source.is_none();
            assert!(!wild, "{name} takes any version of {}", dependency["name"]);
        }
        count += 1;
    }
    assert!(count > 100, "only {count} packages: is the lock file read?");
}

#[test]
fn an_expression_of_licences_is_read_as_spdx_says() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Apache-2.0".to_owned()]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND Apache-2.0", true),
        ("(GPL-3.0 OR MIT) AND BSL-1.0", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("MIT/Apache-2.0", true),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
