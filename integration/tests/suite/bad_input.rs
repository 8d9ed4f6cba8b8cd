//! Bad input: a clear error each, and nothing left behind (every claim ends with the comparison
//! of the host).

use myshim_integration::claim::Claim;
use myshim_integration::command::Output;
use myshim_integration::shim::{Bundle, Dialect, Ends, EventSink, Invocation, Stdio3};
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims};
use serde_json::{Value, json};
use ttrpc::Code;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_broken_config_is_refused.once(),
    a_config_that_is_not_there_is_refused.once(),
    a_config_of_the_wrong_shape_names_the_field.once(),
    a_missing_cwd_is_named,
    a_missing_rootfs_is_named,
    a_rootfs_that_is_a_file_is_refused,
    a_missing_mount_source_is_named,
    an_unknown_mount_type_is_named,
    a_mount_outside_the_root_stays_inside,
    a_namespace_path_that_is_not_there_is_named,
    a_namespace_path_of_another_kind_is_refused,
    an_unknown_namespace_is_named,
    a_namespace_listed_twice_is_refused,
    a_container_without_a_mount_namespace_is_refused,
    a_cgroup_path_that_leads_out_is_refused,
    a_hook_that_is_not_there_is_named,
    a_hook_that_fails_tells_its_code_and_words,
    a_hook_that_takes_too_long_is_killed,
    unknown_values_are_refused_with_their_field,
    numbers_out_of_range_are_refused,
    a_process_without_arguments_is_refused,
    a_hostname_without_a_namespace_is_refused,
    a_sysctl_that_is_not_namespaced_is_refused,
    an_id_in_use_already_exists.once(),
    an_oversize_message_does_not_end_the_shim.once(),
    garbage_on_the_socket_does_not_end_the_shim.once(),
    a_bundle_that_is_not_there_is_refused.once(),
    an_id_that_is_a_path_is_refused.once(),
];

fn refused(t: &Test, words: &[&str], edit: impl FnOnce(Spec) -> Spec) -> Output {
    let out = t.run_spec(|spec| edit(spec.args(&["true"])));
    let text = out.fails(words);
    // One line that says what, not a dump.
    assert!(text.len() < 1500, "too much to read: {text}");
    out
}

/// Starts a shim by hand and creates in it; the error's text. The shim is gone afterwards.
fn create_by_hand(t: &Test, prepare: impl FnOnce(&Bundle)) -> String {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["true"]));
    prepare(&bundle);
    let mut invocation = Invocation::new(t, &bundle, &sink);
    // Some of it is refused at start already, as the config has the annotations.
    let started = invocation.run("start", &invocation.stdin(Dialect::Bootstrap));
    let text = if started.status.success() {
        let shim = invocation.start(Dialect::Bootstrap);
        let error = shim.create(&bundle, &Stdio3::default()).expect_err("a refusal");
        shim.shutdown(&bundle.id, Ends::Yes);
        error.message
    } else {
        started.err() + &started.out()
    };
    invocation.run("delete", b"").ok();
    assert_eq!(sink.of(&bundle.id), [""; 0]);
    text
}

fn a_broken_config_is_refused(t: &Test) {
    let text = create_by_hand(t, |bundle| {
        std::fs::write(bundle.dir.join("config.json"), "{\"ociVersion\": ").unwrap();
    });
    assert!(text.contains("config.json"), "{text}");
}

fn a_config_that_is_not_there_is_refused(t: &Test) {
    let text = create_by_hand(t, |bundle| {
        std::fs::remove_file(bundle.dir.join("config.json")).unwrap();
    });
    assert!(text.contains("config.json"), "{text}");
}

