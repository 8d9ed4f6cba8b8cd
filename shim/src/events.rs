//! Events for containerd: in order, and none lost.
//!
//! [`Publisher::publish`] puts an event at the end of a queue and returns. One task takes them
//! from its front, one at a time, and sends the next when containerd has confirmed the one before.
//! While containerd is away, events wait; an event that was sent but not confirmed is sent again.
//!
//! Two things end the wait of an event. The queue holds [`QUEUE_MAX`]: what comes then pushes the
//! oldest out. And an event that containerd itself refuses time and again would hold up all that
//! come after it. Both are logged.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::task;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{Message, MessageField};
use tokio::sync::Notify;

/// As many as a pod of 200 containers has in a while; some 3 MiB at most.
const QUEUE_MAX: usize = 10_000;
/// While the connection lives an answer is late, and not lost: what is sent again by then is told
/// twice. Where fifty containers started at once in an emulated machine, the 5 s of Go's shim were not
/// enough. A containerd that is killed ends the connection; this is for one that hangs.
const CONFIRM_WITHIN: Duration = Duration::from_secs(60);
/// How often containerd may refuse one.
const REFUSALS_MAX: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// An event of a task.
pub(crate) trait Event: Message {
    /// What containerd's subscribers filter by.
    const TOPIC: &'static str;
    /// The message's name, as Go's typeurl has it.
    const TYPE: &'static str;
}

macro_rules! events {
    ($($message:ident: $topic:literal,)+) => {$(
        impl Event for task::$message {
            const TOPIC: &'static str = $topic;
            const TYPE: &'static str = concat!("containerd.events.", stringify!($message));
        }
    )+};
}

events! {
    TaskCreate: "/tasks/create",
    TaskStart: "/tasks/start",
    TaskOOM: "/tasks/oom",
    TaskExit: "/tasks/exit",
    TaskDelete: "/tasks/delete",
    TaskExecAdded: "/tasks/exec-added",
    TaskExecStarted: "/tasks/exec-started",
    TaskPaused: "/tasks/paused",
    TaskResumed: "/tasks/resumed",
    TaskCheckpointed: "/tasks/checkpointed",
}

/// Where events go in. Clones share one queue.
#[derive(Debug, Clone)]
pub(crate) struct Publisher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    namespace: String,
    queue: Mutex<Queue>,
    /// The queue is no longer empty.
    filled: Notify,
    /// The queue has become empty.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Envelope>,
    /// The number of the event at the front: how many have left the queue.
    front: u64,
}

impl Publisher {
    /// Starts the task that sends to containerd's ttrpc socket. It connects when there is
    /// something to be sent. Needs a tokio runtime; ends with it.
    pub(crate) fn start(ttrpc_address: &Path, namespace: &str) -> Publisher {
        let shared = Arc::new(Shared {
            namespace: namespace.to_owned(),
            queue: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
        });
        let address = format!("unix://{}", ttrpc_address.display());
        tokio::spawn(send_all(Arc::clone(&shared), address));
        Publisher(shared)
    }

    /// Publishes an event as of now. Does not block.
    pub(crate) fn publish<E: Event>(&self, event: &E) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(topic = E::TOPIC, %error, "an event cannot be encoded");
                return;
            }
        };
        let envelope = Envelope {
            timestamp: MessageField::some(Timestamp::from(SystemTime::now())),
            namespace: self.0.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: MessageField::some(Any {
                type_url: E::TYPE.to_owned(),
                value,
                ..Any::default()
            }),
            ..Envelope::default()
        };
        if let Some(lost) = self.0.queue().push(envelope) {
            tracing::error!(topic = lost.topic, "an event is dropped: {QUEUE_MAX} wait already");
        }
        self.0.filled.notify_one();
    }

    /// Waits until all that was published is confirmed. Returns how many are not, after `within`.
    pub(crate) async fn flush(&self, within: Duration) -> usize {
        let emptied = async {
            loop {
                let notified = self.0.emptied.notified();
                if self.0.queue().events.is_empty() {
                    return;
                }
                notified.await;
            }
        };
        match tokio::time::timeout(within, emptied).await {
            Ok(()) => 0,
            Err(_) => self.0.queue().events.len(),
        }
    }
}

