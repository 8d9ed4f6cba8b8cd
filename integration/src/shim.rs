//! A shim driven by hand: `start` in each dialect that containerd has spoken, the task service
//! by both of its names, and a collector of the events it publishes.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, ForwardRequest,
    KillRequest, Mount, PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::events::task;
use containerd_shim_protos::shim::event::Envelope;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::{Value, json};
use ttrpc::Code;
use ttrpc::proto::Request;

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
}

impl<'a> Invocation<'a> {
    /// For `bundle`; events go to `sink`.
    #[must_use]
    pub fn new(test: &'a Test, bundle: &'a Bundle, sink: &EventSink) -> Self {
        let ttrpc_address = sink.path.clone();
        let publisher = test.version();
        let binary = shim_binary(publisher);
        Self { test, bundle, ttrpc_address, binary, publisher, env: Vec::new(), options: None }
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
        command.arg(action).current_dir(&bundle.dir).env_clear();
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
        Shim { client: connect(&answer.address), answer, log }
    }
}

fn connect(address: &str) -> ttrpc::Client {
    ttrpc::Client::connect(address).unwrap_or_else(|e| panic!("no one answers at {address}: {e}"))
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// The class that clients decide by.
    pub code: Code,
    /// What users read.
    pub message: String,
}

/// A result of a call.
pub type Rpc<T> = Result<T, RpcError>;

/// A shim that answers.
pub struct Shim {
    client: ttrpc::Client,
    /// What it answered at start.
    pub answer: Answer,
    log: fs::File,
}

impl std::fmt::Debug for Shim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.answer.fmt(f)
    }
}

impl Shim {
    /// A second connection to the same shim.
    ///
    /// # Panics
    /// When it does not take one.
    #[must_use]
    pub fn again(&self) -> Self {
        let log = self.log.try_clone().unwrap();
        Self { client: connect(&self.answer.address), answer: self.answer.clone(), log }
    }

    /// Calls any method of any service.
    ///
    /// # Errors
    /// What the shim answers.
    ///
    /// # Panics
    /// When it does not answer at all.
    pub fn raw(&self, service: &str, method: &str, payload: Vec<u8>) -> Rpc<Vec<u8>> {
        let mut request = Request::new();
        service.clone_into(&mut request.service);
        method.clone_into(&mut request.method);
        request.timeout_nano = i64::try_from(wait::SOON.as_nanos()).unwrap();
        request.payload = payload;
        match self.client.request(request) {
            Ok(response) => Ok(response.payload),
            Err(ttrpc::Error::RpcStatus(status)) => {
                Err(RpcError { code: status.code(), message: status.message })
            }
            Err(e) => panic!("{service}/{method}: no answer: {e}"),
        }
    }

    fn call<R: Message>(&self, method: &str, request: &impl Message) -> Rpc<R> {
        let service = format!("containerd.task.v{}.Task", self.answer.version);
        let answer = self.raw(&service, method, request.write_to_bytes().unwrap())?;
        Ok(R::parse_from_bytes(&answer).unwrap())
    }

    /// `Create` with standard streams `io`; the rootfs is the spec's own.
    ///
    /// # Errors
    /// As [`Self::raw`], like all that follow.
    pub fn create(&self, bundle: &Bundle, io: &Stdio3) -> Rpc<CreateTaskResponse> {
        self.create_with(bundle, io, |_| ())
    }

