//! Properties that the spec's annotations give: `org.systemd.property.NAME`, with a value in
//! GVariant's text form, as runc and crun have them.

use std::collections::BTreeMap;

use super::properties::Property;
use crate::dbus::Value;
use crate::error::{Error, Result};

/// What such an annotation's key begins with.
pub(super) const PREFIX: &str = "org.systemd.property.";

/// Properties by which the unit is what it is, or is known again.
const OURS: [&str; 7] =
    ["Delegate", "Description", "PIDs", "PIDFDs", "Slice", "ControlGroup", "Controller"];

/// All of them, ordered by name.
///
/// # Errors
/// `Field` with the annotation for a value that does not parse, and for a property that is the
/// runtime's or one of `limits`.
pub(super) fn properties(
    annotations: &BTreeMap<String, String>,
    limits: &[Property],
) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let refuse = |why: String| Error::field(format!("annotations[{key:?}]"), why);
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(refuse("is not the name of a property".into()));
        }
        let value = parse(text).map_err(refuse)?;
        let property = in_microseconds(name, value).map_err(refuse)?;
        if OURS.contains(&property.name.as_str()) {
            return Err(refuse("this property is set by the runtime".into()));
        }
        if limits.iter().any(|limit| limit.name == property.name) {
            return Err(refuse("linux.resources says this already".into()));
        }
        properties.push(property);
    }
    Ok(properties)
}

