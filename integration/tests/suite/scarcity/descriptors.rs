//! The daemon may open no more files.
//!
//! Checked once against a daemon that made no room for the descriptors of a message: the create with
//! seven to spare said `recvmsg(channel): EMSGSIZE`. The pidfd of its main was lost with the message,
//! and what was lost so nobody can reap.

use myshim_integration::Test;
use myshim_integration::shim::{Bundle, Stdio3};
use myshim_integration::spec::Spec;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;

use super::{Streams, Trial, create, exec, remove};
use crate::neighbour::Neighbour;

/// Leaves so many descriptors to the daemon; None: as many as this process may have.
fn ration(daemon: u32, left: Option<usize>) {
    let usual = getrlimit(Resource::Nofile);
    let limit = left.map(|left| {
        let entries = std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().flatten();
        let used: Vec<u64> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // The limit is one of numbers, and the lowest free one is taken.
        (0..).filter(|number| !used.contains(number)).nth(left).unwrap()
    });
    let pid = Pid::from_raw(i32::try_from(daemon).unwrap());
    let new = Rlimit { current: limit.or(usual.current), maximum: usual.maximum };
    prlimit(pid, Resource::Nofile, new).unwrap();
}

pub(super) fn say_so(t: &Test) {
    let pod = Neighbour::new(t);
    let (shim, next) = (&pod.shim, pod.bundle.id.as_str());
    let with = |name: &str, terminal: bool| {
        let edit =
            |spec: Spec| spec.args(&["sleep", "3600"]).with("/process/terminal", json!(terminal));
        (Bundle::new(t, name, edit), Streams::new(t, name, terminal))
    };
    let tells = |text: &str| text.contains("EMFILE") && text.contains('(');
    for (bundle, streams) in [with("web", false), with("tty", true)] {
        let failures = Trial {
            pod: &pod,
            bundle: &bundle,
            ration: &|left| ration(pod.daemon, left),
            act: &|| create(shim, &bundle, &streams.stdio),
            tells: &tells,
            undo: &|| remove(shim, &bundle.id, ""),
        }
        .run();
        assert!(failures > 3, "a create needs {failures} descriptors");
    }
    for terminal in [false, true] {
        let streams = Streams::new(t, if terminal { "e-tty" } else { "e" }, terminal);
        let failures = Trial {
            pod: &pod,
            bundle: &pod.bundle,
            ration: &|left| ration(pod.daemon, left),
            act: &|| exec(shim, next, &streams.stdio),
            tells: &tells,
            undo: &|| remove(shim, next, "e"),
        }
        .run();
        assert!(failures > 3, "an exec needs {failures} descriptors");
    }
    pod.end();
}

pub(super) fn kill_and_delete(t: &Test) {
    let pod = Neighbour::new(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
    create(&pod.shim, &bundle, &Stdio3::default()).unwrap();
    exec(&pod.shim, &bundle.id, &Stdio3::default()).unwrap();
    // One main waits, as it does after most operations.
    pod.settle();
    ration(pod.daemon, Some(0));
    remove(&pod.shim, &bundle.id, "e");
    pod.shim.pause(&bundle.id).unwrap();
    pod.shim.resume(&bundle.id).unwrap();
    remove(&pod.shim, &bundle.id, "");
    assert!(pod.until(&bundle.id, "delete:137").contains(&"exit:137".to_owned()));
    assert_eq!(pod.shim.status(&pod.bundle.id, ""), "running");
    ration(pod.daemon, None);
    pod.assert_served();
    pod.end();
}
