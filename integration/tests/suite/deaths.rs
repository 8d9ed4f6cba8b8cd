//! Each process of the chain killed at each message, and by the kernel for want of memory: the
//! create ends with a message that says who died, of what, at which step, and leaves nothing.

use std::fs;
use std::time::{Duration, Instant};

use myshim_integration::claim::{Claim, Needs};
use myshim_integration::containerd::hold_binary;
use myshim_integration::process::{Process, cgroup_dir, status};
use myshim_integration::shim::{
    Bundle, Dialect, Ends, EventSink, Invocation, Rpc, Shim, Stdio3, shell,
};
use myshim_integration::spec::Spec;
use myshim_integration::test::kill_hard;
use myshim_integration::wait;
use myshim_integration::{Test, claims};
use serde_json::{Value, json};

use crate::facts;

pub(crate) const CLAIMS: &[Claim] = claims![
    an_init_killed_in_front_of_a_hook_is_told,
    an_init_killed_in_its_own_hook_is_told,
    an_init_killed_at_start_is_told,
    a_main_killed_at_a_hook_is_told,
    an_init_that_runs_out_of_memory_is_told,
    an_exec_that_runs_out_of_memory_is_told.once().needs(Needs::CgroupV1),
    init_killed_before_each_message.once().within(120),
    intermediate_killed_before_each_message.once().within(120),
    main_killed_before_each_message.once().within(120),
    a_tenant_and_its_intermediate_killed_before_each_message.once().within(120),
    init_and_tenant_killed_with_a_listener.once().within(120),
    init_and_tenant_killed_between_start_and_execve.once().within(120),
    the_main_of_an_exec_killed_before_each_message.once().within(120),
    a_process_that_is_held_and_let_go_does_no_harm.once(),
];

/// The pid of the test's process whose name begins so, once there is one.
#[track_caller]
fn named(t: &Test, name: &str) -> u32 {
    such(t, name, |_| true)
}

/// [`named`], once it is held (see the runtime's `process::hold`).
#[track_caller]
pub(crate) fn held(t: &Test, name: &str) -> u32 {
    such(t, name, is_held)
}

/// Blocks SIGPWR, whose number is 30, and nothing else: who is about to execute a program may for a
/// moment block all.
pub(crate) fn is_held(pid: u32) -> bool {
    let mask = status(pid, "SigBlk").unwrap_or_default();
    u64::from_str_radix(&mask, 16) == Ok(1 << 29)
}

/// Lets a process that is held go on.
pub(crate) fn let_go(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
}

#[track_caller]
fn such(t: &Test, name: &str, is_it: impl Fn(u32) -> bool) -> u32 {
    let find = || {
        let all = Process::tagged(&t.tag);
        all.values().find(|p| p.comm.starts_with(name) && is_it(p.pid)).map(|p| p.pid)
    };
    wait::within(wait::SOON, find)
        .unwrap_or_else(|| panic!("no {name:?} comes so far: {:#?}", Process::tagged(&t.tag)))
}

/// A hook that says that it runs, and then waits for leave.
struct Gate {
    hook: Value,
    here: std::path::PathBuf,
    go: std::path::PathBuf,
}

impl Gate {
    fn new(t: &Test) -> Self {
        let (here, go) = (t.dir.join("here"), t.dir.join("go"));
        let script = t.script(
            "gate",
            &format!(
                "echo >{}; while [ ! -e {} ]; do sleep 0.05; done",
                here.display(),
                go.display()
            ),
        );
        let hook = json!({"path": script, "env": ["PATH=/usr/bin:/bin"]});
        Self { hook, here, go }
    }

    fn reached(&self) {
        wait::until_true("the hook runs", || self.here.exists());
    }

    fn open(&self) {
        fs::write(&self.go, "").unwrap();
    }
}

