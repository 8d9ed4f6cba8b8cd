//! What the spec sets for a process beside its identity, read back by the init and by an exec.
//!
//! The shim is driven by hand: clients leave out of config.json what their version does not know.

use std::fs;

use myshim_integration::claim::Claim;
use myshim_integration::process::status;
use myshim_integration::shim::{
    Bundle, Dialect, EventSink, Invocation, Shim, Stdio3, make_fifo, open_fifo, shell,
};
use myshim_integration::spec::Spec;
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use serde_json::{Value, json};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    groups_and_umask_are_of_init_and_exec.once(),
    scheduling_is_of_init_and_exec.once(),
    an_exec_ends_on_the_cpus_that_its_spec_says.once(),
    a_memory_policy_is_of_init_and_exec.once(),
    a_personality_is_of_init_and_exec.once(),
    a_session_keyring_is_shared_with_an_exec.once(),
    clocks_are_offset_for_init_and_exec.once(),
    a_console_has_its_size_in_init_and_exec.once(),
];

/// A container that sleeps, behind a shim by hand.
struct Rig<'a> {
    t: &'a Test,
    sink: EventSink,
    bundle: Bundle,
    shim: Shim,
}

impl<'a> Rig<'a> {
    /// Its init runs `script`, whose output is in [`Self::said`], and sleeps.
    fn new(t: &'a Test, script: &str, edit: impl FnOnce(Spec) -> Spec) -> Self {
        let sink = EventSink::listen(t);
        let script = format!("{script}; echo end; exec sleep 3600");
        let bundle = Bundle::new(t, "web", |spec| edit(spec).shell(&script));
        let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
        let rig = Self { t, sink, bundle, shim };
        rig.shim.create(&rig.bundle, &rig.stdio("init")).unwrap();
        rig.shim.start(&rig.bundle.id, "").unwrap();
        // The daemon copies what a program writes, a little later.
        wait::until_true("the init's output", || rig.said("init").ends_with("end\n"));
        rig
    }

    fn stdio(&self, name: &str) -> Stdio3 {
        Stdio3::to_file(&self.t.dir.join(format!("said.{name}")))
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.t.dir.join(format!("said.{name}"))).unwrap()
    }

    /// What the init has printed.
    fn init_said(&self) -> String {
        self.said("init").trim_end_matches("end\n").to_owned()
    }

    /// What an exec of `script` prints.
    fn exec(&self, name: &str, script: &str, edit: impl FnOnce(&mut Value)) -> String {
        let mut process = shell(script);
        edit(&mut process);
        let (shim, id) = (&self.shim, self.bundle.id.as_str());
        shim.exec(id, name, &process, &self.stdio(name)).unwrap();
        shim.start(id, name).unwrap();
        let code = shim.wait(id, name).unwrap().exit_status;
        shim.delete(id, name).unwrap();
        assert_eq!(code, 0, "{}", self.said(name));
        self.said(name)
    }

    fn end(self) {
        crate::rpc::end(&self.shim, &self.bundle);
        Invocation::new(self.t, &self.bundle, &self.sink).run("delete", b"").ok();
    }
}

fn groups_and_umask_are_of_init_and_exec(t: &Test) {
    let user = |gids: &[u32], umask: u32| json!({"uid": 1000, "gid": 1001, "additionalGids": gids, "umask": umask});
    let script = "id -u; id -G; umask";
    let rig = Rig::new(t, script, |spec| spec.with("/process/user", user(&[5, 6], 0o27)));
    assert_eq!(rig.init_said(), "1000\n1001 5 6\n0027\n");
    let said = rig.exec("a", script, |process| process["user"] = user(&[7, 8, 9], 0o77));
    assert_eq!(said, "1000\n1001 7 8 9\n0077\n");
    // Groups are a process's own; a umask that it does not name is the container's.
    let said = rig.exec("b", script, |process| process["user"] = json!({"uid": 3, "gid": 4}));
    assert_eq!(said, "3\n4\n0027\n");
    rig.end();
}

