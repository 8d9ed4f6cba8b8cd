//! `process.capabilities`: names to bits.

use super::{Capabilities, host::Host};
use crate::error::{Error, Result};
use crate::spec::process;

/// Names by number (include/uapi/linux/capability.h).
pub(crate) const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The five sets. A set that is not given is empty.
///
/// A name that is unknown here or to the kernel is left out with a warning, as the specification
/// has it; so is an ambient capability that is not permitted and inheritable as well, which the
/// kernel would not raise.
pub(super) fn plan(
    sets: &process::Capabilities,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<Capabilities> {
    let mut unknown = Vec::new();
    let mut bits = |names: &Option<Vec<String>>| {
        let mut bits = 0;
        for name in names.as_deref().unwrap_or_default() {
            match bit(name, host) {
                Some(bit) => bits |= bit,
                None if unknown.contains(name) => {}
                None => unknown.push(name.clone()),
            }
        }
        bits
    };
    let mut capabilities = Capabilities {
        bounding: bits(&sets.bounding),
        effective: bits(&sets.effective),
        permitted: bits(&sets.permitted),
        inheritable: bits(&sets.inheritable),
        ambient: bits(&sets.ambient),
    };
    if !unknown.is_empty() {
        unknown.sort();
        let unknown = unknown.join(", ");
        warnings.push(format!("process.capabilities: unknown or unavailable, ignored: {unknown}"));
    }
    let lacking = capabilities.effective & !capabilities.permitted;
    if lacking != 0 {
        let why = format!("{} must be permitted as well", names_of(lacking));
        return Err(Error::field("process.capabilities.effective", why));
    }
    let raisable = capabilities.permitted & capabilities.inheritable;
    let lost = capabilities.ambient & !raisable;
    if lost != 0 {
        warnings.push(format!(
            "process.capabilities.ambient: not permitted and inheritable, ignored: {}",
            names_of(lost)
        ));
        capabilities.ambient &= raisable;
    }
    Ok(capabilities)
}

fn bit(name: &str, host: &Host) -> Option<u64> {
    let number = NAMES.iter().position(|known| *known == name)?;
    (number <= usize::from(host.last_capability)).then(|| 1 << number)
}

fn names_of(bits: u64) -> String {
    let names = NAMES.iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0);
    names.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(json: &str) -> process::Capabilities {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn names_become_the_kernels_bits() {
        let sets = sets(
            r#"{"bounding":["CAP_CHOWN","CAP_CHECKPOINT_RESTORE"],"effective":["CAP_KILL"],
            "permitted":["CAP_KILL","CAP_CHOWN"],"inheritable":null}"#,
        );
        let mut warnings = Vec::new();
        let planned = plan(&sets, &Host::example(), &mut warnings).unwrap();
        assert_eq!(planned.bounding, 1 | 1 << 40);
        assert_eq!(planned.effective, 1 << 5);
        assert_eq!(planned.permitted, 1 | 1 << 5);
        assert_eq!((planned.inheritable, planned.ambient), (0, 0));
        assert!(warnings.is_empty());
    }

    #[test]
    fn an_unknown_name_is_a_warning_and_nothing_else() {
        let sets =
            sets(r#"{"bounding":["CAP_SPACE","CAP_CHOWN","cap_kill"],"permitted":["CAP_SPACE"]}"#);
        let mut warnings = Vec::new();
        let planned = plan(&sets, &Host::example(), &mut warnings).unwrap();
        assert_eq!(planned, Capabilities { bounding: 1, ..Capabilities::default() });
        assert_eq!(
            warnings,
            ["process.capabilities: unknown or unavailable, ignored: CAP_SPACE, cap_kill"]
        );
    }

    #[test]
    fn a_capability_the_kernel_does_not_have_is_a_warning() {
        let host = Host { last_capability: 37, ..Host::example() };
        let mut warnings = Vec::new();
        let planned = plan(&sets(r#"{"bounding":["CAP_BPF"]}"#), &host, &mut warnings).unwrap();
        assert_eq!(planned.bounding, 0);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn an_ambient_capability_that_cannot_be_raised_is_a_warning() {
        let sets = sets(
            r#"{"permitted":["CAP_KILL","CAP_CHOWN"],"inheritable":["CAP_KILL"],
            "ambient":["CAP_KILL","CAP_CHOWN"]}"#,
        );
        let mut warnings = Vec::new();
        let planned = plan(&sets, &Host::example(), &mut warnings).unwrap();
        assert_eq!(planned.ambient, 1 << 5);
        assert!(warnings[0].ends_with("CAP_CHOWN"), "{warnings:?}");
    }

    #[test]
    fn what_is_effective_must_be_permitted() {
        let sets = sets(r#"{"effective":["CAP_KILL"]}"#);
        assert_eq!(
            plan(&sets, &Host::example(), &mut Vec::new()).unwrap_err().to_string(),
            "process.capabilities.effective: CAP_KILL must be permitted as well"
        );
    }
}