/// `ctr run` with a gate at `point`; `act` while it waits there. What `ctr` says then.
fn run_to_gate(t: &Test, point: &str, act: impl FnOnce(&Gate)) -> String {
    let gate = Gate::new(t);
    let id = t.id("run");
    let folder = t.dir.to_string_lossy().into_owned();
    let spec = t
        .spec(&id)
        .mount("bind", &folder, &folder, &["bind"])
        .push(&format!("/hooks/{point}"), gate.hook.clone())
        .args(&["true"]);
    let client = t.ctr_start(t.spec_args(&id, &spec, &["--rm"]));
    gate.reached();
    act(&gate);
    client.finish(myshim_integration::command::LIMIT).fails(&["OCI runtime"])
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

fn an_init_killed_in_front_of_a_hook_is_told(t: &Test) {
    let text = run_to_gate(t, "createRuntime", |gate| {
        kill_hard(named(t, "init:"));
        gate.open();
    });
    assert_says(&text, &["init ended before it answered", "SIGKILL", "step \"namespaces\""]);
}

fn an_init_killed_in_its_own_hook_is_told(t: &Test) {
    let text = run_to_gate(t, "createContainer", |_| kill_hard(named(t, "init:")));
    assert_says(&text, &["await end of the set-up", "init ended", "SIGKILL", "step \"rootfs\""]);
}

fn an_init_killed_at_start_is_told(t: &Test) {
    let text = run_to_gate(t, "startContainer", |_| kill_hard(named(t, "init:")));
    assert_says(&text, &["start failed", "init ended before it answered", "killed by SIGKILL"]);
    assert_says(&text, &["at step \"startContainer hooks\"", "before its execve"]);
}

fn a_main_killed_at_a_hook_is_told(t: &Test) {
    for point in ["createRuntime", "createContainer"] {
        let text = run_to_gate(t, point, |_| kill_hard(named(t, "myshim:main")));
        assert_says(&text, &["main ended before it answered", "SIGKILL"]);
        fs::remove_file(t.dir.join("here")).unwrap();
    }
}

/// In a cgroup so small that the first pages of init are too many.
fn an_init_that_runs_out_of_memory_is_told(t: &Test) {
    let out = t.run_spec(|spec| {
        let limits = json!({"limit": 16 << 10, "swap": 16 << 10});
        spec.with("/linux/resources/memory", limits).args(&["true"])
    });
    out.fails(&["init ended before it answered", "out of memory"]);
}

fn an_exec_that_runs_out_of_memory_is_told(t: &Test) {
    let rig = Rig::new(t, "web", "none/none", |spec| {
        let limits = json!({"limit": 16 << 20, "swap": 16 << 20});
        spec.with("/linux/resources/memory", limits).args(&["sleep", "3600"])
    });
    let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
    let pid = shim.create(&rig.bundle, &Stdio3::default()).unwrap().pid;
    shim.start(id, "").unwrap();
    let memory = cgroup_dir(pid, "memory").unwrap();
    // The kernel is to find the exec, and not the init.
    fs::write("/sys/fs/cgroup/memory/cgroup.procs", pid.to_string()).unwrap();
    let process = shell("true");
    let mut execs = 0;
    // What the kernel has set aside in advance may do for an exec or two.
    let error = wait::until("an exec without memory", || {
        squeeze(&memory);
        execs += 1;
        let exec = format!("e{execs}");
        shim.exec(id, &exec, &process, &Stdio3::default()).unwrap();
        let started = shim.start(id, &exec);
        shim.wait(id, &exec).ok();
        shim.delete(id, &exec).unwrap();
        started.err()
    });
    assert_says(&error.message, &["tenant ended before it answered", "out of memory"]);
    crate::rpc::end(shim, &rig.bundle);
    rig.delete();
}

/// Makes the limit ever smaller, until the kernel finds nothing more to reclaim.
fn squeeze(memory: &std::path::Path) {
    let used = facts::first_of(memory, &["memory.usage_in_bytes"]);
    let mut limit: u64 = used.parse().unwrap();
    while limit > 4096 && fs::write(memory.join("memory.limit_in_bytes"), limit.to_string()).is_ok()
    {
        limit = limit.saturating_sub(16 << 10);
    }
}

/// A shim by hand that holds a process half way (see the runtime's `process::hold`).
pub(crate) struct Rig<'a> {
    t: &'a Test,
    sink: EventSink,
    pub(crate) bundle: Bundle,
    pub(crate) shim: Shim,
}

impl<'a> Rig<'a> {
    pub(crate) fn new(
        t: &'a Test,
        name: &str,
        hold: &str,
        edit: impl FnOnce(Spec) -> Spec,
    ) -> Self {
        let sink = EventSink::listen(t);
        let bundle = Bundle::new(t, name, edit);
        let mut invocation = Invocation::new(t, &bundle, &sink);
        invocation.binary = hold_binary();
        assert!(invocation.binary.exists(), "run `make hold`");
        invocation.env.push(("MYSHIM_HOLD".to_owned(), hold.to_owned()));
        let shim = invocation.start(Dialect::Bootstrap);
        Self { t, sink, bundle, shim }
    }

