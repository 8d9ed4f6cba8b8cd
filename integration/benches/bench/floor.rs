//! The floor: the least work for the same result, in a process that does nothing else.
//!
//! The process is forked before this program has grown. It takes one command at a time and
//! measures itself, so that no message is part of the figure.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::cgroup::{Layout, Version};
use runtime::sys::child;
use runtime::sys::mount::{Change, Depth, Tree};
use runtime::sys::process::{self, Clone, Forked, SingleThreaded};
use runtime::sys::{keyring, loopback, rlimit};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::bundle::{Layers, MASKED, MOUNTS, Network, READONLY};

const NEW_MOUNT: u64 = 0x0002_0000;
const NEW_UTS: u64 = 0x0400_0000;
const NEW_IPC: u64 = 0x0800_0000;
const NEW_PID: u64 = 0x2000_0000;
const NEW_NET: u64 = 0x4000_0000;
const RDONLY: u64 = 1;
const SIGCHLD: i32 = 17;
/// The capabilities of containerd's default spec.
const KEPT: u64 = 0xa804_25fb;

/// What a v1 device cgroup is told: nothing, then the devices every container has.
const ALLOWED: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 136:* rwm",
    "c 5:2 rwm",
];

const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("tty", 5, 0),
    ("random", 1, 8),
    ("urandom", 1, 9),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// The handle of the floor process; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Floor {
    socket: UnixStream,
}

impl Floor {
    /// Forks it. `name` is that of its cgroups.
    pub(crate) fn fork(single: &SingleThreaded, layers: &Layers, name: &str) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let clone = Clone { exit_signal: SIGCHLD, ..Clone::default() };
        match process::clone3(single, &clone).unwrap() {
            Forked::Parent { .. } => Self { socket: ours },
            Forked::Child(single) => {
                drop(ours);
                serve(&theirs, &single, layers, name);
                process::exit(0)
            }
        }
    }

    /// A container from nothing to nothing.
    pub(crate) fn create(&mut self, network: Network) -> Duration {
        self.ask(if network == Network::New { b'n' } else { b'c' })
    }

    /// An exec in a container that sleeps.
    pub(crate) fn exec(&mut self) -> Duration {
        self.ask(b'e')
    }

    fn ask(&mut self, command: u8) -> Duration {
        self.socket.write_all(&[command]).unwrap();
        let mut nanoseconds = [0; 8];
        self.socket.read_exact(&mut nanoseconds).expect("the floor process has failed");
        Duration::from_nanos(u64::from_le_bytes(nanoseconds))
    }
}

struct Kit<'a> {
    single: &'a SingleThreaded,
    root: PathBuf,
    overlay: String,
    hierarchies: Vec<(Version, PathBuf, bool)>,
    name: &'a str,
}

fn serve(mut socket: &UnixStream, single: &SingleThreaded, layers: &Layers, name: &str) {
    let layout = Layout::detect().unwrap();
    let hierarchies = layout.hierarchies().map(|(version, hierarchy)| {
        let devices = hierarchy.controllers.iter().any(|name| name == "devices");
        (version, hierarchy.mount_point.clone(), devices)
    });
    let kit = Kit {
        single,
        root: layers.base().with_file_name("floor"),
        overlay: layers.options().join(","),
        hierarchies: hierarchies.collect(),
        name,
    };
    std::fs::create_dir_all(&kit.root).unwrap();
    let mut sleeper: Option<(Container, Vec<PathBuf>)> = None;
    let mut command = [0];
    while socket.read_exact(&mut command).is_ok() {
        if command[0] == b'e' && sleeper.is_none() {
            let groups = kit.make_cgroups("s");
            // Its writing end is closed by the execve.
            let (reader, writer) = std::io::pipe().unwrap();
            let container = kit.start(Network::Host, &groups, &["sleep", "1000000"]);
            drop(writer);
            std::io::read_to_string(reader).unwrap();
            sleeper = Some((container, groups));
        }
        let begin = Instant::now();
        match (command[0], &sleeper) {
            (b'e', Some((container, groups))) => kit.exec(container, groups),
            (b'n', _) => kit.create(Network::New),
            _ => kit.create(Network::Host),
        }
        let nanoseconds = u64::try_from(begin.elapsed().as_nanos()).unwrap();
        socket.write_all(&nanoseconds.to_le_bytes()).unwrap();
    }
    if let Some((container, groups)) = sleeper {
        child::pidfd_send_signal(container.pidfd.as_fd(), 9).unwrap();
        reap(&container);
        remove(&groups);
    }
}

