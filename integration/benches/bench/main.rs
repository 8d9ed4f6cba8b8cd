//! What a container and an exec cost, as ratios to the floor, in interleaved runs.
//!
//! ```text
//! make bench ARGS="--rounds 200 --shim DIR --peer NAME=SHIM,PATH --runtime NAME=PROGRAM …"
//! ```
//!
//! `--peer` adds a shim by its binary and the PATH it is to find its runtime on, `--runtime` an
//! OCI runtime by its binary. Without names of tables all are made. See docs/performance.md.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot run ends")]

mod bundle;
mod command_line;
mod floor;
mod library;
mod memory;
mod runtimes;
mod series;
mod shim;
mod ttrpc_client;

use std::cell::RefCell;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use containerd_shim_protos::api::{Empty, ForwardRequest};
use runtime::sys::process::SingleThreaded;

use crate::bundle::{Layers, Network};
use crate::command_line::Options;
use crate::floor::Floor;
use crate::library::Library;
use crate::series::Subject;
use crate::shim::{Binary, Place, Shim};

fn main() {
    let options = Options::parse(std::env::args().skip(1));
    let name = format!("bench{}", std::process::id());
    let dir = std::env::temp_dir().join(&name);
    fs::create_dir_all(dir.join("s")).unwrap();
    let layers = Layers::make(&dir, options.layers);
    // Both are forked while this program is small and has one thread.
    let single = SingleThreaded::verify().expect("one thread");
    let mut floor = Floor::fork(&single, &layers, &name);
    let library = Library::new(&single, &dir, &layers, &name);
    let text = run(&options, &mut floor, library, &layers, &name);
    drop(floor);
    match &options.markdown {
        Some(path) => fs::write(path, text).unwrap(),
        None => print!("{text}"),
    }
    fs::remove_dir_all(&dir).unwrap();
    remove_cgroups(&name);
}

fn run(
    options: &Options,
    floor: &mut Floor,
    library: Library,
    layers: &Layers,
    name: &str,
) -> String {
    let dir = std::env::temp_dir().join(name);
    let events = serve_events(&dir);
    let layers = layers.sibling(&dir.join("p"));
    let place = Place { layers: &layers, name, events: events.1, dir };
    let library = RefCell::new(library);
    let floor = RefCell::new(floor);
    let mut text = String::new();
    for (table, network) in [("create", Network::Host), ("create-net", Network::New)] {
        if options.wants(table) {
            text += &create(options, &floor, &library, &place, network);
        }
    }
    if options.wants("exec") {
        text += &exec(options, &floor, &library, &place);
    }
    if options.wants("whole") {
        text += &whole(options, &floor, &place);
    }
    if options.wants("calls") {
        text += &calls(options, &place);
    }
    if options.wants("memory") {
        text += &memory::table(&place, &options.shims, options.execs);
    }
    text
}

type Shared<'a, T> = RefCell<&'a mut T>;

fn create(
    options: &Options,
    floor: &Shared<'_, Floor>,
    library: &RefCell<Library>,
    place: &Place<'_>,
    network: Network,
) -> String {
    let mut subjects = vec![
        Subject::new("floor", || floor.borrow_mut().create(network)),
        Subject::new("library", || library.borrow_mut().create(network)),
    ];
    let id = if network == Network::New { "cn" } else { "c" };
    subjects.extend(options.shims.iter().map(|binary| {
        let mut shim = started(place, binary, id);
        Subject::new(&binary.name, move || shim.as_mut().cycle(id, network))
    }));
    subjects.extend(options.runtimes.iter().map(|program| {
        let bundle = runtimes::bundle(place, &program.name, network);
        Subject::new(&program.name, move || runtimes::run(place, program, &bundle))
    }));
    let title = match network {
        Network::Host => "Create, start, exit, delete (the shim runs already; host's network)",
        Network::New => {
            "Create, start, exit, delete (the shim runs already; own network namespace)"
        }
    };
    series::table(title, options.rounds, &mut subjects)
}

