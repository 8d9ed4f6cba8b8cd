//! Which devices a container may use: the spec's rules as a default and exceptions from it.
//!
//! That is the form the v1 controller has, and what the v2 program is generated from, so both
//! mean the same. A rule that takes a part out of a wider exception cannot be said in this form
//! (v1 ignores it silently): it is refused.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Default and exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePolicy {
    /// What holds for a device without an exception.
    pub default: DeviceAction,
    /// Devices for which the opposite holds, sorted.
    pub exceptions: Vec<DeviceRule>,
}

/// Allow or deny.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceAction {
    /// No access.
    #[default]
    Deny,
    /// Access.
    Allow,
}

/// A set of devices, and what may be done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Character or block.
    pub class: DeviceClass,
    /// `None` is any.
    pub major: Option<u32>,
    /// `None` is any.
    pub minor: Option<u32>,
    /// What may be done.
    pub access: DeviceAccess,
}

/// The two kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DeviceClass {
    Char,
    Block,
}

/// A set of read, write and mknod, as `rwm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceAccess(u8);

impl DeviceAccess {
    /// BPF_DEVCG_ACC_MKNOD, BPF_DEVCG_ACC_READ, BPF_DEVCG_ACC_WRITE of linux/bpf.h.
    const LETTERS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];
    const ALL: DeviceAccess = DeviceAccess(7);
    const MKNOD: DeviceAccess = DeviceAccess(1);

    fn parse(letters: &str) -> Option<DeviceAccess> {
        let mut bits = 0;
        for letter in letters.chars() {
            bits |= Self::LETTERS.iter().find(|(known, _)| *known == letter)?.1;
        }
        (bits != 0).then_some(DeviceAccess(bits))
    }

    /// The bits as in linux/bpf.h (BPF_DEVCG_ACC_*).
    pub(super) fn bits(self) -> u8 {
        self.0
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = Self::LETTERS.iter().filter(|(_, bit)| self.0 & bit != 0);
        letters.map(|(letter, _)| letter).try_for_each(|letter| write!(f, "{letter}"))
    }
}

impl From<DeviceAccess> for String {
    fn from(access: DeviceAccess) -> String {
        access.to_string()
    }
}

impl TryFrom<String> for DeviceAccess {
    type Error = String;

    fn try_from(letters: String) -> std::result::Result<DeviceAccess, String> {
        DeviceAccess::parse(&letters).ok_or_else(|| format!("{letters:?} is not a set of r, w, m"))
    }
}

