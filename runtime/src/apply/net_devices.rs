//! Network devices that move into the container (runtime-spec, config-linux.md, "Network
//! Devices"), with their permanent addresses of global scope.
//!
//! On entry the caller is in the network namespace the devices come from. On exit it is there
//! again, and either all devices are in the container, named as planned, with their addresses,
//! and up — or all are where and as they were. What it takes to undo a move is told beforehand
//! ([`Record`]), for the case that the caller does not live to undo it. What the kernel drops with a move and nobody can
//! give back: routes beside those that the addresses make, neighbours, and queueing disciplines.

mod record;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::error::{At, Call, Error, Kind, Result};
use crate::plan::NetDevice;
use crate::sys::netlink::{Refusal, RouteSocket, into_namespace};
use crate::sys::process::{SingleThreaded, setns};

pub use record::Record;

/// IFNAMSIZ of linux/if.h, with the NUL.
const NAME_SIZE: usize = 16;
/// CLONE_NEWNET of linux/sched.h.
const NEWNET: u64 = 0x4000_0000;
/// How often a dump is repeated that the kernel calls inconsistent.
const DUMPS: usize = 5;

/// Devices that are in the container now.
#[derive(Debug)]
#[must_use = "where the container fails after all, its devices are to be put back"]
pub struct MovedDevices {
    host: Side,
    target: Side,
    devices: Vec<Device>,
}

/// One of the two network namespaces.
#[derive(Debug)]
struct Side {
    socket: RouteSocket,
    namespace: OwnedFd,
}

/// A device as it was found on the host.
#[derive(Debug)]
struct Device {
    link: Link,
    name_inside: String,
    addresses: Vec<AddressMessage>,
}

#[derive(Debug)]
struct Link {
    index: u32,
    name: String,
    flags: LinkFlags,
    /// The bridge or bond that it is a port of: it leaves that when it moves.
    controller: Option<u32>,
    immutable: bool,
}

/// Moves the devices, of which there is at least one, into the network namespace `target`. The
/// first one moves after `record` has written down how they were found.
///
/// # Errors
/// That of `record`; [`Kind::NotFound`] or [`Kind::AlreadyExists`] with the device's name, a field for a device that
/// cannot move, or the request that the kernel refused. All devices are back then.
pub fn move_into(
    single: &SingleThreaded,
    wanted: &[NetDevice],
    target: BorrowedFd<'_>,
    record: impl FnOnce(&Record) -> Result<()>,
) -> Result<MovedDevices> {
    let (mut host, mut target) = open_sides(single, target)?;
    let found = find_all(&mut host, &mut target, wanted)?;
    record(&Record::of(&found))?;
    let mut moved = MovedDevices { host, target, devices: Vec::with_capacity(found.len()) };
    for device in found {
        // Also where it fails: the kernel may have moved it and refused the rest.
        moved.devices.push(device);
        if let Err(error) = moved.move_last() {
            return Err(match moved.put_back() {
                Ok(()) => error,
                Err(second) => error.at(format!("(and on the way back: {second})")),
            });
        }
    }
    Ok(moved)
}

/// Puts back what another process has moved, or was about to move, as [`MovedDevices::put_back`].
///
/// # Errors
/// A record that is none; the first failure: the other devices are put back nevertheless.
pub fn put_back(single: &SingleThreaded, record: &Record, target: BorrowedFd<'_>) -> Result<()> {
    let devices = record.devices()?;
    let (host, target) = open_sides(single, target)?;
    MovedDevices { host, target, devices }.put_back()
}

/// The socket to the target is made by going there and back; this process does nothing else in
/// between.
fn open_sides(single: &SingleThreaded, target: BorrowedFd<'_>) -> Result<(Side, Side)> {
    let path = "/proc/self/ns/net";
    let home = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat(AT_FDCWD, {path:?}, O_RDONLY)"))?;
    let host = Side { socket: open_socket()?, namespace: home };
    let namespace = target
        .try_clone_to_owned()
        .call(|| "fcntl(<net namespace>, F_DUPFD_CLOEXEC)".to_owned())?;
    setns(single, target, NEWNET).call(|| "setns(<container's>, CLONE_NEWNET)".into())?;
    let socket = open_socket();
    setns(single, host.namespace.as_fd(), NEWNET)
        .call(|| "setns(<host's>, CLONE_NEWNET)".into())?;
    Ok((host, Side { socket: socket?, namespace }))
}

fn open_socket() -> Result<RouteSocket> {
    refusal(RouteSocket::open(), || "socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)".into())
}

