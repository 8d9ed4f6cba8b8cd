//! Stands in for containerd where shims publish events.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use containerd_shim_protos::api::{Empty, ForwardRequest};
use containerd_shim_protos::events::task;
use containerd_shim_protos::shim::event::Envelope;
use protobuf::Message;

use crate::test::Test;
use crate::wait;

/// Stands in for containerd's event service.
pub struct EventSink {
    /// Its socket.
    pub path: PathBuf,
    seen: Arc<Mutex<Vec<Envelope>>>,
    server: Option<ttrpc::Server>,
}

struct Collect(Arc<Mutex<Vec<Envelope>>>);

impl containerd_shim_protos::Events for Collect {
    fn forward(&self, _: &ttrpc::TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        self.0.lock().unwrap().extend(request.envelope.into_option());
        Ok(Empty::new())
    }
}

impl EventSink {
    /// Listens at a path in the test's folder.
    #[must_use]
    pub fn listen(test: &Test) -> Self {
        let mut sink = Self { path: test.dir.join("ev.sock"), seen: Arc::default(), server: None };
        sink.up();
        sink
    }

    /// Listens (again).
    ///
    /// # Panics
    /// When that fails.
    pub fn up(&mut self) {
        let service = containerd_shim_protos::create_events(Arc::new(Collect(self.seen.clone())));
        let address = format!("unix://{}", self.path.display());
        let mut server = ttrpc::Server::new().bind(&address).unwrap().register_service(service);
        server.start().unwrap();
        self.server = Some(server);
    }

    /// Goes away, as a containerd that is stopped.
    pub fn down(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
        fs::remove_file(&self.path).ok();
    }

    /// Each event about the container as `topic`, or `topic:code` for an exit, in the order of
    /// arrival; an exec's have its id in front.
    ///
    /// # Panics
    /// When an event is not what its type says.
    #[must_use]
    pub fn of(&self, container: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter_map(|envelope| short(envelope, container)).collect()
    }

    /// Waits until the last event about the container is `last`, and gives all.
    ///
    /// # Panics
    /// When it is not, with what has come.
    #[track_caller]
    #[must_use]
    pub fn until(&self, container: &str, last: &str) -> Vec<String> {
        let done = || Some(self.of(container)).filter(|e| e.iter().any(|event| event == last));
        wait::within(wait::SOON, done)
            .unwrap_or_else(|| panic!("no {last:?} in {:?}", self.of(container)))
    }
}

impl Drop for EventSink {
    fn drop(&mut self) {
        self.down();
    }
}

/// One event in few words; `None` when it is about another container.
fn short(envelope: &Envelope, container: &str) -> Option<String> {
    let topic = envelope.topic.rsplit('/').next().unwrap_or_default();
    let bytes = &envelope.event.value;
    let (of, text) = match topic {
        "create" => (task::TaskCreate::parse_from_bytes(bytes).unwrap().container_id, topic.into()),
        "start" => (task::TaskStart::parse_from_bytes(bytes).unwrap().container_id, topic.into()),
        "oom" => (task::TaskOOM::parse_from_bytes(bytes).unwrap().container_id, topic.into()),
        "paused" => (task::TaskPaused::parse_from_bytes(bytes).unwrap().container_id, topic.into()),
        "resumed" => {
            (task::TaskResumed::parse_from_bytes(bytes).unwrap().container_id, topic.into())
        }
        "delete" => {
            let event = task::TaskDelete::parse_from_bytes(bytes).unwrap();
            (event.container_id, format!("delete:{}", event.exit_status))
        }
        "exec-added" => {
            let event = task::TaskExecAdded::parse_from_bytes(bytes).unwrap();
            (event.container_id, format!("{} added", event.exec_id))
        }
        "exec-started" => {
            let event = task::TaskExecStarted::parse_from_bytes(bytes).unwrap();
            (event.container_id, format!("{} started", event.exec_id))
        }
        "exit" => {
            let event = task::TaskExit::parse_from_bytes(bytes).unwrap();
            let code = event.exit_status;
            let init = event.id == event.container_id;
            let text =
                if init { format!("exit:{code}") } else { format!("{} exit:{code}", event.id) };
            (event.container_id, text)
        }
        other => panic!("an event no one asked for: {other}"),
    };
    (of == container).then_some(text)
}
