//! Two fresh network namespaces in a fork: one plays the host, one the container.

use std::fs::{File, read_to_string};
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::NLM_F_EXCL;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkInfo};

use super::*;
use crate::sys::process::unshare;
use crate::sys::testing::in_fork;

/// What the claims are looked at with.
struct Scene<'a> {
    single: &'a SingleThreaded,
    host: Side,
    container: Side,
}

fn in_two_namespaces(claim: impl FnOnce(&mut Scene<'_>)) {
    in_fork(|single| {
        unshare(single, NEWNET).unwrap();
        let container = File::open("/proc/self/ns/net").unwrap();
        unshare(single, NEWNET).unwrap();
        let (host, container) = open_sides(single, container.as_fd()).unwrap();
        claim(&mut Scene { single, host, container });
    });
}

impl Scene<'_> {
    fn move_all(&self, devices: &[(&str, &str)]) -> Result<MovedDevices> {
        self.move_recorded(devices, |_| Ok(()))
    }

    fn move_recorded(
        &self,
        devices: &[(&str, &str)],
        record: impl FnOnce(&Record) -> Result<()>,
    ) -> Result<MovedDevices> {
        let devices: Vec<NetDevice> = devices
            .iter()
            .map(|(host, name)| NetDevice { host_name: (*host).into(), name: (*name).into() })
            .collect();
        move_into(self.single, &devices, self.container.namespace.as_fd(), record)
    }

    /// A file of /proc/net as the container sees it.
    fn container_proc_net(&self, file: &str) -> String {
        setns(self.single, self.container.namespace.as_fd(), NEWNET).unwrap();
        let text = read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        setns(self.single, self.host.namespace.as_fd(), NEWNET).unwrap();
        text
    }
}

impl Side {
    fn create(&mut self, name: &str, info: Vec<LinkInfo>, lower: Option<u32>) {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.extend(lower.map(LinkAttribute::Link));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let request = RouteNetlinkMessage::NewLink(message);
        self.socket.request(request, NLM_F_CREATE | NLM_F_EXCL).unwrap();
    }

    fn create_veth(&mut self, name: &str, peer: &str) {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(peer.into()));
        let data = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(message)));
        self.create(name, vec![LinkInfo::Kind(InfoKind::Veth), data], None);
    }

    /// An address and a prefix length; with `extra`, exactly these attributes.
    fn add(&mut self, name: &str, address: &str, prefix: u8, extra: Vec<AddressAttribute>) {
        let address: IpAddr = address.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.index = self.index_of(name).unwrap();
        message.header.prefix_len = prefix;
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.attributes.push(AddressAttribute::Local(address));
        if !extra.iter().any(|attribute| matches!(attribute, AddressAttribute::Address(_))) {
            message.attributes.push(AddressAttribute::Address(address));
        }
        message.attributes.extend(extra);
        let request = RouteNetlinkMessage::NewAddress(message);
        self.socket.request(request, NLM_F_CREATE | NLM_F_EXCL).unwrap();
    }

    /// The addresses of a device as text, each with all that was asked to be kept, sorted.
    fn addresses_of(&mut self, name: &str) -> Vec<String> {
        let index = self.index_of(name).unwrap();
        let addresses = self.permanent_addresses().unwrap();
        let mut texts: Vec<String> = addresses
            .iter()
            .filter(|address| address.header.index == index)
            .map(|address| {
                let mut text = Vec::new();
                for attribute in &address.attributes {
                    match attribute {
                        AddressAttribute::Address(address) => text.push(format!("{address}")),
                        AddressAttribute::Local(local) => text.push(format!("local {local}")),
                        AddressAttribute::Broadcast(all) => text.push(format!("brd {all}")),
                        AddressAttribute::Label(label) => text.push(format!("label {label}")),
                        AddressAttribute::RoutePriority(metric) => {
                            text.push(format!("metric {metric}"));
                        }
                        _ => {}
                    }
                }
                text.push(format!("/{}", address.header.prefix_len));
                if flags(address).contains(AddressFlags::Noprefixroute) {
                    text.push("noprefixroute".into());
                }
                text.join(" ")
            })
            .collect();
        texts.sort();
        texts
    }

    fn names(&mut self) -> Vec<String> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.socket.request(request, NLM_F_DUMP).unwrap();
        let mut names: Vec<String> = answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(Link::of(link).name),
                _ => None,
            })
            .collect();
        names.sort();
        names
    }

    fn is_up(&mut self, name: &str) -> bool {
        self.link(By::Name(name)).unwrap().unwrap().flags.contains(LinkFlags::Up)
    }

    fn bring_up(&mut self, name: &str) {
        let index = self.index_of(name).unwrap();
        self.set_up(index).unwrap();
    }
}

fn address(text: &str) -> AddressAttribute {
    AddressAttribute::Address(text.parse().unwrap())
}