    /// The error of a call during which the process that is held is killed.
    pub(crate) fn killed<T: Send + std::fmt::Debug>(
        &self,
        name: &str,
        call: impl FnOnce(&Shim) -> Rpc<T> + Send,
    ) -> String {
        let (begin, shim) = (Instant::now(), &self.shim);
        let error = std::thread::scope(|scope| {
            let answer = scope.spawn(|| call(shim));
            kill_hard(held(self.t, name));
            answer.join().unwrap().unwrap_err()
        });
        let limit = wait::scaled(Duration::from_secs(15));
        assert!(begin.elapsed() < limit, "{error:?} took {:?}", begin.elapsed());
        error.message
    }

    /// The pid of the process that is held and let go, and the answer of the call meanwhile.
    fn let_go<T: Send + std::fmt::Debug>(
        &self,
        name: &str,
        call: impl FnOnce(&Shim) -> Rpc<T> + Send,
    ) -> (u32, T) {
        let shim = &self.shim;
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| call(shim));
            let held = held(self.t, name);
            let_go(held);
            (held, answer.join().unwrap().unwrap())
        })
    }

    pub(crate) fn end(self) {
        self.over();
        self.t.finish();
    }

    /// [`Self::end`] while something of the claim's own is still on the host.
    pub(crate) fn over(&self) {
        self.shim.shutdown(&self.bundle.id, Ends::Yes);
        self.delete();
    }

    /// What containerd runs when all is over, or the daemon has died.
    pub(crate) fn delete(&self) {
        Invocation::new(self.t, &self.bundle, &self.sink).run("delete", b"").ok();
    }
}

