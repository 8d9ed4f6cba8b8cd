//! What the client's stdout says: where a process's output goes.
//!
//! ```text
//! ""                                  nowhere
//! /run/containerd/fifo/1/x-stdout     a fifo (or a file that exists); stderr has its own
//! fifo:///run/…                       the same
//! file:///var/log/x.log               appended to; stderr too
//! binary:///usr/bin/logger?--a=b      a program that reads both; ready when it closes fd 5
//! binary-v2:///usr/bin/logger?--a=b   the same; ready when it writes a byte to fd 5
//! ```

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use runtime::{Error, Result};

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Nowhere.
    Null,
    /// A fifo or file that exists, for this stream alone.
    Path(PathBuf),
    /// A file to append to, for stdout and stderr.
    File(PathBuf),
    /// A program to start, for stdout and stderr.
    Logger(Program),
}

/// A logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Its path.
    pub(super) path: PathBuf,
    /// Its arguments after the first: the query's keys and values, in its order.
    pub(super) args: Vec<OsString>,
    /// What it does when it is ready.
    pub(super) ready: Ready,
}

/// How a logger says that it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// It closes fd 5, with or without a byte before.
    Close,
    /// It writes a byte to fd 5.
    Byte,
}

/// Understands the client's stdout, or a stderr that has its own path.
///
/// # Errors
/// A scheme that is not known, or no absolute path.
pub(super) fn parse(text: &str) -> Result<Target> {
    if text.is_empty() {
        return Ok(Target::Null);
    }
    let Some((scheme, rest)) = scheme(text) else {
        return Ok(Target::Path(text.into()));
    };
    let refuse = |why: &str| Error::argument("stdout", format!("{why} in {text:?}"));
    let rest = rest.split_once('#').map_or(rest, |(before, _fragment)| before);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("//").map_or(path, |after| {
        // What comes before the path is a host's name, which none of the schemes uses.
        after.find('/').and_then(|slash| after.get(slash..)).unwrap_or("")
    });
    let path = PathBuf::from(decode(path, Plus::Literal).ok_or_else(|| refuse("bad escape"))?);
    if !path.is_absolute() {
        return Err(refuse("no absolute path"));
    }
    let logger = |ready| {
        let args = arguments(query).ok_or_else(|| refuse("bad escape"))?;
        Ok(Target::Logger(Program { path: path.clone(), args, ready }))
    };
    match scheme {
        "fifo" => Ok(Target::Path(path)),
        "file" => Ok(Target::File(path)),
        "binary" => logger(Ready::Close),
        "binary-v2" => logger(Ready::Byte),
        _ => Err(Error::argument("stdout", format!("unknown STDIO scheme {scheme}"))),
    }
}

/// RFC 3986: a letter, then letters, digits, `+`, `-`, `.`, up to the first colon.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(known))
        .then_some((scheme, rest))
}

/// `a=b&c` is `a b c ""`, as Go's url.Query gives it to the logger; of a key that comes again only
/// the first value counts.
fn arguments(query: &str) -> Option<Vec<OsString>> {
    let mut args: Vec<OsString> = Vec::new();
    let mut keys: Vec<OsString> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(key, Plus::Space)?;
        if !keys.contains(&key) {
            args.push(key.clone());
            args.push(decode(value, Plus::Space)?);
            keys.push(key);
        }
    }
    Some(args)
}

/// What `+` stands for: a space in a query, itself in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Literal,
    Space,
}

/// Percent-decodes. None: an escape that is none, or a NUL byte.
fn decode(text: &str, plus: Plus) -> Option<OsString> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
                u8::try_from(value).ok()?
            }
            b'+' if plus == Plus::Space => b' ',
            other => other,
        });
    }
    let decoded = OsString::from_vec(decoded);
    (!decoded.as_bytes().contains(&0)).then_some(decoded)
}

/// A place with a path, or a refusal.
///
/// # Errors
/// As for [`parse`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(text: &str) -> Result<()> {
    match parse(text)? {
        Target::Null | Target::Path(_) => {}
        Target::File(path) | Target::Logger(Program { path, .. }) => assert!(path.is_absolute()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_as_it_is() {
        for text in ["/run/fifo/a%20b?c", "relative"] {
            assert_eq!(parse(text).unwrap(), Target::Path(text.into()));
        }
        assert_eq!(parse("").unwrap(), Target::Null);
        assert_eq!(parse("fifo:///a%20b").unwrap(), Target::Path("/a b".into()));
    }

    #[test]
    fn the_query_of_a_binary_is_its_arguments() {
        let program = |args: &[&str], ready| {
            let args = args.iter().map(OsString::from).collect();
            Target::Logger(Program { path: "/bin/log".into(), args, ready })
        };
        assert_eq!(
            parse("binary:///bin/log?id=a+b&--flag&x=1%262&id=again").unwrap(),
            program(&["id", "a b", "--flag", "", "x", "1&2"], Ready::Close)
        );
        assert_eq!(parse("binary-v2:///bin/log").unwrap(), program(&[], Ready::Byte));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in ["npipe:///x", "file://relative", "binary://", "file:///%zz", "file:///%00"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
