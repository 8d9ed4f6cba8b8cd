//! What a pod's security context asks for.

use std::fs;

use myshim_integration::claim::Claim;
use myshim_integration::containerd::{shim_binary, workspace};
use myshim_integration::cri::{Cri, PodContainer};
use myshim_integration::process::status;
use myshim_integration::{Test, claims};
use serde_json::{Value, json};

use crate::cri_pods::on_host_network;

pub(crate) const CLAIMS: &[Claim] = claims![
    seccomp_profiles_of_a_pod_hold.own_network(),
    a_restricted_security_context_holds.own_network(),
    a_pod_has_a_user_namespace.own_network().once(),
    a_pod_has_a_user_namespace_by_a_handler_with_options.own_network().once(),
];

const SLEEP: &[&str] = &["sleep", "3600"];

fn secured(context: Value) -> impl Fn(&mut Value) {
    move |config| {
        on_host_network(config);
        let place = &mut config["linux"]["security_context"];
        for (key, value) in context.as_object().unwrap() {
            place[key] = value.clone();
        }
    }
}

fn filters(c: &PodContainer<'_>) -> String {
    status(c.pid(), "Seccomp").unwrap()
}

fn seccomp_profiles_of_a_pod_hold(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("web", on_host_network);
    // What the runtime's default profile forbids to a container without CAP_SYS_ADMIN.
    let unshare = &["unshare", "-m", "true"];
    let c = pod.container("default", SLEEP, secured(json!({"seccomp": {"profile_type": 0}})));
    assert_eq!(filters(&c), "2");
    c.exec(unshare).fails(&["not permitted"]);
    let c = pod.container("unconfined", SLEEP, secured(json!({"seccomp": {"profile_type": 1}})));
    assert_eq!(filters(&c), "0");

    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25,
        }],
    });
    let file = t.file("profile.json", &profile.to_string());
    let local = json!({"seccomp": {"profile_type": 2, "localhost_ref": file}});
    let c = pod.container("local", SLEEP, secured(local));
    assert_eq!(filters(&c), "2");
    assert_eq!(c.exec(&["cat", "/etc/plain"]).ok(), "a file\n");
    c.exec(&["chmod", "600", "/etc/plain"]).fails(&["Inappropriate ioctl"]);
    pod.remove();
    cri.finish();
}

fn a_restricted_security_context_holds(t: &Test) {
    let cri = Cri::start(t);
    let pod = cri.pod("web", on_host_network);
    let context = json!({
        "run_as_user": {"value": 1000}, "run_as_group": {"value": 1000},
        "supplemental_groups": [2000], "readonly_rootfs": true, "no_new_privs": true,
        "capabilities": {"drop_capabilities": ["ALL"]},
        "masked_paths": ["/proc/keys"], "readonly_paths": ["/proc/sys"],
    });
    let c = pod.container("app", SLEEP, secured(context));
    assert_eq!(c.exec(&["id"]).ok(), "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n");
    c.exec(&["touch", "/etc/new"]).fails(&["Read-only file system"]);
    assert_eq!(c.exec(&["cat", "/proc/keys"]).ok(), "");
    for pid in [c.pid()] {
        assert_eq!(status(pid, "NoNewPrivs").as_deref(), Some("1"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(pid, set).as_deref(), Some("0000000000000000"), "{set}");
        }
    }
    let inside = c.exec(&["grep", "-E", "^(CapEff|NoNewPrivs)", "/proc/self/status"]).ok();
    assert_eq!(inside, "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n");
    pod.remove();
    cri.finish();
}

fn a_pod_has_a_user_namespace(t: &Test) {
    has_a_user_namespace(t, Cri::start(t));
}

fn a_pod_has_a_user_namespace_by_a_handler_with_options(t: &Test) {
    let shipped = workspace().join("config/containerd-2.x-systemd.toml");
    let shim = shim_binary(t.version()).to_string_lossy().into_owned();
    // Whether systemd makes cgroups is not the question here.
    let drop_in = fs::read_to_string(shipped)
        .unwrap()
        .replace("/usr/local/bin/containerd-shim-myshim-v2", &shim)
        .replace("SystemdCgroup = true", "SystemdCgroup = false");
    has_a_user_namespace(t, Cri::with_drop_in(t, &drop_in));
}

fn has_a_user_namespace(t: &Test, cri: Cri) {
    let info = cri.json(["info"]);
    let handlers = info["runtimeHandlers"].as_array().unwrap();
    let ours = handlers.iter().find(|handler| handler["name"] == "myshim").unwrap();
    assert_eq!(ours["features"]["user_namespaces"], true, "{info}");
    // 0 is POD: what the pod's spec calls hostUsers: false.
    let map = json!([{"host_id": 655_360, "container_id": 0, "length": 65_536}]);
    let users = json!({"mode": 0, "uids": map, "gids": map});
    let apart = |config: &mut Value| {
        config["linux"]["security_context"]["namespace_options"] =
            json!({"pid": 1, "userns_options": users});
    };
    let volume = t.folder("volume");
    std::os::unix::fs::chown(&volume, Some(1000), Some(1000)).unwrap();
    let pod = cri.pod("apart", apart);
    let c = pod.container("app", SLEEP, |config| {
        apart(config);
        config["mounts"] = json!([{
            "container_path": "/volume", "host_path": volume,
            "uidMappings": map, "gidMappings": map,
        }]);
    });
    assert_eq!(status(c.pid(), "Uid").unwrap().split_whitespace().next(), Some("655360"));
    assert_eq!(c.exec(&["id", "-u"]).ok(), "0\n");
    // Its root owns its standard streams: programs that log to /dev/stdout open it.
    c.exec(&["sh", "-c", "echo hello >/proc/1/fd/1"]).ok();
    c.wait_said("hello\n");
    // The image's files are root's inside, and the host's root's on disk: an idmapped mount.
    assert_eq!(c.exec(&["stat", "-c", "%u:%g", "/etc/plain"]).ok(), "0:0\n");
    assert_eq!(c.exec(&["stat", "-c", "%u:%g", "/volume"]).ok(), "1000:1000\n");
    c.exec(&["touch", "/volume/new"]).ok();
    let new = fs::metadata(volume.join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&new), 0);
    let b = pod.container("other", SLEEP, apart);
    let user = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(user(c.pid()), user(b.pid()));
    assert_ne!(user(c.pid()), user(std::process::id()));
    pod.remove();
    cri.finish();
}