/// A spec for which the chain has all of its messages.
fn long_way(spec: Spec) -> Spec {
    spec.push("/linux/namespaces", json!({"type": "time"}))
        .push("/linux/namespaces", json!({"type": "user"}))
        .with("/linux/timeOffsets", json!({"monotonic": {"secs": 10}}))
        .with("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 65_536}]))
        .with("/linux/gidMappings", json!([{"containerID": 0, "hostID": 0, "size": 65_536}]))
        .push("/hooks/createRuntime", json!({"path": "/bin/true"}))
        .args(&["sleep", "3600"])
}

/// Creates, kills `name` before it sends `message`, and gives what the client is told.
fn create_killed(t: &Test, name: &str, message: &str) -> String {
    let rig = Rig::new(t, &message.to_lowercase(), &format!("{name}/{message}"), long_way);
    let text = rig.killed(name, |shim| shim.create(&rig.bundle, &Stdio3::default()));
    rig.end();
    text
}

fn init_killed_before_each_message(t: &Test) {
    for (message, step) in [("Entered", "namespaces"), ("Ready", "ready")] {
        let text = create_killed(t, "init", message);
        let step = format!("step {step:?}");
        assert_says(&text, &["init ended before it answered", "killed by SIGKILL", &step]);
    }
}

fn intermediate_killed_before_each_message(t: &Test) {
    for (message, step) in
        [("Map", "namespace"), ("OffsetTime", "namespace"), ("InitForked", "fork")]
    {
        let text = create_killed(t, "inter", message);
        let step = format!("step {step:?}");
        assert_says(&text, &["intermediate ended before it answered", "killed by SIGKILL", &step]);
    }
}

fn main_killed_before_each_message(t: &Test) {
    for message in ["Forked", "Proceed", "Created"] {
        let text = create_killed(t, "myshim:main", message);
        assert_says(&text, &["main ended before it answered", "killed by SIGKILL"]);
    }
}

fn a_tenant_and_its_intermediate_killed_before_each_message(t: &Test) {
    for (name, message, who) in
        [("tenant", "Ready", "tenant"), ("inter", "InitForked", "intermediate")]
    {
        let hold = format!("{name}/{message}");
        let edit = |spec: Spec| {
            let spec = spec.args(&["sleep", "3600"]);
            if name == "inter" { with_agent(t, spec) } else { spec }
        };
        let agent = myshim_integration::agent::Agent::listen(&t.dir.join(format!("agent-{name}")));
        let rig = Rig::new(t, name, &hold, edit);
        let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
        shim.create(&rig.bundle, &Stdio3::default()).unwrap();
        shim.start(id, "").unwrap();
        shim.exec(id, "e", &shell("true"), &Stdio3::default()).unwrap();
        let text = rig.killed(name, |shim| shim.start(id, "e"));
        assert_says(&text, &[who, "ended before it answered", "killed by SIGKILL"]);
        // The container is none the worse.
        assert_eq!(shim.status(id, ""), "running");
        crate::rpc::end(shim, &rig.bundle);
        rig.delete();
        drop(agent);
        t.finish();
    }
}

/// Behind its filter, and before main has fetched the listener.
fn init_and_tenant_killed_with_a_listener(t: &Test) {
    for who in ["init", "tenant"] {
        let agent = myshim_integration::agent::Agent::listen(&t.dir.join("agent-inter"));
        let edit = |spec: Spec| with_agent(t, spec.args(&["sleep", "3600"]));
        let rig = Rig::new(t, who, &format!("{who}/Listener"), edit);
        let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
        let create = |shim: &Shim| shim.create(&rig.bundle, &Stdio3::default());
        let text = if who == "init" {
            rig.killed(who, create)
        } else {
            create(shim).unwrap();
            shim.start(id, "").unwrap();
            shim.exec(id, "e", &shell("true"), &Stdio3::default()).unwrap();
            rig.killed(who, |shim| shim.start(id, "e"))
        };
        let told =
            format!("{who} ended before it answered: killed by SIGKILL, at step \"identity\"");
        assert_says(&text, &["await seccomp listener", &told]);
        if who == "tenant" {
            assert_eq!(shim.status(id, ""), "running");
            crate::rpc::end(shim, &rig.bundle);
            rig.delete();
            t.finish();
        } else {
            rig.end();
        }
        drop(agent);
        fs::remove_file(t.dir.join("agent-inter")).ok();
    }
}

fn the_main_of_an_exec_killed_before_each_message(t: &Test) {
    // Before it has told of the tenant, nobody else knows that there is one.
    for message in ["Forked", "Created"] {
        let edit = |spec: Spec| spec.args(&["sleep", "3600"]);
        let hold = format!("myshim:main/{message}");
        let rig = Rig::new(t, &message.to_lowercase(), &hold, edit);
        let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
        rig.let_go("myshim:main", |shim| shim.create(&rig.bundle, &Stdio3::default()));
        shim.start(id, "").unwrap();
        shim.exec(id, "e", &shell("true"), &Stdio3::default()).unwrap();
        let text = rig.killed("myshim:main", |shim| shim.start(id, "e"));
        assert_says(&text, &["main ended before it answered", "killed by SIGKILL"]);
        assert_eq!(shim.status(id, ""), "running");
        crate::rpc::end(shim, &rig.bundle);
        rig.delete();
        t.finish();
    }
}

fn init_and_tenant_killed_between_start_and_execve(t: &Test) {
    for who in ["init", "tenant"] {
        let edit = |spec: Spec| spec.args(&["sleep", "3600"]);
        let rig = Rig::new(t, who, &format!("{who}/Executing"), edit);
        let (shim, id) = (&rig.shim, rig.bundle.id.as_str());
        shim.create(&rig.bundle, &Stdio3::default()).unwrap();
        let text = if who == "init" {
            rig.killed(who, |shim| shim.start(id, ""))
        } else {
            shim.start(id, "").unwrap();
            shim.exec(id, "e", &shell("true"), &Stdio3::default()).unwrap();
            rig.killed(who, |shim| shim.start(id, "e"))
        };
        let told = format!("{who} ended before it answered: killed by SIGKILL, at step \"start\"");
        assert_says(&text, &[&told, "before its execve"]);
        assert_eq!(shim.status(id, ""), if who == "init" { "stopped" } else { "running" });
        crate::rpc::end(shim, &rig.bundle);
        rig.delete();
        t.finish();
    }
}

/// With a listener an exec goes through an intermediate, and a create does not.
fn with_agent(t: &Test, spec: Spec) -> Spec {
    spec.with(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": t.dir.join("agent-inter"),
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        }),
    )
}

fn a_process_that_is_held_and_let_go_does_no_harm(t: &Test) {
    let rig = Rig::new(t, "web", "init/Ready", long_way);
    let init = rig.let_go("init", |shim| shim.create(&rig.bundle, &Stdio3::default()));
    assert_eq!(init.0, init.1.pid);
    crate::rpc::end(&rig.shim, &rig.bundle);
    rig.delete();
}