fn exec(
    options: &Options,
    floor: &Shared<'_, Floor>,
    library: &RefCell<Library>,
    place: &Place<'_>,
) -> String {
    let mut subjects = vec![
        Subject::new("floor", || floor.borrow_mut().exec()),
        Subject::new("library", || library.borrow_mut().exec()),
    ];
    subjects.extend(options.shims.iter().map(|binary| {
        let mut shim = started(place, binary, "e").with_sleeper("es");
        let id = shim.sleeping[0].clone();
        Subject::new(&binary.name, move || shim.as_mut().exec(&id))
    }));
    series::table("Exec, start, exit, delete", options.rounds, &mut subjects)
}

fn whole(options: &Options, floor: &Shared<'_, Floor>, place: &Place<'_>) -> String {
    let mut subjects = vec![Subject::new("floor", || floor.borrow_mut().create(Network::Host))];
    subjects.extend(
        options
            .shims
            .iter()
            .map(|binary| Subject::new(&binary.name, move || shim::whole(place, binary))),
    );
    series::table(
        "The shim's start, create, start, exit, delete, shutdown",
        options.rounds,
        &mut subjects,
    )
}

/// A call of the task service, by its name and for a container's id.
type Method = (&'static str, fn(&mut Shim<'_>, &str));

fn calls(options: &Options, place: &Place<'_>) -> String {
    let methods: [Method; 4] = [
        ("State", |shim, id| shim.state(id)),
        ("Kill", |shim, id| shim.kill(id, 0)),
        ("Pids", |shim, id| shim.pids(id)),
        ("Stats", |shim, id| shim.stats(id)),
    ];
    let shims: Vec<RefCell<Guarded<'_>>> = options
        .shims
        .iter()
        .map(|binary| RefCell::new(started(place, binary, "k").with_sleeper("ks")))
        .collect();
    let table = |(title, call): Method| {
        let subjects = shims.iter().zip(&options.shims).map(|(shim, binary)| {
            Subject::new(&binary.name, move || {
                let mut shim = shim.borrow_mut();
                let id = shim.sleeping[0].clone();
                let begin = Instant::now();
                call(shim.as_mut(), &id);
                begin.elapsed()
            })
        });
        series::table(title, options.rounds * 5, &mut subjects.collect::<Vec<_>>())
    };
    methods.into_iter().map(table).collect()
}

/// A shim that is shut down at the end, with its containers.
struct Guarded<'a> {
    shim: Option<Shim<'a>>,
    sleeping: Vec<String>,
}

impl<'a> Guarded<'a> {
    fn as_mut(&mut self) -> &mut Shim<'a> {
        self.shim.as_mut().unwrap()
    }

    fn with_sleeper(mut self, prefix: &str) -> Self {
        let id = format!("{prefix}-{}", self.as_mut().binary.name);
        self.as_mut().sleeper(&id);
        self.sleeping.push(id);
        self
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        if let Some(mut shim) = self.shim.take() {
            self.sleeping.iter().for_each(|id| shim.end(id));
            shim.shutdown();
        }
    }
}

fn started<'a>(place: &'a Place<'a>, binary: &Binary, id: &str) -> Guarded<'a> {
    let shim = Shim::start(place, binary, &format!("{id}-{}", binary.name));
    Guarded { shim: Some(shim), sleeping: Vec::new() }
}

/// Takes events, as containerd does.
struct Sink;

impl containerd_shim_protos::Events for Sink {
    fn forward(&self, _: &ttrpc::TtrpcContext, _: ForwardRequest) -> ttrpc::Result<Empty> {
        Ok(Empty::new())
    }
}

fn serve_events(dir: &std::path::Path) -> (ttrpc::Server, String) {
    let path = dir.join("events.sock").to_string_lossy().into_owned();
    let service = containerd_shim_protos::create_events(Arc::new(Sink));
    let server = ttrpc::Server::new().bind(&format!("unix://{path}")).unwrap();
    let mut server = server.register_service(service);
    server.start().unwrap();
    (server, path)
}

/// The folder of the containers' cgroups, which they leave to the next one.
fn remove_cgroups(name: &str) {
    let Ok(roots) = fs::read_dir("/sys/fs/cgroup") else { return };
    for root in roots.filter_map(Result::ok) {
        drop(fs::remove_dir(root.path().join(name)));
    }
}
