//! Bytes as a string of hexadecimal digits: in JSON a third of what a list of numbers takes, and
//! parsed as fast as it is read.

use serde::de::Error as _;
use serde::{Deserializer, Serializer};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let text: String =
        bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]).collect();
    serializer.serialize_str(&text)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    deserializer.deserialize_str(Text).and_then(|bytes| {
        bytes.ok_or_else(|| D::Error::custom("not pairs of lower case hexadecimal digits"))
    })
}

/// Decodes where the text is, without a copy of it.
struct Text;

impl serde::de::Visitor<'_> for Text {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hexadecimal digits")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(decode(text.as_bytes()))
    }
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use crate::plan::Seccomp;

    #[test]
    fn bytes_survive_the_way_through_json() {
        let bpf = (0..=255).collect();
        let seccomp = Seccomp { bpf, flags: 0, listener: None };
        let text = serde_json::to_string(&seccomp).unwrap();
        assert!(text.starts_with(r#"{"bpf":"000102"#), "{text}");
        assert_eq!(serde_json::from_str::<Seccomp>(&text).unwrap(), seccomp);
        for bad in ["0", "0g", "AB"] {
            let text = format!(r#"{{"bpf":"{bad}","flags":0,"listener":null}}"#);
            assert!(serde_json::from_str::<Seccomp>(&text).is_err(), "{bad}");
        }
    }
}
