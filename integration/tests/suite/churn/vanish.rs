//! A client that hangs up before it is answered.

use std::io::Write;
use std::os::unix::net::UnixStream;

use myshim_integration::shim::Shim;
use protobuf::Message;
use ttrpc::proto::Request;

/// MESSAGE_TYPE_REQUEST of ttrpc's PROTOCOL.md.
const REQUEST: u8 = 1;

/// Sends a whole request on a connection of its own, and is gone.
pub(super) fn call(shim: &Shim, method: &str, message: &impl Message) {
    let mut request = Request::new();
    request.service = format!("containerd.task.v{}.Task", shim.answer.version);
    method.clone_into(&mut request.method);
    request.payload = message.write_to_bytes().unwrap();
    let payload = request.write_to_bytes().unwrap();
    let length = u32::try_from(payload.len()).unwrap();
    let stream: u32 = 1;
    let frame = [&length.to_be_bytes()[..], &stream.to_be_bytes(), &[REQUEST, 0], &payload];
    UnixStream::connect(shim.answer.socket()).unwrap().write_all(&frame.concat()).unwrap();
}

/// Sends the first bytes of one, and is gone.
pub(super) fn half_a_call(shim: &Shim) {
    UnixStream::connect(shim.answer.socket()).unwrap().write_all(&[0, 0, 1, 0, 0]).unwrap();
}
