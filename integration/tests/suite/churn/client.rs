//! One of the clients.

use std::collections::BTreeMap;
use std::path::PathBuf;

use myshim_integration::shim::{Bundle, Shim};

use super::history::History;
use super::life::Life;
use super::random::Random;

/// How often which operation was done.
pub(super) type Counts = BTreeMap<&'static str, u64>;

/// A client with a connection and two containers of its own.
pub(super) struct Client {
    number: u64,
    pub(super) shim: Shim,
    bundles: Vec<Bundle>,
    pub(super) fifos: PathBuf,
    pub(super) random: Random,
    pub(super) history: History,
    counts: Counts,
    execs: u64,
}

impl Client {
    pub(super) fn new(
        number: u64,
        shim: Shim,
        bundles: Vec<Bundle>,
        fifos: PathBuf,
        random: Random,
    ) -> Client {
        let (history, counts) = (History::default(), Counts::new());
        Client { number, shim, bundles, fifos, random, history, counts, execs: 0 }
    }

    /// From create to delete of one of its containers.
    pub(super) fn one_life(&mut self) {
        let choice = usize::try_from(self.random.below(2)).unwrap();
        let bundle = self.bundles[choice].clone();
        Life::new(self, bundle).live();
    }

    pub(super) fn finish(self) -> (History, Counts) {
        (self.history, self.counts)
    }

    pub(super) fn did(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A name that no exec had before.
    pub(super) fn exec_id(&mut self) -> String {
        self.execs += 1;
        format!("e{}-{}", self.number, self.execs)
    }
}