impl fmt::Display for DeviceRule {
    /// As the v1 controller writes and reads it: `c 1:3 rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        let class = match self.class {
            DeviceClass::Char => 'c',
            DeviceClass::Block => 'b',
        };
        write!(f, "{class} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

/// What every container may use, whatever the spec says, as runc has it: making any node; null,
/// zero, full, random, urandom, tty, ptmx and the pseudo terminals (the spec's default devices);
/// and tun, which users rely on since the first Docker.
const ALWAYS: [(DeviceClass, Option<u32>, Option<u32>, DeviceAccess); 11] = [
    (DeviceClass::Char, None, None, DeviceAccess::MKNOD),
    (DeviceClass::Block, None, None, DeviceAccess::MKNOD),
    (DeviceClass::Char, Some(1), Some(3), DeviceAccess::ALL),
    (DeviceClass::Char, Some(1), Some(5), DeviceAccess::ALL),
    (DeviceClass::Char, Some(1), Some(7), DeviceAccess::ALL),
    (DeviceClass::Char, Some(1), Some(8), DeviceAccess::ALL),
    (DeviceClass::Char, Some(1), Some(9), DeviceAccess::ALL),
    (DeviceClass::Char, Some(5), Some(0), DeviceAccess::ALL),
    (DeviceClass::Char, Some(5), Some(2), DeviceAccess::ALL),
    (DeviceClass::Char, Some(10), Some(200), DeviceAccess::ALL),
    (DeviceClass::Char, Some(136), None, DeviceAccess::ALL),
];

impl DevicePolicy {
    /// The spec's rules in order, beginning with “deny all”; then what is always allowed.
    ///
    /// # Errors
    /// `Field` for a rule that is not well-formed or takes a part out of an earlier one.
    pub fn new(rules: &[LinuxDeviceCgroup]) -> Result<DevicePolicy> {
        let mut policy = DevicePolicy::default();
        for (index, rule) in rules.iter().enumerate() {
            let field = format!("linux.resources.devices[{index}]");
            policy.take(rule, &field)?;
        }
        for (class, major, minor, access) in ALWAYS {
            let rule = DeviceRule { class, major, minor, access };
            policy.set(DeviceAction::Allow, rule, "linux.resources.devices")?;
        }
        policy.exceptions.sort_unstable();
        Ok(policy)
    }

    fn take(&mut self, rule: &LinuxDeviceCgroup, field: &str) -> Result<()> {
        let action = match rule.allow() {
            true => DeviceAction::Allow,
            false => DeviceAction::Deny,
        };
        let access = rule.access().as_deref().unwrap_or_default();
        let access = DeviceAccess::parse(access).ok_or_else(|| {
            Error::field(format!("{field}.access"), "must be one or more of `r`, `w`, `m`")
        })?;
        let major = number(rule.major(), 12, || format!("{field}.major"))?;
        let minor = number(rule.minor(), 20, || format!("{field}.minor"))?;
        let classes: &[DeviceClass] = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::A if (major, minor, access) == (None, None, DeviceAccess::ALL) => {
                *self = DevicePolicy { default: action, exceptions: Vec::new() };
                return Ok(());
            }
            LinuxDeviceType::A => &[DeviceClass::Char, DeviceClass::Block],
            LinuxDeviceType::C => &[DeviceClass::Char],
            LinuxDeviceType::B => &[DeviceClass::Block],
            LinuxDeviceType::U | LinuxDeviceType::P => {
                return Err(Error::field(format!("{field}.type"), "must be `a`, `b` or `c`"));
            }
        };
        classes.iter().try_for_each(|&class| {
            self.set(action, DeviceRule { class, major, minor, access }, field)
        })
    }

    fn set(&mut self, action: DeviceAction, rule: DeviceRule, field: &str) -> Result<()> {
        if action != self.default {
            self.add(rule);
            return Ok(());
        }
        if let Some(wider) = self.exceptions.iter().find(|e| e.overlaps(&rule) && !e.is_in(&rule)) {
            return Err(Error::field(
                field,
                format!("`{rule}` takes a part out of `{wider}`, which the kernel cannot do"),
            ));
        }
        self.exceptions = std::mem::take(&mut self.exceptions)
            .into_iter()
            .filter_map(|exception| match exception.is_in(&rule) {
                true => exception.without(rule.access),
                false => Some(exception),
            })
            .collect();
        Ok(())
    }

    fn add(&mut self, rule: DeviceRule) {
        match self.exceptions.iter_mut().find(|exception| exception.names_same(&rule)) {
            Some(exception) => exception.access.0 |= rule.access.0,
            None => self.exceptions.push(rule),
        }
    }

    /// What turns a new v1 cgroup, which has its parent's rules, into one of this policy: pairs
    /// of file and line.
    pub(super) fn v1_lines(&self) -> Vec<(&'static str, String)> {
        let (same, opposite) = match self.default {
            DeviceAction::Deny => ("devices.deny", "devices.allow"),
            DeviceAction::Allow => ("devices.allow", "devices.deny"),
        };
        let exceptions = self.exceptions.iter().map(|rule| (opposite, rule.to_string()));
        std::iter::once((same, "a *:* rwm".to_owned())).chain(exceptions).collect()
    }
}

impl DeviceRule {
    /// A line of devices.list. `None` for `a *:* rwm`, and for what is no such line.
    pub(super) fn parse(line: &str) -> Option<DeviceRule> {
        let (class, rest) = line.split_once(' ')?;
        let (numbers, access) = rest.split_once(' ')?;
        let (major, minor) = numbers.split_once(':')?;
        let class = match class {
            "c" => DeviceClass::Char,
            "b" => DeviceClass::Block,
            _ => return None,
        };
        let number = |number: &str| match number {
            "*" => Some(None),
            number => number.parse().ok().map(Some),
        };
        let access = DeviceAccess::parse(access.trim())?;
        Some(DeviceRule { class, major: number(major)?, minor: number(minor)?, access })
    }

    /// Whether both name the same set of devices, whatever the access.
    pub(super) fn names_same(&self, other: &DeviceRule) -> bool {
        (self.class, self.major, self.minor) == (other.class, other.major, other.minor)
    }

