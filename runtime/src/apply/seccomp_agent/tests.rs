//! The agents are threads of the test, at real sockets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use libseccomp::{
    ScmpAction, ScmpFilterContext, ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags, ScmpSyscall,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, recvmsg};

use super::super::oci_state::Status;
use super::*;
use crate::sys::testing::in_fork;

/// A socket in a folder of its own.
struct Place {
    folder: PathBuf,
    listener: SeccompListener,
}

impl Place {
    fn new(name: &str) -> Place {
        let folder = std::env::temp_dir().join(format!("agent-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        Place { folder, listener: SeccompListener { path, metadata: "policy=1".into() } }
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(&self.listener.path).unwrap()
    }

    fn hand_over(&self, annotations: &BTreeMap<String, String>, timeout: Duration) -> Result<()> {
        let file = File::open("/dev/null").unwrap();
        hand_over(&self.listener, file.as_fd(), 42, &state(annotations), timeout)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn state(annotations: &BTreeMap<String, String>) -> OciState<'_> {
    OciState {
        oci_version: "1.2.0",
        id: "web",
        status: Status::Creating,
        pid: Some(41),
        bundle: Path::new("/bundle"),
        annotations,
    }
}

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

/// Reads the document to the end of the connection, and takes the descriptors of the first read.
fn receive(mut connection: &UnixStream) -> (String, Vec<OwnedFd>) {
    let mut first = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(&mut first)];
    let message = recvmsg(connection, &mut data, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    first.truncate(message.bytes);
    let fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    connection.read_to_end(&mut first).unwrap();
    (String::from_utf8(first).unwrap(), fds)
}

fn agent<T: Send + 'static>(
    listener: UnixListener,
    serve: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> JoinHandle<T> {
    std::thread::spawn(move || serve(listener.accept().unwrap().0))
}

#[test]
fn the_agent_gets_the_state_of_the_process_and_one_descriptor() {
    let place = Place::new("state");
    let agent = agent(place.listen(), |connection| receive(&connection));
    place.hand_over(&BTreeMap::new(), LONG).unwrap();
    let (document, fds) = agent.join().unwrap();
    assert_eq!(
        document,
        r#"{"ociVersion":"1.2.0","fds":["seccompFd"],"pid":42,"metadata":"policy=1","state":{"ociVersion":"1.2.0","id":"web","status":"creating","pid":41,"bundle":"/bundle"}}"#
    );
    assert_eq!(fds.len(), 1);
    let name = std::fs::read_link(format!("/proc/self/fd/{}", fds[0].as_raw_fd())).unwrap();
    assert_eq!(name, Path::new("/dev/null"));
}

#[test]
fn an_agent_that_keeps_the_connection_open_does_not_hold_us_up() {
    let place = Place::new("keeps");
    let agent = agent(place.listen(), |connection| {
        let mut bytes = [0; 4096];
        let read = rustix::io::read(&connection, &mut bytes).unwrap();
        (read, connection)
    });
    place.hand_over(&BTreeMap::new(), LONG).unwrap();
    assert!(agent.join().unwrap().0 > 100);
}

#[test]
fn a_document_larger_than_the_sockets_buffer_arrives_whole() {
    let place = Place::new("large");
    let agent = agent(place.listen(), |connection| receive(&connection));
    let annotations = BTreeMap::from([("big".to_owned(), "x".repeat(2_000_000))]);
    place.hand_over(&annotations, LONG).unwrap();
    let (document, fds) = agent.join().unwrap();
    assert!(document.len() > 2_000_000 && document.ends_with("}}}"));
    assert_eq!(fds.len(), 1);
}

#[test]
fn a_path_longer_than_a_socket_address_is_reached() {
    let mut place = Place::new("path");
    let folder = place.folder.join("x".repeat(120));
    std::fs::create_dir(&folder).unwrap();
    let listener = place.listen();
    std::fs::rename(&place.listener.path, folder.join("socket")).unwrap();
    place.listener.path = folder.join("socket");
    let agent = agent(listener, |connection| receive(&connection));
    place.hand_over(&BTreeMap::new(), LONG).unwrap();
    assert_eq!(agent.join().unwrap().1.len(), 1);
}

#[test]
fn an_absent_agent_is_named_with_its_path() {
    let place = Place::new("absent");
    let path = &place.listener.path;
    let error = place.hand_over(&BTreeMap::new(), LONG).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("seccomp agent at {path:?}: connect({path:?}): ENOENT: No such file or directory")
    );
}

#[test]
fn a_dead_agent_refuses_the_connection() {
    let place = Place::new("dead");
    // The file that it leaves behind: a socket that nobody listens on.
    let address = SocketAddrUnix::new(&place.listener.path).unwrap();
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    let error = place.hand_over(&BTreeMap::new(), LONG).unwrap_err();
    assert_eq!(error.errno(), Some(nix::errno::Errno::ECONNREFUSED));
}

#[test]
fn an_agent_that_does_not_accept_is_given_up_at_the_deadline() {
    let place = Place::new("deaf");
    let _listener = place.listen();
    let started = Instant::now();
    let error = place.hand_over(&BTreeMap::new(), SHORT).unwrap_err().to_string();
    assert!(error.ends_with("no reading of the container's state within 300 ms"), "{error}");
    assert!(started.elapsed() < LONG / 2);
}

#[test]
fn an_agent_with_a_full_backlog_is_given_up_at_the_deadline() {
    let place = Place::new("full");
    let listener = place.listen();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = UnixStream::connect(&place.listener.path).unwrap();
    let error = place.hand_over(&BTreeMap::new(), SHORT).unwrap_err().to_string();
    assert!(error.ends_with("no connection to be accepted within 300 ms"), "{error}");
}

#[test]
fn an_agent_that_closes_without_reading_is_an_error() {
    let place = Place::new("closes");
    let agent = agent(place.listen(), |connection| {
        // When the document is there, and not before.
        let mut fds = [PollFd::new(&connection, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
    });
    let error = place.hand_over(&BTreeMap::new(), LONG).unwrap_err();
    agent.join().unwrap();
    assert_eq!(error.errno(), Some(nix::errno::Errno::ECONNRESET), "{error}");
}

#[test]
fn an_agent_that_dies_with_the_document_in_its_backlog_is_an_error() {
    let place = Place::new("dies");
    let listener = place.listen();
    let agent = std::thread::spawn(move || {
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    });
    let error = place.hand_over(&BTreeMap::new(), LONG).unwrap_err();
    agent.join().unwrap();
    assert_eq!(error.errno(), Some(nix::errno::Errno::ECONNRESET), "{error}");
}

#[test]
fn an_agent_answers_a_system_call_of_the_process_it_was_told_of() {
    let place = Place::new("answers");
    let agent = agent(place.listen(), |connection| {
        let (_, fds) = receive(&connection);
        let notify = fds[0].as_raw_fd();
        let request = ScmpNotifReq::receive(notify).unwrap();
        let answer =
            ScmpNotifResp::new_error(request.id, -libc::EUCLEAN, ScmpNotifRespFlags::empty());
        answer.respond(notify).unwrap();
    });
    in_fork(|_| {
        let mut filter = ScmpFilterContext::new(ScmpAction::Allow).unwrap();
        for name in ["mkdir", "mkdirat"] {
            let call = ScmpSyscall::from_name(name).unwrap();
            filter.add_rule(ScmpAction::Notify, call).unwrap();
        }
        filter.load().unwrap();
        let notify = crate::sys::testing::borrow(filter.get_notify_fd().unwrap());
        let (pid, annotations) = (42, BTreeMap::new());
        hand_over(&place.listener, notify, pid, &state(&annotations), LONG).unwrap();
        let error = std::fs::create_dir("/nowhere/at/all").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EUCLEAN));
        // The folder is the test's to remove.
        std::mem::forget(filter);
    });
    agent.join().unwrap();
}
