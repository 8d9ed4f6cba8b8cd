//! AppArmor profiles, as the kernel and the processes themselves tell them.

use std::path::PathBuf;
use std::process::Command;

use myshim_integration::claim::{Claim, Needs};
use myshim_integration::command::{self, Output};
use myshim_integration::shim::{Bundle, Dialect, EventSink, Invocation, Stdio3, shell};
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims};
use serde_json::json;

pub(crate) const CLAIMS: &[Claim] = claims![
    a_profile_confines_init_and_every_exec.needs(Needs::AppArmor),
    an_exec_may_have_a_profile_of_its_own.once().needs(Needs::AppArmor),
    a_profile_is_set_through_a_true_procfs.needs(Needs::AppArmor),
    a_profile_that_is_not_loaded_is_refused_by_name.needs(Needs::AppArmor),
    unconfined_is_a_profile_too.needs(Needs::AppArmor),
    ctr_loads_and_names_profiles.needs(Needs::AppArmor),
    a_profile_is_refused_where_apparmor_is_off.needs(Needs::NoAppArmor),
    unconfined_is_what_a_host_without_apparmor_gives.needs(Needs::NoAppArmor),
];

/// A process tells its own profile; `attr/apparmor/current` is AppArmor's own file.
const TELL: &str = "cat /proc/self/attr/apparmor/current";

/// A profile in the kernel; removed at the end.
struct Profile {
    name: String,
    file: PathBuf,
}

impl Profile {
    /// It allows everything but writing `/denied`.
    fn load(t: &Test, name: &str) -> Self {
        let name = t.id(name);
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  capability,\n  \
             network,\n  mount,\n  umount,\n  pivot_root,\n  ptrace,\n  signal,\n  unix,\n  file,\n  \
             deny /denied w,\n}}\n"
        );
        let profile = Self { file: t.file(&name, &text), name };
        profile.parse("--add").ok();
        profile
    }

    fn parse(&self, action: &str) -> Output {
        let mut parser = Command::new("/usr/sbin/apparmor_parser");
        parser.args(["--skip-cache", action]).arg(&self.file);
        command::run(parser, command::LIMIT)
    }

    fn enforced(&self) -> String {
        format!("{} (enforce)\n", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        drop(self.parse("--remove"));
    }
}

fn confined(spec: Spec, profile: &Profile) -> Spec {
    spec.with("/process/apparmorProfile", json!(profile.name))
}

fn a_profile_confines_init_and_every_exec(t: &Test) {
    let profile = Profile::load(t, "p");
    let script = format!("{TELL}; echo x >/allowed && echo x >/denied");
    let out = t.run_spec(|spec| confined(spec.shell(&script), &profile));
    assert_eq!(out.out(), profile.enforced(), "{out}");
    assert!(out.err().contains("/denied: Permission denied"), "{out}");

    let c = t.detached_spec("web", |spec| confined(spec.args(&["sleep", "3600"]), &profile));
    let out = c.exec(&["sh", "-c", &script]);
    assert_eq!(out.out(), profile.enforced(), "{out}");
    assert!(out.err().contains("/denied: Permission denied"), "{out}");
    c.remove();
}

fn an_exec_may_have_a_profile_of_its_own(t: &Test) {
    let [first, second] = ["p", "q"].map(|name| Profile::load(t, name));
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| confined(spec.args(&["sleep", "3600"]), &first));
    let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
    shim.create(&bundle, &Stdio3::default()).unwrap();
    shim.start(&bundle.id, "").unwrap();
    for (exec, profile) in [("e", None), ("f", Some(&second))] {
        let told = t.dir.join(exec);
        let mut process = shell(TELL);
        if let Some(profile) = profile {
            process["apparmorProfile"] = json!(profile.name);
        }
        shim.exec(&bundle.id, exec, &process, &Stdio3::to_file(&told)).unwrap();
        shim.start(&bundle.id, exec).unwrap();
        assert_eq!(shim.wait(&bundle.id, exec).unwrap().exit_status, 0);
        shim.delete(&bundle.id, exec).unwrap();
        let wanted = profile.unwrap_or(&first).enforced();
        assert_eq!(std::fs::read_to_string(&told).unwrap(), wanted);
    }
    let mut process = shell(TELL);
    process["apparmorProfile"] = json!("no-such-profile");
    shim.exec(&bundle.id, "g", &process, &Stdio3::default()).unwrap();
    let error = shim.start(&bundle.id, "g").unwrap_err();
    assert!(error.message.contains("process.apparmorProfile"), "{error:?}");
    assert!(error.message.contains("\"no-such-profile\" is not loaded"), "{error:?}");
    crate::rpc::end(&shim, &bundle);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}

fn a_profile_is_set_through_a_true_procfs(t: &Test) {
    // CVE-2019-16884: an image with a /proc of its own swallows what is written there.
    let profile = Profile::load(t, "p");
    let proc = t.rootfs().join("proc");
    for task in ["self", "thread-self"] {
        let attr = proc.join(task).join("attr");
        std::fs::create_dir_all(attr.join("apparmor")).unwrap();
        for file in ["exec", "apparmor/exec"] {
            std::fs::write(attr.join(file), "").unwrap();
        }
    }
    let c = t.detached_spec("web", |mut spec| {
        let mounts = spec.0["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/proc");
        let spec = spec.args(&["sleep", "3600"]).with("/linux/maskedPaths", json!([]));
        confined(spec.with("/linux/readonlyPaths", json!([])), &profile)
    });
    let current = format!("/proc/{}/attr/apparmor/current", c.pid());
    assert_eq!(std::fs::read_to_string(current).unwrap(), profile.enforced());
    let exec = c.exec(&["sh", "-c", "echo x >/denied"]);
    assert!(exec.err().contains("/denied: Permission denied"), "{exec}");
    c.remove();
}

fn a_profile_that_is_not_loaded_is_refused_by_name(t: &Test) {
    let name = t.id("nowhere");
    let out = t.run_spec(|spec| {
        spec.with("/process/apparmorProfile", json!(name)).args(&["echo", "runs"])
    });
    out.fails(&["process.apparmorProfile", &format!("AppArmor profile \"{name}\" is not loaded")]);
    assert_eq!(out.out(), "");
}

fn unconfined_is_a_profile_too(t: &Test) {
    let out =
        t.run_spec(|spec| spec.with("/process/apparmorProfile", json!("unconfined")).shell(TELL));
    assert_eq!(out.ok(), "unconfined\n");
}

fn ctr_loads_and_names_profiles(t: &Test) {
    let mut default = Profile::load(t, "p");
    assert_eq!(t.shell(&["--apparmor-profile", &default.name], TELL), default.enforced());
    // ctr makes and loads this one itself, with the words of the runtimes' default profile.
    default.name = t.id("d");
    let out = t.run(&["--apparmor-default-profile", &default.name], &["sh", "-c", TELL]);
    default.file = t.file("default", &format!("profile {} {{}}\n", default.name));
    assert_eq!(out.ok(), default.enforced());
}

fn a_profile_is_refused_where_apparmor_is_off(t: &Test) {
    let out = t.run_spec(|spec| {
        spec.with("/process/apparmorProfile", json!("some")).args(&["echo", "runs"])
    });
    out.fails(&["process.apparmorProfile", "AppArmor is not enabled on this host"]);
    assert_eq!(out.out(), "");
}

fn unconfined_is_what_a_host_without_apparmor_gives(t: &Test) {
    let out = t.run_spec(|spec| {
        spec.with("/process/apparmorProfile", json!("unconfined")).args(&["echo", "runs"])
    });
    assert_eq!(out.ok(), "runs\n");
}
