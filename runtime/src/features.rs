//! The features document of the specification (features.md), from the tables that the plan
//! itself works with: what is listed is what is understood.

use oci_spec::runtime::LinuxSeccompAction;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::plan::{
    Host, Namespace, Plan, RootfsSource, capabilities, options, scheduling, seccomp,
};

/// The oldest and the newest version of the specification that is implemented.
pub const OCI_VERSIONS: (&str, &str) = ("1.0.0", "1.3.0");

/// The points of a container's life at which hooks are run.
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Parts of the specification that a plan can describe: which of them can be carried out.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "each is the part of the specification it is called by")]
pub struct Supported {
    pub apparmor: bool,
    pub selinux: bool,
    pub user_namespaces: bool,
    pub time_namespaces: bool,
    pub idmapped_mounts: bool,
    pub seccomp_notify: bool,
    pub net_devices: bool,
    pub intel_rdt: bool,
    pub systemd_cgroups: bool,
    pub systemd_user_cgroups: bool,
}

/// What is refused at plan time, and missing from the features document, is `false` here.
pub const SUPPORTED: Supported = Supported {
    apparmor: true,
    selinux: true,
    user_namespaces: true,
    time_namespaces: true,
    idmapped_mounts: true,
    seccomp_notify: true,
    net_devices: true,
    intel_rdt: true,
    systemd_cgroups: true,
    systemd_user_cgroups: true,
};

impl Supported {
    /// Refuses a plan that cannot be carried out, by the property that asks for what is missing.
    pub(crate) fn check(&self, plan: &Plan) -> Result<()> {
        let namespaces = &plan.namespaces;
        let process = &plan.process;
        let (user, time) = (&namespaces.user, &namespaces.time);
        let (host, label) = (Namespace::Host, &plan.rootfs.mount_label);
        let notify = plan.seccomp.as_ref().is_some_and(|seccomp| seccomp.listener.is_some());
        let spaces = "linux.namespaces";
        let parts = [
            (self.user_namespaces, *user != host, spaces, "user namespaces"),
            (self.time_namespaces, *time != host, spaces, "time namespaces"),
            (self.seccomp_notify, notify, "linux.seccomp.listenerPath", "SCMP_ACT_NOTIFY"),
            (self.net_devices, !plan.net_devices.is_empty(), "linux.netDevices", "net devices"),
            (self.intel_rdt, plan.intel_rdt.is_some(), "linux.intelRdt", "Intel RDT"),
            (
                self.apparmor,
                process.apparmor_profile.is_some(),
                "process.apparmorProfile",
                "AppArmor",
            ),
            (self.selinux, process.selinux_label.is_some(), "process.selinuxLabel", "SELinux"),
            (self.selinux, label.is_some(), "linux.mountLabel", "SELinux"),
        ];
        match parts.iter().find(|(supported, wanted, ..)| *wanted && !supported) {
            Some((_, _, field, part)) => {
                Err(Error::field(*field, format!("{part}: not supported yet")))
            }
            None => self.check_mounts(plan),
        }
    }

    fn check_mounts(&self, plan: &Plan) -> Result<()> {
        let roots = match &plan.rootfs.source {
            RootfsSource::Mounts(mounts) => mounts.as_slice(),
            RootfsSource::Directory(_) => &[],
        };
        let mut mounts = roots.iter().chain(&plan.rootfs.mounts);
        match mounts.find(|mount| mount.idmap.is_some()) {
            Some(mount) if !self.idmapped_mounts => {
                let field = format!("{}.options", mount.field);
                Err(Error::field(field, "idmapped mounts: not supported yet"))
            }
            _ => Ok(()),
        }
    }
}

/// The features document, as JSON.
pub fn features(host: &Host) -> Value {
    let unsafe_annotations: &[&str] =
        if SUPPORTED.systemd_cgroups { &["org.systemd.property."] } else { &[] };
    let (major, minor, micro) = host.libseccomp;
    json!({
        "ociVersionMin": OCI_VERSIONS.0,
        "ociVersionMax": OCI_VERSIONS.1,
        "hooks": HOOKS,
        "mountOptions": mount_options(),
        "linux": {
            "namespaces": namespaces(),
            "capabilities": known_capabilities(host),
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": SUPPORTED.systemd_cgroups,
                "systemdUser": SUPPORTED.systemd_user_cgroups,
                "rdma": true,
            },
            "seccomp": seccomp_features(host),
            "apparmor": { "enabled": SUPPORTED.apparmor },
            "selinux": { "enabled": SUPPORTED.selinux },
            "intelRdt": {
                "enabled": SUPPORTED.intel_rdt,
                "schemata": SUPPORTED.intel_rdt,
                "monitoring": SUPPORTED.intel_rdt,
            },
            "memoryPolicy": {
                "modes": scheduling::MEMORY_POLICY_MODES,
                "flags": scheduling::MEMORY_POLICY_FLAGS,
            },
            "mountExtensions": { "idmap": { "enabled": SUPPORTED.idmapped_mounts } },
            "netDevices": { "enabled": SUPPORTED.net_devices },
        },
        "annotations": {
            "io.myshim.version": env!("CARGO_PKG_VERSION"),
            "io.myshim.libseccomp.version": format!("{major}.{minor}.{micro}"),
        },
        "potentiallyUnsafeConfigAnnotations": unsafe_annotations,
    })
}

