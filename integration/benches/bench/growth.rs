//! What a container costs when there is much of something else: containers in the pod, pods, mounts
//! on the host, layers. A cost that grows with it would be a defect.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::budgets::Bound;
use crate::bundle::{Layers, Network};
use crate::chart::{Chart, Curve};
use crate::command_line::Options;
use crate::floor::Floor;
use crate::series::{self, Subject};
use crate::shim::{Binary, Place};
use crate::{Guarded, started};

/// How many containers the pod has already.
const CONTAINERS: [usize; 5] = [1, 25, 50, 100, 200];
/// How many pods the host has already.
const PODS: [usize; 4] = [1, 25, 50, 100];
/// How many mounts the host has.
const MOUNTS: [usize; 4] = [50, 500, 2000, 5000];
/// How many layers the root has.
pub(crate) const LAYERS: [usize; 4] = [1, 10, 50, 100];

/// Medians of create, start, exit and delete: the floor's, then those of the shims.
struct Growth {
    curves: Vec<Curve>,
    order: Order,
}

/// In which order the subjects take their turns at a point.
#[derive(Clone, Copy)]
enum Order {
    /// Each in every round: what else the machine does hits all of them.
    InTurns,
    /// All rounds of one, then those of the next. For a cost that one leaves to its neighbour: who
    /// copies a large mount table has it freed behind its own end.
    OneByOne,
}

impl Growth {
    fn new(binaries: &[Binary], order: Order) -> Self {
        let names = ["floor".to_owned()].into_iter().chain(binaries.iter().map(|b| b.name.clone()));
        let curves = names.map(|name| Curve { name, points: Vec::new() }).collect();
        Self { curves, order }
    }

    fn add(&mut self, x: usize, times: &[Vec<Duration>]) {
        for (curve, times) in self.curves.iter_mut().zip(times) {
            let x = u32::try_from(x).unwrap();
            curve.points.push((f64::from(x), series::ms(series::median(times))));
        }
    }