struct Container {
    pidfd: OwnedFd,
}

impl Kit<'_> {
    fn create(&self, network: Network) {
        let groups = self.make_cgroups("c");
        let container = self.start(network, &groups, &["true"]);
        reap(&container);
        remove(&groups);
    }

    fn make_cgroups(&self, suffix: &str) -> Vec<PathBuf> {
        let mut groups = Vec::new();
        for (version, mount_point, devices) in &self.hierarchies {
            let group = mount_point.join(format!("{}{suffix}", self.name));
            rustix::fs::mkdir(&group, Mode::from_raw_mode(0o755)).unwrap();
            if mount_point.ends_with("cpuset") {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let inherited = std::fs::read(mount_point.join(file)).unwrap();
                    write(&group.join(file), &inherited);
                }
            }
            if *devices && *version == Version::V1 {
                write(&group.join("devices.deny"), b"a");
                let allow = open(&group.join("devices.allow"));
                for rule in ALLOWED {
                    rustix::io::write(&allow, rule.as_bytes()).unwrap();
                }
            }
            groups.push(group);
        }
        groups
    }

    /// Files to enter the groups by, and the v2 group to be born in.
    fn entries(&self, groups: &[PathBuf]) -> (Vec<OwnedFd>, Option<OwnedFd>) {
        let (mut tasks, mut into) = (Vec::new(), None);
        for ((version, ..), group) in self.hierarchies.iter().zip(groups) {
            match version {
                Version::V1 => tasks.push(open(&group.join("tasks"))),
                Version::V2 => into = Some(File::open(group).unwrap().into()),
            }
        }
        (tasks, into)
    }

    fn start(&self, network: Network, groups: &[PathBuf], args: &[&str]) -> Container {
        let (tasks, into) = self.entries(groups);
        let net = if network == Network::New { NEW_NET } else { 0 };
        let clone = Clone {
            flags: NEW_PID | NEW_IPC | NEW_UTS | NEW_MOUNT | net,
            exit_signal: SIGCHLD,
            cgroup: into.as_ref().map(AsFd::as_fd),
            ..Clone::default()
        };
        match process::clone3(self.single, &clone).unwrap() {
            Forked::Parent { pidfd, .. } => Container { pidfd },
            Forked::Child(_) => {
                rustix::process::setsid().unwrap();
                enter(&tasks);
                if network == Network::New {
                    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
                    loopback::up(socket.as_fd()).unwrap();
                }
                self.build();
                become_program(args)
            }
        }
    }

    fn build(&self) {
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", slave).unwrap();
        rustix::process::umask(Mode::empty());
        let options = std::ffi::CString::new(self.overlay.as_str()).unwrap();
        let none = MountFlags::empty();
        rustix::mount::mount("overlay", &self.root, "overlay", none, &*options).unwrap();
        rustix::process::chdir(&self.root).unwrap();
        for (kind, destination, flags, data) in MOUNTS {
            let path = &destination[1..];
            if path == "run" || path.starts_with("dev/") {
                rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).ok();
            }
            let data = std::ffi::CString::new(data).unwrap();
            rustix::mount::mount(kind, path, kind, mount_flags(flags), &*data).unwrap();
        }
        for (name, major, minor) in NODES {
            let device = rustix::fs::makedev(major, minor);
            let mode = Mode::from_raw_mode(0o666);
            let path = format!("dev/{name}");
            rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, mode, device).unwrap();
        }
        for (target, name) in LINKS {
            rustix::fs::symlink(target, format!("dev/{name}")).unwrap();
        }
        rustix::process::pivot_root(".", ".").unwrap();
        rustix::mount::unmount(".", UnmountFlags::DETACH).unwrap();
        rustix::process::chdir("/").unwrap();
        hide();
    }

    fn exec(&self, container: &Container, groups: &[PathBuf]) {
        let (tasks, into) = self.entries(groups);
        let clone = Clone { exit_signal: SIGCHLD, cgroup: None, ..Clone::default() };
        match process::clone3(self.single, &clone).unwrap() {
            Forked::Parent { pidfd, .. } => reap(&Container { pidfd }),
            Forked::Child(single) => {
                let all = NEW_PID | NEW_IPC | NEW_UTS | NEW_MOUNT;
                process::setns(&single, container.pidfd.as_fd(), all).unwrap();
                let cgroup = into.as_ref().map(AsFd::as_fd);
                let clone = Clone { exit_signal: SIGCHLD, cgroup, ..Clone::default() };
                match process::clone3(&single, &clone).unwrap() {
                    Forked::Parent { pidfd, .. } => {
                        reap(&Container { pidfd });
                        process::exit(0)
                    }
                    Forked::Child(_) => {
                        rustix::process::setsid().unwrap();
                        enter(&tasks);
                        become_program(&["true"])
                    }
                }
            }
        }
    }
}