/// Unit files know times in seconds (`TimeoutStopSec`), D-Bus in µs (`TimeoutStopUSec`). Who
/// writes the former means the former.
fn in_microseconds(name: &str, value: Value) -> std::result::Result<Property, String> {
    let stem = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U'));
    let Some(stem) = stem else { return Ok(Property::new(name, value)) };
    let seconds = match &value {
        Value::Byte(number) => Some(u64::from(*number)),
        Value::U16(number) => Some(u64::from(*number)),
        Value::U32(number) => Some(u64::from(*number)),
        Value::U64(number) => Some(*number),
        Value::I16(number) => u64::try_from(*number).ok(),
        Value::I32(number) => u64::try_from(*number).ok(),
        Value::I64(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let microseconds = seconds.and_then(|seconds| seconds.checked_mul(1_000_000));
    let microseconds = microseconds.ok_or("must be a whole number of seconds")?;
    Ok(Property::new(format!("{stem}USec"), Value::U64(microseconds)))
}

/// Parses one value: a string, a boolean, a number, or an array or tuple of such, each of which
/// may have its type in front of it (`uint64 5`, `@as []`).
fn parse(text: &str) -> std::result::Result<Value, String> {
    let mut parser = Parser { rest: text.trim(), depth: 0 };
    let value = parser.value(None)?;
    if !parser.rest.is_empty() {
        return Err(format!("{text:?}: what is {:?} at the end?", parser.rest));
    }
    match value.signature().len() {
        0..=LONGEST_SIGNATURE => Ok(value),
        length => Err(format!("has a type of {length} characters: D-Bus has {LONGEST_SIGNATURE}")),
    }
}

/// D-Bus specification, “Type System”: the length of a signature is a byte.
const LONGEST_SIGNATURE: usize = 255;

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// No property is nested deeper.
    const DEEPEST: usize = 8;

    fn value(&mut self, wanted: Option<&str>) -> std::result::Result<Value, String> {
        let wrong =
            format!("{:?} is not a value like 'text', true, 5, uint64 5 or ['a', 'b']", self.rest);
        match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => self.text(quote, wanted),
            Some('[') => self.nested(|parser| parser.array(wanted)),
            Some('(') => self.nested(|parser| parser.tuple(wanted)),
            Some('@') => {
                self.rest = self.rest.get(1..).unwrap_or_default();
                let signature = self.take(|c| c.is_ascii_alphabetic() || matches!(c, '(' | ')'));
                self.skip_spaces();
                self.value(Some(signature))
            }
            Some(first) if first.is_ascii_alphabetic() => match self.word() {
                "true" => fits(Value::Bool(true), wanted),
                "false" => fits(Value::Bool(false), wanted),
                word => {
                    let signature = keyword(word).ok_or(wrong)?;
                    self.skip_spaces();
                    self.value(Some(signature))
                }
            },
            Some(first) if first.is_ascii_digit() || matches!(first, '-' | '+') => {
                let digits =
                    self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'));
                number(digits, wanted.unwrap_or("i"))
            }
            _ => Err(wrong),
        }
    }

    fn nested(
        &mut self,
        inner: impl FnOnce(&mut Self) -> std::result::Result<Value, String>,
    ) -> std::result::Result<Value, String> {
        self.depth += 1;
        if self.depth > Self::DEEPEST {
            return Err("is nested too deeply".into());
        }
        self.rest = self.rest.get(1..).unwrap_or_default();
        let value = inner(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn array(&mut self, wanted: Option<&str>) -> std::result::Result<Value, String> {
        let element = match wanted {
            Some(signature) => Some(
                signature
                    .strip_prefix('a')
                    .ok_or_else(|| format!("an array is not {signature:?}"))?,
            ),
            None => None,
        };
        let items = self.items(']', |parser, before: Option<&Value>| {
            let like = before.map(Value::signature);
            parser.value(element.or(like.as_deref()))
        })?;
        let signature = element.map(str::to_owned).or_else(|| Some(items.first()?.signature()));
        let signature = signature.ok_or("an empty array needs its type, for example `@as []`")?;
        Ok(Value::Array(signature, items))
    }

    fn tuple(&mut self, wanted: Option<&str>) -> std::result::Result<Value, String> {
        let items = self.items(')', |parser, _| parser.value(None))?;
        if items.is_empty() {
            return Err("a tuple must not be empty".into());
        }
        fits(Value::Struct(items), wanted)
    }

    fn items(
        &mut self,
        end: char,
        mut item: impl FnMut(&mut Self, Option<&Value>) -> std::result::Result<Value, String>,
    ) -> std::result::Result<Vec<Value>, String> {
        let mut items: Vec<Value> = Vec::new();
        loop {
            self.skip_spaces();
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                return Ok(items);
            }
            if !items.is_empty() {
                let rest =
                    self.rest.strip_prefix(',').ok_or_else(|| format!("`{end}` is missing"))?;
                self.rest = rest.trim_start();
                if let Some(rest) = self.rest.strip_prefix(end) {
                    self.rest = rest;
                    return Ok(items);
                }
            }
            let value = item(self, items.last())?;
            items.push(value);
        }
    }

    fn text(&mut self, quote: char, wanted: Option<&str>) -> std::result::Result<Value, String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, escaped @ ('\\' | '\'' | '"'))) => text.push(escaped),
                    _ => return Err("has an escape that is none of \\\\ \\' \\\" \\n \\t".into()),
                },
                '\0' => return Err("has a NUL in it".into()),
                character if character == quote => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default().trim_start();
                    return match wanted {
                        None | Some("s") => Ok(Value::Text(text)),
                        Some("o") => Ok(Value::Path(text)),
                        Some(other) => Err(format!("a string is not {other:?}")),
                    };
                }
                character => text.push(character),
            }
        }
        Err(format!("{quote} is missing at the end"))
    }

    fn word(&mut self) -> &'a str {
        self.take(|c| c.is_ascii_alphanumeric())
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        taken
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

fn keyword(word: &str) -> Option<&'static str> {
    Some(match word {
        "boolean" => "b",
        "byte" => "y",
        "int16" => "n",
        "uint16" => "q",
        "int32" => "i",
        "uint32" => "u",
        "int64" => "x",
        "uint64" => "t",
        "string" => "s",
        "objectpath" => "o",
        _ => return None,
    })
}

fn fits(value: Value, wanted: Option<&str>) -> std::result::Result<Value, String> {
    match wanted {
        Some(wanted) if wanted != value.signature() => {
            Err(format!("the type {:?} is not {wanted:?}", value.signature()))
        }
        _ => Ok(value),
    }
}