    fn measure(
        &mut self,
        x: usize,
        rounds: usize,
        floor: &RefCell<&mut Floor>,
        shims: &mut [Guarded<'_>],
        layers: Option<&Layers>,
    ) {
        let mut subjects = vec![Subject::new("floor", || floor.borrow_mut().create(Network::Host))];
        subjects.extend(shims.iter_mut().enumerate().map(|(index, shim)| {
            let id = format!("g{index}");
            Subject::new(id.clone(), move || match layers {
                Some(layers) => shim.as_mut().cycle_on(&id, layers),
                None => shim.as_mut().cycle(&id, Network::Host),
            })
        }));
        let times: Vec<_> = match self.order {
            Order::InTurns => series::run(rounds, &mut subjects),
            Order::OneByOne => {
                subjects.chunks_mut(1).flat_map(|one| series::run(rounds, one)).collect()
            }
        };
        drop(subjects);
        self.add(x, &times);
    }
}

/// The curve of ours, the first after the floor's, ought to be flat.
fn publish(options: &Options, chart: &Chart) -> String {
    let points = &chart.curves[1].points;
    let growth = points[points.len() - 1].1 / points[0].1;
    options.budgets.note(chart.title, Bound::AtMost, 1.2, growth, "× from first to last");
    chart.publish(options.out.as_deref())
}

/// Containers of one pod.
pub(crate) fn containers(
    options: &Options,
    floor: &RefCell<&mut Floor>,
    place: &Place<'_>,
) -> String {
    let mut growth = Growth::new(&options.shims, Order::InTurns);
    let mut shims: Vec<_> = options.shims.iter().map(|b| started(place, b, "gc")).collect();
    for count in CONTAINERS {
        for shim in &mut shims {
            while shim.sleeping() < count {
                shim.add_sleeper("gc");
            }
        }
        growth.measure(count, options.rounds / 3, floor, &mut shims, None);
    }
    let title = "Create, start, exit, delete in a pod of many containers";
    let (file, axis) = ("containers", "containers in the pod");
    let chart = Chart { file, title, axis, curves: growth.curves };
    publish(options, &chart)
}

/// Pods of one host, each a shim with one container.
pub(crate) fn pods(options: &Options, floor: &RefCell<&mut Floor>, place: &Place<'_>) -> String {
    let mut growth = Growth::new(&options.shims, Order::InTurns);
    let mut shims: Vec<_> = options.shims.iter().map(|b| started(place, b, "gp")).collect();
    let mut others = Vec::new();
    for count in PODS {
        while others.len() < count * options.shims.len() {
            for binary in &options.shims {
                let prefix = format!("po{}", others.len());
                others.push(started(place, binary, &prefix).with_sleeper(&prefix));
            }
        }
        growth.measure(count, options.rounds / 3, floor, &mut shims, None);
    }
    let title = "Create, start, exit, delete on a host of many pods";
    let (file, axis) = ("pods", "pods on the host, each a shim with a container");
    let chart = Chart { file, title, axis, curves: growth.curves };
    publish(options, &chart)
}

/// Layers of the root.
pub(crate) fn layers(
    options: &Options,
    floors: &mut [(usize, Layers, Floor)],
    place: &Place<'_>,
) -> String {
    let mut growth = Growth::new(&options.shims, Order::InTurns);
    let mut shims: Vec<_> = options.shims.iter().map(|b| started(place, b, "gl")).collect();
    for (count, layers, floor) in floors {
        let own = layers.sibling(&format!("gl{count}"));
        let floor = RefCell::new(floor);
        growth.measure(*count, options.rounds / 3, &floor, &mut shims, Some(&own));
    }
    let title = "Create, start, exit, delete on an overlay of many layers";
    let chart = Chart { file: "layers", title, axis: "layers", curves: growth.curves };
    publish(options, &chart)
}

/// Mounts of the host: this program once more, in a mount namespace of its own.
pub(crate) fn mounts(options: &Options) -> String {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command.arg(std::env::current_exe().unwrap()).arg("mounts-inside");
    command.args(["--rounds", &options.rounds.to_string()]);
    command.args(options.shims_as_arguments());
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the bench in a mount namespace of its own fails");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut growth = Growth::new(&options.shims, Order::OneByOne);
    for line in text.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        let [name, x, y] = words[..] else { panic!("{line:?} is no point") };
        let curve = growth.curves.iter_mut().find(|curve| curve.name == name).unwrap();
        curve.points.push((x.parse().unwrap(), y.parse().unwrap()));
    }
    let title = "Create, start, exit, delete on a host of many mounts";
    let chart = Chart { file: "mounts", title, axis: "mounts", curves: growth.curves };
    publish(options, &chart)
}

/// What [`mounts`] starts: a line for each point.
pub(crate) fn mounts_inside(
    options: &Options,
    floor: &RefCell<&mut Floor>,
    place: &Place<'_>,
) -> String {
    let dir = place.dir.join("mounts");
    fs::create_dir_all(&dir).unwrap();
    rustix::mount::mount("mounts", &dir, "tmpfs", MountFlags::empty(), None).unwrap();
    let mut growth = Growth::new(&options.shims, Order::OneByOne);
    let mut shims: Vec<_> = options.shims.iter().map(|b| started(place, b, "gm")).collect();
    for count in MOUNTS {
        fill(&dir, count);
        growth.measure(count, options.rounds / 3, floor, &mut shims, None);
    }
    drop(shims);
    rustix::mount::unmount(&dir, UnmountFlags::DETACH).unwrap();
    let points = growth
        .curves
        .iter()
        .flat_map(|curve| curve.points.iter().map(|(x, y)| format!("{}\t{x}\t{y}\n", curve.name)));
    points.collect()
}

/// Mounts below `dir`, until this namespace has `count`.
fn fill(dir: &Path, count: usize) {
    let have = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    for number in have..count {
        let path = dir.join(number.to_string());
        fs::create_dir(&path).unwrap();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, &path, flags).unwrap();
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(tree, "", CWD, &path, flags).unwrap();
    }
}
