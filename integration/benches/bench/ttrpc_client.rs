//! A ttrpc client without threads, so that what is measured is the server.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use protobuf::Message;
use ttrpc::proto::{Request, Response};

const REQUEST: u8 = 1;
const HEADER: usize = 10;

/// One connection; requests may overlap.
#[derive(Debug)]
pub(crate) struct Client {
    socket: UnixStream,
    service: String,
    next: u32,
    early: HashMap<u32, Vec<u8>>,
}

/// A request that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending(u32);

impl Client {
    pub(crate) fn connect(path: &str, version: i64) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        let service = format!("containerd.task.v{version}.Task");
        Self { socket, service, next: 1, early: HashMap::new() }
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, method: &str, message: &impl Message) -> Pending {
        let mut request = Request::new();
        request.service.clone_from(&self.service);
        method.clone_into(&mut request.method);
        request.timeout_nano = 20_000_000_000;
        request.payload = message.write_to_bytes().unwrap();
        let payload = request.write_to_bytes().unwrap();
        let stream = self.next;
        self.next += 2;
        let mut frame = Vec::with_capacity(HEADER + payload.len());
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(stream.to_be_bytes());
        frame.extend([REQUEST, 0]);
        frame.extend(payload);
        self.socket.write_all(&frame).unwrap();
        Pending(stream)
    }

    /// Waits for its answer.
    pub(crate) fn receive<R: Message>(&mut self, pending: Pending) -> Result<R, String> {
        let payload = loop {
            if let Some(payload) = self.early.remove(&pending.0) {
                break payload;
            }
            let (stream, payload) = self.frame();
            self.early.insert(stream, payload);
        };
        let response = Response::parse_from_bytes(&payload).unwrap();
        match response.status.into_option() {
            Some(status) if !status.message.is_empty() => Err(status.message),
            _ => Ok(R::parse_from_bytes(&response.payload).unwrap()),
        }
    }

    /// Both; an error ends the run.
    pub(crate) fn call<R: Message>(&mut self, method: &str, message: &impl Message) -> R {
        let pending = self.send(method, message);
        self.receive(pending).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Reads until the server hangs up.
    pub(crate) fn until_closed(mut self) {
        let mut rest = Vec::new();
        drop(self.socket.read_to_end(&mut rest));
    }

    fn frame(&mut self) -> (u32, Vec<u8>) {
        let mut header = [0; HEADER];
        self.socket.read_exact(&mut header).expect("the shim has hung up");
        let length = u32::from_be_bytes(header[..4].try_into().unwrap());
        let stream = u32::from_be_bytes(header[4..8].try_into().unwrap());
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.socket.read_exact(&mut payload).unwrap();
        (stream, payload)
    }
}
