//! Sixteen clients of one daemon make, start, exec in, pause, kill and delete containers at random,
//! hang up in the middle of calls, let output stand unread and use ids twice. Each of them knows
//! what it asked for: how every process has to end, and which events have to come, in which order.
//!
//! Three times all of them stop, with nothing but one container left: the daemon, its spawner and
//! the main that waits then are as large at the end as they were after the first third.

mod client;
mod history;
mod life;
mod random;
mod size;
mod vanish;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use myshim_integration::claim::Claim;
use myshim_integration::shim::{Bundle, Stdio3};
use myshim_integration::{Test, claims};

use crate::rpc::Rig;
use client::Client;
use random::Random;
use size::Sizes;

pub(crate) const CLAIMS: &[Claim] =
    claims![sixteen_clients_leave_nothing_and_miss_no_event.once().within(1200)];

const CLIENTS: u64 = 16;
const THIRDS: u32 = 3;

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}")))
}

fn sixteen_clients_leave_nothing_and_miss_no_event(t: &Test) {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let (seconds, seed) = (number("MYSHIM_CHURN_SECONDS", 24), number("MYSHIM_CHURN_SEED", now));
    tell(&format!("churn: {seconds} s, MYSHIM_CHURN_SEED={seed}"));
    let rig = Rig::sleeping(t);
    let third = Duration::from_secs(seconds) / THIRDS;
    let quiet = Arc::new(Barrier::new(usize::try_from(CLIENTS + 1).unwrap()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let bundles = ["a", "b"].map(|name| Bundle::new(t, &format!("{name}{n}"), |s| s));
            let fifos = t.folder(&format!("fifos-{n}"));
            let random = Random::new(seed.wrapping_mul(CLIENTS).wrapping_add(n));
            let mut client = Client::new(n, rig.shim.again(), bundles.into(), fifos, random);
            let quiet = Arc::clone(&quiet);
            thread::spawn(move || {
                for _ in 0..THIRDS {
                    let end = Instant::now() + third;
                    while Instant::now() < end {
                        client.one_life();
                    }
                    quiet.wait();
                    quiet.wait();
                }
                client.finish()
            })
        })
        .collect();
    let daemon = rig.shim.connect(rig.id()).unwrap().shim_pid;
    let mut sizes = Vec::new();
    for _ in 0..THIRDS {
        quiet.wait();
        // A main that has frozen and thawed waits again, and is kept: now there surely is one.
        rig.shim.pause(rig.id()).unwrap();
        rig.shim.resume(rig.id()).unwrap();
        sizes.push(Sizes::settled(daemon));
        quiet.wait();
    }
    let mut operations = BTreeMap::<&str, u64>::new();
    for client in clients {
        let (history, counted) = client.join().unwrap();
        history.check(&rig.sink);
        counted.into_iter().for_each(|(what, count)| *operations.entry(what).or_default() += count);
    }
    tell(&format!("operations: {} {operations:?}", operations.values().sum::<u64>()));
    tell(&format!("sizes: {sizes:#?}"));
    sizes[2].assert_no_larger_than(&sizes[0]);
    rig.end();
}

/// For who reads a failure, and, on request, for who wants the figures.
fn tell(text: &str) {
    println!("{text}");
    if let Some(path) = std::env::var_os("MYSHIM_CHURN_LOG") {
        let mut log = std::fs::File::options().append(true).create(true).open(path).unwrap();
        writeln!(log, "{text}").unwrap();
    }
}

/// Output that nobody reads.
fn unread(fifos: &std::path::Path, name: &str) -> (Stdio3, std::fs::File) {
    let path = fifos.join(name);
    myshim_integration::shim::make_fifo(&path);
    let held = myshim_integration::shim::open_fifo(&path);
    let stdout = path.to_string_lossy().into_owned();
    (Stdio3 { stdout, ..Stdio3::default() }, held)
}
