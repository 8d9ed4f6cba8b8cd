use super::*;
use crate::plan::IdMap;
use crate::plan::host::Lsm;
use crate::spec::process_from_json;

fn plan_on(host: &Host, json: &str) -> Result<Process> {
    plan_with(host, None, json)
}

fn plan_with(host: &Host, id_maps: Option<&IdMaps>, json: &str) -> Result<Process> {
    let text = format!(r#"{{"cwd":"/","args":["a"],{json}}}"#);
    let spec = process_from_json(&text).unwrap();
    let inherited = Inherited::Init { linux: None, new_keyring: true };
    plan(&spec, &Context { host, id_maps, inherited }, &mut Vec::new())
}

fn plan_of(json: &str) -> Process {
    plan_on(&Host::example(), json).unwrap()
}

fn refusal(json: &str) -> String {
    plan_on(&Host::example(), json).unwrap_err().to_string()
}

#[test]
fn what_is_absent_has_its_default() {
    let process = plan_of(r#""user":{}"#);
    assert_eq!((process.uid, process.gid, process.umask), (0, 0, 0o022));
    assert!(process.groups.is_empty() && process.rlimits.is_empty());
    assert!(!process.no_new_privileges);
    assert_eq!(process.capabilities, Capabilities::default());
    assert_eq!((process.terminal, process.oom_score_adj), (None, None));
}

#[test]
fn args_and_cwd_are_required() {
    let process = |text| process_from_json(text).unwrap();
    let refusal = |text| {
        let inherited = Inherited::Init { linux: None, new_keyring: true };
        let context = Context { host: &Host::example(), id_maps: None, inherited };
        plan(&process(text), &context, &mut Vec::new()).unwrap_err().to_string()
    };
    assert_eq!(refusal(r#"{"cwd":"/","args":[]}"#), "process.args: is empty");
    assert_eq!(refusal(r#"{"cwd":"/"}"#), "process.args: is empty");
    assert_eq!(refusal(r#"{"cwd":"srv","args":["a"]}"#), "process.cwd: \"srv\" is not absolute");
    assert_eq!(refusal(r#"{"cwd":"","args":["a"]}"#), "process.cwd: \"\" is not absolute");
}

#[test]
fn the_environment_keeps_its_order_and_the_last_of_a_name() {
    let process = plan_of(r#""env":["B=1","A=1","B=2","C=","AB=1","D=x=y"]"#);
    assert_eq!(process.env, ["A=1", "B=2", "C=", "AB=1", "D=x=y"]);
}

#[test]
fn an_empty_home_is_as_good_as_none() {
    assert_eq!(plan_of(r#""env":["HOME=","A=1"]"#).env, ["A=1"]);
    assert_eq!(plan_of(r#""env":["HOME=/root","HOME="]"#).env, [""; 0]);
    assert_eq!(plan_of(r#""env":["HOME=","HOME=/root"]"#).env, ["HOME=/root"]);
}

#[test]
fn an_entry_that_is_none_is_refused() {
    assert_eq!(refusal(r#""env":["A=1","B"]"#), "process.env[1]: has no '='");
    assert_eq!(refusal(r#""env":["=1"]"#), "process.env[0]: has an empty name");
}

#[test]
fn a_terminal_has_a_size_that_fits() {
    let terminal = |json| plan_of(json).terminal;
    assert_eq!(terminal(r#""terminal":true"#), Some(Terminal { rows: 0, columns: 0 }));
    assert_eq!(
        terminal(r#""terminal":true,"consoleSize":{"height":24,"width":80}"#),
        Some(Terminal { rows: 24, columns: 80 })
    );
    assert_eq!(terminal(r#""terminal":false,"consoleSize":{"height":24,"width":80}"#), None);
    assert_eq!(
        refusal(r#""terminal":true,"consoleSize":{"height":24,"width":65536}"#),
        "process.consoleSize.width: 65536 does not fit a terminal, at most 65535 do"
    );
}

#[test]
fn minus_one_is_no_id() {
    for (json, field) in [
        (r#""user":{"uid":4294967295}"#, "uid"),
        (r#""user":{"gid":4294967295}"#, "gid"),
        (r#""user":{"additionalGids":[1,4294967295]}"#, "additionalGids[1]"),
    ] {
        assert_eq!(refusal(json), format!("process.user.{field}: 4294967295 is not an id"));
    }
    assert_eq!(plan_of(r#""user":{"uid":2147483648}"#).uid, 1 << 31);
}

#[test]
fn ids_must_be_mapped_in_the_user_namespace() {
    let map = vec![IdMap { container: 0, host: 1000, size: 10 }];
    let maps = IdMaps { uids: map.clone(), gids: map };
    let plan = |json| plan_with(&Host::example(), Some(&maps), json);
    assert!(plan(r#""user":{"uid":9,"gid":9,"additionalGids":[9]}"#).is_ok());
    for (json, field) in [
        (r#""user":{"uid":10}"#, "uid"),
        (r#""user":{"gid":10}"#, "gid"),
        (r#""user":{"additionalGids":[0,10]}"#, "additionalGids[1]"),
    ] {
        let refusal = plan(json).unwrap_err().to_string();
        let expected = format!("process.user.{field}: 10 is not mapped in the user namespace");
        assert_eq!(refusal, expected);
    }
}

#[test]
fn a_umask_has_nine_bits() {
    assert_eq!(plan_of(r#""user":{"umask":63}"#).umask, 0o077);
    assert_eq!(plan_of(r#""user":{"umask":0}"#).umask, 0);
    assert!(refusal(r#""user":{"umask":512}"#).starts_with("process.user.umask: "));
}

#[test]
fn every_resource_has_the_kernels_number() {
    for number in 0..16 {
        let name = crate::apply::rlimits::name(number);
        let json =
            format!(r#""rlimits":[{{"type":"{name}","soft":1,"hard":18446744073709551615}}]"#);
        let rlimit = Rlimit { resource: number, soft: 1, hard: u64::MAX };
        assert_eq!(plan_of(&json).rlimits, [rlimit], "{name}");
    }
}

#[test]
fn a_resource_listed_twice_and_a_soft_limit_above_the_hard_one_are_refused() {
    let one = r#"{"type":"RLIMIT_CORE","soft":1,"hard":1}"#;
    assert_eq!(
        refusal(&format!(r#""rlimits":[{one},{one}]"#)),
        "process.rlimits[1].type: RLIMIT_CORE is listed twice"
    );
    assert_eq!(
        refusal(r#""rlimits":[{"type":"RLIMIT_CORE","soft":2,"hard":1}]"#),
        "process.rlimits[0].soft: 2 is above the hard limit 1"
    );
}

#[test]
fn an_oom_score_is_in_the_kernels_range() {
    assert_eq!(plan_of(r#""oomScoreAdj":-1000"#).oom_score_adj, Some(-1000));
    assert!(refusal(r#""oomScoreAdj":1001"#).starts_with("process.oomScoreAdj: "));
}

#[test]
fn a_label_needs_its_security_module() {
    let with = |lsm| Host { lsm, ..Host::example() };
    let apparmor = r#""apparmorProfile":"p""#;
    let selinux = r#""selinuxLabel":"l""#;
    assert_eq!(
        plan_on(&with(Lsm::AppArmor), apparmor).unwrap().apparmor_profile.as_deref(),
        Some("p")
    );
    assert_eq!(plan_on(&with(Lsm::SeLinux), selinux).unwrap().selinux_label.as_deref(), Some("l"));
    assert!(refusal(apparmor).starts_with("process.apparmorProfile: AppArmor is not enabled"));
    assert!(refusal(selinux).starts_with("process.selinuxLabel: SELinux is not enabled"));
    let nothing = plan_of(r#""apparmorProfile":"unconfined","selinuxLabel":"""#);
    assert_eq!((nothing.apparmor_profile, nothing.selinux_label), (None, None));
}

#[test]
fn a_personality_is_a_domain_and_no_flags() {
    let personality = |json: &str| personality(&serde_json::from_str::<Linux>(json).unwrap());
    assert_eq!(personality(r#"{"personality":{"domain":"LINUX"}}"#).unwrap(), Some(0));
    assert_eq!(personality(r#"{"personality":{"domain":"LINUX32"}}"#).unwrap(), Some(8));
    assert_eq!(personality("{}").unwrap(), None);
    assert_eq!(
        personality(r#"{"personality":{"domain":"LINUX","flags":["X"]}}"#).unwrap_err().to_string(),
        "linux.personality.flags[0]: no flag is supported"
    );
}

fn tenant_of(init: &Process, json: &str) -> Process {
    let spec = process_from_json(json).unwrap();
    let host = Host::example();
    let context = Context { host: &host, id_maps: None, inherited: Inherited::Tenant(init) };
    plan(&spec, &context, &mut Vec::new()).unwrap()
}

#[test]
fn a_tenant_takes_over_what_it_does_not_say() {
    let init = plan_of(
        r#""user":{"uid":5,"umask":63,"additionalGids":[7]},"oomScoreAdj":500,
        "noNewPrivileges":true,"env":["A=1"],
        "rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":1}],
        "capabilities":{"bounding":["CAP_KILL"]},
        "ioPriority":{"class":"IOPRIO_CLASS_BE","priority":3},
        "scheduler":{"policy":"SCHED_BATCH"},"execCPUAffinity":{"initial":"0"}"#,
    );
    let tenant = tenant_of(&init, r#"{"cwd":"/","args":["b"]}"#);
    let expected = Process {
        args: vec!["b".to_owned()],
        env: Vec::new(),
        uid: 0,
        groups: Vec::new(),
        no_new_privileges: false,
        ..init
    };
    assert_eq!(tenant, expected);
}

#[test]
fn a_tenant_overrides_what_it_says() {
    let init = plan_of(
        r#""oomScoreAdj":500,"rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":1}],
        "capabilities":{"bounding":["CAP_KILL"]}"#,
    );
    let tenant = tenant_of(
        &init,
        r#"{"cwd":"/","args":["b"],"oomScoreAdj":0,"capabilities":{},"noNewPrivileges":true,
        "rlimits":[{"type":"RLIMIT_CPU","soft":2,"hard":2}],"user":{"umask":0}}"#,
    );
    assert_eq!(tenant.oom_score_adj, Some(0));
    assert_eq!(tenant.capabilities, Capabilities::default());
    assert_eq!(tenant.rlimits, [Rlimit { resource: 0, soft: 2, hard: 2 }]);
    assert_eq!(tenant.umask, 0);
    assert!(tenant.no_new_privileges);
}