#[test]
fn a_device_moves_renamed_with_its_permanent_global_addresses_and_is_up() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        let broadcast = AddressAttribute::Broadcast(Ipv4Addr::new(10, 1, 0, 255));
        scene.host.add("v0", "10.1.0.1", 24, vec![broadcast, AddressAttribute::RoutePriority(77)]);
        scene.host.add("v0", "10.1.0.2", 24, vec![AddressAttribute::Label("v0:x".into())]);
        scene.host.add("v0", "10.2.0.1", 32, vec![address("10.2.0.9")]);
        scene.host.add("v0", "fd00::1", 64, vec![]);
        let noprefixroute = AddressAttribute::Flags(AddressFlags::Noprefixroute);
        scene.host.add("v0", "fd01::1", 64, vec![noprefixroute]);
        scene.host.add("v0", "fd02::1", 128, vec![address("fd02::9")]);
        scene.host.bring_up("v0");
        let _moved = scene.move_all(&[("v0", "eth0")]).unwrap();
        assert_eq!(scene.host.names(), ["lo", "v1"]);
        assert_eq!(scene.container.names(), ["eth0", "lo"]);
        assert!(scene.container.is_up("eth0"));
        assert_eq!(
            scene.container.addresses_of("eth0"),
            [
                "10.1.0.1 local 10.1.0.1 brd 10.1.0.255 label eth0 metric 77 /24",
                "10.1.0.2 local 10.1.0.2 label eth0:x /24",
                "10.2.0.9 local 10.2.0.1 label eth0 /32",
                "fd00::1 /64",
                "fd01::1 /64 noprefixroute",
                "local fd02::1 fd02::9 /128",
            ]
        );
    });
}

#[test]
fn a_moved_device_has_the_routes_of_its_addresses() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        scene.host.add("v0", "10.1.0.1", 24, vec![]);
        scene.host.add("v0", "fd00::1", 64, vec![]);
        let _moved = scene.move_all(&[("v0", "eth0")]).unwrap();
        // In hexadecimal, little-endian; then as it is written.
        assert!(scene.container_proc_net("route").contains("eth0\t0000010A\t"));
        let routes = scene.container_proc_net("ipv6_route");
        let network = "fd000000000000000000000000000000 40 ";
        assert!(routes.lines().any(|line| line.starts_with(network)), "{routes}");
    });
}

#[test]
fn an_address_with_a_lifetime_is_not_taken_along() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        let mut lifetime = netlink_packet_route::address::CacheInfo::default();
        (lifetime.ifa_valid, lifetime.ifa_preferred) = (600, 600);
        scene.host.add("v0", "10.9.0.1", 24, vec![AddressAttribute::CacheInfo(lifetime)]);
        scene.host.add("v0", "10.1.0.1", 24, vec![]);
        let _moved = scene.move_all(&[("v0", "v0")]).unwrap();
        assert_eq!(scene.container.addresses_of("v0"), ["10.1.0.1 local 10.1.0.1 label v0 /24"]);
    });
}

#[test]
fn a_macvlan_moves_and_its_lower_device_stays() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        let lower = scene.host.index_of("v0").unwrap();
        scene.host.create("mv0", vec![LinkInfo::Kind(InfoKind::MacVlan)], Some(lower));
        scene.host.add("mv0", "10.3.0.1", 24, vec![]);
        let _moved = scene.move_all(&[("mv0", "eth0")]).unwrap();
        assert_eq!(scene.host.names(), ["lo", "v0", "v1"]);
        assert_eq!(
            scene.container.addresses_of("eth0"),
            ["10.3.0.1 local 10.3.0.1 label eth0 /24"]
        );
    });
}

#[test]
fn devices_move_where_their_indices_and_old_names_are_taken() {
    in_two_namespaces(|scene| {
        scene.container.create_veth("v0", "v1");
        scene.host.create_veth("v0", "v1");
        scene.host.add("v0", "10.1.0.1", 24, vec![]);
        let taken = scene.container.index_of("v0").unwrap();
        assert_eq!(scene.host.index_of("v0").unwrap(), taken);
        let moved = scene.move_all(&[("v0", "a"), ("v1", "b")]).unwrap();
        assert_eq!(scene.container.names(), ["a", "b", "lo", "v0", "v1"]);
        assert_eq!(scene.container.addresses_of("v0"), [""; 0]);
        assert_eq!(scene.container.addresses_of("a").len(), 1);
        moved.put_back().unwrap();
        assert_eq!(scene.host.names(), ["lo", "v0", "v1"]);
        assert_eq!(scene.container.names(), ["lo", "v0", "v1"]);
        assert_eq!(scene.container.index_of("v0").unwrap(), taken);
        assert_eq!(scene.host.addresses_of("v0").len(), 1);
    });
}

