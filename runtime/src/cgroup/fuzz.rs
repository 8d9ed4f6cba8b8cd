//! Any path, resources, device rules and annotation.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::device_program::{self, machine};
use super::devices::DeviceAccess;
use super::resources::{self, Compiler};
use super::systemd::{annotated, unit_path};
use super::{CgroupDirectory, CgroupPaths, DeviceClass, DevicePolicy, DeviceRule, Version, path};
use crate::error::{Error, Kind};
use crate::fuzz::refusal::names_a_field;
use crate::fuzz::{survives, written};
use crate::plan::Host;
use crate::spec::resources_from_json;

/// `linux.cgroupsPath` is refused by its name, or leads to a place below the top, for either driver.
pub fn cgroup_path(input: &[u8]) {
    let given = Path::new(OsStr::from_bytes(input));
    for resolved in [path::resolve(Some(given), "web"), unit_path(given)] {
        match resolved {
            Ok(resolved) => {
                let mut components = resolved.components();
                assert_eq!(components.next(), Some(Component::RootDir), "{resolved:?}");
                assert!(components.next().is_some(), "{resolved:?} is the top");
                let mut below = resolved.components().skip(1);
                assert!(below.all(|part| matches!(part, Component::Normal(_))), "{resolved:?}");
                assert!(!resolved.as_os_str().as_bytes().contains(&b'\n'));
            }
            Err(error) => is_about(&error, "linux.cgroupsPath"),
        }
    }
}

/// Resources, as for an update: refused by their field, or writes to files of the cgroup.
pub fn resources(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let root = "linux.resources";
    let refused = |error: &Error| names_a_field(error, input, root, root);
    let given = match resources_from_json(text) {
        Ok(given) => given,
        Err(error) => return refused(&error),
    };
    let v1 = of_v1();
    for mut compiler in [Compiler::for_new(&Host::example().cgroups), Compiler::for_present(&v1)] {
        match resources::compile(&given, &mut compiler) {
            Ok(()) => {
                let choices = compiler.finish().0.into_iter().flat_map(|write| write.choices);
                for choice in choices {
                    let file = Path::new(&choice.file);
                    assert_eq!(file.file_name(), Some(file.as_os_str()), "no name of a file");
                }
            }
            Err(error) => refused(&error),
        }
    }
    if let Err(error) = DevicePolicy::new(given.devices().as_deref().unwrap_or_default()) {
        refused(&error);
    }
}

/// An annotation for systemd: refused by its key, or a value that D-Bus can carry.
pub fn unit_property(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (name, value) = text.split_once('\n').unwrap_or(("TimeoutStopSec", text));
    let key = format!("org.systemd.property.{name}");
    match annotated(&BTreeMap::from([(key.clone(), value.to_owned())])) {
        Ok(values) => crate::dbus::fuzz::can_be_said(&values),
        Err(error) => is_about(&error, &format!("annotations[{key:?}]")),
    }
}

/// Device rules, a list as in `linux.resources.devices`: the policy survives JSON and the lines of
/// v1, and the program of v2 allows just what the rules do, read one after the other.
pub fn devices(input: &[u8]) {
    let Ok(rules) = serde_json::from_slice::<Vec<LinuxDeviceCgroup>>(input) else { return };
    let policy = match DevicePolicy::new(&rules) {
        Ok(policy) => policy,
        Err(error) => {
            return names_a_field(&error, input, "linux.resources.devices", "");
        }
    };
    assert_eq!(survives::<DevicePolicy>(&written(&policy)).as_ref(), Some(&policy));
    for ((_, line), rule) in policy.v1_lines().iter().skip(1).zip(&policy.exceptions) {
        assert_eq!(DeviceRule::parse(line).as_ref(), Some(rule), "{line}");
    }
    let program = device_program::program(&policy);
    let numbers = |of: fn(&LinuxDeviceCgroup) -> Option<i64>| {
        let named = rules.iter().filter_map(of).filter_map(|number| u32::try_from(number).ok());
        named.take(8).chain([1, 3, 136]).collect::<Vec<u32>>()
    };
    for major in numbers(LinuxDeviceCgroup::major) {
        for minor in numbers(LinuxDeviceCgroup::minor) {
            for class in [DeviceClass::Char, DeviceClass::Block] {
                for access in 1..8 {
                    let asked = Asked { class, major, minor, access };
                    let allowed = machine::run(&program, class, access, major, minor);
                    assert_eq!(allowed, asked.is_allowed(&rules), "{asked:?}");
                }
            }
        }
    }
}

/// An access to a device; the bits are those of linux/bpf.h.
#[derive(Debug, Clone, Copy)]
struct Asked {
    class: DeviceClass,
    major: u32,
    minor: u32,
    access: u8,
}

impl Asked {
    /// By the rules alone, each bit for itself: the last rule about it decides.
    fn is_allowed(self, rules: &[LinuxDeviceCgroup]) -> bool {
        [1, 2, 4].into_iter().filter(|bit| self.access & bit != 0).all(|bit| {
            let last = rules.iter().rev().find(|rule| self.is_meant(rule, bit));
            self.is_always_allowed(bit) || last.is_some_and(LinuxDeviceCgroup::allow)
        })
    }

    fn is_meant(self, rule: &LinuxDeviceCgroup, bit: u8) -> bool {
        let class = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::C => self.class == DeviceClass::Char,
            LinuxDeviceType::B => self.class == DeviceClass::Block,
            _ => true,
        };
        let is = |given: Option<i64>, number: u32| {
            given.is_none_or(|given| given == -1 || given == i64::from(number))
        };
        let access = DeviceAccess::try_from(rule.access().clone().unwrap_or_default());
        let access = access.map_or(0, DeviceAccess::bits);
        class && is(rule.major(), self.major) && is(rule.minor(), self.minor) && access & bit != 0
    }

    fn is_always_allowed(self, bit: u8) -> bool {
        let device = (self.major, self.minor);
        let listed = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (10, 200)];
        let character = listed.contains(&device) || self.major == 136;
        bit == 1 || (self.class == DeviceClass::Char && character)
    }
}

fn is_about(error: &Error, field: &str) {
    match error.kind() {
        Kind::Field { path, .. } => assert_eq!(path, field, "{error}"),
        other => panic!("refused without a field: {other:?}"),
    }
}

fn of_v1() -> CgroupPaths {
    let directory = |controller: &str| CgroupDirectory {
        version: Version::V1,
        controllers: vec![controller.to_owned()],
        path: Path::new("/sys/fs/cgroup").join(controller).join("web"),
    };
    let names = ["cpuset", "cpu", "blkio", "memory", "net_cls", "net_prio", "hugetlb", "pids"];
    CgroupPaths { directories: names.map(directory).to_vec(), unit: None }
}
