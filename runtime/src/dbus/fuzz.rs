//! Any bytes from a peer.

use super::message::{Call, Incoming, length_of};
use super::value::Value;

/// A stream of bytes is messages, or the beginning of one, or nothing that is known; what an answer
/// says is looked for inside it.
pub fn dbus(input: &[u8]) {
    let mut rest = input;
    while let Ok(Some(length)) = length_of(rest) {
        assert!(length >= super::message::FIXED);
        let Some((message, behind)) = rest.split_at_checked(length) else { break };
        if let Some(incoming) = Incoming::parse(message.to_vec()) {
            drop((incoming.outcome(), incoming.job_removed(), incoming.answers(1)));
        }
        rest = behind;
    }
}

/// A call with these arguments is one message, which is understood.
pub(crate) fn can_be_said(arguments: &[Value]) {
    let call =
        Call { destination: "a.b", path: "/a", interface: "a.b", member: "Start", arguments };
    let message = call.encode(7);
    assert_eq!(length_of(&message), Ok(Some(message.len())));
    let incoming = Incoming::parse(message);
    assert!(incoming.is_some_and(|incoming| !incoming.answers(7)), "{arguments:?}");
}
