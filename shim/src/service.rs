//! The Task service: containerd's requests, in the words of containers.
//!
//! A handler converts, asks the container's actor, and converts back. It does no work itself:
//! ttrpc drops its future when the client hangs up or its deadline passes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::types::task::Status as WireStatus;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{Message, MessageField};
use runtime::{At, Error, Kind, Result};
use serde_json::Value;
use tracing::warn;
use ttrpc::Code;
use ttrpc::r#async::TtrpcContext;

use crate::address::Address;
use crate::io::Stdio;
use crate::options;
use crate::stats;
use crate::task::{Command, Creation, Daemon, NewExec, Reply, Shutdown, Status, Whom};

/// The service's state: the daemon, and where it is reached.
#[derive(Debug)]
pub(crate) struct Service {
    daemon: Arc<Daemon>,
    address: Address,
    pid: u32,
}

impl Service {
    /// The service of a daemon.
    pub(crate) fn new(daemon: Arc<Daemon>, address: Address) -> Service {
        Service { daemon, address, pid: std::process::id() }
    }

    async fn ask<T>(&self, id: &str, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        self.daemon.container(id)?.ask(command).await
    }

    async fn pids_of(&self, id: &str) -> Result<PidsResponse> {
        let handle = self.daemon.container(id)?;
        let execs = handle.ask(|reply| Command::ExecPids { reply }).await?;
        let mut processes = Vec::new();
        let pids = if handle.container.cgroup.paths().directories.is_empty() {
            // Nothing but the daemon itself knows of them.
            let init = handle.ask(|reply| Command::State { exec: None, reply }).await?;
            let init = init.pid.filter(|_| init.exit.is_none());
            init.into_iter().chain(execs.iter().map(|(pid, _)| *pid)).collect()
        } else {
            handle.container.cgroup.pids()?.into_iter().map(i32::unsigned_abs).collect::<Vec<_>>()
        };
        for pid in pids {
            let exec = execs.iter().find(|(exec_pid, _)| *exec_pid == pid);
            let info = exec.map(|(_, exec_id)| details(exec_id)).transpose()?;
            processes.push(ProcessInfo { pid, info: info.into(), ..ProcessInfo::default() });
        }
        Ok(PidsResponse { processes, ..PidsResponse::default() })
    }

    async fn state_of(&self, request: StateRequest) -> Result<StateResponse> {
        let handle = self.daemon.container(&request.id)?;
        let exec = optional(&request.exec_id);
        let state = handle.ask(|reply| Command::State { exec, reply }).await?;
        let Stdio { stdin, stdout, stderr, terminal } = state.stdio;
        let id = if request.exec_id.is_empty() { request.id } else { request.exec_id.clone() };
        Ok(StateResponse {
            id,
            bundle: handle.container.bundle.to_string_lossy().into_owned(),
            pid: state.pid.unwrap_or_default(),
            status: wire_status(state.status).into(),
            stdin,
            stdout,
            stderr,
            terminal,
            exit_status: state.exit.map(|exit| exit.status).unwrap_or_default(),
            exited_at: timestamp(state.exit.map(|exit| exit.at)),
            exec_id: request.exec_id,
            ..StateResponse::default()
        })
    }

    /// Ends the daemon when no container is left. The socket goes first, before the answer: what
    /// containerd starts next for this id must not find a daemon that is about to end.
    fn shut_down(&self) {
        if self.daemon.shut_down() == Shutdown::Ending
            && let Err(error) = self.address.remove_own()
        {
            warn!(%error, "the socket stays");
        }
    }
}

/// Asks for a creation, in a task of its own.
/// containerd lets no such id pass; it becomes the name of cgroups and files here.
fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || matches!(id, "." | "..") || id.contains(['/', '\0', '\n']) {
        return Err(Error::argument("id", format!("{id:?} cannot name a container")));
    }
    Ok(())
}