    /// The rule with less access; `None` when none is left.
    pub(super) fn without(self, access: DeviceAccess) -> Option<DeviceRule> {
        let rest = self.access.0 & !access.0;
        (rest != 0).then_some(DeviceRule { access: DeviceAccess(rest), ..self })
    }

    /// Whether all devices of this rule are devices of the other one, whatever the access.
    fn is_in(&self, other: &DeviceRule) -> bool {
        let covers = |wide: Option<u32>, narrow: Option<u32>| wide.is_none() || wide == narrow;
        self.class == other.class
            && covers(other.major, self.major)
            && covers(other.minor, self.minor)
    }

    /// Whether there is an access to a device that both speak of.
    fn overlaps(&self, other: &DeviceRule) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.class == other.class
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
            && self.access.0 & other.access.0 != 0
    }
}

/// A device number of the spec: absent and −1 are any. A dev_t of the kernel has 12 bits of
/// major and 20 of minor (linux/kdev_t.h).
fn number(given: Option<i64>, bits: u32, field: impl Fn() -> String) -> Result<Option<u32>> {
    match given {
        None | Some(-1) => Ok(None),
        Some(given) => match u32::try_from(given) {
            Ok(number) if number < 1 << bits => Ok(Some(number)),
            _ => Err(Error::field(field(), format!("{given} is not a device number"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Result<DevicePolicy> {
        DevicePolicy::new(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(rules).unwrap())
    }

    fn lines(rules: &str) -> Vec<String> {
        let policy = policy(rules).unwrap();
        policy.v1_lines().into_iter().map(|(file, line)| format!("{file} {line}")).collect()
    }

    #[test]
    fn without_rules_all_is_denied_but_the_default_devices() {
        let lines = lines("[]");
        assert_eq!(lines[0], "devices.deny a *:* rwm");
        assert_eq!(lines.len(), 1 + ALWAYS.len());
        assert!(lines.contains(&"devices.allow c 1:3 rwm".to_owned()));
        assert!(lines.contains(&"devices.allow b *:* m".to_owned()));
        assert_eq!(policy("[]").unwrap(), policy(r#"[{"allow":false,"access":"rwm"}]"#).unwrap());
    }

    #[test]
    fn a_privileged_container_has_no_exceptions() {
        assert_eq!(lines(r#"[{"allow":true,"access":"rwm"}]"#), ["devices.allow a *:* rwm"]);
    }

    #[test]
    fn rules_for_the_same_device_are_one_exception() {
        let rules = r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},
                        {"allow":true,"type":"b","major":8,"minor":0,"access":"w"},
                        {"allow":true,"type":"b","major":8,"minor":1,"access":"rw"},
                        {"allow":false,"type":"b","major":8,"access":"w"}]"#;
        let lines = lines(rules);
        assert!(lines.contains(&"devices.allow b 8:0 r".to_owned()), "{lines:?}");
        assert!(lines.contains(&"devices.allow b 8:1 r".to_owned()), "{lines:?}");
    }

    #[test]
    fn a_rule_that_punches_a_hole_is_refused() {
        let error = policy(
            r#"[{"allow":true,"type":"c","major":4,"access":"rw"},
                {"allow":false,"type":"c","major":4,"minor":64,"access":"w"}]"#,
        )
        .unwrap_err()
        .to_string();
        assert_eq!(
            error,
            "linux.resources.devices[1]: `c 4:64 w` takes a part out of `c 4:* rw`, \
             which the kernel cannot do"
        );
    }

    #[test]
    fn a_malformed_rule_is_refused_with_its_path() {
        for (rule, field) in [
            (r#"{"allow":true,"access":""}"#, "access"),
            (r#"{"allow":true,"access":"rx"}"#, "access"),
            (r#"{"allow":true}"#, "access"),
            (r#"{"allow":true,"type":"p","access":"r"}"#, "type"),
            (r#"{"allow":true,"type":"c","major":-2,"access":"r"}"#, "major"),
            (r#"{"allow":true,"type":"c","minor":1048576,"access":"r"}"#, "minor"),
        ] {
            let error = policy(&format!("[{rule}]")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("linux.resources.devices[0].{field}: ")), "{error}");
        }
    }

    #[test]
    fn a_policy_survives_as_json() {
        let policy = policy("[]").unwrap();
        let json = serde_json::to_string(&policy).unwrap();
        assert!(json.contains(r#""access":"rwm""#));
        assert_eq!(serde_json::from_str::<DevicePolicy>(&json).unwrap(), policy);
    }
}
