//! The daemon's containers by their ids, and when the daemon may end.

use std::collections::HashMap;
use std::sync::Arc;

use runtime::{Error, Kind, Result};
use tokio::sync::{mpsc, watch};

use super::Container;
use super::actor::Message;
use super::model::{Command, Reply};
use crate::bridge::Runtime;
use crate::cell::Cell;
use crate::events::Publisher;

/// What all containers share.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// The process chain.
    pub(crate) runtime: Arc<Runtime>,
    /// Where events go.
    pub(crate) publisher: Publisher,
    /// containerd's namespace.
    pub(crate) namespace: String,
    slots: Cell<Slots>,
    shutdown: watch::Sender<Shutdown>,
}

/// Whether the daemon is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// It serves.
    Serving,
    /// It takes no more containers, and ends.
    Ending,
}

#[derive(Debug, Default)]
struct Slots {
    by_id: HashMap<String, Slot>,
    /// A shutdown was asked for while nothing was left but creates that nobody waits for.
    end_when_empty: bool,
    ending: bool,
    /// Clients that are connected.
    clients: usize,
    /// A container was asked for. Before that, nobody may have had the time to connect.
    used: bool,
}

impl Slots {
    /// Whether nobody will ever ask for the end. containerd does when it has deleted the last
    /// container, or failed to create one, unless it dies in between; and one that comes up again
    /// (1.6) has no use for a daemon without containers, and leaves it.
    fn is_forsaken(&self) -> bool {
        self.used && self.clients == 0
    }

    fn may_end(&self) -> bool {
        self.by_id.is_empty() && (self.end_when_empty || self.is_forsaken())
    }
}

#[derive(Debug)]
enum Slot {
    /// Being created.
    Reserved,
    Live(Handle),
}

/// How to reach a container.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    /// What does not change about it.
    pub(crate) container: Arc<Container>,
    mailbox: mpsc::UnboundedSender<Message>,
}

impl Handle {
    pub(super) fn new(
        container: Arc<Container>,
        mailbox: mpsc::UnboundedSender<Message>,
    ) -> Handle {
        Handle { container, mailbox }
    }

    /// Asks the container, and waits for its answer.
    ///
    /// # Errors
    /// The answer's, or the container is gone.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = Reply::channel();
        // A mailbox without its actor drops the reply, and that is the answer.
        drop(self.mailbox.send(Message::Command(command(reply))));
        answer.await.unwrap_or_else(|_| Err(not_created()))
    }
}

fn not_created() -> Error {
    Error::new(Kind::NotFound("container not created".into()))
}

impl Daemon {
    /// A daemon without containers.
    pub(crate) fn new(runtime: Arc<Runtime>, publisher: Publisher, namespace: String) -> Daemon {
        let (shutdown, _) = watch::channel(Shutdown::Serving);
        Daemon { runtime, publisher, namespace, slots: Cell::default(), shutdown }
    }

    /// The container of this id.
    ///
    /// # Errors
    /// There is none, or it is still being created.
    pub(crate) fn container(&self, id: &str) -> Result<Handle> {
        match self.slots.lock().by_id.get(id) {
            Some(Slot::Live(handle)) => Ok(handle.clone()),
            Some(Slot::Reserved) | None => Err(not_created()),
        }
    }

    /// Reserves an id for a container that is about to be created.
    ///
    /// # Errors
    /// It is taken, or the daemon is about to end.
    pub(super) fn reserve(self: &Arc<Daemon>, id: &str) -> Result<Reservation> {
        let mut slots = self.slots.lock();
        if slots.ending {
            return Err(Error::new(Kind::State("the shim is shutting down".into())));
        }
        if slots.by_id.contains_key(id) {
            return Err(Error::new(Kind::AlreadyExists(format!("task {id}"))));
        }
        slots.used = true;
        slots.by_id.insert(id.to_owned(), Slot::Reserved);
        Ok(Reservation { daemon: Arc::clone(self), id: Some(id.to_owned()) })
    }

    /// Gives an id up.
    pub(super) fn remove(&self, id: &str) {
        let mut slots = self.slots.lock();
        slots.by_id.remove(id);
        self.end_if_due(&mut slots);
    }

    fn end_if_due(&self, slots: &mut Slots) {
        if slots.may_end() {
            slots.ending = true;
            self.shutdown.send_replace(Shutdown::Ending);
        }
    }

    /// A client has connected. It is there until the result is dropped.
    pub(crate) fn connected(self: &Arc<Daemon>) -> Client {
        self.slots.lock().clients += 1;
        Client(Arc::clone(self))
    }

    /// Ends the daemon, unless it still has containers. What is only being created, for a client
    /// that hangs up, is waited for: nothing may be left of it.
    pub(crate) fn shut_down(&self) -> Shutdown {
        let mut slots = self.slots.lock();
        if slots.by_id.values().any(|slot| matches!(slot, Slot::Live(_))) {
            return Shutdown::Serving;
        }
        if slots.by_id.is_empty() {
            slots.ending = true;
            self.shutdown.send_replace(Shutdown::Ending);
            return Shutdown::Ending;
        }
        slots.end_when_empty = true;
        Shutdown::Serving
    }

    /// Waits for the end of the daemon's service.
    pub(crate) async fn ended(&self) {
        let mut shutdown = self.shutdown.subscribe();
        // The sender is in `self`.
        drop(shutdown.wait_for(|shutdown| *shutdown == Shutdown::Ending).await);
    }
}

/// A client that is connected.
#[derive(Debug)]
pub(crate) struct Client(Arc<Daemon>);

impl Drop for Client {
    fn drop(&mut self) {
        let mut slots = self.0.slots.lock();
        slots.clients -= 1;
        self.0.end_if_due(&mut slots);
    }
}

/// An id that is taken; dropping it gives it up.
#[derive(Debug)]
pub(super) struct Reservation {
    daemon: Arc<Daemon>,
    id: Option<String>,
}

impl Reservation {
    /// The container exists.
    pub(super) fn fill(mut self, handle: Handle) {
        if let Some(id) = self.id.take() {
            let mut slots = self.daemon.slots.lock();
            slots.by_id.insert(id, Slot::Live(handle));
            slots.end_when_empty = false;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.daemon.remove(&id);
        }
    }
}
