//! Where the daemon listens: one socket per group of containers, at a path that containerd's
//! clients compute themselves.
//!
//! `unix://DIR/HASH`: DIR is what containerd asks for, else /run/containerd/s; HASH is the
//! SHA-256, in hexadecimal, of containerd's gRPC address, its namespace and the group, joined as
//! Go's `filepath.Join` joins them. Never an abstract socket: a container with the host's network
//! could reach it (CVE-2020-15257).
//!
//! Many `start`s may want the same path at once (the containers of a pod). All that look at a
//! path, bind it or remove it hold a lock on its folder, for some 100 µs. So under the lock a
//! path is one of three: absent, answering, or dead for good.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runtime::{At, Call, Error, Kind, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sha2::{Digest, Sha256};

use crate::answering;

/// Where sockets go unless containerd says otherwise.
pub(crate) const DEFAULT_DIR: &str = "/run/containerd/s";

/// Cut down by the kernel to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Under load a lock is held for milliseconds; whoever holds it longer is stopped.
const LOCK_DEADLINE: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(1);

/// A daemon may die while a `start` looks at it; another one's daemon as well.
const TRIES: u32 = 3;

/// Where a daemon listens. There may be nothing there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address(PathBuf);

/// What a `start` found.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nobody was there: this listens now, non-blocking and close-on-exec.
    Ours(OwnedFd),
    /// A daemon answers there.
    Answering,
}

/// What a `start` found under the lock.
#[derive(Debug)]
enum Locked {
    Ours(OwnedFd),
    /// This connection was taken, maybe by what a dying daemon still has open.
    Taken(OwnedFd),
}

/// What is at a path.
#[derive(Debug)]
enum Found {
    Absent,
    /// It took this connection, or has more in its backlog than it may.
    Answering(OwnedFd),
    Dead,
}

impl Address {
    /// The address of a group of containers.
    pub(crate) fn new(dir: &Path, grpc_address: &str, namespace: &str, group: &str) -> Address {
        let digest = Sha256::digest(go_join([grpc_address, namespace, group]));
        Address(dir.join(format!("{digest:x}")))
    }

    /// From a path, or from what [`Address::url`] gave.
    pub(crate) fn parse(text: &str) -> Address {
        Address(PathBuf::from(text.strip_prefix("unix://").unwrap_or(text)))
    }