async fn create(daemon: &Arc<Daemon>, request: CreateTaskRequest) -> Result<u32> {
    if !request.checkpoint.is_empty() {
        return Err(Error::new(Kind::Unsupported("restore from a checkpoint".into())));
    }
    check_id(&request.id)?;
    let bundle = PathBuf::from(request.bundle);
    if !bundle.is_absolute() {
        return Err(Error::argument("bundle", "must be an absolute path"));
    }
    let creation = Creation {
        id: request.id,
        bundle,
        rootfs: request.rootfs,
        stdio: Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        },
        options: options::parse(request.options.as_ref()).at("options")?,
    };
    let (reply, answer) = Reply::channel();
    tokio::spawn(creation.run(Arc::clone(daemon), reply));
    let died = || Error::new(Kind::Corrupt("the create ended without an answer".into()));
    answer.await.unwrap_or_else(|_| Err(died()))
}

pub(crate) fn new_exec(request: ExecProcessRequest) -> Result<NewExec> {
    let spec = request.spec.value.as_slice();
    let mut process: Value = serde_json::from_slice(spec)
        .map_err(|error| Error::argument("spec", format!("process: {error}")))?;
    // The request decides, as in Go's shim.
    match &mut process {
        Value::Object(fields) => fields.insert("terminal".into(), request.terminal.into()),
        _ => return Err(Error::argument("spec", "process: is no object")),
    };
    Ok(NewExec {
        id: request.exec_id,
        process: process.to_string(),
        stdio: Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        },
    })
}

pub(crate) fn resources(any: Option<&Any>) -> Result<String> {
    let bytes = any.map(|any| any.value.clone()).unwrap_or_default();
    String::from_utf8(bytes).map_err(|_| Error::argument("resources", "is no UTF-8"))
}

fn kill(request: KillRequest, reply: Reply<()>) -> Command {
    Command::Kill {
        exec: optional(&request.exec_id),
        // A number that is too large is refused by the kernel, as any that is no signal.
        signal: i32::try_from(request.signal).unwrap_or(i32::MAX),
        whom: if request.all { Whom::All } else { Whom::One },
        reply,
    }
}

fn optional(exec_id: &str) -> Option<String> {
    (!exec_id.is_empty()).then(|| exec_id.to_owned())
}

fn details(exec_id: &str) -> Result<Any> {
    let details = ProcessDetails { exec_id: exec_id.to_owned(), ..ProcessDetails::default() };
    any("containerd.runc.v1.ProcessDetails", &details)
}

/// A message as Go's typeurl packs it: the bare name, without a host before it.
pub(crate) fn any(name: &str, message: &impl Message) -> Result<Any> {
    let value = message
        .write_to_bytes()
        .map_err(|error| Error::new(Kind::Corrupt(format!("encode {name}: {error}"))))?;
    Ok(Any { type_url: name.to_owned(), value, ..Any::default() })
}

fn timestamp(at: Option<SystemTime>) -> MessageField<Timestamp> {
    at.map(Timestamp::from).into()
}

fn wire_status(status: Status) -> WireStatus {
    match status {
        Status::Created => WireStatus::CREATED,
        Status::Running => WireStatus::RUNNING,
        Status::Stopped => WireStatus::STOPPED,
        Status::Paused => WireStatus::PAUSED,
        Status::Pausing => WireStatus::PAUSING,
    }
}

fn columns_or_rows(name: &str, count: u32) -> Result<u16> {
    u16::try_from(count).map_err(|_| Error::argument(name, format!("{count} is too large")))
}

/// The error as its client sees it: a code, and the whole text.
fn status(error: Error) -> ttrpc::Error {
    let code = match error.kind() {
        Kind::NotFound(_) => Code::NOT_FOUND,
        Kind::AlreadyExists(_) => Code::ALREADY_EXISTS,
        Kind::State(_) => Code::FAILED_PRECONDITION,
        Kind::Field { .. } | Kind::Argument { .. } => Code::INVALID_ARGUMENT,
        Kind::Unsupported(_) => Code::UNIMPLEMENTED,
        Kind::Call { .. }
        | Kind::Program { .. }
        | Kind::Hook { .. }
        | Kind::PeerDied { .. }
        | Kind::Deadline { .. }
        | Kind::Corrupt(_) => Code::UNKNOWN,
    };
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, error))
}