#[test]
fn devices_that_are_put_back_are_as_they_were() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        scene.host.create("br0", vec![LinkInfo::Kind(InfoKind::Bridge)], None);
        let bridge = scene.host.index_of("br0").unwrap();
        let port = scene.host.index_of("v1").unwrap();
        scene.host.change(port, "IFLA_MASTER", LinkAttribute::Controller(bridge)).unwrap();
        scene.host.add("v0", "10.1.0.1", 24, vec![]);
        scene.host.add("v0", "fd00::1", 64, vec![]);
        scene.host.bring_up("v0");
        let before = scene.host.addresses_of("v0");
        let as_they_were = |scene: &mut Scene<'_>| {
            assert_eq!(scene.container.names(), ["lo"]);
            assert_eq!(scene.host.addresses_of("v0"), before);
            assert!(scene.host.is_up("v0"));
            assert!(!scene.host.is_up("v1"));
            let port = scene.host.link(By::Name("v1")).unwrap().unwrap();
            assert_eq!(port.controller, Some(bridge));
        };
        let devices = [("v0", "a"), ("v1", "b")];
        scene.move_all(&devices).unwrap().put_back().unwrap();
        as_they_were(scene);
        // The same by what was written down, from a process that has moved nothing itself.
        let mut written = String::new();
        let moved = scene.move_recorded(&devices, |record| {
            written = serde_json::to_string(record).unwrap();
            Ok(())
        });
        drop(moved.unwrap());
        let record: Record = serde_json::from_str(&written).unwrap();
        for _ in 0..2 {
            put_back(scene.single, &record, scene.container.namespace.as_fd()).unwrap();
            as_they_were(scene);
        }
    });
}

#[test]
fn nothing_moves_that_could_not_be_written_down() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        let refuse = |_: &Record| Err(Error::new(Kind::State("the disk is full".into())));
        let error = scene.move_recorded(&[("v0", "a")], refuse).unwrap_err();
        assert_eq!(error.to_string(), "the disk is full");
        assert_eq!(scene.host.names(), ["lo", "v0", "v1"]);
    });
}

#[test]
fn a_failure_half_way_brings_back_what_was_moved() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        scene.host.add("v0", "10.1.0.1", 24, vec![]);
        scene.host.bring_up("v0");
        let before = scene.host.addresses_of("v0");
        // The kernel alone knows that a slash makes no name.
        let error = scene.move_all(&[("v0", "eth0"), ("v1", "a/b")]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("network device v1 to a/b: RTM_NEWLINK("), "{text}");
        assert_eq!(error.errno(), Some(Errno::EINVAL));
        assert_eq!(scene.host.names(), ["lo", "v0", "v1"]);
        assert_eq!(scene.container.names(), ["lo"]);
        assert_eq!(scene.host.addresses_of("v0"), before);
        assert!(scene.host.is_up("v0"));
    });
}

#[test]
fn an_address_that_the_container_refuses_brings_the_device_back() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        scene.host.add("v0", "fd00::1", 64, vec![]);
        setns(scene.single, scene.container.namespace.as_fd(), NEWNET).unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        setns(scene.single, scene.host.namespace.as_fd(), NEWNET).unwrap();
        let error = scene.move_all(&[("v0", "eth0")]).unwrap_err().to_string();
        assert!(error.starts_with("network device v0 to eth0: RTM_NEWADDR("), "{error}");
        assert_eq!(scene.host.names(), ["lo", "v0", "v1"]);
        assert_eq!(scene.host.addresses_of("v0"), ["fd00::1 /64"]);
        assert_eq!(scene.container.names(), ["lo"]);
    });
}

#[test]
fn a_name_that_is_taken_in_the_container_is_refused_before_any_effect() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        scene.container.create_veth("eth0", "peer");
        let error = scene.move_all(&[("v1", "free"), ("v0", "eth0")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "linux.netDevices.v0: network device eth0 in the container: already exists"
        );
        assert_eq!(scene.container.names(), ["eth0", "lo", "peer"]);
        let error = scene.move_all(&[("v0", "same"), ("v1", "same")]).unwrap_err();
        assert!(error.to_string().ends_with("already exists"), "{error}");
        assert_eq!(scene.host.names(), ["lo", "v0", "v1"]);
    });
}

#[test]
fn a_device_that_is_not_there_is_named_before_any_effect() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        let error = scene.move_all(&[("v0", "v0"), ("nope", "eth0")]).unwrap_err();
        assert_eq!(error.to_string(), "linux.netDevices.nope: network device nope: not found");
        assert_eq!(scene.host.names(), ["lo", "v0", "v1"]);
    });
}

#[test]
fn the_loopback_device_and_impossible_names_are_refused_by_field() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        let error = scene.move_all(&[("lo", "x")]).unwrap_err().to_string();
        assert!(error.starts_with("linux.netDevices.lo: "), "{error}");
        let error = scene.move_all(&[("v0", "sixteen-bytes-16")]).unwrap_err().to_string();
        assert!(error.starts_with("linux.netDevices.v0.name: "), "{error}");
    });
}

#[test]
fn the_caller_stays_in_its_network_namespace_and_keeps_no_descriptor() {
    in_two_namespaces(|scene| {
        scene.host.create_veth("v0", "v1");
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let here = || std::fs::read_link("/proc/self/ns/net").unwrap();
        let before = (here(), count());
        scene.move_all(&[("v0", "eth0")]).unwrap().put_back().unwrap();
        assert_eq!((here(), count()), before);
    });
}