fn number(digits: &str, signature: &str) -> std::result::Result<Value, String> {
    let unsigned = digits.trim_start_matches(['-', '+']);
    let magnitude = match unsigned.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => unsigned.parse(),
    };
    let magnitude = magnitude.map_err(|_| format!("{digits:?} is not a whole number"))?;
    let number = if digits.starts_with('-') { -magnitude } else { magnitude };
    let value = match signature {
        "y" => number.try_into().map(Value::Byte),
        "n" => number.try_into().map(Value::I16),
        "q" => number.try_into().map(Value::U16),
        "i" => number.try_into().map(Value::I32),
        "u" => number.try_into().map(Value::U32),
        "x" => number.try_into().map(Value::I64),
        "t" => number.try_into().map(Value::U64),
        other => return Err(format!("a number is not {other:?}")),
    };
    value.map_err(|_| format!("{digits} is too large or too small for the type {signature:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::text(text)
    }

    #[test]
    fn the_usual_forms_are_read() {
        for (form, value) in [
            ("'inactive-or-failed'", text("inactive-or-failed")),
            ("\"it's\"", text("it's")),
            (r"'it\'s'", text("it's")),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x10", Value::I32(16)),
            ("uint64 5", Value::U64(5)),
            ("@t 5", Value::U64(5)),
            ("int64 -5", Value::I64(-5)),
            ("byte 255", Value::Byte(255)),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("['a', 'b']", Value::texts(["a".to_owned(), "b".to_owned()])),
            ("@as []", Value::texts([])),
            ("[uint32 1, 2]", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            (
                "[('/dev/null', 'rw')]",
                Value::Array(
                    "(ss)".into(),
                    vec![Value::Struct(vec![text("/dev/null"), text("rw")])],
                ),
            ),
            (" 'a' ", text("a")),
        ] {
            assert_eq!(parse(form).as_ref(), Ok(&value), "{form}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for form in [
            "",
            "a",
            "'a",
            "'a' b",
            "[1",
            "[]",
            "[1, 'a']",
            "300 5",
            "byte 300",
            "uint32 -1",
            "uint64 'a'",
            "3000000000",
            "1.5",
            "()",
            "@as 5",
            "maybe 5",
            "{'a': 1}",
            "nothing",
            "[[[[[[[[[1]]]]]]]]]",
            "'\\q'",
            "@q",
            "uint64",
        ] {
            assert!(parse(form).is_err(), "{form:?}: {:?}", parse(form));
        }
        let tuple = |fields: usize| format!("({})", "1, ".repeat(fields));
        assert!(parse(&tuple(253)).is_ok());
        assert!(parse(&tuple(254)).unwrap_err().contains("256 characters"));
    }

    fn given(name: &str, value: &str) -> String {
        let annotations = [(format!("{PREFIX}{name}"), value.to_owned())].into();
        let limits = [Property::new("MemoryMax", Value::U64(1))];
        match properties(&annotations, &limits) {
            Ok(properties) => format!("{:?}", properties.first().unwrap()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        let property = Property::new("TimeoutStopUSec", Value::U64(5_000_000));
        assert_eq!(given("TimeoutStopSec", "5"), format!("{property:?}"));
        assert_eq!(given("TimeoutStopSec", "uint64 5"), format!("{property:?}"));
        assert_eq!(given("TimeoutStopUSec", "uint64 5000000"), format!("{property:?}"));
        assert!(given("TimeoutStopSec", "'5'").contains("whole number of seconds"));
    }

    #[test]
    fn a_wrong_annotation_is_refused_by_its_name() {
        for (name, value) in [
            ("After", "[sshd"),
            ("Slice", "'a.slice'"),
            ("Description", "'mine'"),
            ("MemoryMax", "uint64 5"),
            ("Me mory", "5"),
            ("", "5"),
        ] {
            let error = given(name, value);
            let field = format!("annotations[\"{PREFIX}{name}\"]: ");
            assert!(error.starts_with(&field), "{error}");
        }
    }

    #[test]
    fn other_annotations_are_not_looked_at() {
        let annotations = [("io.kubernetes.pod".to_owned(), "[".to_owned())].into();
        assert_eq!(properties(&annotations, &[]).unwrap(), []);
    }
}
