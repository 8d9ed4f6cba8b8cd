//! A shim with a neighbour, and the container that is struck; what is compared.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Instant;

use myshim_integration::inject::{Fault, Place, Seen, Tracer};
use myshim_integration::shim::Bundle;
use myshim_integration::{Test, wait};

use super::operations::{self, Operation, Target};
use super::outcome::{Outcome, judge};
use super::tolerated;
use crate::neighbour::{Neighbour, facts};
use crate::spawner::{next, use_up};

pub(super) struct Ground<'a> {
    operation: &'a Operation,
    pod: Neighbour<'a>,
    bundle: Bundle,
    tracer: Tracer,
    /// What the process of an operation without a fault looks like.
    usual: String,
    before: RefCell<BTreeSet<String>>,
}

impl<'a> Ground<'a> {
    pub(super) fn new(t: &'a Test, operation: &'a Operation) -> Self {
        let pod = Neighbour::new(t);
        let bundle = Bundle::new(t, "web", operation.spec);
        let tracer = Tracer::attach(pod.spawner());
        // It knows those alone that are forked from here on.
        use_up(next(&pod));
        let (usual, before) = (String::new(), RefCell::default());
        let mut ground = Self { operation, pod, bundle, tracer, usual, before };
        // What is made at the first time stays: connections, caches.
        for _ in 0..2 {
            let target = ground.target();
            (operation.before)(&target);
            let pid = (operation.act)(&target).unwrap();
            ground.usual = facts(pid);
            (operation.after)(&ground.target());
            (operation.before)(&ground.target());
            ground.pod.settle();
            ground.before = RefCell::new(ground.pod.look(&ground.bundle));
            (operation.after)(&ground.target());
        }
        ground
    }

    fn target(&self) -> Target<'_> {
        Target { shim: &self.pod.shim, bundle: &self.bundle }
    }

    /// All calls of the operation when nothing is wrong.
    pub(super) fn way(&self) -> Vec<Seen> {
        (self.operation.before)(&self.target());
        self.pod.settle();
        self.tracer.record();
        (self.operation.act)(&self.target()).unwrap();
        self.pod.rest();
        let seen = self.tracer.seen();
        self.tracer.disarm();
        (self.operation.after)(&self.target());
        seen
    }

    pub(super) fn strike(&self, place: Place, fault: Fault) -> Outcome {
        (self.operation.before)(&self.target());
        self.pod.settle();
        self.tracer.arm(place, fault);
        let begin = Instant::now();
        let outcome = (self.operation.act)(&self.target());
        let took = begin.elapsed();
        let shown = outcome.as_ref().map(|pid| facts(*pid));
        let struck = self.tracer.struck();
        self.tracer.disarm();
        let Some(struck) = struck else {
            (self.operation.after)(&self.target());
            let broken = outcome.err().map(|error| error.message);
            let broken = broken.or_else(|| self.left());
            return broken.map_or(Outcome::NotReached, |why| {
                Outcome::Wrong(format!("{place:?}, without a fault: {why}"))
            });
        };
        let text = outcome.as_ref().err().map(|error| error.message.as_str());
        let judged = judge(self.operation.name, &struck, fault, text, took);
        (self.operation.after)(&self.target());
        let about = || {
            let fault = super::outcome::shown(fault);
            format!("{}: {struck:?} {fault} ({text:?})", self.operation.name)
        };
        if let Ok(shown) = shown
            && shown != self.usual
            && !tolerated::may_differ(&struck, fault)
        {
            self.clean();
            return Outcome::Wrong(format!(
                "{} differs: {}",
                about(),
                difference(&self.usual, &shown)
            ));
        }
        match (self.left(), judged) {
            (None, judged) => judged,
            (Some(left), Outcome::Wrong(why)) => Outcome::Wrong(format!("{why} leaves {left}")),
            (Some(left), _) => Outcome::Wrong(format!("{} leaves {left}", about())),
        }
    }

    /// After a run that was not as it ought to be.
    fn clean(&self) {
        operations::remove(&self.target());
    }

    /// What is there and ought not to be, or is not and ought to be.
    fn left(&self) -> Option<String> {
        (self.operation.before)(&self.target());
        self.pod.settle();
        let mut now = BTreeSet::new();
        let limit = std::time::Duration::from_secs(20);
        let same = wait::within(limit, || {
            now = self.pod.look(&self.bundle);
            (now == *self.before.borrow()).then_some(())
        });
        assert_eq!(self.pod.shim.status(&self.pod.bundle.id, ""), "running");
        if same.is_some() {
            return None;
        }
        // What is left once is told once.
        let before = self.before.replace(now.clone());
        let more: Vec<_> = now.difference(&before).collect();
        let less: Vec<_> = before.difference(&now).collect();
        Some(format!("more: {more:?}, less: {less:?}"))
    }

    pub(super) fn end(self) {
        operations::remove(&self.target());
        self.pod.end();
        self.tracer.finish();
    }
}

fn difference(usual: &str, shown: &str) -> String {
    let (usual, shown): (BTreeSet<_>, BTreeSet<_>) =
        (usual.lines().collect(), shown.lines().collect());
    let less: Vec<_> = usual.difference(&shown).collect();
    let more: Vec<_> = shown.difference(&usual).collect();
    format!("less {less:?}, more {more:?}")
}
