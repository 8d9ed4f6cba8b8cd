//! SELinux labels, as the kernel and the processes themselves tell them. The policy is the guest's,
//! `integration/guest/selinux.cil`: what is in a container's label may write containers' files only.

use std::fs;
use std::path::Path;

use containerd_shim_protos::shim::shim::CreateTaskRequest;
use myshim_integration::claim::{Claim, Needs};
use myshim_integration::command::LIMIT;
use myshim_integration::shim::{
    Bundle, Dialect, EventSink, Invocation, Shim, Stdio3, mount, shell,
};
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims, host};
use serde_json::{Value, json};

pub(crate) const CLAIMS: &[Claim] = claims![
    a_label_confines_init_and_every_exec.needs(Needs::SeLinux),
    an_exec_may_have_a_label_of_its_own.needs(Needs::SeLinux).once(),
    a_label_is_taken_behind_no_new_privileges.needs(Needs::SeLinux).once(),
    a_session_keyring_has_the_containers_label.needs(Needs::SeLinux).once(),
    a_mount_label_is_on_what_is_mounted_for_the_container.needs(Needs::SeLinux),
    a_terminal_has_the_mount_label.needs(Needs::SeLinux).once(),
    a_root_may_come_with_a_context.needs(Needs::SeLinux).once(),
    a_label_that_the_policy_does_not_know_is_refused_by_name.needs(Needs::SeLinux),
    a_label_that_may_not_be_entered_is_told.needs(Needs::SeLinux).once(),
    a_label_is_refused_where_selinux_is_off.needs(Needs::NoSeLinux),
];

const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const FILES: &str = "system_u:object_r:container_file_t:s0:c1,c2";

/// A process tells its own label.
const TELL: &str = "cat /proc/self/attr/current; echo";

/// The root's files belong to the host, those of a tmpfs to the container.
const TRY: &str = "cat /proc/self/attr/current; echo; echo x >/dev/shm/mine && echo x >/denied";

fn labelled(spec: Spec) -> Spec {
    spec.with("/process/selinuxLabel", json!(PROCESS)).with("/linux/mountLabel", json!(FILES))
}

#[track_caller]
fn is_confined(out: &myshim_integration::command::Output) {
    assert_eq!(out.out().trim_end_matches(['\0', '\n']), PROCESS, "{out}");
    assert!(out.err().contains("/denied: Permission denied"), "{out}");
}

fn a_label_confines_init_and_every_exec(t: &Test) {
    is_confined(&t.run_spec(|spec| labelled(spec.shell(TRY))));
    let c = t.detached_spec("web", |spec| labelled(spec.args(&["sleep", "3600"])));
    is_confined(&c.exec(&["sh", "-c", TRY]));
    let current = fs::read_to_string(format!("/proc/{}/attr/current", c.pid())).unwrap();
    assert_eq!(current.trim_end_matches('\0'), PROCESS);
    c.remove();
    // Made, as a directory may be written here, and not written.
    assert_eq!(fs::metadata(t.rootfs().join("denied")).unwrap().len(), 0);
}

/// A shim by hand.
struct Rig<'a> {
    t: &'a Test,
    sink: EventSink,
    bundle: Bundle,
    shim: Shim,
}

impl<'a> Rig<'a> {
    fn new(t: &'a Test, edit: impl FnOnce(Spec) -> Spec) -> Self {
        let sink = EventSink::listen(t);
        let bundle = Bundle::new(t, "web", edit);
        let shim = Invocation::new(t, &bundle, &sink).start(Dialect::Bootstrap);
        Self { t, sink, bundle, shim }
    }

    fn says(&self, exec: &str, process: &Value) -> String {
        let (id, told) = (&self.bundle.id, self.t.dir.join(exec));
        self.shim.exec(id, exec, process, &Stdio3::to_file(&told)).unwrap();
        self.shim.start(id, exec).unwrap();
        assert_eq!(self.shim.wait(id, exec).unwrap().exit_status, 0);
        self.shim.delete(id, exec).unwrap();
        let text = fs::read_to_string(&told).unwrap();
        text.trim_end_matches(['\n', '\0']).to_owned()
    }

    fn end(self) {
        crate::rpc::end(&self.shim, &self.bundle);
        Invocation::new(self.t, &self.bundle, &self.sink).run("delete", b"").ok();
    }
}

fn an_exec_may_have_a_label_of_its_own(t: &Test) {
    let rig = Rig::new(t, |spec| labelled(spec.args(&["sleep", "3600"])));
    let id = &rig.bundle.id;
    rig.shim.create(&rig.bundle, &Stdio3::default()).unwrap();
    rig.shim.start(id, "").unwrap();
    assert_eq!(rig.says("e", &shell(TELL)), PROCESS);
    let own = "system_u:system_r:container_exec_t:s0:c3";
    let mut process = shell(TELL);
    process["selinuxLabel"] = json!(own);
    assert_eq!(rig.says("f", &process), own);
    process["selinuxLabel"] = json!("no-such-label");
    rig.shim.exec(id, "g", &process, &Stdio3::default()).unwrap();
    let error = rig.shim.start(id, "g").unwrap_err().message;
    for word in ["process.selinuxLabel", "SELinux label \"no-such-label\"", "EINVAL"] {
        assert!(error.contains(word), "{error}");
    }
    rig.end();
}

fn a_label_is_taken_behind_no_new_privileges(t: &Test) {
    let out = t.run_spec(|spec| {
        let spec = labelled(spec.shell(TELL)).with("/process/noNewPrivileges", json!(true));
        spec.with("/process/user", json!({"uid": 1000, "gid": 1000}))
    });
    assert_eq!(out.ok().trim_end_matches(['\n', '\0']), PROCESS);
}

