//! OCI runtimes by their command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bundle::{self, Network};
use crate::shim::Place;

/// An OCI runtime.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
}

/// A bundle without an overlay: the runtime does not mount any.
pub(crate) fn bundle(place: &Place<'_>, name: &str, network: Network) -> PathBuf {
    let kind = if network == Network::New { "n" } else { "h" };
    let dir = place.dir.join(format!("rt-{name}-{kind}"));
    let spec = bundle::spec(&format!("/{}/rt-{name}", place.name), network, &["true"]);
    bundle::write(&dir, &spec.with("/root/path", json!(place.layers.base())));
    dir
}

/// `run`, to its end.
pub(crate) fn run(place: &Place<'_>, runtime: &Runtime, bundle: &Path) -> Duration {
    let begin = Instant::now();
    let mut command = Command::new(&runtime.program);
    command.arg("--root").arg(place.dir.join("rt")).args(["run", "--bundle"]).arg(bundle);
    command.arg(format!("{}-{}", place.name, runtime.name));
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{} fails", runtime.name);
    begin.elapsed()
}
