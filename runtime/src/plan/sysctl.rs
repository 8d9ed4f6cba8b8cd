//! `linux.sysctl`: only what a namespace of the container owns may be written.

use std::collections::{BTreeMap, HashMap};

use super::host::{Host, namespace_id};
use super::{Namespace, Namespaces};
use crate::error::{Error, Result};

/// Names of System V IPC that the ipc namespace owns (ipc_namespaces(7), ipc/ipc_sysctl.c).
const IPC: [&str; 11] = [
    "kernel/msg_next_id",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// Values by their path below /proc/sys, in order of the path.
pub(super) fn plan(
    listed: &HashMap<String, String>,
    namespaces: &Namespaces,
    host: &Host,
) -> Result<Vec<(String, String)>> {
    let mut planned = BTreeMap::new();
    for (key, value) in listed {
        let refuse = |why: &str| Err(Error::field(format!("linux.sysctl.{key}"), why.to_owned()));
        let path = path_of(key);
        let crooked = |part: &str| matches!(part, "" | "." | "..");
        if path.split('/').any(crooked) {
            return refuse("is not the name of a sysctl");
        }
        if let Err(why) = check(&path, namespaces, host)? {
            return refuse(why);
        }
        if planned.insert(path, value.clone()).is_some() {
            return refuse("is listed twice, in two spellings");
        }
    }
    Ok(planned.into_iter().collect())
}

/// sysctl(8): the first separator is the one that separates. With dots, a slash stands for a dot
/// in a name (`net.ipv4.conf.eth0/100.forwarding`); with slashes, a dot is a dot.
fn path_of(key: &str) -> String {
    if key.find(['.', '/']).is_some_and(|first| key[first..].starts_with('.')) {
        let swap = |c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        key.chars().map(swap).collect()
    } else {
        key.to_owned()
    }
}

/// Whether a sysctl is the container's own; `Ok(Err(why))` if not.
fn check(
    path: &str,
    namespaces: &Namespaces,
    host: &Host,
) -> Result<std::result::Result<(), &'static str>> {
    let own = |namespace: &Namespace, why| {
        if *namespace == Namespace::Host { Err(why) } else { Ok(()) }
    };
    if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        return Ok(own(&namespaces.ipc, "not allowed in the host's ipc namespace"));
    }
    if path.starts_with("net/") {
        let own = !is_our_net_namespace(&namespaces.net, host)?;
        return Ok(if own { Ok(()) } else { Err("not allowed in the host's network namespace") });
    }
    if path.starts_with("user/") {
        return Ok(own(&namespaces.user, "not allowed without a user namespace"));
    }
    Ok(match path {
        "kernel/domainname" => own(&namespaces.uts, "not allowed in the host's UTS namespace"),
        "kernel/hostname" => Err("not allowed: hostname is a property of the spec"),
        _ => Err("is not in a namespace of the container's own"),
    })
}

/// A path may well lead to the namespace we are in ourselves.
fn is_our_net_namespace(net: &Namespace, host: &Host) -> Result<bool> {
    match net {
        Namespace::Host => Ok(true),
        Namespace::New => Ok(false),
        Namespace::Join(path) => Ok(namespace_id(&path.to_string_lossy())? == host.net_namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::namespaces;
    use crate::spec::Spec;

    const ALL: &str = "ipc,network,uts,user";

    fn plan_of(key: &str, new: &str) -> Result<Vec<(String, String)>> {
        let types: Vec<_> = new.split(',').filter(|kind| !kind.is_empty()).collect();
        let listed: Vec<_> = types.iter().map(|kind| format!(r#"{{"type":"{kind}"}}"#)).collect();
        let map = r#"[{"containerID":0,"hostID":0,"size":1}]"#;
        let maps = if new.contains("user") {
            format!(r#","uidMappings":{map},"gidMappings":{map}"#)
        } else {
            String::new()
        };
        let text = format!(
            r#"{{"ociVersion":"1.0.0","linux":{{"namespaces":[{}],"sysctl":{{"{key}":"1"}}{maps}}}}}"#,
            listed.join(",")
        );
        let spec = Spec::from_json(text.as_bytes()).unwrap();
        let host = Host::example();
        let namespaces = namespaces::plan(&spec, &host).unwrap().namespaces;
        plan(spec.linux.unwrap().sysctl().as_ref().unwrap(), &namespaces, &host)
    }

    #[test]
    fn namespaced_sysctls_are_allowed_in_their_namespace_only() {
        for (key, namespace) in [
            ("kernel.shmmax", "ipc"),
            ("kernel.shm_rmid_forced", "ipc"),
            ("kernel.msgmnb", "ipc"),
            ("kernel.sem", "ipc"),
            ("fs.mqueue.msg_max", "ipc"),
            ("net.ipv4.ip_forward", "network"),
            ("net.core.somaxconn", "network"),
            ("kernel.domainname", "uts"),
            ("user.max_user_namespaces", "user"),
        ] {
            assert!(plan_of(key, namespace).is_ok(), "{key}");
            let others = ALL.split(',').filter(|other| *other != namespace);
            let others = others.collect::<Vec<_>>().join(",");
            let refusal = plan_of(key, &others).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("linux.sysctl.{key}: ")), "{refusal}");
        }
    }

    #[test]
    fn what_is_not_namespaced_is_refused_everywhere() {
        for key in [
            "kernel.hostname",
            "kernel.core_pattern",
            "kernel.pid_max",
            "kernel.shmfoo",
            "vm.swappiness",
            "fs.file-max",
            "net",
            "netx.foo",
            "",
            "net..ipv4",
            "net/../kernel/core_pattern",
            "net./.kernel",
            "/net/ipv4/ip_forward",
        ] {
            assert!(plan_of(key, ALL).is_err(), "{key}");
        }
    }

    #[test]
    fn both_spellings_lead_to_the_same_path() {
        for (key, path) in [
            ("net.ipv4.conf.eth0.forwarding", "net/ipv4/conf/eth0/forwarding"),
            ("net/ipv4/conf/eth0/forwarding", "net/ipv4/conf/eth0/forwarding"),
            ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ] {
            assert_eq!(plan_of(key, ALL).unwrap(), [(path.to_owned(), "1".to_owned())]);
        }
    }

    #[test]
    fn joining_our_own_network_namespace_is_the_hosts() {
        let host =
            Host { net_namespace: namespace_id("/proc/self/ns/net").unwrap(), ..Host::example() };
        let text = br#"{"ociVersion":"1.0.0","linux":{"namespaces":[
            {"type":"network","path":"/proc/self/ns/net"}]}}"#;
        let namespaces = namespaces::plan(&Spec::from_json(text).unwrap(), &host).unwrap();
        let listed = HashMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())]);
        assert_eq!(
            plan(&listed, &namespaces.namespaces, &host).unwrap_err().to_string(),
            "linux.sysctl.net.ipv4.ip_forward: not allowed in the host's network namespace"
        );
        let elsewhere = Host::example();
        assert!(plan(&listed, &namespaces.namespaces, &elsewhere).is_ok());
    }

    #[test]
    fn one_sysctl_in_two_spellings_is_refused() {
        let spec = Spec::from_json(
            br#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"network"}],
            "sysctl":{"net.a.b":"1","net/a/b":"2"}}}"#,
        );
        let spec = spec.unwrap();
        let namespaces = namespaces::plan(&spec, &Host::example()).unwrap().namespaces;
        let linux = spec.linux.unwrap();
        let refusal = plan(linux.sysctl().as_ref().unwrap(), &namespaces, &Host::example());
        assert!(refusal.unwrap_err().to_string().contains("listed twice"));
    }
}
