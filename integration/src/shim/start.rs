//! Bundles, and the shim's binary as containerd runs it.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::Value;

use super::{EventSink, Shim};
use crate::command::{Output, Running};
use crate::containerd::{Version, shim_binary};
use crate::spec::Spec;
use crate::test::Test;
use crate::wait;

/// How containerd and shim talk at `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// containerd ≥ 2.3: BootstrapParams in, BootstrapResult out.
    Bootstrap,
    /// containerd 2.0 to 2.2: the options as Any in, JSON out.
    Json,
    /// containerd 1.6: the options as Any or nothing in, an address out.
    Address,
}

/// What a shim answers at `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Of the task service: 2 or 3.
    pub version: i64,
    /// As in `unix:///run/…`.
    pub address: String,
    /// `ttrpc`.
    pub protocol: String,
}

impl Answer {
    /// Reads an answer in the caller's dialect.
    ///
    /// # Panics
    /// When it is in another.
    #[must_use]
    pub fn read(bytes: &[u8], dialect: Dialect) -> Self {
        let shown = String::from_utf8_lossy(bytes).into_owned();
        match dialect {
            Dialect::Bootstrap => {
                let result = BootstrapResult::parse_from_bytes(bytes)
                    .unwrap_or_else(|e| panic!("no BootstrapResult ({e}): {shown:?}"));
                let version = result.version.into();
                Self { version, address: result.address, protocol: result.protocol }
            }
            Dialect::Json => {
                let value: Value = serde_json::from_slice(bytes)
                    .unwrap_or_else(|e| panic!("no JSON ({e}): {shown:?}"));
                let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
                let version = value["version"].as_i64().unwrap_or_default();
                Self { version, address: text("address"), protocol: text("protocol") }
            }
            Dialect::Address => {
                assert!(shown.starts_with("unix://"), "no address: {shown:?}");
                Self { version: 2, address: shown.trim().to_owned(), protocol: "ttrpc".to_owned() }
            }
        }
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(self.address.trim_start_matches("unix://"))
    }
}

/// A bundle as containerd makes it: config.json, the `log` fifo, an empty rootfs folder.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The container's id.
    pub id: String,
    /// The folder.
    pub dir: PathBuf,
}

impl Bundle {
    /// Makes one for the container `name` of `test`.
    ///
    /// # Panics
    /// When a file cannot be made.
    #[must_use]
    pub fn new(test: &Test, name: &str, edit: impl FnOnce(Spec) -> Spec) -> Self {
        let id = test.id(name);
        let dir = test.folder("b").join(&id);
        fs::create_dir(&dir).unwrap();
        fs::create_dir(dir.join("rootfs")).unwrap();
        edit(test.spec(&id)).write(&dir.join("config.json"));
        make_fifo(&dir.join("log"));
        Self { id, dir }
    }
}

/// Makes a fifo.
///
/// # Panics
/// When that fails.
pub fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Opens a fifo for reading and writing, so that neither side waits for the other.
///
/// # Panics
/// When that fails.
#[must_use]
pub fn open_fifo(path: &Path) -> fs::File {
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    fs::File::options().read(true).write(true).custom_flags(nonblock).open(path).unwrap()
}

/// Runs the shim's binary by hand, as containerd does.
#[derive(Debug)]
pub struct Invocation<'a> {
    test: &'a Test,
    bundle: &'a Bundle,
    ttrpc_address: PathBuf,
    /// The shim's.
    pub binary: PathBuf,
    /// The containerd that calls itself the caller.
    pub publisher: Version,
    /// The environment of `start`, beyond what every caller sets.
    pub env: Vec<(String, String)>,
    /// The options, if the client gives any.
    pub options: Option<Any>,
    /// Arguments before the action, beyond what every caller gives.
    pub args: Vec<String>,
}

impl<'a> Invocation<'a> {
    /// For `bundle`; events go to `sink`.
    #[must_use]
    pub fn new(test: &'a Test, bundle: &'a Bundle, sink: &EventSink) -> Self {
        let ttrpc_address = sink.path.clone();
        let publisher = test.version();
        let binary = shim_binary(publisher);
        let (env, options, args) = (Vec::new(), None, Vec::new());
        Self { test, bundle, ttrpc_address, binary, publisher, env, options, args }
    }

    /// The command line with `action` at its end.
    #[must_use]
    pub fn command(&self, action: &str) -> Command {
        let (endpoint, bundle) = (&self.test.endpoint, self.bundle);
        let mut command = Command::new(&self.binary);
        command.args(["-namespace", &endpoint.namespace, "-address"]).arg(endpoint.address());
        command.arg("-publish-binary").arg(self.publisher.bin().join("containerd"));
        command.args(["-id", &bundle.id]);
        if action == "delete" {
            command.arg("-bundle").arg(&bundle.dir);
        }
        command.args(&self.args).arg(action).current_dir(&bundle.dir).env_clear();
        command.env("PATH", crate::containerd::shim_dir(endpoint.version));
        command.env("TTRPC_ADDRESS", &self.ttrpc_address).env("GOMAXPROCS", "2");
        command.env("GRPC_ADDRESS", endpoint.address()).env("NAMESPACE", &endpoint.namespace);
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What a caller of `dialect` writes on standard input.
    ///
    /// # Panics
    /// Never; the messages have no required fields.
    #[must_use]
    pub fn stdin(&self, dialect: Dialect) -> Vec<u8> {
        if dialect != Dialect::Bootstrap {
            return self.options.as_ref().map_or_else(Vec::new, |o| o.write_to_bytes().unwrap());
        }
        let endpoint = &self.test.endpoint;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut params = BootstrapParams::new();
        params.instance_id.clone_from(&self.bundle.id);
        params.namespace.clone_from(&endpoint.namespace);
        params.containerd_version = "2.4.2".to_owned();
        params.containerd_grpc_address = text(&endpoint.address());
        params.containerd_ttrpc_address = text(&self.ttrpc_address);
        params.containerd_binary = text(&endpoint.version.bin().join("containerd"));
        params.socket_dir = Some(text(&endpoint.socket_dir()));
        if let Some(options) = &self.options {
            let mut extension = containerd_shim_protos::bootstrap_api::Extension::new();
            extension.value = Some(options.clone()).into();
            params.extensions.push(extension);
        }
        params.write_to_bytes().unwrap()
    }

    /// Runs `action` with `stdin`, to its end.
    #[must_use]
    pub fn run(&self, action: &str, stdin: &[u8]) -> Output {
        let mut running = Running::start(self.command(action));
        running.write(stdin);
        running.finish(wait::SOON)
    }

    /// `start` in a dialect.
    ///
    /// # Panics
    /// When it fails, or answers otherwise.
    #[track_caller]
    #[must_use]
    pub fn start(&mut self, dialect: Dialect) -> Shim {
        self.publisher = if dialect == Dialect::Address { Version::V16 } else { Version::V2 };
        if dialect == Dialect::Json {
            self.env.push(("MAX_SHIM_VERSION".to_owned(), "2".to_owned()));
        }
        // containerd holds the reading end of the fifo before it starts the shim.
        let log = open_fifo(&self.bundle.dir.join("log"));
        let output = self.run("start", &self.stdin(dialect));
        output.ok();
        let answer = Answer::read(&output.stdout, dialect);
        Shim::connect_to(answer, log)
    }
}
