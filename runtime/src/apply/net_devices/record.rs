//! Devices as they were found, in a form that outlives the process that moves them.

use netlink_packet_core::{Emitable, Parseable};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkFlags;
use serde::{Deserialize, Serialize};

use super::{Device, Link};
use crate::error::{Error, Kind, Result};

/// What it takes to put devices back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record(Vec<DeviceRecord>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DeviceRecord {
    index: u32,
    name: String,
    flags: u32,
    controller: Option<u32>,
    name_inside: String,
    addresses: Vec<Address>,
}

/// An address as netlink has it (RTM_NEWADDR of rtnetlink(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Address(#[serde(with = "crate::plan::hex")] Vec<u8>);

impl Record {
    pub(super) fn of(devices: &[Device]) -> Record {
        Record(devices.iter().map(DeviceRecord::of).collect())
    }

    pub(super) fn devices(&self) -> Result<Vec<Device>> {
        self.0.iter().map(DeviceRecord::device).collect()
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Record {
    /// Looks at all that is in it.
    pub(crate) fn check(&self) -> Result<()> {
        self.devices().map(drop)
    }
}

impl DeviceRecord {
    fn of(device: &Device) -> DeviceRecord {
        let Device { link, name_inside, addresses } = device;
        DeviceRecord {
            index: link.index,
            name: link.name.clone(),
            flags: link.flags.bits(),
            controller: link.controller,
            name_inside: name_inside.clone(),
            addresses: addresses.iter().map(Address::of).collect(),
        }
    }

    fn device(&self) -> Result<Device> {
        Ok(Device {
            link: Link {
                index: self.index,
                name: self.name.clone(),
                flags: LinkFlags::from_bits_retain(self.flags),
                controller: self.controller,
                immutable: false,
            },
            name_inside: self.name_inside.clone(),
            addresses: self.addresses.iter().map(Address::message).collect::<Result<_>>()?,
        })
    }
}

impl Address {
    fn of(message: &AddressMessage) -> Address {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        Address(bytes)
    }

    fn message(&self) -> Result<AddressMessage> {
        AddressMessage::parse(self.0.as_slice())
            .map_err(|error| Error::new(Kind::Corrupt(format!("address of a device: {error}"))))
    }
}