    /// As containerd wants it.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.0.display())
    }

    /// The socket's path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Listens there, unless somebody does already. Makes the folder (0700); the socket is 0600
    /// from its first moment.
    ///
    /// # Errors
    /// When the folder is not only ours, or the socket cannot be made.
    pub(crate) fn claim(&self) -> Result<Claim> {
        self.claim_within(answering::WITHIN_MS)
    }

    fn claim_within(&self, answer_ms: u64) -> Result<Claim> {
        let step = || format!("listen at {}", self.0.display());
        for _ in 0..TRIES {
            match self.claim_locked().at_with(step)? {
                Locked::Ours(listener) => return Ok(Claim::Ours(listener)),
                // Asked without the lock: see `remove_the_dead`.
                Locked::Taken(connection) => {
                    if answering::is_alive(&connection, answer_ms).at_with(step)? {
                        return Ok(Claim::Answering);
                    }
                }
            }
        }
        let why = format!("{TRIES} daemons took a connection and died");
        Err(Error::new(Kind::State(why))).at_with(step)
    }

    fn claim_locked(&self) -> Result<Locked> {
        let address = self.socket_address()?;
        let _lock = Lock::on(self.make_dir()?)?;
        match self.probe(&address)? {
            Found::Answering(connection) => return Ok(Locked::Taken(connection)),
            Found::Dead => self.unlink()?,
            Found::Absent => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .call(|| "socket(AF_UNIX, SOCK_STREAM)".to_owned())?;
        // Before bind: the file gets the mode of the socket. Nothing else on the file system is
        // made with a mode that is not final.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)
            .call(|| "fchmod([socket], 0600)".to_owned())?;
        rustix::net::bind(&socket, &address).call(|| "bind([socket])".to_owned())?;
        rustix::net::listen(&socket, BACKLOG).call(|| format!("listen([socket], {BACKLOG})"))?;
        Ok(Locked::Ours(socket))
    }

    /// Removes the socket when nobody answers there. No error when it, or its folder, is gone.
    ///
    /// # Errors
    /// When it can be neither probed nor removed.
    pub(crate) fn remove_if_dead(&self) -> Result<()> {
        self.remove_the_dead().at_with(|| format!("remove socket {}", self.0.display()))
    }

    fn remove_the_dead(&self) -> Result<()> {
        // Asked without the lock: a daemon that ends may be waiting for it, and cannot answer.
        match self.remove_if_refused()? {
            Some(connection) if !answering::is_alive(&connection, answering::WITHIN_MS)? => {
                self.remove_if_refused().map(drop)
            }
            _ => Ok(()),
        }
    }

    /// A connection, if there was something that took it.
    fn remove_if_refused(&self) -> Result<Option<OwnedFd>> {
        let Some(_lock) = self.lock_existing()? else { return Ok(None) };
        let address = self.socket_address()?;
        match self.probe(&address)? {
            Found::Dead => self.unlink().map(|()| None),
            Found::Absent => Ok(None),
            Found::Answering(connection) => Ok(Some(connection)),
        }
    }

    /// Removes the socket of a daemon that ends, while it still accepts. From here on a `start`
    /// makes a daemon of its own. No error when it is gone.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove_own(&self) -> Result<()> {
        let step = || format!("remove socket {}", self.0.display());
        let Some(_lock) = self.lock_existing().at_with(step)? else { return Ok(()) };
        self.unlink().at_with(step)
    }

    fn socket_address(&self) -> Result<SocketAddrUnix> {
        SocketAddrUnix::new(&self.0).map_err(|_| {
            let length = self.0.as_os_str().len();
            Error::argument("socket path", format!("has {length} bytes, more than 107"))
        })
    }

    /// The folder of sockets.
    pub(crate) fn dir(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new("/"))
    }

    fn make_dir(&self) -> Result<File> {
        let dir = self.dir();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .call(|| format!("mkdir({dir:?}, 0700)"))?;
        let opened = open_dir(dir).call(|| format!("open({dir:?}, O_DIRECTORY|O_NOFOLLOW)"))?;
        let meta = opened.metadata().call(|| format!("fstat({dir:?})"))?;
        // Who may write here could put a socket of his own in the place of ours.
        if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            let (uid, mode) = (meta.uid(), meta.mode() & 0o7777);
            let why = format!("{} belongs to {uid}, mode {mode:o}", dir.display());
            return Err(Error::argument("socket folder", why));
        }
        Ok(opened)
    }

    fn lock_existing(&self) -> Result<Option<Lock>> {
        match open_dir(self.dir()) {
            Ok(dir) => Lock::on(dir).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::call(format!("open({:?}, O_DIRECTORY)", self.dir()), errno)),
        }
    }

    /// Under the lock only.
    fn probe(&self, address: &SocketAddrUnix) -> Result<Found> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .call(|| "socket(AF_UNIX, SOCK_STREAM)".to_owned())?;
        match rustix::net::connect(&socket, address) {
            // EAGAIN: its backlog is full, so it listens.
            Ok(()) | Err(Errno::AGAIN) => Ok(Found::Answering(socket)),
            Err(Errno::NOENT) => Ok(Found::Absent),
            Err(Errno::CONNREFUSED) => Ok(Found::Dead),
            Err(errno) => Err(Error::call(format!("connect([socket], {:?})", self.0), errno)),
        }
    }

    /// Under the lock only.
    fn unlink(&self) -> Result<()> {
        match rustix::fs::unlink(&self.0) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::call(format!("unlink({:?})", self.0), errno)),
        }
    }
}

/// Held until dropped: flock(2) belongs to the open file, which nobody else has.
#[derive(Debug)]
struct Lock(#[allow(dead_code, reason = "is there to be dropped")] File);

impl Lock {
    fn on(dir: File) -> Result<Lock> {
        let begin = Instant::now();
        loop {
            match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(dir)),
                Err(Errno::WOULDBLOCK) if begin.elapsed() < LOCK_DEADLINE => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(Errno::WOULDBLOCK) => {
                    let after_ms = u64::try_from(LOCK_DEADLINE.as_millis()).unwrap_or(u64::MAX);
                    let awaited = "lock on the socket folder".to_owned();
                    return Err(Error::new(Kind::Deadline { awaited, after_ms }));
                }
                Err(errno) => return Err(Error::call("flock([dir], LOCK_EX)", errno)),
            }
        }
    }
}

fn open_dir(dir: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).map(File::from)
}

/// Go's `filepath.Join`: empty elements do not count, and the result is clean.
fn go_join<const N: usize>(elements: [&str; N]) -> String {
    let elements: Vec<&str> = elements.into_iter().filter(|element| !element.is_empty()).collect();
    if elements.is_empty() { String::new() } else { go_clean(&elements.join("/")) }
}