fn mount_options() -> Vec<&'static str> {
    let idmap = |option: &&str| matches!(*option, "idmap" | "ridmap");
    options::known().filter(|option| SUPPORTED.idmapped_mounts || !idmap(option)).collect()
}

fn namespaces() -> Vec<&'static str> {
    let always = ["cgroup", "ipc", "mount", "network", "pid"];
    let mut namespaces: Vec<&str> = always.into();
    namespaces.extend(SUPPORTED.time_namespaces.then_some("time"));
    namespaces.extend(SUPPORTED.user_namespaces.then_some("user"));
    namespaces.push("uts");
    namespaces
}

fn known_capabilities(host: &Host) -> Vec<&'static str> {
    let count = usize::from(host.last_capability) + 1;
    capabilities::NAMES.into_iter().take(count).collect()
}

fn seccomp_features(host: &Host) -> Value {
    let notify = |action: &LinuxSeccompAction| *action == LinuxSeccompAction::ScmpActNotify;
    let actions: Vec<_> = seccomp::ACTIONS
        .into_iter()
        .filter(|action| SUPPORTED.seccomp_notify || !notify(action))
        .collect();
    let supported: Vec<_> =
        seccomp::FLAGS.into_iter().filter(|flag| seccomp::is_supported(*flag, host)).collect();
    json!({
        "enabled": true,
        "actions": actions,
        "operators": seccomp::OPERATORS,
        "archs": seccomp::known_architectures().collect::<Vec<_>>(),
        "knownFlags": seccomp::FLAGS,
        "supportedFlags": supported,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_one_of_the_specification() {
        let document = features(&Host::example());
        let parsed: oci_spec::runtime::Features = serde_json::from_value(document).unwrap();
        assert_eq!(parsed.oci_version_max(), "1.3.0");
        let linux = parsed.linux().as_ref().unwrap();
        assert!(linux.seccomp().as_ref().unwrap().archs().as_ref().unwrap().len() >= 16);
        let hooks = parsed.hooks().as_ref().unwrap();
        assert_eq!(hooks.len(), 6);
    }

    #[test]
    fn words_are_those_of_profiles() {
        let document = features(&Host::example());
        let list = |path: &str| {
            let list = document.pointer(path).unwrap().as_array().unwrap();
            list.iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let archs = list("/linux/seccomp/archs");
        for arch in ["SCMP_ARCH_X86_64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_S390X"] {
            assert!(archs.iter().any(|known| known == arch), "{arch}");
        }
        let operators = list("/linux/seccomp/operators");
        assert!(operators.iter().any(|known| known == "SCMP_CMP_MASKED_EQ"));
        let flags = list("/linux/seccomp/supportedFlags");
        assert!(flags.iter().any(|flag| flag == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"));
        assert!(list("/mountOptions").iter().any(|option| option == "rro"));
        assert_eq!(list("/linux/capabilities").len(), 41);
        for path in ["/mountOptions", "/linux/seccomp/archs", "/linux/seccomp/operators"] {
            assert!(list(path).is_sorted(), "{path}");
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_not_listed() {
        let host = Host { kernel: (5, 10), last_capability: 39, ..Host::example() };
        let document = features(&host);
        let flags = document.pointer("/linux/seccomp/supportedFlags").unwrap();
        assert_eq!(flags.as_array().unwrap().len(), 3);
        let capabilities = document.pointer("/linux/capabilities").unwrap();
        assert_eq!(capabilities.as_array().unwrap().len(), 40);
    }

    const NOTHING: Supported = Supported {
        apparmor: false,
        selinux: false,
        user_namespaces: false,
        time_namespaces: false,
        idmapped_mounts: false,
        seccomp_notify: false,
        net_devices: false,
        intel_rdt: false,
        systemd_cgroups: false,
        systemd_user_cgroups: false,
    };

    /// The plan of a container that asks for nothing special.
    fn plan() -> Plan {
        let text = br#"{"ociVersion":"1.3.0","root":{"path":"/r"},
            "process":{"cwd":"/","args":["a"]},"linux":{"namespaces":[{"type":"mount"}]}}"#;
        let request = crate::process::CreateRequest {
            id: "c1".to_owned(),
            bundle: "/bundle".into(),
            state_dir: "/state".into(),
            rootfs: Vec::new(),
            options: crate::process::CreateOptions::default(),
            pid_file: None,
        };
        Plan::new(&request, &crate::spec::Spec::from_json(text).unwrap(), &Host::example()).unwrap()
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_its_property() {
        assert_eq!(NOTHING.check(&plan()), Ok(()));
        let mut user = plan();
        user.namespaces.user = Namespace::New;
        let mut time = plan();
        time.namespaces.time = Namespace::New;
        let mut label = plan();
        label.process.selinux_label = Some("l".to_owned());
        let mut idmap = plan();
        let rootfs = crate::plan::mounts::rootfs_mount(
            "overlay",
            "overlay",
            "",
            &["uidmap=0:1:1", "gidmap=0:1:1"].map(str::to_owned),
        );
        idmap.rootfs.source = RootfsSource::Mounts(vec![rootfs.unwrap()]);
        for (plan, refused) in [
            (user, "linux.namespaces: user namespaces: not supported yet"),
            (time, "linux.namespaces: time namespaces: not supported yet"),
            (label, "process.selinuxLabel: SELinux: not supported yet"),
            (idmap, "rootfs.options: idmapped mounts: not supported yet"),
        ] {
            assert_eq!(NOTHING.check(&plan).unwrap_err().to_string(), refused);
        }
    }
}