/// All that can be known to fail is found before the first device moves.
fn find_all(host: &mut Side, target: &mut Side, wanted: &[NetDevice]) -> Result<Vec<Device>> {
    let mut names = BTreeSet::new();
    let mut found = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let field = format!("linux.netDevices.{}", wanted.host_name);
        check_name(&wanted.host_name, &field)?;
        check_name(&wanted.name, &format!("{field}.name"))?;
        let link = host.link(By::Name(&wanted.host_name))?.ok_or_else(|| {
            Error::new(Kind::NotFound(format!("{field}: network device {}", wanted.host_name)))
        })?;
        if link.flags.contains(LinkFlags::Loopback) || link.immutable {
            return Err(Error::field(field, "this device cannot leave its network namespace"));
        }
        if target.link(By::Name(&wanted.name))?.is_some() || !names.insert(&wanted.name) {
            let what = format!("network device {} in the container", wanted.name);
            return Err(Error::new(Kind::AlreadyExists(format!("{field}: {what}"))));
        }
        found.push(Device { link, name_inside: wanted.name.clone(), addresses: Vec::new() });
    }
    for address in host.permanent_addresses()? {
        let device = found.iter_mut().find(|device| device.link.index == address.header.index);
        if let Some(device) = device {
            device.addresses.push(address);
        }
    }
    Ok(found)
}

/// Longer names do not fit into the kernel's attribute; what else is wrong with one it says itself.
fn check_name(name: &str, field: &str) -> Result<()> {
    if name.is_empty() || name.len() >= NAME_SIZE || name.contains('\0') {
        return Err(Error::field(field, "a device name has 1 to 15 bytes, none of them NUL"));
    }
    Ok(())
}

impl MovedDevices {
    fn move_last(&mut self) -> Result<()> {
        let Some(device) = self.devices.last() else { return Ok(()) };
        let step = || format!("network device {} to {}", device.link.name, device.name_inside);
        let name = &device.name_inside;
        self.host.send_away(device.link.index, name, &self.target).at_with(step)?;
        let index = self.target.index_of(name).at_with(step)?;
        self.target.add_addresses(device, index, name).at_with(step)?;
        self.target.set_up(index).at_with(step)
    }

    /// Undoes it: the devices are back under their old names, with their addresses, up when they
    /// were up, and ports of what they were ports of.
    ///
    /// # Errors
    /// The first failure; the other devices are put back nevertheless.
    pub fn put_back(mut self) -> Result<()> {
        let mut result = Ok(());
        for device in std::mem::take(&mut self.devices).iter().rev() {
            let one = self
                .put_one_back(device)
                .at_with(|| format!("put network device {} back", device.link.name));
            result = result.and(one);
        }
        result
    }

    fn put_one_back(&mut self, device: &Device) -> Result<()> {
        let old = &device.link;
        if self.host.link(By::Index(old.index))?.is_none_or(|link| link.name != old.name) {
            let inside = match self.target.link(By::Name(&device.name_inside))? {
                Some(link) => link.index,
                // It was moved, but not renamed.
                None => self.target.index_of(&old.name)?,
            };
            self.target.send_away(inside, &old.name, &self.host)?;
        }
        let index = self.host.index_of(&old.name)?;
        if let Some(controller) = old.controller {
            self.host.change(index, "IFLA_MASTER", LinkAttribute::Controller(controller))?;
        }
        self.host.add_addresses(device, index, &old.name)?;
        if old.flags.contains(LinkFlags::Up) { self.host.set_up(index) } else { Ok(()) }
    }
}

/// How a link is asked for.
#[derive(Debug, Clone, Copy)]
enum By<'a> {
    Name(&'a str),
    Index(u32),
}