fn mount_flags(flags: &[&str]) -> MountFlags {
    let flag = |name: &&str| match *name {
        "nosuid" => MountFlags::NOSUID,
        "noexec" => MountFlags::NOEXEC,
        "nodev" => MountFlags::NODEV,
        "ro" => MountFlags::RDONLY,
        "strictatime" => MountFlags::STRICTATIME,
        other => panic!("no flag {other}"),
    };
    flags.iter().map(flag).collect()
}

/// Masks and read-only paths: a mount each, with the fewest calls.
fn hide() {
    let null = open(Path::new("/dev/null"));
    let mut empty: Option<Tree> = None;
    for path in MASKED {
        let Ok(stat) = rustix::fs::stat(path) else { continue };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let mask = Tree::copy_fd(null.as_fd(), Depth::Mount).unwrap();
            mask.attach_path(Path::new(path)).unwrap();
            continue;
        }
        let mask = match &empty {
            Some(mask) => Tree::copy_fd(mask.as_fd(), Depth::Mount).unwrap(),
            None => runtime::sys::mount::FsContext::open("tmpfs").unwrap().mount(RDONLY).unwrap(),
        };
        mask.attach_path(Path::new(path)).unwrap();
        empty = Some(mask);
    }
    for path in READONLY {
        let Ok(tree) = Tree::copy_path(Path::new(path), Depth::Tree) else { continue };
        tree.change(&Change::set(RDONLY), Depth::Tree).unwrap();
        tree.attach_path(Path::new(path)).unwrap();
    }
}

fn enter(tasks: &[OwnedFd]) {
    for file in tasks {
        rustix::io::write(file, b"0").unwrap();
    }
}

fn become_program(args: &[&str]) -> ! {
    keyring::join_session(c"bench").ok();
    rlimit::set(7, 1024, 1024).unwrap();
    rustix::thread::set_no_new_privs(true).unwrap();
    limit_capabilities();
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR, Mode::empty()).unwrap();
    rustix::stdio::dup2_stdin(&null).unwrap();
    rustix::stdio::dup2_stdout(&null).unwrap();
    let words = args.iter().map(|word| std::ffi::CString::new(*word).unwrap());
    let words: Vec<_> = words.collect();
    let program = std::ffi::CString::new(format!("/bin/{}", args[0])).unwrap();
    process::execve(&program, &words, &[c"PATH=/bin".to_owned()]).ok();
    process::exit(127)
}

fn limit_capabilities() {
    let kept = CapabilitySet::from_bits_retain(KEPT);
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // The first one that this kernel does not know is the end.
        if !kept.contains(one) && rustix::thread::remove_capability_from_bounding_set(one).is_err()
        {
            break;
        }
    }
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).unwrap();
}

fn reap(container: &Container) {
    let status =
        rustix::process::waitid(WaitId::PidFd(container.pidfd.as_fd()), WaitIdOptions::EXITED);
    let code = status.unwrap().unwrap().exit_status();
    assert!(code.is_none_or(|code| code == 0), "a process of the floor ends with {code:?}");
}

fn remove(groups: &[PathBuf]) {
    for group in groups {
        rustix::fs::unlinkat(CWD, group, AtFlags::REMOVEDIR).unwrap();
    }
}

fn open(path: &Path) -> OwnedFd {
    let cloexec = i32::try_from(OFlags::CLOEXEC.bits()).unwrap();
    File::options().write(true).custom_flags(cloexec).open(path).unwrap().into()
}

fn write(path: &Path, bytes: &[u8]) {
    rustix::io::write(open(path), bytes).unwrap();
}
