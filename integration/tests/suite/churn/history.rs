//! What events have to come, in the words of [`EventSink::of`].

use std::collections::BTreeMap;

use myshim_integration::shim::EventSink;
use myshim_integration::wait;

/// One client's containers and execs, each with its events in their order.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By container; then by exec, the container itself under the empty name.
    expected: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl History {
    /// The next event of the container.
    pub(super) fn of_container(&mut self, container: &str, event: impl Into<String>) {
        self.push(container, "", event.into());
    }

    /// The next event of an exec: `added`, `started`, `exit:N`.
    pub(super) fn of_exec(&mut self, container: &str, exec: &str, event: impl Into<String>) {
        self.push(container, exec, event.into());
    }

    fn push(&mut self, container: &str, subject: &str, event: String) {
        let subjects = self.expected.entry(container.to_owned()).or_default();
        subjects.entry(subject.to_owned()).or_default().push(event);
    }

    /// Every event came once and in the order of its container or exec, and no other did; none of
    /// an exec came before its container was made or after it was deleted.
    pub(super) fn check(&self, sink: &EventSink) {
        for (container, expected) in &self.expected {
            let count: usize = expected.values().map(Vec::len).sum();
            wait::within(wait::SOON, || (sink.of(container).len() >= count).then_some(()));
            let came = sink.of(container);
            let mut subjects = BTreeMap::<String, Vec<String>>::new();
            let mut exists = false;
            for event in came {
                assert!(exists != (event == "create"), "{container}: {event} out of place");
                exists = !event.starts_with("delete:");
                let (subject, event) = event.split_once(' ').unwrap_or(("", &event));
                subjects.entry(subject.to_owned()).or_default().push(event.to_owned());
            }
            for (subject, events) in expected {
                let came = subjects.remove(subject).unwrap_or_default();
                assert_eq!(&came, events, "{container} {subject:?}");
            }
            assert!(subjects.is_empty(), "{container}: not asked for: {subjects:#?}");
        }
    }
}