impl Side {
    fn link(&mut self, by: By<'_>) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match by {
            By::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
            By::Index(index) => message.header.index = index,
        }
        let answers = match self.socket.request(RouteNetlinkMessage::GetLink(message), 0) {
            Err(refused) if refused.errno() == Errno::ENODEV => return Ok(None),
            other => refusal(other, || format!("RTM_GETLINK({by:?})"))?,
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Link::of(link)),
            _ => None,
        }))
    }

    fn index_of(&mut self, name: &str) -> Result<u32> {
        let link = self.link(By::Name(name))?;
        let link = link.ok_or_else(|| Error::new(Kind::NotFound(format!("device {name}"))))?;
        Ok(link.index)
    }

    fn permanent_addresses(&mut self) -> Result<Vec<AddressMessage>> {
        let mut dumps = 0;
        let answers = loop {
            let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
            dumps += 1;
            match self.socket.request(message, NLM_F_DUMP) {
                Err(refused) if refused.errno() == Errno::EINTR && dumps < DUMPS => {}
                other => break refusal(other, || "RTM_GETADDR(all)".into())?,
            }
        };
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        });
        Ok(addresses.filter(is_permanent_and_global).collect())
    }

    /// One request: there is no moment at which the device is there under the wrong name.
    fn send_away(&mut self, index: u32, name: &str, to: &Side) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(into_namespace(to.namespace.as_fd()));
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.set_link(message, || {
            format!("RTM_NEWLINK({index}, IFLA_NET_NS_FD, IFLA_IFNAME {name:?})")
        })
    }

    fn set_up(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.set_link(message, || format!("RTM_NEWLINK({index}, IFF_UP)"))
    }

    fn change(&mut self, index: u32, name: &str, attribute: LinkAttribute) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        self.set_link(message, || format!("RTM_NEWLINK({index}, {name})"))
    }

    fn set_link(&mut self, message: LinkMessage, call: impl FnOnce() -> String) -> Result<()> {
        let answer = self.socket.request(RouteNetlinkMessage::NewLink(message), 0);
        refusal(answer, call).map(drop)
    }

    fn add_addresses(&mut self, device: &Device, index: u32, name: &str) -> Result<()> {
        for address in &device.addresses {
            let message = address_for(address, index, &device.link.name, name);
            let call = || format!("RTM_NEWADDR({index}, {:?})", message.attributes);
            let request = RouteNetlinkMessage::NewAddress(message.clone());
            refusal(self.socket.request(request, NLM_F_CREATE | NLM_F_REPLACE), call)?;
        }
        Ok(())
    }
}

impl Link {
    fn of(message: LinkMessage) -> Link {
        let LinkMessage { header, attributes, .. } = message;
        let mut link = Link {
            index: header.index,
            name: String::new(),
            flags: header.flags,
            controller: None,
            immutable: false,
        };
        for attribute in attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::NetnsImmutable(immutable) => link.immutable = immutable,
                _ => {}
            }
        }
        link
    }
}

/// Others are the kernel's (link-local) or a daemon's (DHCP, router advertisements): they come
/// again by themselves, or have a lifetime that nobody would renew.
fn is_permanent_and_global(address: &AddressMessage) -> bool {
    address.header.scope == AddressScope::Universe
        && flags(address).contains(AddressFlags::Permanent)
}

/// The flags' first eight are in the header too; kernels since 3.14 have them all in the attribute.
fn flags(address: &AddressMessage) -> AddressFlags {
    let attribute = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let header = AddressFlags::from_bits_retain(u32::from(address.header.flags.bits()));
    attribute.unwrap_or(header)
}

/// The same address for the device with this index and name: local, peer, broadcast, metric and
/// protocol stay; of the flags what a user may set, net/ipv6/addrconf.c.
fn address_for(address: &AddressMessage, index: u32, old: &str, name: &str) -> AddressMessage {
    let settable = AddressFlags::Nodad
        | AddressFlags::Homeaddress
        | AddressFlags::Managetempaddr
        | AddressFlags::Noprefixroute
        | AddressFlags::Mcautojoin;
    let mut message = address.clone();
    message.header.index = index;
    message.header.flags = AddressHeaderFlags::empty();
    message.attributes = address
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            AddressAttribute::CacheInfo(_) | AddressAttribute::Flags(_) => None,
            AddressAttribute::Label(label) => {
                relabel(label, old, name).map(AddressAttribute::Label)
            }
            other => Some(other.clone()),
        })
        .collect();
    message.attributes.push(AddressAttribute::Flags(flags(address) & settable));
    message
}

/// An IPv4 label is the device's name, or begins with it and a colon. The kernel's default is the
/// name; a label that would be too long becomes the default.
fn relabel(label: &str, old: &str, name: &str) -> Option<String> {
    let suffix = label.strip_prefix(old)?;
    let label = format!("{name}{suffix}");
    (!suffix.is_empty() && label.len() < NAME_SIZE).then_some(label)
}

fn refusal<T>(result: std::result::Result<T, Refusal>, call: impl FnOnce() -> String) -> Result<T> {
    result
        .map_err(|refused| Error::call(format!("{}{}", call(), refused.reason()), refused.errno()))
}

#[cfg(test)]
mod tests;
