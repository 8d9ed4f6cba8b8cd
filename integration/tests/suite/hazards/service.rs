//! The shim as a service of the host: who may reach it, and what it takes from the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use myshim_integration::claim::{Claim, Needs};
use myshim_integration::command::{self, LIMIT, Running};
use myshim_integration::process::{Process, status};
use myshim_integration::shim::{Bundle, Dialect, Ends, EventSink, Invocation, Stdio3};
use myshim_integration::spec::Spec;
use myshim_integration::{Test, claims, wait};
use serde_json::json;

use super::Hand;

pub(crate) const CLAIMS: &[Claim] = claims![
    bundle_and_state_are_closed_to_other_users,
    no_socket_is_abstract_and_every_listener_is_a_file_of_its_user.once(),
    another_user_is_refused_where_the_mode_would_let_it_in.once(),
    the_daemon_and_its_spawner_are_not_dumpable.once(),
    a_restore_from_a_checkpoint_is_refused_before_it_is_read.once(),
    the_hosts_cgroups_are_closed_to_a_users_container,
    every_bpf_call_passes_the_whole_union.once().needs(Needs::CgroupV2),
];

/// Runs a program as nobody.
fn as_nobody(program: &[&str]) -> command::Output {
    let mut setpriv = Command::new("/usr/bin/setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).args(program);
    command::run(setpriv, LIMIT)
}

fn bundle_and_state_are_closed_to_other_users(t: &Test) {
    // GHSA-c2h3-6mxw-7mvq.
    let c = t.sleeper("web", &[]);
    let bundle = t.endpoint.bundles().join(&c.id);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&bundle) & 0o077, 0, "{} is {:o}", bundle.display(), mode(&bundle));
    // Should the bundle's mode be changed, the state has its own.
    let state = bundle.join("myshim");
    assert_eq!(mode(&state), 0o700);
    for entry in fs::read_dir(&state).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(mode(&file) & 0o077, 0, "{} is {:o}", file.display(), mode(&file));
    }
    for path in [&bundle, &state] {
        let path = path.to_string_lossy();
        as_nobody(&["ls", &path]).fails(&["Permission denied"]);
    }
    c.remove();
}

/// The inodes of all sockets that a process has open.
fn sockets_of(pid: u32) -> Vec<String> {
    let links = myshim_integration::process::descriptors(pid);
    let inode = |link: &String| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    links.iter().filter_map(inode).collect()
}

fn no_socket_is_abstract_and_every_listener_is_a_file_of_its_user(t: &Test) {
    // CVE-2020-15257: an abstract socket has no permissions, and is of the network namespace.
    let hand = Hand::new(t);
    hand.sleep();
    let daemon = hand.daemon();
    let own: Vec<String> = Process::all()
        .values()
        .filter(|process| process.pid == daemon || process.parent == daemon)
        .flat_map(|process| sockets_of(process.pid))
        .collect();
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    // Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 is a listener.
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows: Vec<_> = rows.filter(|row| own.iter().any(|inode| inode == row[6])).collect();
    assert!(
        !rows.iter().any(|row| row.get(7).is_some_and(|path| path.starts_with('@'))),
        "{rows:?}"
    );
    let listeners: Vec<_> = rows.iter().filter(|row| row[3] == "00010000").collect();
    assert_eq!(listeners.len(), 1, "{rows:?}");
    let socket = hand.shim.answer.socket();
    assert_eq!(Path::new(listeners[0][7]), socket);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    hand.wake();
    hand.end();
}

