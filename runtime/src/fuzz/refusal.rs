//! What makes a refusal a good one.

use serde_json::Value;

use crate::error::{Error, Kind};

/// A refusal of a document that is JSON names a property of it. `root` is the path of the
/// document itself, empty for a config.json, and `name` what it is called as a whole.
pub(crate) fn names_a_field(error: &Error, input: &[u8], root: &str, name: &str) {
    let Ok(document) = serde_json::from_slice::<Value>(input) else { return };
    if colons(input) != keys(&document) {
        // A property is there twice: which of them is meant, a path cannot say.
        return;
    }
    let path = match error.kind() {
        Kind::Field { path, .. } => path.as_str(),
        // These have it in front of their text.
        Kind::Unsupported(why) => why.split(": ").next().unwrap_or_default(),
        // The file of a namespace that is joined.
        Kind::Call { call, .. } if call.starts_with("stat(") => return,
        other => panic!("refused without a field: {other:?}"),
    };
    if path == name {
        let why = error.to_string();
        let of_the_whole = !document.is_object() || why.contains("duplicate field");
        assert!(of_the_whole, "refused as a whole: {why}");
        return;
    }
    let below = path.strip_prefix(root).unwrap_or(path);
    assert!(leads_into(&document, below), "no such property: {error}");
}

/// Whether the path is that of something in the value, or of a property that is missing there.
fn leads_into(value: &Value, path: &str) -> bool {
    if path.is_empty() {
        return true;
    }
    if let Some(rest) = path.strip_prefix('[') {
        let Some((index, rest)) = rest.split_once(']') else { return false };
        return match (value, index.parse::<usize>()) {
            (Value::Array(items), Ok(index)) => {
                items.get(index).is_some_and(|item| leads_into(item, rest))
            }
            // A key that has dots in it.
            (Value::Object(fields), Err(_)) => {
                serde_json::from_str::<String>(index).is_ok_and(|key| fields.contains_key(&key))
            }
            _ => false,
        };
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let fields = match value {
        Value::Object(fields) => fields,
        // serde takes a list of a type's properties for the type: they have no names in it.
        Value::Array(_) => return true,
        _ => return is_plain(path),
    };
    let mut below = fields.iter().filter_map(|(key, item)| {
        let rest = path.strip_prefix(key.as_str())?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then_some((item, rest))
    });
    below.any(|(item, rest)| leads_into(item, rest)) || is_plain(path)
}

/// Outside of strings: one for each property.
fn colons(text: &[u8]) -> usize {
    let (mut count, mut inside, mut escaped) = (0, false, false);
    for byte in text {
        match (byte, inside) {
            _ if escaped => escaped = false,
            (b'\\', true) => escaped = true,
            (b'"', _) => inside = !inside,
            (b':', false) => count += 1,
            _ => {}
        }
    }
    count
}

fn keys(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(keys).sum(),
        Value::Object(fields) => fields.len() + fields.values().map(keys).sum::<usize>(),
        _ => 0,
    }
}

/// Names as the specification has them.
fn is_plain(path: &str) -> bool {
    let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
    path.split('.').all(plain)
}
