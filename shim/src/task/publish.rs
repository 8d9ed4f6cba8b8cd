//! A container's events, as containerd's messages.

use containerd_shim_protos::events::task;
use protobuf::MessageField;
use protobuf::well_known_types::timestamp::Timestamp;

use super::model::Event;
use crate::events::Publisher;

/// Publishes an event of a container.
pub(super) fn publish(publisher: &Publisher, id: &str, event: Event) {
    let container_id = id.to_owned();
    match event {
        Event::Start { pid } => {
            publisher.publish(&task::TaskStart { container_id, pid, ..Default::default() });
        }
        Event::ExecAdded { exec: exec_id } => {
            publisher.publish(&task::TaskExecAdded { container_id, exec_id, ..Default::default() })
        }
        Event::ExecStarted { exec: exec_id, pid } => {
            publisher.publish(&task::TaskExecStarted {
                container_id,
                exec_id,
                pid,
                ..Default::default()
            });
        }
        Event::Exit { exec, pid, exit } => publisher.publish(&task::TaskExit {
            id: exec.unwrap_or_else(|| container_id.clone()),
            container_id,
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(Timestamp::from(exit.at)),
            ..Default::default()
        }),
        Event::Delete { pid, exit } => publisher.publish(&task::TaskDelete {
            container_id,
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(Timestamp::from(exit.at)),
            ..Default::default()
        }),
        Event::Paused => {
            publisher.publish(&task::TaskPaused { container_id, ..Default::default() });
        }
        Event::Resumed => {
            publisher.publish(&task::TaskResumed { container_id, ..Default::default() });
        }
    }
}

/// Publishes that the kernel has killed one of a container's processes for want of memory.
pub(super) fn oom(publisher: &Publisher, id: &str) {
    publisher.publish(&task::TaskOOM { container_id: id.to_owned(), ..Default::default() });
}
