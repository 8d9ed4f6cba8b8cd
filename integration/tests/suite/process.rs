//! The process of the spec, read back from /proc inside the container.

use myshim_integration::claim::Claim;
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims};
use serde_json::{Value, json};

pub(crate) const CLAIMS: &[Claim] = claims![
    user_and_groups_are_set,
    an_empty_group_list_clears_the_groups,
    large_ids_are_kept_or_refused,
    capabilities_are_the_five_sets,
    no_capabilities_at_all,
    an_unknown_capability_does_not_stop_the_container,
    no_new_privileges_is_what_the_spec_says,
    rlimits_are_set,
    an_oom_score_is_the_containers_alone,
    umask_is_the_specs_or_022,
    environment_keeps_its_order,
    path_of_the_containers_environment_finds_the_program,
    a_relative_program_is_found_from_the_cwd,
    a_cwd_that_only_the_user_may_enter_works,
    hostname_and_domainname_are_set,
    sysctls_are_set_in_the_namespace,
    signals_are_as_a_new_program_expects,
    the_program_leads_a_session,
    pid_1_is_the_program,
    the_hosts_pid_namespace_can_be_kept,
    affinity_is_not_inherited,
    // containerd 1.6 does not know these fields and drops them.
    io_priority_and_scheduler_are_set.once(),
    personality_is_set,
    a_session_keyring_of_its_own,
    a_user_namespace_maps_ids,
    a_time_namespace_has_its_offsets.once(),
    a_cgroup_namespace_hides_the_path,
];

fn text(t: &Test, edit: impl FnOnce(Spec) -> Spec) -> String {
    t.run_spec(edit).ok()
}

