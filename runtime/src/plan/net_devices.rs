//! `linux.netDevices`.

use std::collections::{BTreeMap, HashMap, HashSet};

use oci_spec::runtime::LinuxNetDevice;

use super::host::{Host, Privilege};
use super::{Namespace, NetDevice};
use crate::error::{Error, Result};

/// Bytes of an interface's name without the final NUL (IFNAMSIZ).
const MAX_NAME: usize = 15;

/// In order of the name on the host.
pub(super) fn plan(
    listed: &HashMap<String, LinuxNetDevice>,
    net: &Namespace,
    host: &Host,
) -> Result<Vec<NetDevice>> {
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    if *net == Namespace::Host {
        return Err(Error::field("linux.netDevices", "needs a network namespace"));
    }
    if host.privilege != Privilege::Root {
        return Err(Error::field("linux.netDevices", "needs the host's CAP_NET_ADMIN"));
    }
    let sorted: BTreeMap<_, _> = listed.iter().collect();
    let mut names = HashSet::new();
    let device = |(host_name, device): (&String, &LinuxNetDevice)| {
        let name = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host_name);
        let path = format!("linux.netDevices.{host_name}");
        if !is_name(host_name) {
            return Err(Error::field(path, "is not the name of an interface"));
        }
        if !is_name(name) {
            return Err(Error::field(format!("{path}.name"), "is not the name of an interface"));
        }
        if !names.insert(name.to_owned()) {
            return Err(Error::field(format!("{path}.name"), "is the name of another one as well"));
        }
        Ok(NetDevice { host_name: host_name.clone(), name: name.to_owned() })
    };
    sorted.into_iter().map(device).collect()
}

/// net/core/dev.c, dev_valid_name; and no '%', which dev_alloc_name would fill in.
fn is_name(name: &str) -> bool {
    let bad = |c: u8| matches!(c, b'/' | b':' | b'%') || c.is_ascii_whitespace() || c == 0x0b;
    (1..=MAX_NAME).contains(&name.len()) && !matches!(name, "." | "..") && !name.bytes().any(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: &str) -> Result<Vec<NetDevice>> {
        plan(&serde_json::from_str(json).unwrap(), &Namespace::New, &Host::example())
    }

    #[test]
    fn devices_are_ordered_by_their_name_on_the_host() {
        let devices = plan_of(r#"{"eth1":{},"eth0":{"name":"lan"},"dummy0":{"name":""}}"#).unwrap();
        let names: Vec<_> =
            devices.iter().map(|device| (&*device.host_name, &*device.name)).collect();
        assert_eq!(names, [("dummy0", "dummy0"), ("eth0", "lan"), ("eth1", "eth1")]);
    }

    #[test]
    fn names_that_no_interface_has_are_refused() {
        for name in ["", ".", "..", "a/b", "a:b", "a b", "a\u{b}b", "eth%d", "1234567890123456"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("123456789012345"));
        assert_eq!(
            plan_of(r#"{"eth0":{"name":"a/b"}}"#).unwrap_err().to_string(),
            "linux.netDevices.eth0.name: is not the name of an interface"
        );
    }

    #[test]
    fn two_devices_with_one_name_are_refused() {
        assert_eq!(
            plan_of(r#"{"eth0":{"name":"x"},"eth1":{"name":"x"}}"#).unwrap_err().to_string(),
            "linux.netDevices.eth1.name: is the name of another one as well"
        );
    }

    #[test]
    fn they_need_a_network_namespace_and_the_host() {
        let listed = HashMap::from([("eth0".to_owned(), LinuxNetDevice::default())]);
        assert!(plan(&listed, &Namespace::Host, &Host::example()).is_err());
        let confined = Host { privilege: Privilege::RootOfNamespace, ..Host::example() };
        assert!(plan(&listed, &Namespace::New, &confined).is_err());
        assert!(plan(&HashMap::new(), &Namespace::Host, &confined).unwrap().is_empty());
    }
}
