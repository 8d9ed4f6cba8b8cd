//! System calls are spoken of by their numbers on one architecture.
#![cfg(target_arch = "x86_64")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::machine::{
    ALLOW, Call, KILL_PROCESS, KILL_THREAD, LOG, NOTIFY, TRAP, errno, run, trace,
};
use super::*;

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn plan_of(json: &str) -> Result<Seccomp> {
    plan(&profile(json), &Host::example())
}

fn program(json: &str) -> Vec<u8> {
    plan_of(json).unwrap().bpf
}

fn refusal(json: &str) -> String {
    plan_of(json).unwrap_err().to_string()
}

/// A profile for x86_64 that says EPERM to all but the rules.
fn denying(rules: &str) -> String {
    format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[{rules}]}}"#
    )
}

const READ: &str = r#"{"names":["read"],"action":"SCMP_ACT_ALLOW"}"#;

#[test]
fn every_action_answers_what_it_is_called() {
    for (action, answer) in [
        (r#""SCMP_ACT_KILL""#, KILL_THREAD),
        (r#""SCMP_ACT_KILL_THREAD""#, KILL_THREAD),
        (r#""SCMP_ACT_KILL_PROCESS""#, KILL_PROCESS),
        (r#""SCMP_ACT_TRAP""#, TRAP),
        (r#""SCMP_ACT_ERRNO""#, errno(1)),
        (r#""SCMP_ACT_ERRNO","errnoRet":22"#, errno(22)),
        (r#""SCMP_ACT_ERRNO","errnoRet":0"#, errno(0)),
        (r#""SCMP_ACT_TRACE""#, trace(1)),
        (r#""SCMP_ACT_TRACE","errnoRet":4711"#, trace(4711)),
        (r#""SCMP_ACT_LOG""#, LOG),
        (r#""SCMP_ACT_NOTIFY""#, NOTIFY),
    ] {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/agent",
            "syscalls":[{{"names":["read"],"action":{action}}}]}}"#
        );
        let program = program(&json);
        assert_eq!(run(&program, &Call::named("read", &[])), answer, "{action}");
        assert_eq!(run(&program, &Call::named("getpid", &[])), ALLOW, "{action}");
    }
}

#[test]
fn the_default_action_holds_for_what_no_rule_names() {
    for (default, answer) in [
        (r#""SCMP_ACT_ERRNO""#, errno(1)),
        (r#""SCMP_ACT_ERRNO","defaultErrnoRet":13"#, errno(13)),
        (r#""SCMP_ACT_KILL_PROCESS""#, KILL_PROCESS),
        (r#""SCMP_ACT_LOG""#, LOG),
    ] {
        let rules = r#"{"names":["read","getpid"],"action":"SCMP_ACT_ALLOW"}"#;
        let json = format!(r#"{{"defaultAction":{default},"syscalls":[{rules}]}}"#);
        let program = program(&json);
        assert_eq!(run(&program, &Call::named("write", &[])), answer, "{default}");
        assert_eq!(run(&program, &Call::named("getpid", &[])), ALLOW, "{default}");
    }
}

#[test]
fn every_operator_compares_as_it_is_called() {
    let big = 1 << 40;
    for (operator, value, value_two, matching, other) in [
        ("EQ", big, 0, &[big][..], &[0, big + 1][..]),
        ("NE", big, 0, &[0, big + 1], &[big]),
        ("LT", big, 0, &[0, big - 1], &[big, big + 1]),
        ("LE", big, 0, &[0, big], &[big + 1]),
        ("GT", big, 0, &[big + 1], &[big, 0]),
        ("GE", big, 0, &[big, big + 1], &[big - 1]),
        ("MASKED_EQ", 0xF0, 0x50, &[0x50, 0x15F, 0x5A], &[0x60, 0]),
    ] {
        let rule = format!(
            r#"{{"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,
            "value":{value},"valueTwo":{value_two},"op":"SCMP_CMP_{operator}"}}]}}"#
        );
        let program = program(&denying(&rule));
        for argument in matching {
            let answer = run(&program, &Call::named("personality", &[*argument]));
            assert_eq!(answer, ALLOW, "{operator} {argument}");
        }
        for argument in other {
            let answer = run(&program, &Call::named("personality", &[*argument]));
            assert_eq!(answer, errno(1), "{operator} {argument}");
        }
    }
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let rule = r#"{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[
        {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":2,"value":5,"op":"SCMP_CMP_EQ"}]}"#;
    let program = program(&denying(rule));
    assert_eq!(run(&program, &Call::named("socket", &[1, 0, 5])), ALLOW);
    assert_eq!(run(&program, &Call::named("socket", &[1, 0, 6])), errno(1));
    assert_eq!(run(&program, &Call::named("socket", &[2, 0, 5])), errno(1));
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let rule = r#"{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[
        {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}"#;
    let program = program(&denying(rule));
    assert_eq!(run(&program, &Call::named("socket", &[1])), ALLOW);
    assert_eq!(run(&program, &Call::named("socket", &[2])), ALLOW);
    assert_eq!(run(&program, &Call::named("socket", &[3])), errno(1));
}

#[test]
fn a_system_call_newer_than_the_profile_is_not_there() {
    for default in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let json = format!(
            r#"{{"defaultAction":"{default}","syscalls":[
            {{"names":["read","openat2"],"action":"SCMP_ACT_ALLOW"}},
            {{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}}]}}"#
        );
        let program = program(&json);
        assert_eq!(run(&program, &Call::named("openat2", &[])), ALLOW, "{default}");
        assert_eq!(run(&program, &Call::named("clone3", &[])), errno(38), "{default}");
        // 437 is openat2's, the highest here; 438 is pidfd_getfd's.
        assert_eq!(run(&program, &Call::numbered(438, &[])), errno(38), "{default}");
        assert_eq!(run(&program, &Call::numbered(9999, &[])), errno(38), "{default}");
        assert_ne!(run(&program, &Call::named("write", &[])), errno(38), "{default}");
    }
}

#[test]
fn a_default_that_lets_pass_or_says_it_itself_needs_no_prologue() {
    for default in [
        r#""SCMP_ACT_ALLOW""#,
        r#""SCMP_ACT_LOG""#,
        r#""SCMP_ACT_TRACE""#,
        r#""SCMP_ACT_ERRNO","defaultErrnoRet":38"#,
    ] {
        let json = format!(r#"{{"defaultAction":{default},"syscalls":[]}}"#);
        assert!(prologue::for_profile(&profile(&json)).unwrap().is_empty(), "{default}");
    }
}

#[test]
fn every_architecture_has_its_own_highest_call() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":
        ["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
        "syscalls":[{"names":["read","chmod"],"action":"SCMP_ACT_ALLOW"}]}"#;
    let program = program(json);
    let call = |arch, number| Call { arch, ..Call::numbered(number, &[]) };
    let (x86_64, x86, x32_bit) = (0xC000_003E, 0x4000_0003, 1 << 30);
    // chmod is 90, 15 and 90 with the bit.
    assert_eq!(run(&program, &call(x86_64, 90)), ALLOW);
    assert_eq!(run(&program, &call(x86_64, 91)), errno(38));
    assert_eq!(run(&program, &call(x86, 15)), ALLOW);
    assert_eq!(run(&program, &call(x86, 16)), errno(38));
    assert_eq!(run(&program, &call(x86_64, x32_bit | 90)), ALLOW);
    assert_eq!(run(&program, &call(x86_64, x32_bit | 91)), errno(38));
    assert_eq!(run(&program, &call(x86_64, x32_bit | 89)), errno(1));
    assert_eq!(run(&program, &call(x86, 14)), errno(1));
    // An architecture that the profile does not list.
    assert_eq!(run(&program, &call(0xC000_00B7, 63)), KILL_THREAD);
}

#[test]
fn x32_is_refused_where_it_is_not_listed() {
    let program = program(&denying(READ));
    assert_eq!(run(&program, &Call::numbered(1 << 30, &[])), KILL_THREAD);
    // A tracer that skips a call sets its number to -1: that is no x32.
    assert_eq!(run(&program, &Call::numbered(u32::MAX, &[])), errno(1));
}

#[test]
fn a_name_that_is_not_known_is_skipped() {
    let rule = r#"{"names":["no_such_call","read"],"action":"SCMP_ACT_ALLOW"}"#;
    assert_eq!(run(&program(&denying(rule)), &Call::named("read", &[])), ALLOW);
}

#[test]
fn a_rule_that_is_the_default_is_skipped() {
    let rule = r#"{"names":["write"],"action":"SCMP_ACT_ERRNO"}"#;
    let program = program(&denying(&format!("{rule},{READ}")));
    assert_eq!(run(&program, &Call::named("write", &[])), errno(1));
}

#[test]
fn many_rules_make_a_tree_that_answers_the_same() {
    let names: Vec<String> = (0..300).step_by(2).filter_map(name_of).collect();
    assert!(names.len() > 100);
    let json = denying(&format!(
        r#"{{"names":{},"action":"SCMP_ACT_ALLOW"}}"#,
        serde_json::to_string(&names).unwrap()
    ));
    let program = program(&json);
    for number in 0..298 {
        let Some(name) = name_of(number) else { continue };
        let allowed = if names.contains(&name) { ALLOW } else { errno(1) };
        let number = u32::try_from(number).unwrap();
        assert_eq!(run(&program, &Call::numbered(number, &[])), allowed, "{name}");
    }
}

fn name_of(number: i32) -> Option<String> {
    let syscall = libseccomp::ScmpSyscall::from_raw_syscall(number);
    syscall.get_name_by_arch(libseccomp::ScmpArch::X8664).ok()
}

#[test]
fn flags_are_the_kernels() {
    let flags = |json: &str| plan_of(json).unwrap().flags;
    let with = |rest: &str| flags(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW"{rest}}}"#));
    assert_eq!(with(""), FLAG_SPEC_ALLOW);
    assert_eq!(with(r#","flags":[]"#), 0);
    assert_eq!(with(r#","flags":["SECCOMP_FILTER_FLAG_LOG"]"#), FLAG_LOG);
    assert_eq!(with(r#","flags":["SECCOMP_FILTER_FLAG_TSYNC"]"#), 0);
    let notify = r#","listenerPath":"/agent","syscalls":[{"names":["mkdir"],
        "action":"SCMP_ACT_NOTIFY"}]"#;
    assert_eq!(with(notify), FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER);
    assert_eq!(
        with(&format!(r#"{notify},"flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#)),
        FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV
    );
}

#[test]
fn flags_that_cannot_be_are_refused_by_field() {
    let flag = r#""flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
    assert_eq!(
        refusal(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{flag}}}"#)),
        "linux.seccomp.flags[1]: is for filters with SCMP_ACT_NOTIFY only"
    );
    let notify = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW",{flag},"listenerPath":"/agent",
        "syscalls":[{{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}}]}}"#
    );
    let old = Host { kernel: (5, 18), ..Host::example() };
    assert_eq!(
        plan(&profile(&notify), &old).unwrap_err().to_string(),
        "linux.seccomp.flags[1]: needs a newer kernel"
    );
}

#[test]
fn a_listener_goes_with_notify_and_with_nothing_else() {
    let notify = r#""syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]"#;
    let with = |rest: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW"{rest}}}"#);
    let listener = |rest: &str| plan_of(&with(rest)).unwrap().listener;
    let json = format!(r#","listenerPath":"/agent","listenerMetadata":"m",{notify}"#);
    let expected = SeccompListener { path: "/agent".into(), metadata: "m".to_owned() };
    assert_eq!(listener(&json), Some(expected));
    assert_eq!(listener(r#","listenerPath":"/agent""#), None);
    for (rest, refused) in [
        (format!(",{notify}"), "listenerPath: SCMP_ACT_NOTIFY needs one"),
        (format!(r#","listenerPath":"a",{notify}"#), "listenerPath: \"a\" is not absolute"),
        (r#","listenerMetadata":"m""#.to_owned(), "listenerMetadata: needs a listenerPath"),
    ] {
        assert_eq!(refusal(&with(&rest)), format!("linux.seccomp.{refused}"));
    }
}

#[test]
fn notify_is_refused_where_it_would_hang() {
    assert_eq!(
        refusal(r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/agent"}"#),
        "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default"
    );
    for name in NEVER_NOTIFY {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/agent",
            "syscalls":[{READ},{{"names":["mkdir","{name}"],"action":"SCMP_ACT_NOTIFY"}}]}}"#
        );
        let refused = format!(
            "linux.seccomp.syscalls[1].names[1]: SCMP_ACT_NOTIFY cannot be used for {name}"
        );
        assert_eq!(refusal(&json), refused);
    }
}

#[test]
fn values_that_no_filter_has_are_refused_by_field() {
    for (json, refused) in [
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#.to_owned(),
            "defaultErrnoRet: SCMP_ACT_ALLOW returns no value",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#.to_owned(),
            "defaultErrnoRet: 4096 is more than 4095",
        ),
        (
            denying(r#"{"names":["read"],"action":"SCMP_ACT_TRACE","errnoRet":65536}"#),
            "syscalls[0].errnoRet: 65536 is more than 65535",
        ),
        (denying(r#"{"names":[""],"action":"SCMP_ACT_ALLOW"}"#), "syscalls[0].names[0]: is empty"),
        (
            denying(
                r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[
                {"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}"#,
            ),
            "syscalls[0].args[0].index: system calls have 6 arguments, counted from 0",
        ),
    ] {
        assert_eq!(refusal(&json), format!("linux.seccomp.{refused}"));
    }
}

/// A cache directory of its own, made by whoever stores first, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("myshim-seccomp-{name}-{}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    fn host(&self) -> Host {
        Host { seccomp_cache: Some(self.0.clone()), ..Host::example() }
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Compiles, and plants a filter that differs under the same key: what comes back next tells
    /// whether the cache was believed.
    fn planted(&self, profile: &LinuxSeccomp) -> Vec<u8> {
        plan(profile, &self.host()).unwrap();
        let key = cache::Key::of(profile, &self.host()).unwrap();
        let other = program(r#"{"defaultAction":"SCMP_ACT_LOG"}"#);
        cache::store(&self.0, &key, &other);
        other
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_filter_is_compiled_once() {
    let scratch = Scratch::new("once");
    let profile = profile(&denying(READ));
    let planted = scratch.planted(&profile);
    assert_eq!(plan(&profile, &scratch.host()).unwrap().bpf, planted);
    let files = scratch.files();
    assert_eq!((files.len(), mode(&files[0]), mode(&scratch.0)), (1, 0o600, 0o700));
}

#[test]
fn a_file_of_the_cache_that_was_tampered_with_is_not_believed() {
    let scratch = Scratch::new("tampered");
    let profile = profile(&denying(READ));
    let right = program(&denying(READ));
    let planted = scratch.planted(&profile);
    let file = scratch.files().remove(0);
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let shorter = whole[..whole.len() - 8].to_vec();
    let no_program = whole[..72].to_vec();
    for bad in [flipped, shorter, no_program, Vec::new(), vec![0; 40 << 10]] {
        std::fs::write(&file, &bad).unwrap();
        assert_eq!(plan(&profile, &scratch.host()).unwrap().bpf, right);
    }
    // And is written anew.
    std::fs::write(&file, &whole).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o620)).unwrap();
    assert_eq!(plan(&profile, &scratch.host()).unwrap().bpf, right);
    assert_ne!(planted, right);
}

#[test]
fn a_file_in_the_place_of_another_is_not_believed() {
    let scratch = Scratch::new("swapped");
    let one = profile(&denying(READ));
    scratch.planted(&one);
    let of_one = scratch.files().remove(0);
    let rules = r#"{"names":["write"],"action":"SCMP_ACT_ALLOW"}"#;
    let other = profile(&denying(rules));
    let right = plan(&other, &scratch.host()).unwrap().bpf;
    let files = scratch.files();
    let of_other = files.iter().find(|file| **file != of_one).unwrap();
    std::fs::copy(&of_one, of_other).unwrap();
    assert_eq!(plan(&other, &scratch.host()).unwrap().bpf, right);
}

#[test]
fn the_key_is_made_of_all_that_a_program_depends_on() {
    let scratch = Scratch::new("key");
    plan(&profile(&denying(READ)), &scratch.host()).unwrap();
    let newer = Host { libseccomp: (2, 6, 0), ..scratch.host() };
    plan(&profile(&denying(READ)), &newer).unwrap();
    assert_eq!(scratch.files().len(), 2);
    // Flags and listener are not in the program.
    let json = denying(READ).replacen('{', r#"{"flags":[],"listenerPath":"/agent","#, 1);
    plan(&profile(&json), &scratch.host()).unwrap();
    assert_eq!(scratch.files().len(), 2);
}

#[test]
fn a_cache_that_cannot_be_written_is_no_failure() {
    let host =
        Host { seccomp_cache: Some(PathBuf::from("/proc/self/no/cache")), ..Host::example() };
    assert!(plan(&profile(&denying(READ)), &host).is_ok());
}

#[test]
fn a_cache_does_not_grow_without_end() {
    let scratch = Scratch::new("full");
    std::fs::create_dir(&scratch.0).unwrap();
    for number in 0..256 {
        std::fs::write(scratch.0.join(number.to_string()), "").unwrap();
    }
    plan(&profile(&denying(READ)), &scratch.host()).unwrap();
    assert_eq!(scratch.files().len(), 256);
}
