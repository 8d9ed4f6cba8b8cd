//! A shim driven by hand: `start` in each dialect that containerd has spoken, the task service
//! by both of its names, and a collector of the events it publishes.

mod sink;
mod start;
mod task;

pub use sink::EventSink;
pub use start::{Answer, Bundle, Dialect, Invocation, make_fifo, open_fifo};
pub use task::{Ends, Rpc, RpcError, Shim, Whom};

use std::path::Path;

use containerd_shim_protos::api::Mount;
use serde_json::{Value, json};

/// Standard streams of a task.
#[derive(Debug, Clone, Default)]
pub struct Stdio3 {
    /// A terminal is asked for.
    pub terminal: bool,
    /// A fifo, or nothing.
    pub stdin: String,
    /// A fifo, a URI, or nothing.
    pub stdout: String,
    /// As `stdout`.
    pub stderr: String,
}

impl Stdio3 {
    /// Output to a file by `file://`.
    #[must_use]
    pub fn to_file(path: &Path) -> Self {
        let uri = format!("file://{}", path.display());
        Self { stdout: uri.clone(), stderr: uri, ..Self::default() }
    }
}

/// A rootfs mount as a snapshotter gives it.
#[must_use]
pub fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::new();
    kind.clone_into(&mut mount.type_);
    source.clone_into(&mut mount.source);
    mount.options = options.iter().map(|&option| option.to_owned()).collect();
    mount
}

/// A process of the OCI spec that runs a shell script as root.
#[must_use]
pub fn shell(script: &str) -> Value {
    json!({
        "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    })
}
