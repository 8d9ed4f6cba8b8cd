//! Network devices that move into a container, and come back when it fails.
//!
//! On containerd 2 alone: the older one loses the field between the client and the bundle.

use std::process::{Command, Stdio};

use myshim_integration::claim::Claim;
use myshim_integration::command;
use myshim_integration::shim::Stdio3;
use myshim_integration::spec::Spec;
use myshim_integration::test::kill_hard;
use myshim_integration::{Test, claims};
use serde_json::json;

use crate::deaths::{Rig, held};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_veth_end_moves_with_its_addresses.alone().once(),
    a_macvlan_moves_and_goes_with_the_container.alone().once(),
    devices_move_into_a_namespace_that_is_joined.alone().once(),
    a_missing_device_leaves_the_others_alone.alone().once(),
    a_name_that_is_taken_leaves_all_alone.alone().once(),
    a_move_that_fails_half_way_puts_the_first_back.alone().once(),
    a_create_that_fails_later_puts_devices_back.alone().once(),
    a_main_killed_after_the_move_puts_devices_back.alone().once().within(120),
    a_daemon_killed_after_the_move_puts_devices_back.alone().once(),
    the_hosts_network_takes_no_devices.alone().once(),
];

/// A pair of devices on the host; removed with all that hangs on it.
struct Pair {
    one: String,
    two: String,
    v4: String,
    v6: String,
}

impl Pair {
    /// `one` has an address of each family and `two` another of the same nets; both are up.
    fn new(t: &Test, name: &str) -> Self {
        let bytes: Vec<u8> = (0..6)
            .step_by(2)
            .map(|at| u8::from_str_radix(&t.tag[at..at + 2], 16).unwrap())
            .collect();
        let net = u8::try_from(name.len()).unwrap() ^ bytes[1];
        let pair = Self {
            one: format!("{name}1{}", t.tag),
            two: format!("{name}2{}", t.tag),
            v4: format!("10.{}.{net}", bytes[0]),
            // Never 0 in front of the `::`, which would take it in.
            v6: format!("fd00:{:x}:1{net:02x}", u16::from(bytes[2])),
        };
        ip(&["link", "add", &pair.one, "type", "veth", "peer", "name", &pair.two]);
        for (device, host) in [(&pair.one, 1), (&pair.two, 2)] {
            let (v4, v6) = (format!("{}.{host}/24", pair.v4), format!("{}::{host}/64", pair.v6));
            ip(&["addr", "add", &v4, "brd", "+", "dev", device]);
            ip(&["-6", "addr", "add", &v6, "dev", device, "nodad"]);
            ip(&["link", "set", device, "up"]);
        }
        pair
    }

    /// The device has its name, both addresses, and is up, in what `ip addr` has printed.
    #[track_caller]
    fn assert_complete(&self, name: &str, text: &str) {
        for word in [
            name.to_owned(),
            format!("inet {}.1/24 brd {}.255 scope global {name}", self.v4, self.v4),
            format!("inet6 {}::1/64 scope global", self.v6),
        ] {
            assert!(text.contains(&word), "no {word:?} in {text}");
        }
        let flags = text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).unwrap().0;
        assert!(flags.split(',').any(|flag| flag == "UP"), "{text}");
    }

    #[track_caller]
    fn assert_at_home(&self) {
        self.assert_complete(&self.one, &ip(&["addr", "show", "dev", &self.one]));
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for device in [&self.one, &self.two] {
            let mut ip = Command::new("ip");
            ip.args(["link", "delete", device]).stderr(Stdio::null()).status().ok();
        }
    }
}

#[track_caller]
fn ip(args: &[&str]) -> String {
    let mut ip = Command::new("ip");
    ip.args(args);
    command::run(ip, command::LIMIT).ok()
}