fn another_user_is_refused_where_the_mode_would_let_it_in(t: &Test) {
    // Seen to fail (the connection stays open) with may_enter of shim/src/server.rs always true.
    // Nobody else's socket is in its folder.
    let (own, daemon) = t.with_own_daemon();
    let hand = Hand::new(&own);
    let socket = hand.shim.answer.socket();
    open_up(&socket);
    let there = format!("UNIX-CONNECT:{}", socket.display());
    // busybox has no client for such sockets: perl, which every Debian has, connects and reads.
    let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new($ARGV[0]) or die 'connect'; \
                  my $n = sysread($s, my $b, 1); print defined $n && $n == 0 ? 'closed' : 'open'";
    let path = there.trim_start_matches("UNIX-CONNECT:");
    assert_eq!(as_nobody(&["/usr/bin/perl", "-e", script, path]).ok(), "closed");
    // The owner is not.
    let stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let read = std::io::Read::read(&mut &stream, &mut [0]);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert!(hand.shim.connect(&hand.bundle.id).is_ok());
    hand.end();
    own.finish();
    drop(daemon);
}

/// Lets everybody come to `path`, and use it.
fn open_up(path: &Path) {
    for dir in path.ancestors().skip(1).take_while(|dir| *dir != Path::new("/tmp")) {
        let mut mode = fs::metadata(dir).unwrap().permissions();
        mode.set_mode(mode.mode() | 0o011);
        fs::set_permissions(dir, mode).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

/// Nor what they fork: processes of a container are forks of theirs until they execute. Who has as
/// many capabilities may look into what is dumpable, if it is not CAP_SYS_PTRACE that he lacks: so
/// neither side has that.
fn the_daemon_and_its_spawner_are_not_dumpable(t: &Test) {
    // Seen to fail with the daemon's PR_SET_DUMPABLE set to 1.
    let without = "/usr/bin/setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace --";
    let sink = EventSink::listen(t);
    let bundle = Bundle::new(t, "web", |spec| spec.args(&["sleep", "3600"]));
    let mut invocation = Invocation::new(t, &bundle, &sink);
    let binary = invocation.binary.display().to_string();
    invocation.binary = t.script("shim", &format!("exec {without} {binary} \"$@\""));
    let shim = invocation.start(Dialect::Bootstrap);
    let daemon = shim.connect(&bundle.id).unwrap().shim_pid;
    let chain = wait::until("daemon, spawner and a main that waits", || {
        let all = Process::all().into_values();
        let chain = all.filter(|p| p.pid == daemon || p.parent == daemon).collect::<Vec<_>>();
        (chain.len() >= 3).then_some(chain)
    });
    let look = |pid: u32| {
        let mut sh = Command::new("/bin/sh");
        sh.args(["-c", &format!("exec {without} readlink /proc/{pid}/exe")]);
        command::run(sh, LIMIT)
    };
    // Itself it may see.
    let mut sleep = Running::start({
        let mut sh = Command::new("/bin/sh");
        sh.args(["-c", &format!("exec {without} sleep 3600")]);
        sh
    });
    wait::until_true("another's program is seen", || look(sleep.pid()).out().contains("sleep"));
    for process in chain {
        let out = look(process.pid);
        assert!(!out.status.success() && out.out().is_empty(), "{}: {out}", process.comm);
    }
    sleep.signal(rustix::process::Signal::KILL);
    wait::until_true("it is gone", || !sleep.is_running());
    shim.shutdown(&bundle.id, Ends::Yes);
    invocation.run("delete", b"").ok();
}

/// A checkpoint's data is an attacker's: names of files with `]:` in them, links in place of logs.
fn a_restore_from_a_checkpoint_is_refused_before_it_is_read(t: &Test) {
    let hand = Hand::new(t);
    let victim = t.file("victim", "victim\n");
    let image = t.folder("image");
    std::os::unix::fs::symlink(&victim, image.join("restore.log")).unwrap();
    fs::write(image.join("descriptors.json"), "[\"/dev/null]:x\"]").unwrap();
    let answer = hand.shim.create_with(&hand.bundle, &Stdio3::default(), |request| {
        request.checkpoint = image.to_string_lossy().into_owned();
    });
    let error = answer.unwrap_err();
    assert_eq!(error.code, ttrpc::Code::UNIMPLEMENTED, "{error:?}");
    assert_eq!(fs::read_to_string(victim).unwrap(), "victim\n");
    hand.end();
}

/// CVE-2023-25809: neither by the mount that clients ask for, nor by one that is to be writable,
/// nor by a bind of the host's. What is no cgroup (an empty tmpfs in its place) may be written.
fn the_hosts_cgroups_are_closed_to_a_users_container(t: &Test) {
    let (t, _daemon) = crate::rootless::rootless(t);
    crate::rootless::chown_tree(&t.rootfs());
    let made = super::made(&t);
    let script = format!(
        "ls /sys/fs/cgroup >/dev/null || exit 1; find /sys/fs/cgroup -maxdepth 3 -type d | while read d; do \
         case $(stat -f -c %t $d) in 27e0eb|63677270);; *) continue;; esac; \
         mkdir $d/{made} 2>/dev/null && echo MADE $d; \
         for f in cgroup.procs tasks notify_on_release release_agent cgroup.subtree_control; do \
         (echo 0 >$d/$f) 2>/dev/null && echo WRITTEN $d/$f; done; done; echo tried"
    );
    let given = |mut spec: Spec, options: &[&str]| {
        let mounts = spec.0["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        let kind = if options.contains(&"rbind") { "bind" } else { "cgroup" };
        spec.mount(kind, "/sys/fs/cgroup", "/sys/fs/cgroup", options)
    };
    let usual = t.run_spec(|spec| spec.shell(&script));
    assert_eq!(usual.ok(), "tried\n");
    for options in [&["ro", "nosuid"][..], &["rw"], &["rbind", "rw"]] {
        let out = t.run_spec(|spec| given(spec, options).shell(&script));
        assert_eq!(out.ok(), "tried\n", "{options:?}");
    }
    assert_eq!(super::made_outside(&t), [""; 0]);
    t.finish();
}

/// Linux 6.17 to 7.1 write the answer of BPF_PROG_QUERY behind the end of a short union, which is
/// the shim's own memory.
fn every_bpf_call_passes_the_whole_union(t: &Test) {
    // Seen to fail with ATTR_SIZE of runtime/src/sys/bpf.rs at 64.
    const WHOLE: u32 = 152;
    let hand = Hand::new(t);
    let (daemon, trace) = (hand.daemon(), t.dir.join("trace"));
    let waits = wait::until("a main that waits", || {
        Process::all().into_values().find(|p| p.parent == daemon && p.comm == "myshim:waits")
    });
    let spawner = Process::all()
        .into_values()
        .find(|p| p.parent == daemon && p.comm == "myshim:spawner")
        .expect("a spawner");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-s", "0", "-e", "trace=bpf", "-o"]).arg(&trace);
    strace.args(["-p", &spawner.pid.to_string(), "-p", &waits.pid.to_string()]);
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let strace = Running::start(strace);
    wait::until_true("strace is attached", || {
        status(waits.pid, "TracerPid").is_some_and(|tracer| tracer != "0")
            && status(spawner.pid, "TracerPid").is_some_and(|tracer| tracer != "0")
    });
    hand.sleep();
    let rule = json!({"devices": [{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]});
    hand.shim.update(&hand.bundle.id, &rule).unwrap();
    hand.wake();
    strace.signal(rustix::process::Signal::INT);
    drop(strace.finish(LIMIT));
    let text = fs::read_to_string(&trace).unwrap();
    let sizes: Vec<(String, u32)> = text
        .lines()
        .filter(|line| line.contains("bpf(BPF_"))
        .map(|line| {
            let (call, _) = line.rsplit_once(") = ").unwrap();
            (line.to_owned(), call.rsplit(", ").next().unwrap().parse().unwrap())
        })
        .collect();
    assert!(sizes.iter().any(|(line, _)| line.contains("BPF_PROG_LOAD")), "{text}");
    for (line, size) in sizes {
        assert!(size >= WHOLE, "{line}");
    }
    hand.end();
}