fn scheduling_is_of_init_and_exec(t: &Test) {
    // Fields 19 and 41 of proc(5): nice and the policy's number.
    let script = "cut -d' ' -f19,41 /proc/self/stat; ionice -p $$";
    let rig = Rig::new(t, script, |spec| {
        spec.with("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}))
            .with("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}))
    });
    assert_eq!(rig.init_said(), "7 3\nbest-effort: prio 6\n");
    let said = rig.exec("a", script, |process| {
        process["scheduler"] = json!({"policy": "SCHED_IDLE"});
        process["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    });
    assert!(said.starts_with("0 5\nidle"), "{said}");
    // What an exec does not name is the container's.
    assert_eq!(rig.exec("b", script, |_| ()), "7 3\nbest-effort: prio 6\n");
    rig.end();
}

fn an_exec_ends_on_the_cpus_that_its_spec_says(t: &Test) {
    let all = status(std::process::id(), "Cpus_allowed_list").unwrap();
    let last: u32 = all.rsplit(['-', ',']).next().unwrap().parse().unwrap();
    let script = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    let rig = Rig::new(t, "true", |spec| spec);
    let said = rig.exec("a", script, |process| {
        process["execCPUAffinity"] = json!({"initial": "0", "final": last.to_string()});
    });
    assert_eq!(said.trim(), last.to_string());
    let said = rig.exec("b", script, |_| ());
    assert_eq!(said.trim(), all);
    let mut process = shell("true");
    process["execCPUAffinity"] = json!({"initial": "0", "final": "zero"});
    let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
    shim.exec(id, "c", &process, &Stdio3::default()).unwrap();
    let error = shim.start(id, "c").unwrap_err();
    assert!(error.message.contains("process.execCPUAffinity.final"), "{error:?}");
    shim.delete(id, "c").unwrap();
    rig.end();
}

fn a_memory_policy_is_of_init_and_exec(t: &Test) {
    // Of this process's own mappings, which follow the task's policy.
    let script = "grep -o 'bind[^ ]*' /proc/self/numa_maps | sort -u";
    let rig = Rig::new(t, script, |spec| {
        spec.with("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0"}))
    });
    assert_eq!(rig.init_said(), "bind:0\n");
    assert_eq!(rig.exec("a", script, |_| ()), "bind:0\n");
    rig.end();
}

fn a_personality_is_of_init_and_exec(t: &Test) {
    let script = "uname -m; cat /proc/self/personality";
    let rig =
        Rig::new(t, script, |spec| spec.with("/linux/personality", json!({"domain": "LINUX32"})));
    assert_eq!(rig.init_said(), "i686\n00000008\n");
    assert_eq!(rig.exec("a", script, |_| ()), "i686\n00000008\n");
    rig.end();
}

fn a_session_keyring_is_shared_with_an_exec(t: &Test) {
    let script = "grep -o '^[0-9a-f]*.*keyring *_ses[^:]*' /proc/keys | sed 's/ .* / /'";
    let rig = Rig::new(t, script, |spec| spec.without("/linux/maskedPaths"));
    // Others' keyrings are listed too; the serial number tells whose it is.
    let name = format!("_ses.{}", rig.bundle.id);
    let of = |text: String| text.lines().find(|line| line.ends_with(&name)).map(str::to_owned);
    let init = of(rig.init_said());
    assert!(init.is_some(), "no {name}");
    assert_eq!(of(rig.exec("a", script, |_| ())), init);
    rig.end();
}

fn clocks_are_offset_for_init_and_exec(t: &Test) {
    let script = "cat /proc/self/timens_offsets | tr -s ' ' | tail -n1; cut -d. -f1 /proc/uptime; \
                  readlink /proc/self/ns/time";
    let rig = Rig::new(t, script, |spec| {
        spec.push("/linux/namespaces", json!({"type": "time"})).with(
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 86_400}, "boottime": {"secs": 10_000_000, "nanosecs": 5}}),
        )
    });
    let init = facts::process(t, "sleep 3600").to_string();
    for said in [rig.init_said(), rig.exec("a", script, |_| ())] {
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0].trim(), "boottime 10000000 5", "{said}");
        assert!(lines[1].parse::<u64>().unwrap() >= 10_000_000, "{said}");
        assert_eq!(lines[2], facts::namespace(&init, "time"), "{said}");
    }
    assert_ne!(facts::namespace(&init, "time"), facts::namespace("self", "time"));
    rig.end();
}

fn a_console_has_its_size_in_init_and_exec(t: &Test) {
    let folder = t.folder("shared");
    let fifo = t.dir.join("console");
    make_fifo(&fifo);
    let _reader = open_fifo(&fifo);
    let stdout = fifo.to_string_lossy().into_owned();
    let io = Stdio3 { terminal: true, stdout, ..Stdio3::default() };
    let sink = EventSink::listen(t);
    let size = |height: u32, width: u32| json!({"height": height, "width": width});
    let bundle = Bundle::new(t, "web", |spec| {
        spec.mount("bind", &folder.to_string_lossy(), "/shared", &["bind"])
            .with("/process/terminal", json!(true))
            .with("/process/consoleSize", size(33, 77))
            .shell("stty size >/shared/init; exec sleep 3600")
    });
    let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
    shim.create(&bundle, &io).unwrap();
    shim.start(&bundle.id, "").unwrap();
    let mut process = shell("stty size >/shared/exec");
    process["terminal"] = json!(true);
    process["consoleSize"] = size(44, 88);
    shim.exec(&bundle.id, "e", &process, &io).unwrap();
    shim.start(&bundle.id, "e").unwrap();
    let said = |name: &str| {
        wait::until("the size", || {
            fs::read_to_string(folder.join(name)).ok().filter(|text| text.ends_with('\n'))
        })
    };
    assert_eq!((said("init").as_str(), said("exec").as_str()), ("33 77\n", "44 88\n"));
    shim.wait(&bundle.id, "e").unwrap();
    shim.delete(&bundle.id, "e").unwrap();
    crate::rpc::end(&shim, &bundle);
    Invocation::new(t, &bundle, &sink).run("delete", b"").ok();
}
