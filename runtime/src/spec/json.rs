//! JSON text to types, with the JSON path of what is wrong in it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::MAX_BYTES;
use crate::error::{Call, Error, Result};

/// Properties that never reach a system call as a C string: a NUL byte does no harm there.
const MAY_HAVE_NUL: [&str; 2] = ["annotations", "listenerMetadata"];

/// Reads a regular file of at most [`MAX_BYTES`] bytes.
///
/// # Errors
/// open(2), fstat(2), read(2); what is no regular file, or is larger, by its name.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    // O_NONBLOCK: a fifo in the place of the file must not hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = open(path, flags, Mode::empty()).call(|| format!("open({path:?}, O_RDONLY)"))?;
    let stat = fstat(&fd).call(|| format!("fstat({path:?})"))?;
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    let name = || path.display().to_string();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::argument(name(), "is not a regular file"));
    }
    if size > MAX_BYTES {
        return Err(Error::argument(name(), format!("has {size} bytes, at most {MAX_BYTES}")));
    }
    let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
    // One byte more than allowed shows a file that grew since.
    let read = File::from(fd).take(MAX_BYTES + 1).read_to_end(&mut text);
    read.call(|| format!("read({path:?})"))?;
    if u64::try_from(text.len()).is_ok_and(|len| len > MAX_BYTES) {
        return Err(Error::argument(name(), format!("has more than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Parses a document. `prefix` is the path of its root property (empty for a whole
/// config.json), `name` what it is called where no path fits.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8], prefix: &str, name: &str) -> Result<T> {
    // Keeping track of the path costs as much as parsing does: it is done for failures only.
    let parsed = match serde_json::from_slice(text) {
        Ok(parsed) => parsed,
        Err(_) => parse_again_with_path(text, prefix, name)?,
    };
    refuse_nul(text, prefix)?;
    Ok(parsed)
}

fn parse_again_with_path<T: DeserializeOwned>(text: &[u8], prefix: &str, name: &str) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| refusal(text, &error, prefix, name))?;
    // What follows the document is the one failure that the line above does not see.
    deserializer.end().map_err(|error| Error::field(name, error.to_string()))?;
    Ok(parsed)
}

fn refusal(
    text: &[u8],
    error: &serde_path_to_error::Error<serde_json::Error>,
    prefix: &str,
    name: &str,
) -> Error {
    let inner = error.inner();
    let why = inner.to_string();
    // An object in place of a word is an error of syntax to serde_json, though it is JSON.
    if !inner.is_data() && serde_json::from_slice::<IgnoredAny>(text).is_err() {
        return Error::field(name, why);
    }
    let path = match error.path().to_string() {
        root if root == "." => prefix.to_owned(),
        path if prefix.is_empty() => path,
        path if path.starts_with('[') => format!("{prefix}{path}"),
        path => format!("{prefix}.{path}"),
    };
    // serde_json appends the position; the path says it better.
    let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why);
    match why.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(field) if path.is_empty() => Error::field(field, "missing"),
        Some(field) => Error::field(format!("{path}.{field}"), "missing"),
        None if path.is_empty() => Error::field(name, why),
        None => Error::field(path, why),
    }
}

/// A NUL byte would end an argument, a path or an option early on its way to the kernel. JSON
/// can write it only as `\u0000`, so that the search for it is all that a sane document costs.
fn refuse_nul(text: &[u8], prefix: &str) -> Result<()> {
    if !text.windows(6).any(|window| window == b"\\u0000") {
        return Ok(());
    }
    let value = serde_json::from_slice(text)
        .map_err(|error| Error::field(prefix.to_owned(), error.to_string()))?;
    match find_nul(&value, prefix.to_owned()) {
        Some(path) => Err(Error::field(path, "contains a NUL byte")),
        None => Ok(()),
    }
}

fn find_nul(value: &Value, path: String) -> Option<String> {
    match value {
        Value::String(string) => string.contains('\0').then_some(path),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_nul(item, format!("{path}[{index}]"))),
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| !MAY_HAVE_NUL.contains(&key.as_str()))
            .find_map(|(key, item)| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if key.contains('\0') { Some(path) } else { find_nul(item, path) }
            }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