/// /proc/keys shows what its reader may see.
fn a_session_keyring_has_the_containers_label(t: &Test) {
    let spec = |spec: Spec| labelled(spec.without("/linux/maskedPaths"));
    let out = t.run_spec(|s| spec(s).args(&["cat", "/proc/keys"])).ok();
    assert!(out.contains("_ses"), "{out}");
    let c = t.detached_spec("web", |s| spec(s).args(&["sleep", "3600"]));
    let out = c.exec(&["cat", "/proc/keys"]).ok();
    assert!(out.contains(&format!("_ses.{}", c.id)), "{out}");
    c.remove();
}

fn a_mount_label_is_on_what_is_mounted_for_the_container(t: &Test) {
    let c = t.detached_spec("web", |spec| {
        labelled(spec.args(&["sleep", "3600"])).mount(
            "tmpfs",
            "tmpfs",
            "/own",
            &["context=system_u:object_r:host_t:s0"],
        )
    });
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", c.pid())).unwrap();
    let labels = |at: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(at)).unwrap();
        let label = line.split_once(",context=")?.1;
        // In quotes where it has a comma.
        let end = |c: char| c == if label.starts_with('"') { '"' } else { ',' };
        label.trim_start_matches('"').split(end).next().map(str::to_owned)
    };
    for at in ["/dev", "/dev/shm", "/dev/pts", "/run", "/sys/firmware"] {
        assert_eq!(labels(at).as_deref(), Some(FILES), "{at}: {mounts}");
    }
    // What is the kernel's, or another's, keeps its own.
    for at in ["/proc", "/sys", "/"] {
        assert_eq!(labels(at), None, "{at}: {mounts}");
    }
    assert_eq!(labels("/own").as_deref(), Some("system_u:object_r:host_t:s0"), "{mounts}");
    let queues = format!("/proc/{}/root/dev/mqueue", c.pid());
    assert_eq!(label_of(Path::new(&queues)), FILES);
    c.remove();
}

fn label_of(path: &Path) -> String {
    let mut label = [0_u8; 256];
    let length = rustix::fs::getxattr(path, "security.selinux", &mut label[..]).unwrap();
    String::from_utf8_lossy(&label[..length]).trim_end_matches('\0').to_owned()
}

fn a_terminal_has_the_mount_label(t: &Test) {
    let id = t.id("run");
    let spec = labelled(t.spec(&id)).with("/process/terminal", json!(true));
    let spec = spec.shell("cat /proc/self/attr/current; echo; tty; echo out >$(tty); exit 7");
    let args = t.spec_args(&id, &spec, &["--rm", "--tty"]);
    let (status, shown) = t.ctr_on_terminal(args).finish(LIMIT);
    assert_eq!(status.code(), Some(7), "{shown}");
    for word in [PROCESS, "/dev/pts/0", "out"] {
        assert!(shown.contains(word), "{shown}");
    }
}

/// As containerd gives it, in the quotes that mount(2) wants.
fn a_root_may_come_with_a_context(t: &Test) {
    let rig = Rig::new(t, |spec| labelled(spec.shell("echo x >/mine && exec sleep 3600")));
    let (lower, upper, work) = (t.rootfs(), t.folder("upper"), t.folder("work"));
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let mut options: Vec<&str> = layers.split(',').collect();
    let context = format!("context=\"{FILES}\"");
    options.push(&context);
    let root = mount("overlay", "overlay", &options);
    let edit = |request: &mut CreateTaskRequest| request.rootfs.push(root);
    rig.shim.create_with(&rig.bundle, &Stdio3::default(), edit).unwrap();
    let pid = rig.shim.state(&rig.bundle.id, "").unwrap().pid;
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(mounts.contains(&format!("- overlay overlay rw,context=\"{FILES}\"")), "{mounts}");
    rig.shim.start(&rig.bundle.id, "").unwrap();
    myshim_integration::wait::until_true("it writes its root", || upper.join("mine").exists());
    rig.end();
}

fn a_label_that_the_policy_does_not_know_is_refused_by_name(t: &Test) {
    for (pointer, label) in [
        ("/process/selinuxLabel", "system_u:system_r:nobody_t:s0"),
        ("/process/selinuxLabel", "system_u:system_r:container_t:s9"),
        ("/linux/mountLabel", "system_u:object_r:nothing_t:s0"),
    ] {
        let out = t.run_spec(|spec| spec.with(pointer, json!(label)).args(&["echo", "runs"]));
        let field = pointer.trim_start_matches('/').replace('/', ".");
        out.fails(&[&field, label, "EINVAL"]);
        assert_eq!(out.out(), "");
    }
}

fn a_label_that_may_not_be_entered_is_told(t: &Test) {
    let label = "system_u:system_r:forbidden_t:s0";
    // With no_new_privs the kernel says EPERM.
    for (no_new_privileges, why) in [(false, "permission denied"), (true, "not permitted")] {
        let out = t.run_spec(|spec| {
            let spec = spec.with("/process/noNewPrivileges", json!(no_new_privileges));
            spec.with("/process/selinuxLabel", json!(label)).args(&["echo", "runs"])
        });
        out.fails(&["echo", why, "process.selinuxLabel", label]);
        assert_eq!(out.out(), "");
    }
}

fn a_label_is_refused_where_selinux_is_off(t: &Test) {
    assert!(!host::has_selinux());
    for (pointer, label) in [("/process/selinuxLabel", PROCESS), ("/linux/mountLabel", FILES)] {
        let out = t.run_spec(|spec| spec.with(pointer, json!(label)).args(&["echo", "runs"]));
        let field = pointer.trim_start_matches('/').replace('/', ".");
        out.fails(&[&field, "SELinux is not enabled on this host"]);
        assert_eq!(out.out(), "");
    }
}