fn a_config_of_the_wrong_shape_names_the_field(t: &Test) {
    let text = create_by_hand(t, |bundle| {
        let file = bundle.dir.join("config.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        Spec(value).with("/process/args", json!("one string")).write(&file);
    });
    assert!(text.contains("process.args"), "{text}");
}

/// One that can be made is made, as with runc: on a read-only file system it cannot.
fn a_missing_cwd_is_named(t: &Test) {
    refused(t, &["working directory", "not"], |spec| {
        spec.with("/process/cwd", json!("/sys/not/there"))
    });
    refused(t, &["cwd"], |spec| spec.with("/process/cwd", json!("relative")));
}

fn a_missing_rootfs_is_named(t: &Test) {
    refused(t, &["/not/there"], |spec| spec.with("/root/path", json!("/not/there")));
}

fn a_rootfs_that_is_a_file_is_refused(t: &Test) {
    let file = t.file("plain", "text").to_string_lossy().into_owned();
    refused(t, &[], |spec| spec.with("/root/path", json!(file)));
}

fn a_missing_mount_source_is_named(t: &Test) {
    refused(t, &["/not/there"], |s| s.mount("bind", "/not/there", "/place", &["rbind"]));
}

fn an_unknown_mount_type_is_named(t: &Test) {
    refused(t, &["/place"], |s| s.mount("nosuchfs", "none", "/place", &[]));
}

fn a_mount_outside_the_root_stays_inside(t: &Test) {
    let folder = t.folder("shared");
    std::fs::write(folder.join("mark"), "mark\n").unwrap();
    let out = t.run_spec(|spec| {
        let source = folder.to_string_lossy().into_owned();
        spec.mount("bind", &source, "/../../../../place", &["rbind"]).args(&["cat", "/place/mark"])
    });
    // Either way is safe: refused, or resolved inside the root.
    if out.status.success() {
        assert_eq!(out.ok(), "mark\n");
    }
    assert!(!std::path::Path::new("/place").exists());
}

fn a_namespace_path_that_is_not_there_is_named(t: &Test) {
    refused(t, &["/not/there"], |spec| spec.join("network", "/not/there"));
}

fn a_namespace_path_of_another_kind_is_refused(t: &Test) {
    refused(t, &["network"], |spec| spec.join("network", "/proc/1/ns/uts"));
    refused(t, &["/etc/passwd"], |spec| spec.join("ipc", "/etc/passwd"));
}

fn an_unknown_namespace_is_named(t: &Test) {
    refused(t, &["flavour"], |s| s.push("/linux/namespaces", json!({"type": "flavour"})));
}

fn a_namespace_listed_twice_is_refused(t: &Test) {
    refused(t, &["ipc"], |s| s.push("/linux/namespaces", json!({"type": "ipc"})));
}

fn a_container_without_a_mount_namespace_is_refused(t: &Test) {
    refused(t, &["linux.namespaces", "mount namespace"], |s| s.host_namespace("mount"));
    let path = "/proc/self/ns/mnt";
    refused(t, &["linux.namespaces", path, "is the host's"], |s| s.join("mount", path));
}

fn a_cgroup_path_that_leads_out_is_refused(t: &Test) {
    let path = format!("/../../{}", t.tag);
    let out = t.run_spec(|s| s.with("/linux/cgroupsPath", json!(path)).args(&["true"]));
    // Refused, or taken as a path below the root; never outside the hierarchies.
    assert!(out.status.success() || out.err().contains("cgroup"), "{out}");
    assert!(!std::path::Path::new("/sys/fs").join(&t.tag).exists());
}

fn a_hook_that_is_not_there_is_named(t: &Test) {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        refused(t, &["/not/there", kind], |spec| {
            spec.push(&format!("/hooks/{kind}"), json!({"path": "/not/there"}))
        });
    }
}

fn a_hook_that_fails_tells_its_code_and_words(t: &Test) {
    let hook = t.script("hook", "echo these words >&2; exit 7");
    refused(t, &["these words", "7", "createRuntime"], |spec| {
        spec.push("/hooks/createRuntime", json!({"path": hook}))
    });
}

fn a_hook_that_takes_too_long_is_killed(t: &Test) {
    let hook = t.script("hook", "exec /bin/sleep 1000");
    refused(t, &["createRuntime"], |spec| {
        spec.push("/hooks/createRuntime", json!({"path": hook, "timeout": 1}))
    });
}

fn unknown_values_are_refused_with_their_field(t: &Test) {
    let seccomp = |value: Value| move |spec: Spec| spec.with("/linux/seccomp", value);
    refused(t, &["rlimits"], |spec| {
        let limit = json!({"type": "RLIMIT_FLAVOUR", "soft": 1, "hard": 1});
        spec.with("/process/rlimits", json!([limit]))
    });
    refused(t, &["rootfsPropagation"], |spec| {
        spec.with("/linux/rootfsPropagation", json!("sideways"))
    });
    refused(t, &["seccomp"], seccomp(json!({"defaultAction": "SCMP_ACT_FLAVOUR"})));
    refused(
        t,
        &["seccomp"],
        seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ABACUS"]})),
    );
    refused(t, &["devices"], |spec| {
        spec.push("/linux/devices", json!({"type": "z", "path": "/dev/zz", "major": 1, "minor": 1}))
    });
}

