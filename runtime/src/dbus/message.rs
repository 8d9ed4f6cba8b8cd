//! Messages: a call that is sent, and what comes back.

use super::value::{Reader, Value, length, pad, write_signature};

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Fixed part of a header, with the length of the array of fields.
pub(super) const FIXED: usize = 16;

/// What the specification allows.
const LONGEST: usize = 128 << 20;

/// A method to be called.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The name on the bus of who is called.
    pub(crate) destination: &'a str,
    /// The object.
    pub(crate) path: &'a str,
    /// The interface.
    pub(crate) interface: &'a str,
    /// The method.
    pub(crate) member: &'a str,
    /// Its arguments.
    pub(crate) arguments: &'a [Value],
}

impl Call<'_> {
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        self.arguments.iter().for_each(|argument| argument.write(&mut body));
        let mut message = vec![b'l', METHOD_CALL, 0, 1];
        message.extend_from_slice(&length(body.len()).to_le_bytes());
        message.extend_from_slice(&serial.to_le_bytes());
        message.extend_from_slice(&[0; 4]);
        for (code, value) in [
            (PATH, Value::Path(self.path.into())),
            (INTERFACE, Value::text(self.interface)),
            (MEMBER, Value::text(self.member)),
            (DESTINATION, Value::text(self.destination)),
        ] {
            pad(&mut message, 8);
            message.push(code);
            Value::Variant(Box::new(value)).write(&mut message);
        }
        if !self.arguments.is_empty() {
            pad(&mut message, 8);
            message.extend_from_slice(&[SIGNATURE, 1, b'g', 0]);
            let signature: String = self.arguments.iter().map(Value::signature).collect();
            write_signature(&mut message, &signature);
        }
        let fields = length(message.len() - FIXED).to_le_bytes();
        message.splice(FIXED - 4..FIXED, fields);
        pad(&mut message, 8);
        message.extend_from_slice(&body);
        message
    }
}

/// What a peer answers that does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The error's name, for example `org.freedesktop.systemd1.NoSuchUnit`.
    pub(crate) name: String,
    /// For people.
    pub(crate) text: String,
}

/// A message that came in.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    kind: u8,
    member: String,
    error: String,
    reply_to: u32,
    signature: String,
    bytes: Vec<u8>,
    body_at: usize,
    big_endian: bool,
}

/// How long the message is that begins with these bytes: None while they are too few to tell.
/// Err: they are no message.
pub(super) fn length_of(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let Some(first) = bytes.get(..FIXED) else { return Ok(None) };
    let big_endian = match first.first() {
        Some(b'l') => false,
        Some(b'B') => true,
        _ => return Err(()),
    };
    let lengths = || {
        let body = Reader::new(first, 4, big_endian).u32()?;
        let fields = Reader::new(first, 12, big_endian).u32()?;
        let header = FIXED.checked_add(usize::try_from(fields).ok()?)?;
        header.checked_next_multiple_of(8)?.checked_add(usize::try_from(body).ok()?)
    };
    lengths().filter(|length| *length <= LONGEST).ok_or(()).map(Some)
}

impl Incoming {
    /// Parses one whole message.
    pub(super) fn parse(bytes: Vec<u8>) -> Option<Incoming> {
        let big_endian = bytes.first() == Some(&b'B');
        let mut message = Incoming { kind: *bytes.get(1)?, big_endian, ..Incoming::default() };
        let mut reader = Reader::new(&bytes, 12, big_endian);
        let end = FIXED + usize::try_from(reader.u32()?).ok()?;
        loop {
            reader.align(8);
            if !reader.is_before(end) {
                break;
            }
            let code = reader.byte()?;
            let signature = reader.signature()?;
            match (code, signature.as_str()) {
                (MEMBER, "s") => message.member = reader.text()?,
                (ERROR_NAME, "s") => message.error = reader.text()?,
                (SIGNATURE, "g") => message.signature = reader.signature()?,
                (REPLY_SERIAL, "u") => message.reply_to = reader.u32()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => {
                    reader.u32()?;
                }
                _ => return None,
            }
        }
        message.body_at = reader.position();
        message.bytes = bytes;
        Some(message)
    }

    /// Whether it answers the call of this number.
    pub(super) fn answers(&self, serial: u32) -> bool {
        matches!(self.kind, METHOD_RETURN | ERROR) && self.reply_to == serial
    }

    /// What the answer says: nothing, a string or an object path, also within a variant.
    pub(super) fn outcome(&self) -> Option<Result<String, Refusal>> {
        let mut body = self.body();
        let text = match self.signature.as_str() {
            "v" => match body.signature()?.as_str() {
                "s" | "o" => body.text()?,
                _ => return None,
            },
            signature if signature.starts_with(['s', 'o']) => body.text()?,
            _ => String::new(),
        };
        Some(match self.kind {
            ERROR => Err(Refusal { name: self.error.clone(), text }),
            _ => Ok(text),
        })
    }

    /// The object path and the result of a JobRemoved(u id, o job, s unit, s result).
    pub(super) fn job_removed(&self) -> Option<(String, String)> {
        if (self.kind, self.member.as_str()) != (SIGNAL, "JobRemoved") {
            return None;
        }
        let mut body = self.body();
        body.u32()?;
        let job = body.text()?;
        body.text()?;
        Some((job, body.text()?))
    }

    fn body(&self) -> Reader<'_> {
        Reader::new(&self.bytes, self.body_at, self.big_endian)
    }
}