/// Go's `filepath.Clean`.
fn go_clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let cleaned = parts.join("/");
    match (rooted, cleaned.is_empty()) {
        (true, _) => format!("/{cleaned}"),
        (false, true) => ".".to_owned(),
        (false, false) => cleaned,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn temporary(name: &str) -> PathBuf {
        let dir =
            std::env::temp_dir().join(format!("myshim-address-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    fn is_ours(claim: &Claim) -> bool {
        matches!(claim, Claim::Ours(_))
    }

    #[test]
    fn an_address_is_the_one_that_containerd_computes() {
        // From containerd's shim.CreateSocketAddress: sha256 of the joined path.
        for (grpc, namespace, group, joined) in [
            (
                "/run/containerd/containerd.sock",
                "default",
                "web",
                "/run/containerd/containerd.sock/default/web",
            ),
            ("/run/../run//c.sock/", "k8s.io", "0a1b", "/run/c.sock/k8s.io/0a1b"),
            ("unix:///run/c.sock", "ns", "x", "unix:/run/c.sock/ns/x"),
            ("", "ns", "x", "ns/x"),
        ] {
            let hash = format!("{:x}", Sha256::digest(joined));
            let address = Address::new(Path::new("/run/containerd/s"), grpc, namespace, group);
            assert_eq!(address.url(), format!("unix:///run/containerd/s/{hash}"));
        }
        let address =
            Address::new(Path::new("/s"), "/run/containerd/containerd.sock", "default", "web");
        assert_eq!(
            address.url(),
            "unix:///s/2cde4450fa38c74f53603e01d2afd903b315a27a596f12a151414cd59897d883"
        );
        assert_eq!(Address::parse(&address.url()), address);
    }

    #[test]
    fn paths_are_joined_as_go_joins_them() {
        for (elements, joined) in [
            (["a", "b", "c"], "a/b/c"),
            (["", "", ""], ""),
            ([".", "", ""], "."),
            (["a", "..", ""], "."),
            (["a", "../..", "b"], "../b"),
            (["/", "..", "a"], "/a"),
            (["//a/", "./b//", "c/"], "/a/b/c"),
            (["..", "..", "x"], "../../x"),
        ] {
            assert_eq!(go_join(elements), joined, "{elements:?}");
        }
    }

    #[test]
    fn the_first_claim_listens_and_the_next_finds_it() {
        let dir = temporary("claim");
        let address = Address::new(&dir.join("a/s"), "grpc", "ns", "group");
        let first = address.claim().unwrap();
        assert!(is_ours(&first));
        assert!(!is_ours(&address.claim().unwrap()));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(address.path()), 0o600);
        assert_eq!(mode(address.dir()), 0o700);
        address.remove_if_dead().unwrap();
        assert!(address.path().exists(), "a socket that answers stays");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_dead_socket_is_replaced() {
        let dir = temporary("dead");
        let address = Address::new(&dir, "grpc", "ns", "group");
        drop(address.claim().unwrap());
        assert!(address.path().exists());
        assert!(is_ours(&address.claim().unwrap()));
        address.remove_if_dead().unwrap();
        assert!(!address.path().exists());
        address.remove_if_dead().unwrap();
        address.remove_own().unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        address.remove_if_dead().unwrap();
    }

    /// Does `work` while somebody listens who goes as soon as he is connected to: what a dying
    /// process still has open.
    fn while_a_daemon_goes(address: &Address, work: impl FnOnce()) {
        let Claim::Ours(listener) = address.claim().unwrap() else { panic!("not ours") };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                runtime::sys::socket::wait_readable(listener.as_fd(), 10_000).unwrap();
                drop(listener);
            });
            work();
        });
    }

    #[test]
    fn a_daemon_that_goes_while_it_is_asked_is_dead() {
        let dir = temporary("going");
        let address = Address::new(&dir, "grpc", "ns", "group");
        while_a_daemon_goes(&address, || address.remove_if_dead().unwrap());
        assert!(!address.path().exists());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_claim_replaces_a_daemon_that_goes_while_it_is_asked() {
        let dir = temporary("replaced");
        let address = Address::new(&dir, "grpc", "ns", "group");
        while_a_daemon_goes(&address, || assert!(is_ours(&address.claim().unwrap())));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn of_many_claims_at_once_one_listens() {
        let dir = temporary("race");
        let address = Address::new(&dir, "grpc", "ns", "group");
        let barrier = std::sync::Barrier::new(8);
        for _ in 0..50 {
            let claims: Vec<Claim> = std::thread::scope(|scope| {
                let claim = || {
                    barrier.wait();
                    // Nobody answers here, and silence counts as life.
                    address.claim_within(10).unwrap()
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(claims.iter().filter(|claim| is_ours(claim)).count(), 1);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let dir = temporary("open");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = Address::new(&dir, "grpc", "ns", "group").claim().unwrap_err();
        assert!(error.to_string().contains("mode 777"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_named() {
        let dir = temporary("long");
        let long = dir.join("x".repeat(60));
        let error = Address::new(&long, "grpc", "ns", "group").claim().unwrap_err();
        assert!(error.to_string().contains("more than 107"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