fn numbers_out_of_range_are_refused(t: &Test) {
    refused(t, &["rlimits"], |spec| {
        let limit = json!({"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10});
        spec.with("/process/rlimits", json!([limit]))
    });
    refused(t, &["oomScoreAdj"], |s| s.with("/process/oomScoreAdj", json!(5000)));
    // -1 as an unsigned number means "do not change", which would leave the program root.
    refused(t, &["uid"], |s| s.with("/process/user/uid", json!(u32::MAX)));
    refused(t, &["gid"], |s| s.with("/process/user/gid", json!(u32::MAX)));
}

fn a_process_without_arguments_is_refused(t: &Test) {
    refused(t, &["args"], |spec| spec.with("/process/args", json!([])));
}

fn a_hostname_without_a_namespace_is_refused(t: &Test) {
    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    refused(t, &["hostname"], |s| s.host_namespace("uts").with("/hostname", json!("box")));
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

fn a_sysctl_that_is_not_namespaced_is_refused(t: &Test) {
    let set = |name: &str, value: &str| json!({name: value});
    refused(t, &["kernel.panic"], |s| s.with("/linux/sysctl", set("kernel.panic", "77")));
    refused(t, &["net.ipv4.ip_forward"], |s| {
        s.host_namespace("network").with("/linux/sysctl", set("net.ipv4.ip_forward", "0"))
    });
}

fn an_id_in_use_already_exists(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
    let mut invocation = Invocation::new(t, &bundle, &sink);
    let shim = invocation.start(Dialect::Bootstrap);
    shim.create(&bundle, &Stdio3::default()).unwrap();
    let error = shim.create(&bundle, &Stdio3::default()).unwrap_err();
    assert_eq!(error.code, Code::ALREADY_EXISTS, "{error:?}");
    // The first is none the worse.
    shim.start(&bundle.id, "").unwrap();
    assert_eq!(shim.status(&bundle.id, ""), "running");
    crate::rpc::end(&shim, &bundle);
    invocation.run("delete", b"").ok();
}

fn an_oversize_message_does_not_end_the_shim(t: &Test) {
    with_shim(t, |address| {
        // A ttrpc header: length, stream, type 1 for a request, flags. 4 MiB is the most.
        let mut header = Vec::new();
        header.extend(64_u32.wrapping_shl(20).to_be_bytes());
        header.extend(1_u32.to_be_bytes());
        header.extend([1, 0]);
        write_until_hangup(address, &header, 64 << 20);
    });
}

fn garbage_on_the_socket_does_not_end_the_shim(t: &Test) {
    with_shim(t, |address| {
        write_until_hangup(address, b"GET / HTTP/1.1\r\n\r\n", 0);
        write_until_hangup(address, &[0xff; 4096], 0);
        write_until_hangup(address, &[0, 0, 0, 4, 0, 0, 0, 1, 1, 0, 0xff, 0xff, 0xff, 0xff], 0);
    });
}

/// A running container behind a shim by hand: it must answer as before after `attack`.
fn with_shim(t: &Test, attack: impl FnOnce(&std::path::Path)) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
    let mut invocation = Invocation::new(t, &bundle, &sink);
    let shim = invocation.start(Dialect::Bootstrap);
    shim.create(&bundle, &Stdio3::default()).unwrap();
    shim.start(&bundle.id, "").unwrap();
    attack(&shim.answer.socket());
    assert_eq!(shim.status(&bundle.id, ""), "running");
    assert_eq!(shim.again().status(&bundle.id, ""), "running");
    crate::rpc::end(&shim, &bundle);
    invocation.run("delete", b"").ok();
}

/// Writes `head` and `more` zeroes; a shim that hangs up in between is right to.
fn write_until_hangup(address: &std::path::Path, head: &[u8], more: usize) {
    use std::io::Write;
    let mut stream = std::os::unix::net::UnixStream::connect(address).unwrap();
    stream.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    stream.write_all(head).unwrap();
    let zeroes = vec![0; 1 << 16];
    for _ in 0..more / zeroes.len() {
        if stream.write_all(&zeroes).is_err() {
            return;
        }
    }
}

fn a_bundle_that_is_not_there_is_refused(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["true"]));
    let mut invocation = Invocation::new(t, &bundle, &sink);
    let shim = invocation.start(Dialect::Bootstrap);
    let error = shim
        .create_with(&bundle, &Stdio3::default(), |r| "/not/there".clone_into(&mut r.bundle))
        .unwrap_err();
    assert!(error.message.contains("/not/there"), "{error:?}");
    shim.shutdown(&bundle.id, Ends::Yes);
    invocation.run("delete", b"").ok();
}

fn an_id_that_is_a_path_is_refused(t: &Test) {
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["true"]));
    let mut invocation = Invocation::new(t, &bundle, &sink);
    let shim = invocation.start(Dialect::Bootstrap);
    for id in ["../../etc", "a/b", "", ".", ".."] {
        let answer =
            shim.create_with(&bundle, &Stdio3::default(), |request| id.clone_into(&mut request.id));
        assert!(answer.is_err(), "{id:?} is taken as an id");
    }
    shim.shutdown(&bundle.id, Ends::Yes);
    invocation.run("delete", b"").ok();
}