fn empty(result: Result<()>) -> ttrpc::Result<Empty> {
    result.map(|()| Empty::default()).map_err(status)
}

type Context = TtrpcContext;

#[async_trait]
impl Task for Service {
    async fn create(
        &self,
        _: &Context,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let pid = create(&self.daemon, request).await.map_err(status)?;
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    async fn start(&self, _: &Context, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let exec = optional(&request.exec_id);
        let pid = self.ask(&request.id, |reply| Command::Start { exec, reply }).await;
        pid.map(|pid| StartResponse { pid, ..StartResponse::default() }).map_err(status)
    }

    async fn delete(&self, _: &Context, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let exec = optional(&request.exec_id);
        let deleted = self.ask(&request.id, |reply| Command::Delete { exec, reply }).await;
        let deleted = deleted.map_err(status)?;
        Ok(DeleteResponse {
            pid: deleted.pid.unwrap_or_default(),
            exit_status: deleted.exit.map(|exit| exit.status).unwrap_or_default(),
            exited_at: timestamp(deleted.exit.map(|exit| exit.at)),
            ..DeleteResponse::default()
        })
    }

    async fn exec(&self, _: &Context, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let id = request.id.clone();
        let exec = new_exec(request).map_err(status)?;
        empty(self.ask(&id, |reply| Command::Exec { exec, reply }).await)
    }

    async fn state(&self, _: &Context, request: StateRequest) -> ttrpc::Result<StateResponse> {
        self.state_of(request).await.map_err(status)
    }

    async fn pids(&self, _: &Context, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        self.pids_of(&request.id).await.map_err(status)
    }

    async fn pause(&self, _: &Context, request: PauseRequest) -> ttrpc::Result<Empty> {
        empty(self.ask(&request.id, |reply| Command::Pause { reply }).await)
    }

    async fn resume(&self, _: &Context, request: ResumeRequest) -> ttrpc::Result<Empty> {
        empty(self.ask(&request.id, |reply| Command::Resume { reply }).await)
    }

    async fn checkpoint(&self, _: &Context, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        empty(Err(Error::new(Kind::Unsupported("checkpoint is not implemented".into()))))
    }

    async fn kill(&self, _: &Context, request: KillRequest) -> ttrpc::Result<Empty> {
        let id = request.id.clone();
        empty(self.ask(&id, |reply| kill(request, reply)).await)
    }

    async fn resize_pty(&self, _: &Context, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let columns = columns_or_rows("width", request.width).map_err(status)?;
        let rows = columns_or_rows("height", request.height).map_err(status)?;
        let exec = optional(&request.exec_id);
        let resize = |reply| Command::Resize { exec, columns, rows, reply };
        empty(self.ask(&request.id, resize).await)
    }

    async fn close_io(&self, _: &Context, request: CloseIORequest) -> ttrpc::Result<Empty> {
        // Go's shim closes stdin whatever `stdin` says, and there is nothing else to be closed.
        let exec = optional(&request.exec_id);
        empty(self.ask(&request.id, |reply| Command::CloseIo { exec, reply }).await)
    }

    async fn update(&self, _: &Context, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let resources = resources(request.resources.as_ref()).map_err(status)?;
        empty(self.ask(&request.id, |reply| Command::Update { resources, reply }).await)
    }

    async fn wait(&self, _: &Context, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let exec = optional(&request.exec_id);
        let ended = self.ask(&request.id, |reply| Command::Wait { exec, reply }).await;
        let ended = ended.map_err(status)?;
        Ok(WaitResponse {
            exit_status: ended.status,
            exited_at: timestamp(ended.at),
            ..WaitResponse::default()
        })
    }

    async fn stats(&self, _: &Context, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let handle = self.daemon.container(&request.id).map_err(status)?;
        let stats = stats::read(&handle.container.cgroup).map_err(status)?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    async fn connect(
        &self,
        _: &Context,
        request: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        let container = self.daemon.container(&request.id);
        Ok(ConnectResponse {
            shim_pid: self.pid,
            task_pid: container.map(|handle| handle.container.pid).unwrap_or_default(),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &Context, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.shut_down();
        Ok(Empty::default())
    }
}
