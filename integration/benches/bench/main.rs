//! What a container and an exec cost, as ratios to the floor, in interleaved runs.
//!
//! ```text
//! make bench ARGS="--rounds 200 --shim DIR --peer NAME=SHIM,PATH --runtime NAME=PROGRAM …"
//! ```
//!
//! `--out DIR` writes the figures there, to the file `--file` if it is given, with the pictures of
//! the growth curves.
//! `--peer` adds a shim by its binary and the PATH it is to find its runtime on, `--runtime` an
//! OCI runtime by its binary. Without names of tables all are made. See docs/performance.md.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot run ends")]

mod budgets;
mod bundle;
mod chart;
mod command_line;
mod floor;
mod growth;
mod library;
mod machine;
mod memory;
mod runtimes;
mod series;
mod shim;
mod steady;
mod through;
mod ttrpc_client;

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use containerd_shim_protos::api::{Empty, ForwardRequest};
use runtime::sys::process::SingleThreaded;

use crate::budgets::Bound;
use crate::bundle::{Layers, Network};
use crate::command_line::Options;
use crate::floor::Floor;
use crate::library::Library;
use crate::series::Subject;
use crate::shim::{Binary, Place, Shim};

/// A tmpfs. What containerd gives a shim lies on one, /run; layers lie on a disk.
const IN_MEMORY: &str = "/dev/shm";

fn main() {
    let options = Options::parse(std::env::args().skip(1));
    let name = format!("bench{}", std::process::id());
    let dir = std::env::temp_dir().join(&name);
    let bundles = Path::new(IN_MEMORY).join(&name);
    fs::create_dir_all(bundles.join("s")).unwrap();
    let layers = Layers::make(&dir, options.layers);
    // They are forked while this program is small and has one thread.
    let single = SingleThreaded::verify().expect("one thread");
    let floor = Floor::fork(&single, &layers, &name);
    let mut floors = Vec::new();
    if options.wants("layers") {
        for count in growth::LAYERS {
            let layers = Layers::make(&dir.join(format!("f{count}")), count);
            let floor = Floor::fork(&single, &layers, &format!("{name}l{count}"));
            floors.push((count, layers, floor));
        }
    }
    let library = Library::new(&single, &bundles, &layers, &name);
    let begin = Instant::now();
    let text = run(&options, (floor, floors), library, &layers, &name);
    match &options.out {
        Some(path) => {
            let text = machine::heading(begin.elapsed()) + &text;
            fs::write(path.join(options.file()), text).unwrap();
        }
        None => print!("{text}"),
    }
    fs::remove_dir_all(&bundles).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    remove_cgroups(&name);
}

fn run(
    options: &Options,
    (mut floor, mut floors): (Floor, Vec<(usize, Layers, Floor)>),
    library: Library,
    layers: &Layers,
    name: &str,
) -> String {
    let dir = Path::new(IN_MEMORY).join(name);
    let events = serve_events(&dir);
    let layers = layers.sibling("p");
    let place = Place { layers: &layers, name, events: events.1, dir };
    let library = RefCell::new(library);
    let floor = RefCell::new(&mut floor);
    if options.names("mounts-inside") {
        return growth::mounts_inside(options, &floor, &place);
    }
    let table = |wanted: &str, make: &mut dyn FnMut() -> String| {
        if !options.wants(wanted) {
            return String::new();
        }
        eprintln!("bench: {wanted}");
        make()
    };
    [
        table("create", &mut || create(options, &floor, &library, &place, Network::Host)),
        table("create-net", &mut || create(options, &floor, &library, &place, Network::New)),
        table("exec", &mut || exec(options, &floor, &library, &place)),
        table("whole", &mut || whole(options, &floor, &place)),
        table("calls", &mut || calls(options, &place)),
        table("containerd", &mut || through::table(options, &place)),
        table("output", &mut || steady::output(options, &place)),
        table("probes", &mut || steady::probes(options, &place)),
        table("memory", &mut || memory::table(options, &place)),
        table("containers", &mut || growth::containers(options, &floor, &place)),
        table("pods", &mut || growth::pods(options, &floor, &place)),
        table("mounts", &mut || growth::mounts(options)),
        table("layers", &mut || growth::layers(options, &mut floors, &place)),
        options.budgets.table(),
    ]
    .concat()
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
    let (text, times) = series::table(title, options.rounds, &mut subjects);
    let ratio = series::ratio(&times[2], &times[0]);
    options.budgets.note(title, Bound::AtMost, 1.5, ratio, "× floor");
    text
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
        let id = shim.sleeper_id();
        Subject::new(&binary.name, move || shim.as_mut().exec(&id))
    }));
    let title = "Exec, start, exit, delete";
    let (text, times) = series::table(title, options.rounds, &mut subjects);
    let ratio = series::ratio(&times[2], &times[0]);
    options.budgets.note(title, Bound::AtMost, 1.5, ratio, "× floor");
    text
}

fn whole(options: &Options, floor: &Shared<'_, Floor>, place: &Place<'_>) -> String {
    let mut subjects = vec![Subject::new("floor", || floor.borrow_mut().create(Network::Host))];
    subjects.extend(
        options
            .shims
            .iter()
            .map(|binary| Subject::new(&binary.name, move || shim::whole(place, binary))),
    );
    let title = "The shim's start, create, start, exit, delete, shutdown";
    let (text, times) = series::table(title, options.rounds, &mut subjects);
    let ratio = series::ratio(&times[1], &times[0]);
    options.budgets.note(title, Bound::AtMost, 3.0, ratio, "× floor");
    text
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
        let mut subjects = subjects.collect::<Vec<_>>();
        let (text, times) = series::table(title, options.rounds * 5, &mut subjects);
        let median = series::ms(series::median(&times[0]));
        options.budgets.note(title, Bound::AtMost, 0.3, median, "ms");
        text
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
        self.add_sleeper(prefix);
        self
    }

    fn add_sleeper(&mut self, prefix: &str) {
        let number = self.sleeping.len();
        let id = format!("{prefix}-{}-{number}", self.as_mut().binary.name);
        self.as_mut().sleeper(&id);
        self.sleeping.push(id);
    }

    /// How many containers sleep in it.
    fn sleeping(&self) -> usize {
        self.sleeping.len()
    }

    /// The first of them.
    fn sleeper_id(&self) -> String {
        self.sleeping[0].clone()
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