/// The fields of /proc/self/status in the container, by name.
fn status(t: &Test, edit: impl FnOnce(Spec) -> Spec) -> impl Fn(&str) -> String {
    let text = text(t, |spec| edit(spec).args(&["cat", "/proc/self/status"]));
    move |field| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let line = line.unwrap_or_else(|| panic!("no {field} in {text}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn user_and_groups_are_set(t: &Test) {
    let of = status(t, |spec| {
        spec.with("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6]}))
    });
    assert_eq!(of("Uid"), "1000 1000 1000 1000");
    assert_eq!(of("Gid"), "1001 1001 1001 1001");
    assert_eq!(of("Groups"), "5 6");
}

fn an_empty_group_list_clears_the_groups(t: &Test) {
    let of = status(t, |spec| spec.with("/process/user", json!({"uid": 0, "gid": 0})));
    assert_eq!(of("Groups"), "");
}

fn large_ids_are_kept_or_refused(t: &Test) {
    // Some runtimes made root of them (CVE-2024-40635).
    for big in [2_147_483_647_u32, 2_147_483_648, 4_294_967_294] {
        let out = t.run_spec(|spec| {
            spec.with("/process/user", json!({"uid": big, "gid": big})).shell("id -u; id -g")
        });
        if out.status.success() {
            assert_eq!(out.ok(), format!("{big}\n{big}\n"));
        } else {
            assert!(out.err().contains("uid") && big > 2_147_483_647, "{out}");
        }
    }
}

fn capabilities_are_the_five_sets(t: &Test) {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    });
    let user = json!({"uid": 1000, "gid": 1000});
    let of = status(t, |spec| spec.with("/process/capabilities", sets).with("/process/user", user));
    // Chown is 0, kill 5, raw sockets 13. After execve by another user than root, only what is
    // ambient is permitted.
    let kill = "0000000000000020";
    assert_eq!(of("CapBnd"), "0000000000002021");
    assert_eq!(["CapInh", "CapAmb", "CapPrm", "CapEff"].map(&of), [kill; 4]);
}

fn no_capabilities_at_all(t: &Test) {
    let of = status(t, |spec| spec.without("/process/capabilities"));
    for set in ["CapBnd", "CapInh", "CapAmb", "CapPrm", "CapEff"] {
        assert_eq!(of(set), "0000000000000000", "{set}");
    }
}

fn an_unknown_capability_does_not_stop_the_container(t: &Test) {
    let of = status(t, |spec| {
        spec.capabilities(&["CAP_CHOWN"])
            .push("/process/capabilities/bounding", json!("CAP_JUGGLE"))
    });
    assert_eq!(of("CapBnd"), "0000000000000001");
}

fn no_new_privileges_is_what_the_spec_says(t: &Test) {
    for wanted in [true, false] {
        let of = status(t, |spec| spec.with("/process/noNewPrivileges", json!(wanted)));
        assert_eq!(of("NoNewPrivs"), u8::from(wanted).to_string());
    }
    let of = status(t, |spec| spec.without("/process/noNewPrivileges"));
    assert_eq!(of("NoNewPrivs"), "0");
}

fn rlimits_are_set(t: &Test) {
    let limit =
        |kind: &str, soft: u64, hard: u64| json!({"type": kind, "soft": soft, "hard": hard});
    let limits = json!([
        limit("RLIMIT_NOFILE", 77, 99),
        limit("RLIMIT_CORE", 0, 4096),
        limit("RLIMIT_STACK", 4_194_304, 4_194_304),
        limit("RLIMIT_MEMLOCK", 8192, 16384),
    ]);
    let out =
        text(t, |spec| spec.with("/process/rlimits", limits).args(&["cat", "/proc/self/limits"]));
    for (name, soft, hard) in [
        ("Max open files", "77", "99"),
        ("Max core file size", "0", "4096"),
        ("Max stack size", "4194304", "4194304"),
        ("Max locked memory", "8192", "16384"),
    ] {
        let line = out.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let values: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(values, [soft, hard], "{name}");
    }
}

fn an_oom_score_is_the_containers_alone(t: &Test) {
    let c = t.detached_spec("web", |spec| {
        spec.with("/process/oomScoreAdj", json!(444)).args(&["sleep", "3600"])
    });
    let score = |pid: u32| {
        std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned()
    };
    assert_eq!(score(c.pid()), "444");
    assert_ne!(score(c.shim().pid), "444");
    c.remove();
}

fn umask_is_the_specs_or_022(t: &Test) {
    let of = status(t, |spec| spec);
    assert_eq!(of("Umask"), "0022");
    let of = status(t, |spec| spec.with("/process/user/umask", json!(0o077)));
    assert_eq!(of("Umask"), "0077");
}

fn environment_keeps_its_order(t: &Test) {
    let env = json!(["PATH=/bin", "Z=1", "A=2", "M=with = and spaces", "EMPTY="]);
    let out = text(t, |spec| spec.with("/process/env", env).args(&["cat", "/proc/self/environ"]));
    let seen: Vec<&str> = out.split_terminator('\0').collect();
    let wanted = ["PATH=/bin", "Z=1", "A=2", "M=with = and spaces", "EMPTY="];
    assert_eq!(seen[..5], wanted);
    // What runc adds when it is missing is all that may be there besides.
    assert!(seen[5..].iter().all(|entry| entry.starts_with("HOME=")), "{seen:?}");
}

fn path_of_the_containers_environment_finds_the_program(t: &Test) {
    let env = json!(["PATH=/nowhere:/opt:/bin"]);
    assert_eq!(text(t, |s| s.with("/process/env", env).args(&["echo", "hello"])), "hello\n");
    t.run_spec(|s| s.with("/process/env", json!(["PATH=/opt"])).args(&["echo", "hello"]))
        .fails(&["executable file not found in $PATH"]);
}

fn a_relative_program_is_found_from_the_cwd(t: &Test) {
    let out = text(t, |s| s.with("/process/cwd", json!("/bin")).args(&["./echo", "hello"]));
    assert_eq!(out, "hello\n");
}

fn a_cwd_that_only_the_user_may_enter_works(t: &Test) {
    let home = t.rootfs().join("home/app");
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&home, mode).unwrap();
    let out = text(t, |spec| {
        spec.with("/process/user", json!({"uid": 1000, "gid": 1000}))
            .with("/process/cwd", json!("/home/app"))
            .capabilities(&[])
            .args(&["pwd"])
    });
    assert_eq!(out, "/home/app\n");
}

fn hostname_and_domainname_are_set(t: &Test) {
    let out = text(t, |spec| {
        spec.with("/hostname", json!("box")).with("/domainname", json!("example.test")).args(&[
            "cat",
            "/proc/sys/kernel/hostname",
            "/proc/sys/kernel/domainname",
        ])
    });
    assert_eq!(out, "box\nexample.test\n");
}

fn sysctls_are_set_in_the_namespace(t: &Test) {
    let before = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    let sysctl = json!({
        "kernel.shmmni": "777", "net.ipv4.ip_default_ttl": "77", "net.ipv4.conf.lo.rp_filter": "2",
    });
    let out = text(t, |spec| {
        spec.with("/linux/sysctl", sysctl).args(&[
            "cat",
            "/proc/sys/kernel/shmmni",
            "/proc/sys/net/ipv4/ip_default_ttl",
            "/proc/sys/net/ipv4/conf/lo/rp_filter",
        ])
    });
    assert_eq!(out, "777\n77\n2\n");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), before);
}

