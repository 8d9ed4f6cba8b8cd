//! Where unsafe code is, and on which premises.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::containerd::workspace;

/// Every block, function and implementation below a folder: its file, its line, its premise.
fn listed(folder: &Path, found: &mut Vec<(String, String, String)>) {
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.ends_with("target") {
            listed(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(workspace()).unwrap().display().to_string();
            of_file(&file, &fs::read_to_string(path).unwrap(), found);
        }
    }
}

fn of_file(file: &str, text: &str, found: &mut Vec<(String, String, String)>) {
    // In two parts, or this line would be found.
    let word = concat!("un", "safe");
    let mut premise = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("//") {
            let comment = comment.trim_start_matches(['/', '!']).trim();
            match comment.strip_prefix("SAFETY:") {
                Some(begin) => premise = begin.trim().to_owned(),
                None if comment == "# Safety" => premise = "(the caller's)".to_owned(),
                None if !premise.is_empty() => write!(premise, " {comment}").unwrap(),
                None => {}
            }
            continue;
        }
        let code = line.split("//").next().unwrap_or_default();
        let is_code = code.match_indices(word).any(|(at, _)| {
            let behind = code[at + word.len()..].trim_start();
            ["{", "fn", "impl", "extern"].iter().any(|follows| behind.starts_with(follows))
        });
        if is_code {
            // What is between an implementation and its methods says nothing of them.
            let method = code.starts_with(concat!("un", "safe fn")) && premise.is_empty();
            if method && found.iter().any(|(of, code, _)| of == file && code.contains("impl")) {
                "as its trait asks of the caller.".clone_into(&mut premise);
            }
            found.push((file.to_owned(), code.trim().to_owned(), premise.trim().to_owned()));
        }
        if line.is_empty() || is_code || line.ends_with(';') {
            premise.clear();
        }
    }
}

fn document(found: &[(String, String, String)]) -> String {
    let mut text = "# Unsafe code\n\nAll of it, with the premise of each place, as the code has it. \
                    A test compares this page with the code;\n`UPDATE_GOLDEN=1 cargo test -p \
                    myshim-integration --lib unsafe_code` writes it anew. Miri cannot run system\n\
                    calls: that a premise holds is argued there, and each place is run by the tests \
                    of its module.\n"
        .to_owned();
    let mut last = "";
    for (file, code, premise) in found {
        if file != last {
            writeln!(text, "\n## {file}\n").unwrap();
            last = file;
        }
        writeln!(text, "- `{}`: {premise}", code.replace('`', "'")).unwrap();
    }
    writeln!(text, "\n{} places.", found.len()).unwrap();
    text
}

#[test]
fn unsafe_code_is_below_sys_only_has_its_premise_and_is_listed() {
    let mut found = Vec::new();
    for folder in ["runtime", "shim", "integration"] {
        listed(&workspace().join(folder), &mut found);
    }
    assert!(found.len() > 50, "only {} places: is the code read?", found.len());
    for (file, code, _) in &found {
        assert!(file.starts_with("runtime/src/sys/"), "{file}: {code}");
    }
    let path = workspace().join("docs/unsafe.md");
    let expected = document(&found);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let bare: Vec<_> = found.iter().filter(|(.., premise)| premise.is_empty()).collect();
    assert!(bare.is_empty(), "without a premise: {bare:#?}");
    assert!(fs::read_to_string(&path).unwrap() == expected, "docs/unsafe.md is not up to date");
}
