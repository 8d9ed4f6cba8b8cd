//! `linux.devices`, and the devices every container has (config-linux.md, "Default Devices").

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::{Device, DeviceKind};
use crate::error::{Error, Result};

/// Path, major and minor of the default devices, all of them character devices of mode 0666, in
/// the order they are made. /dev/console and /dev/ptmx are no nodes: the one is bound, the other
/// a link to the container's own devpts.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const DEFAULT_MODE: u32 = 0o666;

/// Bits of a major and of a minor number (include/linux/kdev_t.h).
const MAJOR_BITS: u32 = 12;
const MINOR_BITS: u32 = 20;

/// The default devices first, then the spec's. One of the spec with the path of a default one is
/// in its place; of two with the same path the first is made, as mknod(2) would have it.
pub(super) fn plan(listed: &[LinuxDevice], warnings: &mut Vec<String>) -> Result<Vec<Device>> {
    let mut devices: Vec<Device> = DEFAULTS.iter().map(default_device).collect();
    let mut named = HashSet::new();
    for (index, listed) in listed.iter().enumerate() {
        let device = device(index, listed)?;
        if device.path == Path::new("/dev/ptmx") {
            continue;
        }
        if !named.insert(device.path.clone()) {
            let path = device.path.display();
            warnings.push(format!("linux.devices[{index}].path: {path} is listed already"));
            continue;
        }
        let mut defaults = devices.iter_mut().take(DEFAULTS.len());
        match defaults.find(|other| other.path == device.path) {
            Some(place) => *place = device,
            None => devices.push(device),
        }
    }
    Ok(devices)
}

fn default_device((path, major, minor): &(&str, u32, u32)) -> Device {
    Device {
        path: PathBuf::from(path),
        kind: DeviceKind::Char { major: *major, minor: *minor },
        mode: DEFAULT_MODE,
        uid: 0,
        gid: 0,
    }
}

