//! The spawner is about no operation: whatever happens to it once, the requests go well.

use std::collections::BTreeMap;

use myshim_integration::Test;
use myshim_integration::inject::{Fault, Place, Seen, Tracer};

use super::choose;
use super::outcome::shown;
use crate::neighbour::{Neighbour, log};
use crate::spawner::{assert_same, exec, next, use_up};

/// A main waits. The first request uses it up, upon which the spawner is told to fork another; the
/// second one uses that.
fn two_requests(pod: &Neighbour<'_>) {
    use_up(next(pod));
    assert_eq!(exec(next(pod), "second"), Ok(7));
}

/// The spawner's calls while that is done.
fn way(pod: &Neighbour<'_>, tracer: &Tracer) -> Vec<Seen> {
    pod.settle();
    tracer.record();
    two_requests(pod);
    pod.settle();
    let seen = tracer.seen();
    tracer.disarm();
    seen.into_iter().filter(|seen| seen.place.process == 0).collect()
}

pub(super) fn sweep(t: &Test, faults: fn(&Seen) -> Vec<Fault>) {
    let pod = Neighbour::new(t);
    // One for each spawner that there has been.
    let mut tracers = BTreeMap::from([(pod.spawner(), Tracer::attach(pod.spawner()))]);
    two_requests(&pod);
    let way = way(&pod, &tracers[&pod.spawner()]);
    let all: Vec<(Place, Fault)> =
        way.iter().flat_map(|seen| faults(seen).into_iter().map(|f| (seen.place, f))).collect();
    let count = all.len();
    assert!(count > 0, "the spawner does nothing");
    let (chosen, how) = choose(all);
    let tried = chosen.len();
    log(&format!("spawner: {count} faults on {} calls, {tried} tried ({how})", way.len()));
    pod.settle();
    let before = pod.look(&pod.bundle);
    let mut missed = 0;
    for (place, fault) in chosen {
        let spawner = pod.spawner();
        let tracer = tracers.entry(spawner).or_insert_with(|| Tracer::attach(spawner));
        pod.settle();
        tracer.arm(place, fault);
        two_requests(&pod);
        let struck = tracer.struck();
        tracer.disarm();
        match struck {
            Some(seen) => log(&format!("{} {}: all went well", seen.name, shown(fault))),
            None => missed += 1,
        }
        // One that has died meanwhile is missed by who needs a new main.
        two_requests(&pod);
        pod.settle();
        assert_same(&pod, &pod.bundle, &before);
    }
    pod.end();
    tracers.into_values().for_each(Tracer::finish);
    assert!(missed * 3 <= tried, "{how}: {missed} of {tried} were not reached");
}
