//! containerd's event stream, as `ctr events` prints it.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::command::Running;
use crate::containerd::Endpoint;
use crate::wait;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// As in `/tasks/exit`.
    pub topic: String,
    /// Its message.
    pub body: Value,
}

impl Event {
    fn parse(line: &str, namespace: &str) -> Option<Self> {
        // 2026-01-02 03:04:05.678 +0000 UTC NAMESPACE TOPIC JSON
        let (head, json) = line.split_once('{')?;
        let mut words = head.split_whitespace().rev();
        let topic = words.next()?.to_owned();
        if words.next()? != namespace {
            return None;
        }
        Some(Self { topic, body: serde_json::from_str(&format!("{{{json}")).ok()? })
    }

    /// A text field of the message; empty when absent.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// A number in the message; 0 when absent, as protobuf has it.
    #[must_use]
    pub fn number(&self, field: &str) -> u64 {
        self.body[field].as_u64().unwrap_or_default()
    }

    /// The container it is about; empty when it is about none.
    #[must_use]
    pub fn container(&self) -> &str {
        self.text("container_id")
    }

    /// The topic's last part and, for execs, whose: `exit` or `exit web`.
    #[must_use]
    pub fn short(&self) -> String {
        let topic = self.topic.rsplit('/').next().unwrap_or_default();
        let of = match topic {
            // An init's exit names the container itself.
            "exit" if self.text("id") != self.container() => self.text("id"),
            "exec-added" | "exec-started" => self.text("exec_id"),
            _ => "",
        };
        format!("{topic} {of}").trim_end().to_owned()
    }
}

/// A stream that is being read.
#[derive(Debug)]
pub struct Events {
    process: Running,
    endpoint: Endpoint,
}

impl Events {
    /// Subscribes, and returns when the subscription is known to work.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn follow(endpoint: &Endpoint) -> Self {
        let mut command = endpoint.ctr();
        command.arg("events");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let events = Self { process: Running::start(command), endpoint: endpoint.clone() };
        // Events of before the subscription are not sent: make some until one arrives.
        wait::until("a subscription to containerd's events", || {
            let label = format!("subscriber={}", std::process::id());
            let namespace = &endpoint.namespace;
            endpoint.ctr_run(["namespaces", "label", namespace, &label], wait::SOON).ok();
            events.process.out_so_far().contains("/namespaces/update").then_some(())
        });
        events
    }

    /// All that came about `container` until now, tasks only, in the order of arrival.
    #[must_use]
    pub fn of(&self, container: &str) -> Vec<Event> {
        let text = self.process.out_so_far();
        // The last line may be half of one.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .filter_map(|line| Event::parse(line, &self.endpoint.namespace))
            .filter(|event| event.topic.starts_with("/tasks/") && event.container() == container)
            .collect()
    }

    /// [`Self::of`], each as [`Event::short`].
    #[must_use]
    pub fn shorts(&self, container: &str) -> Vec<String> {
        self.of(container).iter().map(Event::short).collect()
    }

    /// Waits until `enough` says so of the events about `container`, and gives them.
    ///
    /// # Panics
    /// When it never does, with what has come.
    #[track_caller]
    pub fn wait(&self, container: &str, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let limit = wait::SOON;
        wait::within(limit, || Some(self.of(container)).filter(|events| enough(events)))
            .unwrap_or_else(|| {
                panic!("events of {container} after {limit:?}: {:?}", self.shorts(container))
            })
    }

    /// Waits for an event that is `short`, see [`Event::short`].
    ///
    /// # Panics
    /// When it does not come, with what has come.
    #[track_caller]
    pub fn wait_for(&self, container: &str, short: &str) -> Vec<Event> {
        self.wait(container, |events| events.iter().any(|event| event.short() == short))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.process.signal(rustix::process::Signal::KILL);
        wait::within(Duration::from_secs(5), || (!self.process.is_running()).then_some(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ctr_events_becomes_an_event() {
        let line = "2026-01-02 03:04:05.6 +0000 UTC ns /tasks/exit \
                    {\"container_id\":\"a\",\"id\":\"b\",\"pid\":7,\"exit_status\":3}";
        let event = Event::parse(line, "ns").unwrap();
        assert_eq!(event.short(), "exit b");
        assert_eq!((event.container(), event.number("exit_status")), ("a", 3));
        assert!(Event::parse(line, "other").is_none());
    }
}
