//! Bytes as the specification has them, and peers that do not answer.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::message::{Incoming, length_of};
use super::*;
use crate::error::{Kind, Result};

fn call<'a>(arguments: &'a [Value]) -> Call<'a> {
    Call { destination: "a.b", path: "/a", interface: "a.b", member: "Do", arguments }
}

#[test]
fn a_call_is_marshalled_as_the_specification_says() {
    let arguments = [Value::text("hi"), Value::bytes(&[7]), Value::U64(5)];
    let bytes = call(&arguments).encode(2);
    let expected: &[&[u8]] = &[
        b"l\x01\0\x01",
        &24u32.to_le_bytes(), // body: "hi" 7, pad 1, array 5, pad 3, number 8
        &2u32.to_le_bytes(),
        &74u32.to_le_bytes(),
        b"\x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0",
        b"\x02\x01s\0\x03\0\0\0a.b\0\0\0\0\0",
        b"\x03\x01s\0\x02\0\0\0Do\0\0\0\0\0\0",
        b"\x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0",
        b"\x08\x01g\0\x04sayt\0",
        &[0; 6],
        b"\x02\0\0\0hi\0\0",
        b"\x01\0\0\0\x07\0\0\0",
        &5u64.to_le_bytes(),
    ];
    assert_eq!(bytes, expected.concat());
    assert_eq!(length_of(&bytes), Ok(Some(bytes.len())));
    assert_eq!(length_of(&bytes[..15]), Ok(None));
}

#[test]
fn the_length_of_an_array_leaves_its_padding_out() {
    let pair = Value::Struct(vec![
        Value::text("k"),
        Value::Variant(Box::new(Value::Array("u".into(), vec![Value::U32(9)]))),
    ]);
    let array = Value::Array("(sv)".into(), vec![pair]);
    assert_eq!(array.signature(), "a(sv)");
    let mut bytes = Vec::new();
    array.write(&mut bytes);
    let expected: &[&[u8]] = &[
        &20u32.to_le_bytes(),
        &[0; 4],
        b"\x01\0\0\0k\0\x02au\0\0\0",
        &4u32.to_le_bytes(),
        &9u32.to_le_bytes(),
    ];
    assert_eq!(bytes, expected.concat());
}

/// What a service would answer, in either byte order.
fn answer(big_endian: bool, kind: u8, signature: &str, body: &[u8]) -> Vec<u8> {
    let number = |n: usize| {
        let n = u32::try_from(n).unwrap();
        if big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
    };
    let order = if big_endian { b'B' } else { b'l' };
    let mut fields = Vec::new();
    fields.extend_from_slice(b"\x05\x01u\0");
    fields.extend_from_slice(&number(3));
    fields.extend_from_slice(b"\x08\x01g\0");
    fields.push(u8::try_from(signature.len()).unwrap());
    fields.extend_from_slice(signature.as_bytes());
    fields.push(0);
    let header = [vec![order, kind, 0, 1], number(body.len()).into(), number(1).into()].concat();
    let mut message = [header, number(fields.len()).into(), fields].concat();
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend_from_slice(body);
    message
}

#[test]
fn answers_of_either_byte_order_are_read() {
    let little = answer(false, 2, "o", b"\x02\0\0\0/j\0");
    let big = answer(true, 2, "o", b"\0\0\0\x02/j\0");
    for bytes in [little, big] {
        assert_eq!(length_of(&bytes), Ok(Some(bytes.len())));
        let message = Incoming::parse(bytes).unwrap();
        assert!(message.answers(3) && !message.answers(4));
        assert_eq!(message.outcome().unwrap().unwrap(), "/j");
    }
    let variant = answer(false, 2, "v", b"\x01s\0\0\x02\0\0\0ok\0");
    assert_eq!(Incoming::parse(variant).unwrap().outcome().unwrap().unwrap(), "ok");
}