fn signals_are_as_a_new_program_expects(t: &Test) {
    let of = status(t, |spec| spec);
    let c = t.sleeper("web", &[]);
    let out = c.exec(&["cat", "/proc/self/status"]).ok();
    let of_exec = |set: &str| out.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        for mask in [of(set).as_str(), of_exec(set).trim_start_matches([':', '\t'])] {
            // Signals 32 and 33 are glibc's own: whoever starts containerd by posix_spawn has
            // them ignored in it, and no program can tell.
            let mask = u64::from_str_radix(mask, 16).unwrap() & !(3 << 31);
            assert_eq!(mask, 0, "{set}");
        }
    }
    c.remove();
}

fn the_program_leads_a_session(t: &Test) {
    let out = text(t, |spec| spec.shell("cut -d' ' -f5,6 /proc/1/stat"));
    assert_eq!(out, "1 1\n");
}

fn pid_1_is_the_program(t: &Test) {
    assert_eq!(text(t, |spec| spec.shell("echo $$; cat /proc/1/comm; true")), "1\nsh\n");
}

fn the_hosts_pid_namespace_can_be_kept(t: &Test) {
    let out = text(t, |spec| spec.host_namespace("pid").args(&["readlink", "/proc/self/ns/pid"]));
    assert_eq!(out.trim(), crate::facts::namespace("self", "pid"));
}

fn affinity_is_not_inherited(t: &Test) {
    let all = std::fs::read_to_string("/proc/1/status").unwrap();
    let wanted = all.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
    let of = status(t, |spec| spec);
    assert_eq!(of("Cpus_allowed_list"), wanted.split_whitespace().nth(1).unwrap());
}

fn io_priority_and_scheduler_are_set(t: &Test) {
    let c = t.detached_spec("web", |spec| {
        spec.with("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}))
            .with("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}))
            .args(&["sleep", "3600"])
    });
    let out = c.exec(&["ionice", "-p", "1"]).ok();
    assert!(out.contains("idle"), "{out}");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", c.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Fields 19 and 41 of proc(5): nice and policy; SCHED_BATCH is 3.
    assert_eq!((fields[16], fields[38]), ("7", "3"), "{stat}");
    c.remove();
}

fn personality_is_set(t: &Test) {
    let out = text(t, |spec| {
        spec.with("/linux/personality", json!({"domain": "LINUX32"})).args(&["uname", "-m"])
    });
    assert_eq!(out, "i686\n");
}

fn a_session_keyring_of_its_own(t: &Test) {
    // The host's keys are not to be had through the session keyring.
    let out = text(t, |spec| spec.without("/linux/maskedPaths").args(&["cat", "/proc/keys"]));
    assert!(out.contains("_ses"), "{out}");
}

fn a_user_namespace_maps_ids(t: &Test) {
    let root = t.rootfs();
    let maps = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    let mut chown = std::process::Command::new("chown");
    chown.args(["-hR", "200000:200000"]).arg(&root);
    myshim_integration::command::run(chown, myshim_integration::command::LIMIT).ok();
    let c = t.detached_spec("web", |spec| {
        spec.push("/linux/namespaces", json!({"type": "user"}))
            .with("/linux/uidMappings", maps.clone())
            .with("/linux/gidMappings", maps)
            .args(&["sleep", "3600"])
    });
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", c.pid())).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "200000", "65536"]);
    let uid = myshim_integration::process::status(c.pid(), "Uid").unwrap();
    assert!(uid.starts_with("200000"), "{uid}");
    assert_eq!(c.exec(&["id", "-u"]).ok(), "0\n");
    c.remove();
}

fn a_time_namespace_has_its_offsets(t: &Test) {
    let out = text(t, |spec| {
        spec.push("/linux/namespaces", json!({"type": "time"}))
            .with("/linux/timeOffsets", json!({"boottime": {"secs": 10_000_000, "nanosecs": 0}}))
            .args(&["cat", "/proc/uptime"])
    });
    let uptime: f64 = out.split_whitespace().next().unwrap().parse().unwrap();
    assert!(uptime > 10_000_000.0, "{out}");
}

fn a_cgroup_namespace_hides_the_path(t: &Test) {
    let own = |value: Value| move |spec: Spec| spec.push("/linux/namespaces", value);
    let spec = |spec: Spec| own(json!({"type": "cgroup"}))(spec.host_namespace("cgroup"));
    let out = text(t, |s| spec(s).args(&["cat", "/proc/self/cgroup"]));
    assert!(out.lines().all(|line| line.ends_with(":/")), "{out}");
}
