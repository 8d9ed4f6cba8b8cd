//! The runtime library, without a shim.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::plan::mounts::rootfs_mount;
use runtime::process::{
    Answer, Child, CreateOptions, CreateRequest, Created, DeleteRequest, ExecRequest, ExtraFds,
    Operation, Ordered, Request, Spawner, StartOutcome, WaitingMain, WhenPaused,
};
use runtime::sys::process::SingleThreaded;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions};

use crate::bundle::{self, Layers, Network};

/// `__WALL`: children whose exit signal is none are waited for as well.
const WALL: u32 = 0x4000_0000;

/// A spawner, and a container that sleeps for its execs.
#[derive(Debug)]
pub(crate) struct Library {
    spawner: Spawner,
    dir: PathBuf,
    layers: Layers,
    name: String,
    sleeper: Option<Child>,
    waiting: RefCell<Option<(WaitingMain, Child)>>,
    ordered: Cell<bool>,
}

impl Library {
    pub(crate) fn new(single: &SingleThreaded, dir: &Path, layers: &Layers, name: &str) -> Self {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let (spawner, _child) = Spawner::fork(single, Some(dir.join("seccomp")), None).unwrap();
        let layers = layers.sibling(&dir.join("lib"));
        let (waiting, ordered) = (RefCell::new(None), Cell::new(false));
        let (dir, name) = (dir.join("lib"), name.to_owned());
        Self { spawner, dir, layers, name, sleeper: None, waiting, ordered }
    }

    /// A container from nothing to nothing.
    pub(crate) fn create(&mut self, network: Network) -> Duration {
        self.settle();
        let bundle = self.bundle("c", network, &["true"]);
        let begin = Instant::now();
        let created = self.make(&bundle, "c", &self.layers);
        start(created.start);
        reap(&created.process);
        self.delete(&bundle);
        begin.elapsed()
    }

    /// An exec in a container that sleeps.
    pub(crate) fn exec(&mut self) -> Duration {
        let bundle = self.bundle("s", Network::Host, &["sleep", "1000000"]);
        if self.sleeper.is_none() {
            let layers = self.layers.sibling(&self.dir.join("sleeper"));
            let created = self.make(&bundle, "s", &layers);
            start(created.start);
            self.sleeper = Some(created.process);
        }
        self.settle();
        let init = &self.sleeper.as_ref().unwrap().pidfd;
        let begin = Instant::now();
        let request = Request::Exec(ExecRequest {
            exec_id: "e".to_owned(),
            state_dir: bundle.join("myshim"),
            process: bundle::process(&["true"]).to_string(),
            pid_file: None,
            extra_fds: ExtraFds::default(),
            when_paused: WhenPaused::Refuse,
        });
        let null = null();
        let fds = [init.as_fd(), null.as_fd(), null.as_fd(), null.as_fd()];
        let created = self.created(&request, &fds);
        start(created.start);
        reap(&created.process);
        begin.elapsed()
    }

    fn bundle(&self, suffix: &str, network: Network, args: &[&str]) -> PathBuf {
        let network_name = if network == Network::New { "n" } else { "h" };
        let dir = self.dir.join(format!("{suffix}{network_name}"));
        if !dir.exists() {
            let cgroup = format!("/{}lib{suffix}", self.name);
            bundle::write(&dir, &bundle::spec(&cgroup, network, args));
        }
        dir
    }

    fn make(&self, bundle: &Path, id: &str, layers: &Layers) -> Created {
        let overlay = rootfs_mount("overlay", "overlay", "", &layers.options()).unwrap();
        let request = Request::Create(CreateRequest {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            state_dir: bundle.join("myshim"),
            rootfs: vec![overlay],
            options: CreateOptions::default(),
            pid_file: None,
        });
        let null = null();
        self.created(&request, &[null.as_fd(), null.as_fd(), null.as_fd()])
    }

    fn created(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Created {
        match self.ask(request, fds) {
            Answer::Created(created) => created,
            other => panic!("{other:?}"),
        }
    }

    fn delete(&self, bundle: &Path) {
        let request = Request::Delete(DeleteRequest { state_dir: bundle.join("myshim") });
        match self.ask(&request, &[]) {
            Answer::Done { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// As the shim does: a main waits ahead of the operation.
    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Answer {
        let (main, child) = self.waiting.borrow_mut().take().unwrap_or_else(|| self.main());
        let mut operation = main.submit(request, fds).unwrap();
        let answer = loop {
            match next(&mut operation) {
                Answer::Forked(child) => reap(&child),
                answer => break answer,
            }
        };
        match operation.into_waiting() {
            Some(main) => *self.waiting.borrow_mut() = Some((main, child)),
            None => {
                self.spawner.order().unwrap();
                self.ordered.set(true);
                reap(&child);
            }
        }
        answer
    }

    /// Waits until a main waits for the next operation.
    pub(crate) fn settle(&self) {
        let waiting = self.waiting.borrow_mut().take().unwrap_or_else(|| self.main());
        *self.waiting.borrow_mut() = Some(waiting);
    }

    fn main(&self) -> (WaitingMain, Child) {
        if !self.ordered.replace(false) {
            self.spawner.order().unwrap();
        }
        loop {
            match self.spawner.try_main().unwrap() {
                Ordered::Main(main, child) => return (main, child),
                Ordered::Nothing => wait(self.spawner.as_fd()),
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        if let Some(sleeper) = self.sleeper.take() {
            runtime::sys::child::pidfd_send_signal(sleeper.pidfd.as_fd(), 9).unwrap();
            reap(&sleeper);
            self.delete(&self.dir.join("sh"));
        }
    }
}

fn next(operation: &mut Operation) -> Answer {
    loop {
        match operation.try_next().unwrap() {
            Some(answer) => return answer,
            None => wait(operation.as_fd()),
        }
    }
}

fn start(mut channel: runtime::process::StartChannel) {
    channel.start().unwrap();
    let outcome = loop {
        match channel.try_outcome().unwrap() {
            Some(outcome) => break outcome,
            None => wait(channel.as_fd()),
        }
    };
    assert!(matches!(outcome, StartOutcome::Executed), "{outcome:?}");
}

fn reap(child: &Child) {
    wait(child.pidfd.as_fd());
    let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(WALL);
    rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), options).unwrap();
}

fn wait(fd: BorrowedFd<'_>) {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut polled, None).unwrap();
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}
