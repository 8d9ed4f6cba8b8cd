//! Values and their wire form.
//!
//! Everything is aligned to its own size, counted from the beginning of the message; what this
//! client writes is little-endian, what it reads may be either.

use serde::{Deserialize, Serialize};

/// A value of one of the types that systemd's properties have. (No property that a unit can be
/// made with is a double, and none is a dictionary.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `y`
    Byte(u8),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `s`; no NUL in it.
    Text(String),
    /// `o`
    Path(String),
    /// `a`: the signature of an element, and the elements, which all have it.
    Array(String, Vec<Value>),
    /// `( )`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A string.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// An array of bytes.
    pub fn bytes(bytes: &[u8]) -> Value {
        Value::Array("y".into(), bytes.iter().copied().map(Value::Byte).collect())
    }

    /// An array of strings.
    pub fn texts(texts: impl IntoIterator<Item = String>) -> Value {
        Value::Array("s".into(), texts.into_iter().map(Value::Text).collect())
    }

    /// Its type.
    pub fn signature(&self) -> String {
        match self {
            Value::Bool(_) => "b".into(),
            Value::Byte(_) => "y".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::Text(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => {
                format!("({})", fields.iter().map(Value::signature).collect::<String>())
            }
            Value::Variant(_) => "v".into(),
        }
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        match self {
            Value::Bool(value) => put(to, &u32::from(*value).to_le_bytes()),
            Value::Byte(value) => put(to, &[*value]),
            Value::I16(value) => put(to, &value.to_le_bytes()),
            Value::U16(value) => put(to, &value.to_le_bytes()),
            Value::I32(value) => put(to, &value.to_le_bytes()),
            Value::U32(value) => put(to, &value.to_le_bytes()),
            Value::I64(value) => put(to, &value.to_le_bytes()),
            Value::U64(value) => put(to, &value.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => write_text(to, text),
            Value::Array(element, items) => write_array(to, element, items),
            Value::Struct(fields) => {
                pad(to, 8);
                fields.iter().for_each(|field| field.write(to));
            }
            Value::Variant(value) => {
                write_signature(to, &value.signature());
                value.write(to);
            }
        }
    }
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    pad(to, bytes.len());
    to.extend_from_slice(bytes);
}

pub(super) fn pad(to: &mut Vec<u8>, alignment: usize) {
    to.resize(to.len().next_multiple_of(alignment), 0);
}

/// A length as the wire has it. Nothing that is said here comes near 4 GiB, and a message beyond
/// 128 MiB is refused by every peer.
pub(super) fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn write_text(to: &mut Vec<u8>, text: &str) {
    put(to, &length(text.len()).to_le_bytes());
    to.extend_from_slice(text.as_bytes());
    to.push(0);
}

/// A signature has a length of one byte, and no alignment.
pub(super) fn write_signature(to: &mut Vec<u8>, signature: &str) {
    to.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    to.extend_from_slice(signature.as_bytes());
    to.push(0);
}

/// The length counts from the first element on, without the padding before it.
fn write_array(to: &mut Vec<u8>, element: &str, items: &[Value]) {
    put(to, &[0; 4]);
    let length_at = to.len() - 4;
    pad(to, alignment(element));
    let begin = to.len();
    items.iter().for_each(|item| item.write(to));
    let written = length(to.len() - begin).to_le_bytes();
    to.splice(length_at..length_at + 4, written);
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'(' | b'd' | b'{') => 8,
        _ => 4,
    }
}

/// Reads what a peer has written. None: it ends too early, or is not what was expected.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, big_endian: bool) -> Reader<'a> {
        Reader { bytes, at, big_endian }
    }

    pub(super) fn is_before(&self, end: usize) -> bool {
        self.at < end
    }

    pub(super) fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// `s` or `o`.
    pub(super) fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        let text = self.take(length)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).ok()
    }

    pub(super) fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let text = self.take(length)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).ok()
    }
}