fn device(index: usize, listed: &LinuxDevice) -> Result<Device> {
    let refuse = |field: &str, why: String| {
        Err(Error::field(format!("linux.devices[{index}].{field}"), why))
    };
    let path = listed.path();
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return refuse("path", format!("{path:?} is not an absolute path without '..'"));
    }
    let number = |value: i64, bits: u32| u32::try_from(value).ok().filter(|n| n >> bits == 0);
    let major = number(listed.major(), MAJOR_BITS);
    let minor = number(listed.minor(), MINOR_BITS);
    let kind = match (listed.typ(), major, minor) {
        (LinuxDeviceType::P, ..) => DeviceKind::Fifo,
        (LinuxDeviceType::A, ..) => {
            return refuse("type", "a is for cgroup rules; a node is b, c, u or p".to_owned());
        }
        (_, None, _) => return refuse("major", format!("{} is not a number", listed.major())),
        (_, _, None) => return refuse("minor", format!("{} is not a number", listed.minor())),
        (LinuxDeviceType::B, Some(major), Some(minor)) => DeviceKind::Block { major, minor },
        (LinuxDeviceType::C | LinuxDeviceType::U, Some(major), Some(minor)) => {
            DeviceKind::Char { major, minor }
        }
    };
    for (id, field) in [(listed.uid(), "uid"), (listed.gid(), "gid")] {
        // chown(2) takes -1 for "leave it".
        if id == Some(u32::MAX) {
            return refuse(field, "4294967295 is not an id".to_owned());
        }
    }
    Ok(Device {
        path: path.components().collect(),
        kind,
        // Clients pass st_mode as it is, with the type in it.
        mode: listed.file_mode().unwrap_or(DEFAULT_MODE) & 0o7777,
        uid: listed.uid().unwrap_or_default(),
        gid: listed.gid().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: &str) -> Result<Vec<Device>> {
        plan(&serde_json::from_str::<Vec<LinuxDevice>>(json).unwrap(), &mut Vec::new())
    }

    fn paths(devices: &[Device]) -> Vec<&str> {
        devices.iter().map(|device| device.path.to_str().unwrap()).collect()
    }

    const ORDER: [&str; 6] =
        ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

    #[test]
    fn the_default_devices_are_made_in_a_fixed_order() {
        assert_eq!(paths(&plan_of("[]").unwrap()), ORDER);
    }

    #[test]
    fn a_device_of_the_spec_takes_the_place_of_a_default_one() {
        let json = r#"[{"path":"/dev/fuse","type":"c","major":10,"minor":229,"fileMode":8624,"uid":5},
            {"path":"/dev//zero","type":"c","major":1,"minor":5,"fileMode":256}]"#;
        let devices = plan_of(json).unwrap();
        assert_eq!(paths(&devices)[..6], ORDER);
        assert_eq!(devices[1].mode, 0o400);
        let fuse = &devices[6];
        assert_eq!(fuse.kind, DeviceKind::Char { major: 10, minor: 229 });
        assert_eq!((fuse.mode, fuse.uid, fuse.gid), (0o660, 5, 0));
    }

    #[test]
    fn every_type_of_node_is_understood_and_a_is_none() {
        let kind = |kind| {
            let json = format!(r#"[{{"path":"/dev/x","type":"{kind}","major":7,"minor":8}}]"#);
            plan_of(&json).map(|devices| devices[6].kind)
        };
        assert_eq!(kind("b").unwrap(), DeviceKind::Block { major: 7, minor: 8 });
        assert_eq!(kind("c").unwrap(), DeviceKind::Char { major: 7, minor: 8 });
        assert_eq!(kind("u").unwrap(), DeviceKind::Char { major: 7, minor: 8 });
        assert_eq!(kind("p").unwrap(), DeviceKind::Fifo);
        assert_eq!(
            kind("a").unwrap_err().to_string(),
            "linux.devices[0].type: a is for cgroup rules; a node is b, c, u or p"
        );
    }

    #[test]
    fn a_device_elsewhere_than_in_dev_is_allowed_and_a_crooked_path_is_not() {
        assert!(plan_of(r#"[{"path":"/srv/null","type":"c","major":1,"minor":3}]"#).is_ok());
        for path in ["dev/x", "/dev/../etc/x", ""] {
            let json = format!(r#"[{{"path":"{path}","type":"p"}}]"#);
            let refusal = plan_of(&json).unwrap_err().to_string();
            assert!(refusal.starts_with("linux.devices[0].path: "), "{refusal}");
        }
    }

    #[test]
    fn numbers_that_no_device_has_are_refused() {
        for (field, json) in [
            ("major", r#""major":4096,"minor":0"#),
            ("major", r#""major":-1,"minor":0"#),
            ("minor", r#""major":1,"minor":1048576"#),
            ("uid", r#""major":1,"minor":1,"uid":4294967295"#),
        ] {
            let json = format!(r#"[{{"path":"/dev/x","type":"b",{json}}}]"#);
            let refusal = plan_of(&json).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("linux.devices[0].{field}: ")), "{refusal}");
        }
    }

    #[test]
    fn ptmx_is_not_made_as_a_node() {
        let json = r#"[{"path":"/dev/ptmx","type":"c","major":5,"minor":2}]"#;
        assert_eq!(paths(&plan_of(json).unwrap()), ORDER);
    }

    #[test]
    fn of_two_devices_with_one_path_the_first_is_made() {
        let json = r#"[{"path":"/dev/x","type":"c","major":1,"minor":1},
            {"path":"/dev/x","type":"c","major":2,"minor":2}]"#;
        let mut warnings = Vec::new();
        let listed: Vec<LinuxDevice> = serde_json::from_str(json).unwrap();
        let devices = plan(&listed, &mut warnings).unwrap();
        assert_eq!(devices[6].kind, DeviceKind::Char { major: 1, minor: 1 });
        assert_eq!((devices.len(), warnings.len()), (7, 1));
    }
}
