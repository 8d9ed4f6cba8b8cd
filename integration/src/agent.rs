//! A seccomp agent, as the OCI runtime spec describes it: takes listeners at a socket and decides
//! system calls that a filter asks about.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::Value;

use crate::wait;

/// EACCES of errno(3).
const EACCES: i32 = 13;

/// Serves until the test's process ends.
#[derive(Debug)]
pub struct Agent {
    /// Where it listens.
    pub path: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    states: Vec<Value>,
    calls: Vec<String>,
}

impl Agent {
    /// Listens at `path`. It makes folders itself, with mode 0701, where a container asks for
    /// mkdir, and refuses connect with EACCES.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let agent = Self { path: path.to_owned(), seen: Arc::default() };
        let seen = Arc::clone(&agent.seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(&stream, &seen));
            }
        });
        agent
    }

    /// Each ContainerProcessState received, in order, once there are `count`.
    ///
    /// # Panics
    /// When they do not come.
    #[must_use]
    pub fn states(&self, count: usize) -> Vec<Value> {
        wait::until("states for the agent", || {
            Some(self.seen.lock().unwrap().states.clone()).filter(|states| states.len() >= count)
        })
    }

    /// Each call decided, as `mkdir /path` or `connect`.
    ///
    /// # Panics
    /// When a thread of the agent has.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.seen.lock().unwrap().calls.clone()
    }
}

fn serve(stream: &UnixStream, seen: &Mutex<Seen>) {
    let (state, notify) = receive(stream);
    seen.lock().unwrap().states.push(state);
    loop {
        let mut fds = [PollFd::new(&notify, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        // The last process with the filter has ended.
        if !fds[0].revents().contains(PollFlags::IN) {
            return;
        }
        // A caller that died in between is none.
        let Ok(request) = ScmpNotifReq::receive(notify.as_raw_fd()) else { continue };
        let (call, answer) = decide(&request);
        seen.lock().unwrap().calls.push(call);
        answer.respond(notify.as_raw_fd()).ok();
    }
}

/// The document up to the end of the stream, with the descriptor that came with it.
fn receive(stream: &UnixStream) -> (Value, OwnedFd) {
    let (mut document, mut notify) = (Vec::new(), None);
    loop {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let length =
            rustix::net::recvmsg(stream, &mut slices, &mut ancillary, flags).unwrap().bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                notify = fds.into_iter().next();
            }
        }
        document.extend_from_slice(&bytes[..length]);
        if let (Ok(state), Some(_)) = (serde_json::from_slice(&document), &notify) {
            return (state, notify.unwrap());
        }
        assert!(length > 0, "no state: {:?}", String::from_utf8_lossy(&document));
    }
}

fn decide(request: &ScmpNotifReq) -> (String, ScmpNotifResp) {
    let name = request.data.syscall.get_name().unwrap_or_default();
    let flags = ScmpNotifRespFlags::empty();
    let path = match name.as_str() {
        "mkdir" => request.data.args[0],
        "mkdirat" => request.data.args[1],
        "connect" => return (name, ScmpNotifResp::new_error(request.id, -EACCES, flags)),
        _ => return (name, ScmpNotifResp::new_continue(request.id, flags)),
    };
    let path = text_of(request.pid, path);
    let place = format!("/proc/{}/root{path}", request.pid);
    let made = fs::create_dir(&place).and_then(|()| {
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o701))
    });
    let answer = match made {
        Ok(()) => ScmpNotifResp::new_val(request.id, 0, flags),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(EACCES);
            ScmpNotifResp::new_error(request.id, -errno, flags)
        }
    };
    (format!("mkdir {path}"), answer)
}

/// A string in the memory of another process.
fn text_of(pid: u32, address: u64) -> String {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut bytes = [0; 256];
    let length = memory.read_at(&mut bytes, address).unwrap();
    let text = bytes[..length].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