    /// `Create`, with a request that `edit` has changed.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn create_with(
        &self,
        bundle: &Bundle,
        io: &Stdio3,
        edit: impl FnOnce(&mut CreateTaskRequest),
    ) -> Rpc<CreateTaskResponse> {
        let mut request = CreateTaskRequest::new();
        request.id.clone_from(&bundle.id);
        request.bundle = bundle.dir.to_string_lossy().into_owned();
        request.terminal = io.terminal;
        request.stdin.clone_from(&io.stdin);
        request.stdout.clone_from(&io.stdout);
        request.stderr.clone_from(&io.stderr);
        edit(&mut request);
        self.call("Create", &request)
    }

    /// `Start` of the init (`exec` empty) or an exec.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn start(&self, id: &str, exec: &str) -> Rpc<StartResponse> {
        let mut request = StartRequest::new();
        id.clone_into(&mut request.id);
        exec.clone_into(&mut request.exec_id);
        self.call("Start", &request)
    }

    /// `Exec` of a `process` of the OCI spec.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn exec(&self, id: &str, exec: &str, process: &Value, io: &Stdio3) -> Rpc<Empty> {
        let mut spec = Any::new();
        spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned();
        spec.value = process.to_string().into_bytes();
        let mut request = ExecProcessRequest::new();
        id.clone_into(&mut request.id);
        exec.clone_into(&mut request.exec_id);
        request.terminal = io.terminal;
        request.stdin.clone_from(&io.stdin);
        request.stdout.clone_from(&io.stdout);
        request.stderr.clone_from(&io.stderr);
        request.spec = Some(spec).into();
        self.call("Exec", &request)
    }

    /// `State`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn state(&self, id: &str, exec: &str) -> Rpc<StateResponse> {
        let mut request = StateRequest::new();
        id.clone_into(&mut request.id);
        exec.clone_into(&mut request.exec_id);
        self.call("State", &request)
    }

    /// The status in `State`, in lower case; panics when there is no answer.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn status(&self, id: &str, exec: &str) -> String {
        let state = self.state(id, exec).unwrap();
        format!("{:?}", state.status.enum_value().unwrap()).to_lowercase()
    }

    /// `Kill`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn kill(&self, id: &str, exec: &str, signal: u32) -> Rpc<Empty> {
        self.kill_as(id, exec, signal, Whom::One)
    }

    /// `Kill`, of one process or of all.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn kill_as(&self, id: &str, exec: &str, signal: u32, whom: Whom) -> Rpc<Empty> {
        let mut request = KillRequest::new();
        id.clone_into(&mut request.id);
        exec.clone_into(&mut request.exec_id);
        request.signal = signal;
        request.all = whom == Whom::All;
        self.call("Kill", &request)
    }

    /// `Wait`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn wait(&self, id: &str, exec: &str) -> Rpc<WaitResponse> {
        let mut request = WaitRequest::new();
        id.clone_into(&mut request.id);
        exec.clone_into(&mut request.exec_id);
        self.call("Wait", &request)
    }

    /// `Delete`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn delete(&self, id: &str, exec: &str) -> Rpc<DeleteResponse> {
        let mut request = DeleteRequest::new();
        id.clone_into(&mut request.id);
        exec.clone_into(&mut request.exec_id);
        self.call("Delete", &request)
    }

    /// `Pids`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn pids(&self, id: &str) -> Rpc<PidsResponse> {
        let mut request = PidsRequest::new();
        id.clone_into(&mut request.id);
        self.call("Pids", &request)
    }

    /// `Pause`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn pause(&self, id: &str) -> Rpc<Empty> {
        let mut request = PauseRequest::new();
        id.clone_into(&mut request.id);
        self.call("Pause", &request)
    }

    /// `Resume`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn resume(&self, id: &str) -> Rpc<Empty> {
        let mut request = ResumeRequest::new();
        id.clone_into(&mut request.id);
        self.call("Resume", &request)
    }

    /// `Stats`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn stats(&self, id: &str) -> Rpc<StatsResponse> {
        let mut request = StatsRequest::new();
        id.clone_into(&mut request.id);
        self.call("Stats", &request)
    }

    /// `Update` with `linux.resources` of the OCI spec.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn update(&self, id: &str, resources: &Value) -> Rpc<Empty> {
        let mut any = Any::new();
        any.type_url =
            "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned();
        any.value = resources.to_string().into_bytes();
        let mut request = UpdateTaskRequest::new();
        id.clone_into(&mut request.id);
        request.resources = Some(any).into();
        self.call("Update", &request)
    }

    /// `ResizePty`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Rpc<Empty> {
        let mut request = ResizePtyRequest::new();
        id.clone_into(&mut request.id);
        exec.clone_into(&mut request.exec_id);
        request.width = width;
        request.height = height;
        self.call("ResizePty", &request)
    }

    /// `CloseIO` of standard input.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn close_stdin(&self, id: &str, exec: &str) -> Rpc<Empty> {
        let mut request = CloseIORequest::new();
        id.clone_into(&mut request.id);
        exec.clone_into(&mut request.exec_id);
        request.stdin = true;
        self.call("CloseIO", &request)
    }

    /// `Checkpoint`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn checkpoint(&self, id: &str, path: &Path) -> Rpc<Empty> {
        let mut request = CheckpointTaskRequest::new();
        id.clone_into(&mut request.id);
        request.path = path.to_string_lossy().into_owned();
        self.call("Checkpoint", &request)
    }

    /// `Connect`.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn connect(&self, id: &str) -> Rpc<ConnectResponse> {
        let mut request = ConnectRequest::new();
        id.clone_into(&mut request.id);
        self.call("Connect", &request)
    }

    /// `Shutdown`; returns when the shim is gone if `end` says that it ought to go.
    ///
    /// # Panics
    /// When it stays though it ought to go.
    #[track_caller]
    pub fn shutdown(&self, id: &str, end: Ends) {
        let pid = self.connect(id).unwrap().shim_pid;
        let mut request = ShutdownRequest::new();
        id.clone_into(&mut request.id);
        let service = format!("containerd.task.v{}.Task", self.answer.version);
        let mut call = Request::new();
        call.service = service;
        "Shutdown".clone_into(&mut call.method);
        call.timeout_nano = i64::try_from(wait::SOON.as_nanos()).unwrap();
        call.payload = request.write_to_bytes().unwrap();
        // A shim that goes may hang up before its answer is read.
        self.client.request(call).ok();
        if end == Ends::Yes {
            wait::until_true("the shim ends after Shutdown", || {
                crate::process::Process::read(pid).is_none_or(|process| process.state == 'Z')
            });
        }
    }

    /// What it has logged.
    ///
    /// # Panics
    /// When the fifo cannot be read.
    #[must_use]
    pub fn log(&mut self) -> String {
        use std::io::Read;
        let mut text = Vec::new();
        // The fifo never ends, since this side holds it open for writing too.
        self.log.read_to_end(&mut text).ok();
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The process named.
    One,
    /// The container's whole cgroup.
    All,
}

/// Whether a shim goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It has no containers.
    Yes,
    /// It has some.
    No,
}

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

/// A process of the OCI spec that runs a shell script as root.
#[must_use]
pub fn shell(script: &str) -> Value {
    json!({
        "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    })
}
