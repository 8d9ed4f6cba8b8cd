//! seccomp: what the profile forbids is forbidden, in the init and in execs.

use myshim_integration::claim::Claim;
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims};
use serde_json::{Value, json};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_forbidden_syscall_fails_with_the_profiles_errno,
    a_syscalls_arguments_count,
    a_killing_profile_kills,
    an_exec_is_filtered_too,
    a_profile_without_no_new_privileges_is_loaded,
    a_name_that_the_library_does_not_know_is_passed_over,
    another_architecture_may_be_listed,
    flags_are_taken,
    a_large_profile_is_loaded_again_and_again,
];

const ENOTTY: u32 = 25;

fn with(profile: Value) -> impl FnOnce(Spec) -> Spec {
    move |spec| spec.with("/linux/seccomp", profile)
}

fn chmod(action: &str, extra: &Value) -> Value {
    let mut rule = json!({"names": ["chmod", "fchmodat", "fchmodat2"], "action": action});
    for (key, value) in extra.as_object().unwrap() {
        rule[key] = value.clone();
    }
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
}

fn a_forbidden_syscall_fails_with_the_profiles_errno(t: &Test) {
    let profile = chmod("SCMP_ACT_ERRNO", &json!({"errnoRet": ENOTTY}));
    let out = t.run_spec(|s| with(profile)(s).args(&["chmod", "600", "/etc/plain"]));
    out.fails(&["Inappropriate ioctl"]);
    let profile = chmod("SCMP_ACT_ERRNO", &json!({}));
    let out = t.run_spec(|s| with(profile)(s).args(&["chmod", "600", "/etc/plain"]));
    out.fails(&["Operation not permitted"]);
}

fn a_syscalls_arguments_count(t: &Test) {
    // Only the mode 0600, the second argument, is forbidden.
    let rule = json!({
        "names": ["chmod"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 1, "value": 0o600, "op": "SCMP_CMP_EQ"}],
    });
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let out = t.run_spec(|s| {
        with(profile)(s).shell("chmod 644 /etc/plain && echo fine; chmod 600 /etc/plain")
    });
    assert!(out.out().contains("fine") && out.err().contains("not permitted"), "{out}");
}

fn a_killing_profile_kills(t: &Test) {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"] {
        let profile = chmod(action, &json!({}));
        let out = t.run_spec(|s| with(profile)(s).shell("chmod 600 /etc/plain; echo code $?"));
        // SIGSYS is 31.
        assert!(out.out().contains("code 159"), "{out}");
    }
}

fn an_exec_is_filtered_too(t: &Test) {
    let profile = chmod("SCMP_ACT_ERRNO", &json!({"errnoRet": ENOTTY}));
    let c = t.detached_spec("web", |spec| with(profile)(spec).args(&["sleep", "3600"]));
    c.exec(&["chmod", "600", "/etc/plain"]).fails(&["Inappropriate ioctl"]);
    c.remove();
}

fn a_profile_without_no_new_privileges_is_loaded(t: &Test) {
    let profile = chmod("SCMP_ACT_ERRNO", &json!({}));
    let out = t.run_spec(|spec| {
        with(profile)(spec).with("/process/noNewPrivileges", json!(false)).args(&[
            "grep",
            "-E",
            "NoNewPrivs|Seccomp:",
            "/proc/self/status",
        ])
    });
    assert_eq!(out.ok(), "NoNewPrivs:\t0\nSeccomp:\t2\n");
}

fn a_name_that_the_library_does_not_know_is_passed_over(t: &Test) {
    let rule = json!({"names": ["juggle", "chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO"});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let out = t.run_spec(|s| with(profile)(s).args(&["chmod", "600", "/etc/plain"]));
    out.fails(&["Operation not permitted"]);
}

fn another_architecture_may_be_listed(t: &Test) {
    let mut profile = chmod("SCMP_ACT_ERRNO", &json!({}));
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let out = t.run_spec(|s| with(profile)(s).args(&["chmod", "600", "/etc/plain"]));
    out.fails(&["Operation not permitted"]);
}

fn flags_are_taken(t: &Test) {
    let mut profile = chmod("SCMP_ACT_ERRNO", &json!({}));
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    let out = t.run_spec(|s| with(profile)(s).args(&["chmod", "600", "/etc/plain"]));
    out.fails(&["Operation not permitted"]);
    let mut profile = chmod("SCMP_ACT_ERRNO", &json!({}));
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_JUGGLE"]);
    t.run_spec(|spec| with(profile)(spec).args(&["true"])).fails(&["seccomp"]);
}

fn a_large_profile_is_loaded_again_and_again(t: &Test) {
    for _ in 0..3 {
        let out = t.shell(&["--seccomp"], "grep Seccomp: /proc/self/status");
        assert_eq!(out, "Seccomp:\t2\n");
    }
}
