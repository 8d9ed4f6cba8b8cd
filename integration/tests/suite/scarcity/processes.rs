//! The shim's own cgroup has a limit of processes, or of memory.
//!
//! Checked once against a daemon that believed a failed order of a main whenever it was made: the
//! first operation after the limit was raised failed with the EAGAIN of before.

use std::fs;
use std::path::{Path, PathBuf};

use myshim_integration::process::Process;
use myshim_integration::shim::{Bundle, Stdio3};
use myshim_integration::{Test, wait};

use super::{Trial, create, remove};
use crate::neighbour::{Neighbour, children, log};
use crate::spawner::{fail, next};

/// Of memory, in v1 and in v2.
const LIMIT: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];

/// A cgroup for the processes of the shim itself; removed when dropped.
struct OwnCgroup(PathBuf);

impl OwnCgroup {
    fn new(t: &Test, controller: &str) -> Self {
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let root = if v1.exists() { v1 } else { PathBuf::from("/sys/fs/cgroup") };
        let dir = root.join(format!("shim-{}", t.tag));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn take(&self, pids: impl IntoIterator<Item = u32>) {
        for pid in pids {
            fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }

    fn write(&self, names: &[&str], value: &str) {
        let name = names.iter().find(|name| self.0.join(name).exists()).unwrap();
        fs::write(self.0.join(name), value).unwrap();
    }

    fn number(&self, names: &[&str]) -> u64 {
        crate::facts::first_of(&self.0, names).parse().unwrap()
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        wait::within(wait::SOON, || fs::remove_dir(&self.0).ok());
    }
}

/// Spawner and mains.
fn helpers(pod: &Neighbour<'_>) -> Vec<u32> {
    let all = children(pod.daemon).into_iter();
    all.filter(|process| process.comm.starts_with("myshim:")).map(|process| process.pid).collect()
}

pub(super) fn no_more(t: &Test) {
    let pod = Neighbour::new(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
    pod.settle();
    let own = OwnCgroup::new(t, "pids");
    own.take(helpers(&pod).into_iter().chain([pod.daemon]));
    let ration = |left: Option<usize>| {
        // Without the main that waits: it is used up, and on v2 nothing else is born here.
        let used = own.number(&["pids.current"]) - 1;
        let limit = left.map(|left| used + u64::try_from(left).unwrap());
        own.write(&["pids.max"], &limit.map_or_else(|| "max".to_owned(), |l| l.to_string()));
    };
    let tells = |text: &str| text.contains("clone3(") && text.contains("EAGAIN");
    // The failure, whichever it is, uses up the main that waits, for which there was room.
    let fail_and_create = || {
        let error = fail(next(&pod));
        assert!(error.contains("no-such-program") || tells(&error), "{error}");
        create(&pod.shim, &bundle, &Stdio3::default())
    };
    let failures = Trial {
        pod: &pod,
        bundle: &bundle,
        ration: &ration,
        act: &fail_and_create,
        tells: &tells,
        undo: &|| remove(&pod.shim, &bundle.id, ""),
    }
    .run();
    assert!(failures > 0, "a create needs {failures} processes");
    // None at all: what ends containers needs none.
    create(&pod.shim, &bundle, &Stdio3::default()).unwrap();
    pod.settle();
    ration(Some(0));
    remove(&pod.shim, &bundle.id, "");
    ration(None);
    pod.end();
}

/// Spawner and mains have no memory, and the daemon has: the kernel kills one of them each time.
pub(super) fn no_memory_for_the_chain(t: &Test) {
    let pod = Neighbour::new(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
    create(&pod.shim, &bundle, &Stdio3::default()).unwrap();
    remove(&pod.shim, &bundle.id, "");
    pod.settle();
    let before = pod.look(&bundle);
    let own = OwnCgroup::new(t, "memory");
    own.take(helpers(&pod));
    let unlimited = if own.0.join(LIMIT[0]).exists() { "-1" } else { "max" };
    let mut told = 0;
    // The first ones may do with what the kernel has set aside for the cgroup before.
    wait::until_true("a create or two without memory", || {
        own.write(&LIMIT, "0");
        let outcome = create(&pod.shim, &bundle, &Stdio3::default());
        own.write(&LIMIT, unlimited);
        if let Err(error) = outcome {
            log(&error.message);
            told += 1;
        }
        remove(&pod.shim, &bundle.id, "");
        pod.settle();
        // A spawner that was forked anew is where the daemon is.
        own.take(helpers(&pod));
        told > 2
    });
    assert_eq!(pod.look(&bundle), before);
    pod.assert_served();
    pod.end();
}

/// All of the shim has no memory. Whom the kernel kills is its own affair: either a part that is
/// replaced, or the daemon, and all with it.
pub(super) fn no_memory_for_the_shim(t: &Test) {
    let pod = Neighbour::new(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
    pod.settle();
    let own = OwnCgroup::new(t, "memory");
    own.take(helpers(&pod).into_iter().chain([pod.daemon]));
    let lives = || Process::read(pod.daemon).is_some_and(|daemon| daemon.state != 'Z');
    let mains = || helpers(&pod);
    let before = mains();
    // A request that is sent by a thread of its own: there may be nobody to answer it.
    std::thread::scope(|scope| {
        let request = scope.spawn(|| {
            let ask = || create(&pod.shim, &bundle, &Stdio3::default());
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(ask)).is_ok()
        });
        wait::until_true("the kernel kills one of them", || {
            own.write(&LIMIT, "0");
            !lives() || request.is_finished() && mains() != before
        });
        let unlimited = if own.0.join(LIMIT[0]).exists() { "-1" } else { "max" };
        own.write(&LIMIT, unlimited);
        request.join().unwrap();
    });
    if lives() {
        log("the daemon lives");
        remove(&pod.shim, &bundle.id, "");
        pod.assert_served();
        pod.end();
    } else {
        log("the daemon is killed");
        pod.bury(&bundle);
    }
}
