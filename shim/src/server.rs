//! The socket: who may connect, and which services are there.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use containerd_shim_protos::shim_async::{Task, create_task};
use futures_core::Stream;
use runtime::{Call, Error, Kind, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tracing::warn;
use ttrpc::r#async::{Server, Service};
use ttrpc::asynchronous::transport::Listener;

use crate::task::{Client, Daemon};

/// The two names of the one service: their messages are the same to the byte.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// After a failed accept: what was lacking (descriptors, memory) is not there at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `task` at a socket that listens; `daemon` is told of its clients. The server ends when the
/// result is dropped or shut down.
///
/// # Errors
/// The socket cannot be awaited.
pub(crate) async fn start(
    listener: OwnedFd,
    daemon: Arc<Daemon>,
    task: impl Fn() -> Arc<dyn Task + Send + Sync>,
) -> Result<Server> {
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true).call(|| "ioctl(listener, FIONBIO)".into())?;
    let listener = UnixListener::from_std(listener).call(|| "epoll_ctl(listener)".into())?;
    let uid = rustix::process::geteuid().as_raw();
    let incoming = Incoming { listener, uid, pause: None, daemon };
    let mut server = Server::new().add_listener(Listener::new(incoming));
    for name in SERVICES {
        server = server.register_service(table(name, task()));
    }
    server
        .start()
        .await
        .map_err(|error| Error::new(Kind::State(format!("the server does not start: {error}"))))?;
    Ok(server)
}

/// The generated table of methods, under another name.
fn table(name: &str, task: Arc<dyn Task + Send + Sync>) -> HashMap<String, Service> {
    let services = create_task(task).into_values();
    #[cfg(feature = "hold")]
    let services = services.map(crate::hold::around);
    services.map(|service| (name.to_owned(), service)).collect()
}

/// Connections of processes with the daemon's own user id (CVE-2020-15257: the socket's mode and
/// folder keep others out; this does so should they be changed).
struct Incoming {
    listener: UnixListener,
    uid: u32,
    pause: Option<Pin<Box<Sleep>>>,
    daemon: Arc<Daemon>,
}

/// A stream that tells the daemon of its end.
struct Connection {
    stream: UnixStream,
    _client: Client,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Incoming {
    fn may_enter(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == self.uid => true,
            Ok(peer) => {
                warn!(
                    uid = peer.uid(),
                    pid = peer.pid(),
                    "a connection of another user is refused"
                );
                false
            }
            Err(error) => {
                warn!(%error, "a connection of nobody knows whom is refused");
                false
            }
        }
    }
}

impl Stream for Incoming {
    type Item = std::io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                match pause.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => self.pause = None,
                }
            }
            match self.listener.poll_accept(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok((stream, _))) if self.may_enter(&stream) => {
                    let _client = self.daemon.connected();
                    return Poll::Ready(Some(Ok(Connection { stream, _client })));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    warn!(%error, "accept failed");
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
                }
            }
        }
    }
}
