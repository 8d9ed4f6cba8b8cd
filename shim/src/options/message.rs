//! The wire format of protobuf, for messages that no crate has the type of.

use protobuf::CodedInputStream;
use runtime::{Error, Result};

use super::broken;

/// A field of a message that no crate has the type of.
pub(super) enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// All fields with their numbers, in the order they came in.
pub(super) fn fields(message: &[u8]) -> Result<Vec<(u32, Field)>> {
    let mut input = CodedInputStream::from_bytes(message);
    let mut fields = Vec::new();
    while let Some(tag) = input.read_raw_tag_or_eof().map_err(broken)? {
        let number = tag >> 3;
        match tag & 7 {
            0 => fields.push((number, Field::Number(input.read_uint64().map_err(broken)?))),
            1 => drop(input.read_fixed64().map_err(broken)?),
            2 => fields.push((number, Field::Bytes(input.read_bytes().map_err(broken)?))),
            5 => drop(input.read_fixed32().map_err(broken)?),
            wire => {
                let why = format!("field {number} has wire type {wire}");
                return Err(Error::argument("message", why));
            }
        }
    }
    Ok(fields)
}

pub(super) fn utf8(name: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::argument(name, "is not UTF-8"))
}