#[test]
fn a_message_that_is_cut_or_lies_about_its_length_is_no_message() {
    let whole = answer(false, 2, "o", b"\x02\0\0\0/j\0");
    for end in 0..whole.len() {
        let message = Incoming::parse(whole[..end].to_vec());
        assert!(message.is_none_or(|message| message.outcome().is_none()), "{end}");
    }
    assert!(length_of(b"HTTP/1.1 400 Bad Request").is_err());
    let mut endless = whole;
    endless[4..8].fill(0xff);
    assert!(length_of(&endless).is_err());
}

fn socket() -> (UnixListener, PathBuf) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("myshim-dbus-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    (UnixListener::bind(&path).unwrap(), path)
}

const WITHIN: Duration = Duration::from_millis(300);

/// Talks to a peer that says `words`, one for each time that it is spoken to, and then hangs up
/// or (`waits`) says nothing.
fn talk(words: &'static [&'static [u8]], waits: bool) -> Result<()> {
    let (listener, path) = socket();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for word in words {
            let spoken = stream.read(&mut [0; 4096]).unwrap();
            assert!(spoken > 0);
            stream.write_all(word).unwrap();
        }
        if waits {
            // The end of the stream is that of the client.
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    let begin = Instant::now();
    let outcome = Connection::open(&path, Peer::Service, WITHIN)
        .and_then(|mut systemd| systemd.call(&call(&[]), "Do(x.scope)").map(drop));
    assert!(begin.elapsed() < WITHIN + Duration::from_secs(10));
    peer.join().unwrap();
    std::fs::remove_file(path).unwrap();
    outcome
}

#[test]
fn a_peer_that_says_nothing_is_an_error_at_the_deadline() {
    let error = talk(&[], true).unwrap_err();
    assert!(matches!(error.kind(), Kind::Deadline { after_ms: 300, .. }), "{error}");
    let error = talk(&[b"DATA\r\nOK 1234\r\n"], true).unwrap_err();
    assert!(matches!(error.kind(), Kind::Deadline { .. }), "{error}");
    assert!(error.to_string().contains("answer to Do(x.scope) from /"), "{error}");
}

#[test]
fn a_peer_that_hangs_up_is_an_error_at_once() {
    const WORDS: [&[&[u8]]; 2] = [&[b"DATA\r\n"], &[b"DATA\r\nOK 1\r\n", b"l\x02\0\x01"]];
    for words in WORDS {
        let error = talk(words, false).unwrap_err().to_string();
        assert!(error.contains("hung up") || error.contains("ECONNRESET"), "{error}");
    }
}

#[test]
fn a_peer_that_refuses_or_speaks_something_else_is_an_error() {
    let error = talk(&[b"REJECTED EXTERNAL\r\n"], false).unwrap_err().to_string();
    assert!(error.ends_with("refuses us: REJECTED EXTERNAL"), "{error}");
    let error = talk(&[b"DATA\r\nOK 1\r\n", b"HTTP/1.1 400 Bad Request\r\n"], true).unwrap_err();
    assert!(error.to_string().ends_with("what came is no D-Bus message we know"), "{error}");
}

/// The kernel queues a few connections that nobody accepts, and then a connect(2) waits.
#[test]
fn a_peer_that_accepts_nobody_is_an_error_at_the_deadline() {
    let (listener, path) = socket();
    rustix::net::listen(&listener, 2).unwrap();
    // Even those that have given up are in the queue.
    let mut queued = 0;
    let error = loop {
        let error = Connection::open(&path, Peer::Service, Duration::from_millis(10)).unwrap_err();
        if error.to_string().contains("no connection from") {
            break error;
        }
        queued += 1;
    };
    assert!(matches!(error.kind(), Kind::Deadline { .. }), "{error}");
    assert!(queued > 1);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_socket_that_is_not_there_is_an_error_with_its_path() {
    let path = std::env::temp_dir().join("myshim-no-such-socket");
    let error = Connection::open(&path, Peer::Bus, WITHIN).unwrap_err().to_string();
    assert!(error.contains("myshim-no-such-socket): ENOENT"), "{error}");
}
