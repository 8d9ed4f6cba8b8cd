//! rtnetlink(7), one blocking request at a time.
//!
//! A socket speaks for the network namespace it was made in, wherever its process goes later.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use crate::error::ToErrno;

/// The kernel fills at most 32 KiB of a datagram, and answers about one device fit into that.
const DATAGRAM: usize = 32 * 1024;
/// `struct nlmsghdr`: an error's payload begins with that of the request.
const HEADER: usize = 16;
/// NLMSGERR_ATTR_MSG of linux/netlink.h: the kernel's reason, in words.
const ERROR_TEXT: u16 = 1;

/// Why a request has failed.
#[derive(Debug)]
pub struct Refusal {
    errno: Errno,
    reason: Option<String>,
}

impl Refusal {
    fn because(errno: Errno, reason: impl fmt::Display) -> Refusal {
        Refusal { errno, reason: Some(reason.to_string()) }
    }

    /// The errno.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// What is more to say about it (the kernel's extended acknowledgement), with a space and in
    /// parentheses; empty when there is nothing.
    pub fn reason(&self) -> String {
        self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        Refusal { errno, reason: None }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        Errno::from_raw(error.to_errno()).into()
    }
}

/// A socket to one network namespace.
#[derive(Debug)]
pub struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

impl RouteSocket {
    /// A socket to the present network namespace.
    ///
    /// # Errors
    /// The errno of socket(2) or setsockopt(2).
    pub fn open() -> Result<RouteSocket, Refusal> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_ext_ack(true)?;
        // An error repeats only the request's header: nobody reads the rest.
        socket.set_cap_ack(true)?;
        Ok(RouteSocket { socket, sequence: 0 })
    }

    /// Asks, and collects the answer up to its end. `flags` are NLM_F_* beside REQUEST and ACK.
    ///
    /// # Errors
    /// The kernel's errno and reason; EBADMSG for an answer that makes no sense, EINTR for a dump
    /// of what changed in the meantime.
    pub fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let sent = self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        if sent != bytes.len() {
            return Err(Refusal::because(Errno::EMSGSIZE, format!("sent {sent} bytes of it")));
        }
        self.answer()
    }

    fn answer(&self) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        let mut answers = Vec::new();
        let mut consistency = Consistency::Whole;
        loop {
            let mut datagram = Vec::with_capacity(DATAGRAM);
            let (length, sender) = self.socket.recv_from(&mut datagram, libc::MSG_TRUNC)?;
            if length > datagram.len() {
                return Err(Refusal::because(Errno::EMSGSIZE, format!("{length} bytes")));
            }
            // Other processes may send to this socket too.
            if sender.port_number() != 0 || !self.read(&datagram, &mut answers, &mut consistency)? {
                continue;
            }
            return match consistency {
                Consistency::Whole => Ok(answers),
                Consistency::Interrupted => Err(Errno::EINTR.into()),
            };
        }
    }

    /// Reads the messages of one datagram; whether the answer has ended.
    fn read(
        &self,
        mut bytes: &[u8],
        answers: &mut Vec<RouteNetlinkMessage>,
        consistency: &mut Consistency,
    ) -> Result<bool, Refusal> {
        while !bytes.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
                .map_err(|error| Refusal::because(Errno::EBADMSG, error))?;
            let (header, payload) = message.into_parts();
            // Each message begins at a multiple of four.
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            bytes = bytes.get(length.next_multiple_of(4).max(HEADER)..).unwrap_or_default();
            if header.sequence_number != self.sequence {
                continue;
            }
            if header.flags & NLM_F_DUMP_INTR != 0 {
                *consistency = Consistency::Interrupted;
            }
            match payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Done(done) => return ended(done.code, &[]),
                NetlinkPayload::Error(error) => {
                    let has_text = header.flags & NLM_F_ACK_TLVS != 0;
                    let text = if has_text { error.header.get(HEADER..) } else { None };
                    return ended(error.raw_code(), text.unwrap_or_default());
                }
                NetlinkPayload::Overrun(_) => return Err(Errno::EOVERFLOW.into()),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// Whether what a dump tells has changed while it was made. It has to be read to its end either
/// way: the socket is busy with it until then.
enum Consistency {
    Whole,
    Interrupted,
}

/// The end of an answer: a negative errno, or 0.
fn ended(code: i32, attributes: &[u8]) -> Result<bool, Refusal> {
    if code >= 0 {
        return Ok(true);
    }
    let reason = NlasIterator::new(attributes)
        .flatten()
        .find(|attribute| attribute.kind() == ERROR_TEXT)
        .map(|text| String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned());
    Err(Refusal { errno: Errno::from_raw(-code), reason })
}

/// IFLA_NET_NS_FD: the network namespace that a device is to be moved to.
pub fn into_namespace(namespace: BorrowedFd<'_>) -> LinkAttribute {
    LinkAttribute::NetNsFd(namespace.as_raw_fd())
}
