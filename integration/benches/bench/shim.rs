//! A shim, driven at its socket in containerd's order of calls.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, ExecProcessRequest, KillRequest, PidsRequest, PidsResponse,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, WaitRequest, WaitResponse,
};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::types::mount::Mount;
use myshim_integration::shim::{make_fifo, open_fifo};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::bundle::{self, Layers, Network};
use crate::ttrpc_client::Client;

/// A shim's binary and what it finds on its PATH.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub(crate) name: String,
    pub(crate) shim: PathBuf,
    pub(crate) path: OsString,
}

/// Where shims are started.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// In memory, as containerd's /run is.
    pub(crate) dir: PathBuf,
    pub(crate) events: String,
    pub(crate) layers: &'a Layers,
    pub(crate) name: &'a str,
}

/// A running shim.
pub(crate) struct Shim<'a> {
    place: &'a Place<'a>,
    pub(crate) client: Client,
    pub(crate) binary: Binary,
    first: String,
    _log: fs::File,
}

impl<'a> Shim<'a> {
    /// `start`, and the first connection.
    pub(crate) fn start(place: &'a Place<'a>, binary: &Binary, id: &str) -> Self {
        let dir = bundle_of(place, id, Network::Host, &["true"]);
        make_log(&dir);
        let log = open_fifo(&dir.join("log"));
        let mut command = Command::new(&binary.shim);
        command.args(["-namespace", place.name, "-address", "/run/bench/none.sock"]);
        command.args(["-publish-binary", "/bin/true", "-id", id, "start"]);
        command.current_dir(&dir).env_clear().env("PATH", &binary.path);
        command.env("TTRPC_ADDRESS", &place.events).env("GOMAXPROCS", "4");
        command.env("MAX_SHIM_VERSION", "2");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut params = BootstrapParams::new();
        id.clone_into(&mut params.instance_id);
        place.name.clone_into(&mut params.namespace);
        "2.4.2".clone_into(&mut params.containerd_version);
        "/run/bench/none.sock".clone_into(&mut params.containerd_grpc_address);
        params.containerd_ttrpc_address.clone_from(&place.events);
        "/bin/true".clone_into(&mut params.containerd_binary);
        params.socket_dir = Some(place.dir.join("s").to_string_lossy().into_owned());
        child.stdin.take().unwrap().write_all(&params.write_to_bytes().unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{} does not start", binary.name);
        let answer = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
        let path = answer.address.trim_start_matches("unix://");
        let client = Client::connect(path, answer.version.into());
        Self { place, client, binary: binary.clone(), first: id.to_owned(), _log: log }
    }

    /// A container of this shim from Create to Delete.
    pub(crate) fn cycle(&mut self, id: &str, network: Network) -> Duration {
        bundle_of(self.place, id, network, &["true"]);
        let begin = Instant::now();
        self.create(id, self.place.layers);
        self.finish(id, "");
        begin.elapsed()
    }

    /// The same on another root.
    pub(crate) fn cycle_on(&mut self, id: &str, layers: &Layers) -> Duration {
        bundle_of(self.place, id, Network::Host, &["true"]);
        let begin = Instant::now();
        self.create(id, layers);
        self.finish(id, "");
        begin.elapsed()
    }

    /// The bundle of a container that runs `args`, and a fifo for its output.
    pub(crate) fn prepare_output(&self, id: &str, args: &[&str]) -> PathBuf {
        let id = format!("{id}-{}", self.binary.name);
        let dir = bundle_of(self.place, &id, Network::Host, args);
        let fifo = dir.join("out");
        make_fifo(&fifo);
        fifo
    }

    /// Makes that container.
    pub(crate) fn create_with_output(&mut self, id: &str, fifo: &Path) {
        let mut request = self.request(id, self.place.layers);
        request.bundle = fifo.parent().unwrap().to_string_lossy().into_owned();
        request.stdout = fifo.to_string_lossy().into_owned();
        // Go's shim takes both or none.
        request.stderr.clone_from(&request.stdout);
        self.client.call::<CreateTaskResponse>("Create", &request);
    }

    /// A container that sleeps. `pool` gives it an upper layer of its own.
    pub(crate) fn sleeper(&mut self, id: &str) {
        bundle_of(self.place, id, Network::Host, &["sleep", "1000000"]);
        let layers = self.place.layers.sibling(id);
        self.create(id, &layers);
        self.client.call::<StartResponse>("Start", &start_request(id, ""));
    }

    /// Ends a container that sleeps.
    pub(crate) fn end(&mut self, id: &str) {
        let waiting = self.client.send("Wait", &wait_request(id, ""));
        self.kill(id, 9);
        self.client.receive::<WaitResponse>(waiting).unwrap();
        self.client.call::<DeleteResponse>("Delete", &delete_request(id, ""));
    }

    /// An exec from Exec to Delete.
    pub(crate) fn exec(&mut self, id: &str) -> Duration {
        let begin = Instant::now();
        let mut spec = Any::new();
        "types.containerd.io/opencontainers/runtime-spec/1/Process".clone_into(&mut spec.type_url);
        spec.value = bundle::process(&["true"]).to_string().into_bytes();
        let mut request = ExecProcessRequest::new();
        id.clone_into(&mut request.id);
        "e".clone_into(&mut request.exec_id);
        request.spec = Some(spec).into();
        self.client.call::<Empty>("Exec", &request);
        self.finish(id, "e");
        begin.elapsed()
    }

    fn create(&mut self, id: &str, layers: &Layers) {
        let request = self.request(id, layers);
        self.client.call::<CreateTaskResponse>("Create", &request);
    }

    fn request(&self, id: &str, layers: &Layers) -> CreateTaskRequest {
        let mut overlay = Mount::new();
        "overlay".clone_into(&mut overlay.type_);
        "overlay".clone_into(&mut overlay.source);
        overlay.options = layers.options();
        let mut request = CreateTaskRequest::new();
        id.clone_into(&mut request.id);
        request.bundle = self.place.dir.join(id).to_string_lossy().into_owned();
        request.rootfs.push(overlay);
        request
    }

    /// From Start to Delete.
    pub(crate) fn finish(&mut self, id: &str, exec: &str) {
        let waiting = self.client.send("Wait", &wait_request(id, exec));
        self.client.call::<StartResponse>("Start", &start_request(id, exec));
        let waited: WaitResponse = self.client.receive(waiting).unwrap();
        assert_eq!(waited.exit_status, 0, "{}", self.binary.name);
        self.client.call::<DeleteResponse>("Delete", &delete_request(id, exec));
    }

    /// `Kill`; signal 0 only asks.
    pub(crate) fn kill(&mut self, id: &str, signal: u32) {
        let mut request = KillRequest::new();
        id.clone_into(&mut request.id);
        request.signal = signal;
        self.client.call::<Empty>("Kill", &request);
    }

    pub(crate) fn state(&mut self, id: &str) {
        let mut request = StateRequest::new();
        id.clone_into(&mut request.id);
        self.client.call::<StateResponse>("State", &request);
    }

    pub(crate) fn pids(&mut self, id: &str) {
        let mut request = PidsRequest::new();
        id.clone_into(&mut request.id);
        self.client.call::<PidsResponse>("Pids", &request);
    }

    pub(crate) fn stats(&mut self, id: &str) {
        let mut request = StatsRequest::new();
        id.clone_into(&mut request.id);
        self.client.call::<StatsResponse>("Stats", &request);
    }

    /// The shim's own process id.
    pub(crate) fn pid(&mut self) -> u32 {
        let mut request = ConnectRequest::new();
        request.id.clone_from(&self.first);
        let answer: ConnectResponse = self.client.call("Connect", &request);
        answer.shim_pid
    }

    /// `Shutdown`; a shim that goes may hang up before it answers.
    pub(crate) fn shutdown(mut self) {
        let mut request = ShutdownRequest::new();
        request.id.clone_from(&self.first);
        self.client.send("Shutdown", &request);
        self.client.until_closed();
    }
}

/// The whole life of a shim with one container: start, Create, Start, Wait, Delete, Shutdown.
pub(crate) fn whole(place: &Place<'_>, binary: &Binary) -> Duration {
    let id = "whole";
    drop(fs::remove_dir_all(place.dir.join(id)));
    bundle_of(place, id, Network::Host, &["true"]);
    let begin = Instant::now();
    let mut shim = Shim::start(place, binary, id);
    shim.create(id, place.layers);
    shim.finish(id, "");
    shim.shutdown();
    begin.elapsed()
}

/// Makes the bundle of a container, once.
fn bundle_of(place: &Place<'_>, id: &str, network: Network, args: &[&str]) -> PathBuf {
    let dir = place.dir.join(id);
    if !dir.join("config.json").exists() {
        bundle::write(&dir, &bundle::spec(&format!("/{}/{id}", place.name), network, args));
    }
    dir
}

fn make_log(dir: &Path) {
    if !dir.join("log").exists() {
        make_fifo(&dir.join("log"));
    }
}

fn start_request(id: &str, exec: &str) -> StartRequest {
    StartRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..StartRequest::default() }
}

fn wait_request(id: &str, exec: &str) -> WaitRequest {
    WaitRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..WaitRequest::default() }
}

fn delete_request(id: &str, exec: &str) -> DeleteRequest {
    DeleteRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..DeleteRequest::default() }
}
