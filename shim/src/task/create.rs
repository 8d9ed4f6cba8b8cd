//! Making a container.
//!
//! On success an actor owns it, and `TaskCreate` is the first event of its id. On failure, and
//! when the client hangs up before it is told of the success, nothing is left and nothing was
//! published: containerd then believes that there is no such task, and asks for no deletion.

use std::path::PathBuf;
use std::sync::Arc;

use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::types::mount::Mount;
use protobuf::MessageField;
use runtime::cgroup::Cgroup;
use runtime::plan::mounts;
use runtime::{At, Result};
use tracing::warn;

use super::Container;
use super::actor::{self, Init};
use super::machine::{Birth, Machine};
use super::model::Reply;
use super::registry::Daemon;
use crate::bridge::{CreateOptions, CreateRequest, DeleteRequest, Made};
use crate::exit_file::STATE_DIR;
use crate::io::{self, Owner, Prepared, ProcessIo, Role, Stdio, Subject};
use crate::options::Options;

const SIGKILL: i32 = 9;

/// A container that is asked for.
#[derive(Debug)]
pub(crate) struct Creation {
    /// Its id.
    pub(crate) id: String,
    /// Its bundle, absolute.
    pub(crate) bundle: PathBuf,
    /// What its root is made of.
    pub(crate) rootfs: Vec<Mount>,
    /// Its init's streams.
    pub(crate) stdio: Stdio,
    /// What the client wants otherwise than by default.
    pub(crate) options: Options,
}

impl Creation {
    /// Makes the container, and answers with its init's pid.
    pub(crate) async fn run(self, daemon: Arc<Daemon>, reply: Reply<u32>) {
        run(daemon, self, reply).await;
    }
}

async fn run(daemon: Arc<Daemon>, creation: Creation, reply: Reply<u32>) {
    let reservation = match daemon.reserve(&creation.id) {
        Ok(reservation) => reservation,
        Err(error) => return reply.fail(error),
    };
    let (made, io) = match make(&daemon, &creation).await {
        Ok(made) => made,
        Err(error) => return reply.fail(error.at("OCI runtime create failed")),
    };
    if reply.is_abandoned() {
        drop(io);
        discard(&daemon, &creation, made).await;
        drop(reservation);
        // Who would ask for it has gone.
        daemon.shut_down();
        return;
    }
    let pid = made.process.pid();
    let (container, init) = bear(&daemon, creation, made, io);
    reservation.fill(actor::start(daemon, container, init));
    reply.send(Ok(pid));
}

async fn make(daemon: &Daemon, creation: &Creation) -> Result<(Made, ProcessIo)> {
    for warning in &creation.options.warnings {
        warn!(container = creation.id, "options: {warning}");
    }
    let request = request(creation)?;
    let subject = Subject {
        id: &creation.id,
        namespace: &daemon.namespace,
        owner: owner(&creation.options),
        role: Role::Init,
    };
    let prepared = io::prepare(&creation.stdio, subject, daemon.runtime.reaper())
        .await
        .at("failed to create init process I/O")?;
    let mut made = daemon.runtime.create(request, &prepared.ends()).await?;
    match attach(prepared, &mut made) {
        Ok(io) => Ok((made, io)),
        Err(error) => {
            discard(daemon, creation, made).await;
            Err(error)
        }
    }
}

fn attach(prepared: Prepared, made: &mut Made) -> Result<ProcessIo> {
    prepared.attach(made.console.take()).at("start to copy streams")
}

fn owner(options: &Options) -> Owner {
    Owner { uid: options.io_uid, gid: options.io_gid }
}

fn request(creation: &Creation) -> Result<CreateRequest> {
    let mut rootfs = Vec::with_capacity(creation.rootfs.len());
    for (index, mount) in creation.rootfs.iter().enumerate() {
        let parsed =
            mounts::rootfs_mount(&mount.type_, &mount.source, &mount.target, &mount.options)
                .at_with(|| format!("rootfs mount {} of {}", index + 1, creation.rootfs.len()))?;
        rootfs.push(parsed);
    }
    let options = &creation.options;
    Ok(CreateRequest {
        id: creation.id.clone(),
        bundle: creation.bundle.clone(),
        state_dir: creation.bundle.join(STATE_DIR),
        rootfs,
        options: CreateOptions {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            systemd_cgroup: options.systemd_cgroup,
            ..CreateOptions::default()
        },
        pid_file: None,
    })
}

/// From a process that waits for start to a container with an actor.
fn bear(daemon: &Daemon, creation: Creation, made: Made, io: ProcessIo) -> (Arc<Container>, Init) {
    let pid = made.process.pid();
    for warning in &made.facts.warnings {
        warn!(container = creation.id, "{warning}");
    }
    let container = Arc::new(Container {
        id: creation.id.clone(),
        state_dir: creation.bundle.join(STATE_DIR),
        bundle: creation.bundle.clone(),
        pid,
        cgroup: Cgroup::open(&made.facts.cgroup),
        owner: owner(&creation.options),
        has_poststart: made.facts.has_poststart,
    });
    let machine = Machine::new(Birth {
        pid,
        stdio: creation.stdio.clone(),
        private_pid_namespace: made.facts.private_pid_namespace,
    });
    daemon.publisher.publish(&created(creation, pid));
    (container, Init { machine, process: made.process, start: made.start, io })
}

fn created(creation: Creation, pid: u32) -> TaskCreate {
    let Stdio { stdin, stdout, stderr, terminal } = creation.stdio;
    TaskCreate {
        container_id: creation.id,
        bundle: creation.bundle.to_string_lossy().into_owned(),
        rootfs: creation.rootfs,
        io: MessageField::some(TaskIO { stdin, stdout, stderr, terminal, ..TaskIO::default() }),
        pid,
        ..TaskCreate::default()
    }
}

/// Takes back a container that nobody will ever ask for.
async fn discard(daemon: &Daemon, creation: &Creation, made: Made) {
    let Made { mut process, start, .. } = made;
    drop(start);
    // ESRCH: it has ended.
    drop(process.signal(SIGKILL));
    process.exited().await;
    let state_dir = creation.bundle.join(STATE_DIR);
    if let Err(error) = daemon.runtime.delete(DeleteRequest { state_dir }).await {
        warn!(container = creation.id, %error, "a create that was given up left something behind");
    }
}
