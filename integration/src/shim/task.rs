//! The task service of a shim that answers.

use std::fs;
use std::path::Path;

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::Value;
use ttrpc::Code;
use ttrpc::proto::Request;

use super::{Answer, Bundle, Stdio3};
use crate::wait;

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
    pub(super) fn connect_to(answer: Answer, log: fs::File) -> Self {
        Self { client: connect(&answer.address), answer, log }
    }

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
        request.timeout_nano = i64::try_from(wait::scaled(wait::SOON).as_nanos()).unwrap();
        request.payload = payload;
        match self.client.request(request) {
            Ok(response) => Ok(response.payload),
            Err(ttrpc::Error::RpcStatus(status)) => {
                Err(RpcError { code: status.code(), message: status.message })
            }
            Err(ttrpc::Error::Others(why)) if why.contains("timeout") => {
                let message = format!("{service}/{method}: no answer: {why}");
                Err(RpcError { code: Code::DEADLINE_EXCEEDED, message })
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
        call.timeout_nano = i64::try_from(wait::scaled(wait::SOON).as_nanos()).unwrap();
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