fn on_host(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

fn moved(spec: Spec, device: &str, name: &str) -> Spec {
    spec.with(&format!("/linux/netDevices/{device}"), json!({"name": name}))
}

fn a_veth_end_moves_with_its_addresses(t: &Test) {
    let pair = Pair::new(t, "v");
    let c = t.detached_spec("web", |spec| moved(spec, &pair.one, "eth7").args(&["sleep", "3600"]));
    pair.assert_complete("eth7", &c.exec(&["ip", "addr", "show", "eth7"]).ok());
    assert!(!on_host(&pair.one) && !on_host("eth7"));
    c.exec(&["ping", "-c1", "-W5", &format!("{}.2", pair.v4)]).ok();
    c.exec(&["ping", "-c1", "-W5", &format!("{}::2", pair.v6)]).ok();
    c.remove();
}

fn a_macvlan_moves_and_goes_with_the_container(t: &Test) {
    let pair = Pair::new(t, "m");
    let name = format!("w{}", t.tag);
    ip(&["link", "add", "link", &pair.two, "name", &name, "type", "macvlan", "mode", "bridge"]);
    let address = format!("{}.3/24", pair.v4);
    ip(&["addr", "add", &address, "dev", &name]);
    // It keeps its name where none is given, and is brought up though it was down.
    let out = t.run_spec(|spec| {
        let device = format!("/linux/netDevices/{name}");
        spec.with(&device, json!({})).args(&["ip", "addr", "show", &name])
    });
    let text = out.ok();
    assert!(text.contains(&address) && text.contains(",UP"), "{text}");
    assert!(!on_host(&name));
}

fn devices_move_into_a_namespace_that_is_joined(t: &Test) {
    let pair = Pair::new(t, "j");
    let pause = t.sleeper("pause", &[]);
    let path = format!("/proc/{}/ns/net", pause.pid());
    let out = t.run_spec(|spec| {
        moved(spec.join("network", &path), &pair.one, "eth7").args(&["ip", "addr", "show", "eth7"])
    });
    pair.assert_complete("eth7", &out.ok());
    // The namespace is the other container's: the device stays.
    pair.assert_complete("eth7", &pause.exec(&["ip", "addr", "show", "eth7"]).ok());
    pause.remove();
}

fn a_missing_device_leaves_the_others_alone(t: &Test) {
    let pair = Pair::new(t, "n");
    let missing = format!("z{}", t.tag);
    let out =
        t.run_spec(|spec| moved(moved(spec, &pair.one, "eth7"), &missing, "eth8").args(&["true"]));
    out.fails(&["linux.netDevices", &missing]);
    pair.assert_at_home();
}

fn a_name_that_is_taken_leaves_all_alone(t: &Test) {
    let (pair, other) = (Pair::new(t, "p"), Pair::new(t, "qq"));
    let out = t
        .run_spec(|spec| moved(moved(spec, &pair.one, "eth7"), &other.one, "eth7").args(&["true"]));
    out.fails(&["linux.netDevices", &other.one, "is the name of another"]);
    t.run_spec(|spec| moved(spec, &pair.one, "lo").args(&["true"]))
        .fails(&["lo", "already exists"]);
    pair.assert_at_home();
    other.assert_at_home();
}

fn a_move_that_fails_half_way_puts_the_first_back(t: &Test) {
    let (pair, other) = (Pair::new(t, "r"), Pair::new(t, "ss"));
    // Only the kernel knows that this is no name, and says so when the first has moved.
    let out =
        t.run_spec(|spec| moved(moved(spec, &pair.one, "eth7"), &other.one, "a:b").args(&["true"]));
    out.fails(&["linux.netDevices", &other.one]);
    pair.assert_at_home();
    other.assert_at_home();
}

fn a_create_that_fails_later_puts_devices_back(t: &Test) {
    let pair = Pair::new(t, "u");
    for edit in [
        |spec: Spec| spec.args(&["no-such-program"]),
        |spec: Spec| spec.mount("nosuchfs", "none", "/place", &[]).args(&["true"]),
    ] {
        let out = t.run_spec(|spec| edit(moved(spec, &pair.one, "eth7")));
        assert!(!out.status.success(), "{out}");
        assert!(!out.err().contains("undo"), "{out}");
        pair.assert_at_home();
    }
}

/// Killed when the device is in the container and init waits, and when all is done but the answer.
fn a_main_killed_after_the_move_puts_devices_back(t: &Test) {
    let pair = Pair::new(t, "k");
    for message in ["Proceed", "Created"] {
        let edit = |spec| moved(spec, &pair.one, "eth7").args(&["true"]);
        let rig = Rig::new(t, &message.to_lowercase(), &format!("myshim:main/{message}"), edit);
        let text = rig.killed("myshim:main", |shim| shim.create(&rig.bundle, &Stdio3::default()));
        assert!(text.contains("main ended before it answered: killed by SIGKILL"), "{text}");
        assert!(!text.contains("undo") && !text.contains("network devices"), "{text}");
        pair.assert_at_home();
        rig.over();
    }
}

/// With the daemon goes its main; what is left is `delete`, which containerd runs then.
fn a_daemon_killed_after_the_move_puts_devices_back(t: &Test) {
    let pair = Pair::new(t, "d");
    let edit = |spec| moved(spec, &pair.one, "eth7").args(&["true"]);
    let rig = Rig::new(t, "web", "myshim:main/Proceed", edit);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| rig.shim.create(&rig.bundle, &Stdio3::default()));
        held(t, "myshim:main");
        assert!(!on_host(&pair.one));
        kill_hard(rig.shim.connect(&rig.bundle.id).unwrap().shim_pid);
        // The client has nobody to hear from any more, and panics.
        answer.join().unwrap_err();
    });
    rig.delete();
    pair.assert_at_home();
}

fn the_hosts_network_takes_no_devices(t: &Test) {
    let pair = Pair::new(t, "h");
    let out =
        t.run_spec(|spec| moved(spec.host_namespace("network"), &pair.one, "eth7").args(&["true"]));
    out.fails(&["linux.netDevices"]);
    pair.assert_at_home();
}
