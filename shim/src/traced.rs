//! The Task service with a span around each request: which one it is, and about what.

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::shim_async::Task;
use tracing::{Instrument, debug_span};
use ttrpc::r#async::TtrpcContext;

use crate::service::Service;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Traced(pub(crate) Service);

/// The service's methods: those of a container, and those of a container or one of its execs.
macro_rules! traced {
    (
        containers: [$($method:ident($request:ident) -> $response:ident,)*]
        processes: [$($method_p:ident($request_p:ident) -> $response_p:ident,)*]
    ) => {
        #[async_trait]
        impl Task for Traced {
            $(async fn $method(
                &self,
                context: &TtrpcContext,
                request: $request,
            ) -> ttrpc::Result<$response> {
                let span = debug_span!("rpc", rpc = stringify!($method), container = request.id);
                self.0.$method(context, request).instrument(span).await
            })*

            $(async fn $method_p(
                &self,
                context: &TtrpcContext,
                request: $request_p,
            ) -> ttrpc::Result<$response_p> {
                let span = debug_span!(
                    "rpc",
                    rpc = stringify!($method_p),
                    container = request.id,
                    exec = request.exec_id
                );
                self.0.$method_p(context, request).instrument(span).await
            })*
        }
    };
}

traced! {
    containers: [
        create(CreateTaskRequest) -> CreateTaskResponse,
        pids(PidsRequest) -> PidsResponse,
        pause(PauseRequest) -> Empty,
        resume(ResumeRequest) -> Empty,
        checkpoint(CheckpointTaskRequest) -> Empty,
        update(UpdateTaskRequest) -> Empty,
        stats(StatsRequest) -> StatsResponse,
        connect(ConnectRequest) -> ConnectResponse,
        shutdown(ShutdownRequest) -> Empty,
    ]
    processes: [
        start(StartRequest) -> StartResponse,
        delete(DeleteRequest) -> DeleteResponse,
        exec(ExecProcessRequest) -> Empty,
        state(StateRequest) -> StateResponse,
        kill(KillRequest) -> Empty,
        resize_pty(ResizePtyRequest) -> Empty,
        close_io(CloseIORequest) -> Empty,
        wait(WaitRequest) -> WaitResponse,
    ]
}