impl Queue {
    /// Returns what has no room any more.
    fn push(&mut self, envelope: Envelope) -> Option<Envelope> {
        self.events.push_back(envelope);
        if self.events.len() <= QUEUE_MAX {
            return None;
        }
        self.front += 1;
        self.events.pop_front()
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No panic under the lock leaves the queue in a state that matters.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event at the front, and its number.
    async fn next(&self) -> (u64, Envelope) {
        loop {
            let filled = self.filled.notified();
            {
                let queue = self.queue();
                if let Some(envelope) = queue.events.front() {
                    return (queue.front, envelope.clone());
                }
            }
            filled.await;
        }
    }

    /// Takes an event out, unless it was pushed out meanwhile.
    fn finish(&self, number: u64) {
        let mut queue = self.queue();
        if queue.front == number && queue.events.pop_front().is_some() {
            queue.front += 1;
        }
        if queue.events.is_empty() {
            self.emptied.notify_waiters();
        }
    }
}

/// How it went with one event.
enum Sent {
    Confirmed,
    /// By containerd.
    Refused(String),
    /// The connection is of no use any more.
    Lost(String),
}

async fn send_all(shared: Arc<Shared>, address: String) {
    let mut client = None;
    let (mut pause, mut refusals) = (FIRST_PAUSE, 0);
    loop {
        let (number, envelope) = shared.next().await;
        let topic = envelope.topic.clone();
        let was_connected = client.is_some();
        match send(&mut client, &address, envelope).await {
            Sent::Confirmed => {
                shared.finish(number);
                (pause, refusals) = (FIRST_PAUSE, 0);
                continue;
            }
            Sent::Refused(why) => {
                refusals += 1;
                if refusals == REFUSALS_MAX {
                    tracing::error!(
                        topic,
                        error = why,
                        "an event is dropped: containerd refuses it"
                    );
                    shared.finish(number);
                    refusals = 0;
                }
            }
            Sent::Lost(why) => {
                client = None;
                if was_connected {
                    // containerd was restarted, maybe: it may be there again.
                    tracing::debug!(topic, error = why, "the connection for events is lost");
                    continue;
                }
                if pause == FIRST_PAUSE {
                    tracing::info!(topic, error = why, "events wait for containerd");
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn send(client: &mut Option<EventsClient>, address: &str, envelope: Envelope) -> Sent {
    let connected = match client {
        Some(client) => client,
        None => match Client::connect(address).await {
            Ok(connection) => client.insert(EventsClient::new(connection)),
            Err(error) => return Sent::Lost(error.to_string()),
        },
    };
    let nanoseconds = i64::try_from(CONFIRM_WITHIN.as_nanos()).unwrap_or(i64::MAX);
    let context = ttrpc::context::with_timeout(nanoseconds);
    let request =
        ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
    match tokio::time::timeout(CONFIRM_WITHIN, connected.forward(context, &request)).await {
        Ok(Ok(_)) => Sent::Confirmed,
        Ok(Err(ttrpc::Error::RpcStatus(status))) => Sent::Refused(status.message),
        Ok(Err(error)) => Sent::Lost(error.to_string()),
        Err(_) => Sent::Lost(format!("not confirmed within {CONFIRM_WITHIN:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use containerd_shim_protos::shim_async::{Events, create_events};
    use protobuf::well_known_types::empty::Empty;
    use ttrpc::r#async::{Server, TtrpcContext};

    use super::*;

    /// containerd, as far as events are concerned.
    #[derive(Default)]
    struct Containerd {
        received: Mutex<Vec<Envelope>>,
        /// So many requests are refused first.
        refuse: AtomicU32,
    }

    impl Containerd {
        /// The pids of the events, in the order they came in.
        fn pids(&self) -> Vec<u32> {
            let received = self.received.lock().unwrap();
            let pid = |envelope: &Envelope| {
                task::TaskExit::parse_from_bytes(&envelope.event.value).unwrap().pid
            };
            received.iter().map(pid).collect()
        }
    }

    struct Service(Arc<Containerd>);

    #[async_trait::async_trait]
    impl Events for Service {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            if self.0.refuse.load(Ordering::Relaxed) > 0 {
                self.0.refuse.fetch_sub(1, Ordering::Relaxed);
                let status = ttrpc::get_status(ttrpc::Code::INVALID_ARGUMENT, "not so".to_owned());
                return Err(ttrpc::Error::RpcStatus(status));
            }
            self.0.received.lock().unwrap().push(request.envelope.unwrap());
            Ok(Empty::new())
        }
    }

    async fn serve(containerd: &Arc<Containerd>, path: &Path) -> Server {
        let service = create_events(Arc::new(Service(Arc::clone(containerd))));
        let mut server = Server::new()
            .bind(&format!("unix://{}", path.display()))
            .unwrap()
            .register_service(service);
        server.start().await.unwrap();
        server
    }

    fn socket(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("myshim-events-{name}-{}", std::process::id()))
    }

    fn exit(pid: u32) -> task::TaskExit {
        task::TaskExit { pid, container_id: "web".to_owned(), ..task::TaskExit::default() }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_event_arrives_as_go_would_have_sent_it() {
        let (containerd, path) = (Arc::default(), socket("one"));
        let server = serve(&containerd, &path).await;
        let publisher = Publisher::start(&path, "k8s.io");
        publisher.publish(&exit(7));
        assert_eq!(publisher.flush(LONG).await, 0);
        let received = containerd.received.lock().unwrap().clone();
        assert_eq!(received.len(), 1);
        assert_eq!((&*received[0].namespace, &*received[0].topic), ("k8s.io", "/tasks/exit"));
        assert_eq!(received[0].event.type_url, "containerd.events.TaskExit");
        assert!(received[0].timestamp.seconds > 1_700_000_000);
        drop(server);
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn events_wait_for_containerd_and_keep_their_order() {
        let (containerd, path) = (Arc::default(), socket("restart"));
        let publisher = Publisher::start(&path, "ns");
        (0..100).for_each(|pid| publisher.publish(&exit(pid)));
        assert_eq!(publisher.flush(Duration::from_millis(50)).await, 100);
        for round in 1..4 {
            let mut server = serve(&containerd, &path).await;
            assert_eq!(publisher.flush(LONG).await, 0);
            // As a containerd that is stopped: the connection ends, the path is gone.
            server.shutdown().await.unwrap();
            std::fs::remove_file(&path).unwrap();
            (0..100).for_each(|pid| publisher.publish(&exit(round * 100 + pid)));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let server = serve(&containerd, &path).await;
        assert_eq!(publisher.flush(LONG).await, 0);
        assert_eq!(containerd.pids(), (0..400).collect::<Vec<u32>>());
        drop(server);
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_refused_event_is_tried_again_and_then_makes_way() {
        let (containerd, path) = (Arc::<Containerd>::default(), socket("refuse"));
        let server = serve(&containerd, &path).await;
        let publisher = Publisher::start(&path, "ns");
        containerd.refuse.store(2, Ordering::Relaxed);
        (0..3).for_each(|pid| publisher.publish(&exit(pid)));
        assert_eq!(publisher.flush(LONG).await, 0);
        assert_eq!(containerd.pids(), [0, 1, 2]);
        containerd.refuse.store(REFUSALS_MAX, Ordering::Relaxed);
        (3..6).for_each(|pid| publisher.publish(&exit(pid)));
        assert_eq!(publisher.flush(LONG).await, 0);
        assert_eq!(containerd.pids(), [0, 1, 2, 4, 5]);
        drop(server);
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_queue_that_is_full_loses_its_oldest() {
        let (containerd, path) = (Arc::default(), socket("full"));
        let publisher = Publisher::start(&path, "ns");
        let count = u32::try_from(QUEUE_MAX).unwrap() + 10;
        (0..count).for_each(|pid| publisher.publish(&exit(pid)));
        let server = serve(&containerd, &path).await;
        assert_eq!(publisher.flush(LONG).await, 0);
        assert_eq!(containerd.pids(), (10..count).collect::<Vec<u32>>());
        drop(server);
        std::fs::remove_file(path).unwrap();
    }
}
