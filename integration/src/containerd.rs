//! Private containerds: own root, state, sockets and configuration in one short folder.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::command::{self, Output, Running};
use crate::{rootless, wait};

/// Which containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// Debian 12's package.
    V16,
    /// The one pinned in integration/tools/go.mod.
    V2,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V16, Self::V2];

    /// As it appears in the names of tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V16 => "containerd-1.6",
            Self::V2 => "containerd-2",
        }
    }

    /// The folder of `containerd` and `ctr`, filled by `make tools`, in `MYSHIM_TOOLS`.
    #[must_use]
    pub fn bin(self) -> PathBuf {
        match self {
            Self::V16 => tools().join("containerd-1.6/usr/bin"),
            Self::V2 => tools().join("containerd-2/bin"),
        }
    }
}

/// What `make tools` fills.
#[must_use]
pub fn tools() -> PathBuf {
    std::env::var_os("MYSHIM_TOOLS").map_or_else(|| workspace().join(".tools"), PathBuf::from)
}

/// The runtime under test, as clients name it.
#[must_use]
pub fn runtime() -> String {
    std::env::var("MYSHIM_RUNTIME").unwrap_or_else(|_| "io.containerd.myshim.v2".to_owned())
}

/// The folder of the shim's binary, `MYSHIM_BIN`: all there is on containerd's PATH.
#[must_use]
pub fn shim_dir(version: Version) -> PathBuf {
    let name = match version {
        Version::V16 => "MYSHIM_BIN_16",
        Version::V2 => "MYSHIM_BIN_2",
    };
    let dir = std::env::var_os(name).or_else(|| std::env::var_os("MYSHIM_BIN"));
    dir.map_or_else(|| workspace().join("target/dist"), PathBuf::from)
}

/// The shim's binary: the last two parts of the runtime's name make its name.
#[must_use]
pub fn shim_binary(version: Version) -> PathBuf {
    let runtime = runtime();
    let mut parts = runtime.rsplit('.');
    let (last, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    shim_dir(version).join(format!("containerd-shim-{name}-{last}"))
}

/// A build of the shim that `MYSHIM_HOLD` holds half way (`make hold`), in `MYSHIM_HOLD_BIN`.
#[must_use]
pub fn hold_binary() -> PathBuf {
    let dir = std::env::var_os("MYSHIM_HOLD_BIN");
    let dir = dir.map_or_else(|| workspace().join("target/hold/dist"), PathBuf::from);
    dir.join(shim_binary(Version::V2).file_name().unwrap_or_default())
}

/// The checkout.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where a containerd is to be found; enough for a client.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// Which one.
    pub version: Version,
    /// Its folder.
    pub dir: PathBuf,
    /// The namespace that the tests use.
    pub namespace: String,
    /// A process in whose user and mount namespace its clients have to be ([`rootless`]).
    #[serde(default)]
    pub inside: Option<u32>,
}

impl Endpoint {
    /// The gRPC socket.
    #[must_use]
    pub fn address(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// The socket on which shims publish events.
    #[must_use]
    pub fn ttrpc_address(&self) -> PathBuf {
        self.dir.join("c.sock.ttrpc")
    }

    /// containerd's log, with the shims' in it.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The folder in which the bundles of the namespace are.
    #[must_use]
    pub fn bundles(&self) -> PathBuf {
        self.dir.join("state/io.containerd.runtime.v2.task").join(&self.namespace)
    }

    /// Where shims put their sockets: containerd 2.4 lets it be chosen, 1.6 does not.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        match self.version {
            Version::V16 => PathBuf::from("/run/containerd/s"),
            Version::V2 => self.dir.join("s"),
        }
    }

    /// The socket of the shim that serves the sandbox or container `id`.
    #[must_use]
    pub fn shim_socket(&self, id: &str) -> PathBuf {
        let name = self.address().join(&self.namespace).join(id);
        let digest = Sha256::digest(name.as_os_str().as_encoded_bytes());
        self.socket_dir().join(hex(&digest))
    }

    /// `ctr` of the same version, with address and namespace.
    #[must_use]
    pub fn ctr(&self) -> Command {
        let mut command = match self.inside {
            Some(pid) => rootless::inside(pid, &self.dir.join("bin/ctr")),
            None => Command::new(self.version.bin().join("ctr")),
        };
        command.arg("--address").arg(self.address()).arg("--namespace").arg(&self.namespace);
        command
    }

    /// Runs `ctr` with `args`.
    ///
    /// # Panics
    /// When it takes too long.
    #[must_use]
    pub fn ctr_run<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        limit: Duration,
    ) -> Output {
        let mut command = self.ctr();
        command.args(args);
        command::run(command, limit)
    }

    fn config(&self, services: &Services<'_>) -> String {
        let (root, state) = (self.dir.join("root"), self.dir.join("state"));
        let common = format!(
            "root = {root:?}\nstate = {state:?}\n\n[grpc]\naddress = {:?}\n\n[debug]\nlevel = \"debug\"\n",
            self.address()
        );
        let (version, disabled) = match self.version {
            Version::V16 => (2, &DISABLED_16[..]),
            Version::V2 => (3, &DISABLED_2[..]),
        };
        let (restarts, cri) = match services {
            Services::Tasks => (&RESTARTS[..], &CRI[..]),
            Services::Restarts => (&[][..], &CRI[..]),
            Services::Cri(_) => (&RESTARTS[..], &[][..]),
        };
        let disabled: Vec<_> = disabled.iter().chain(restarts).chain(cri).collect();
        let head = format!("version = {version}\ndisabled_plugins = {disabled:?}\n{common}");
        let own = match self.version {
            Version::V16 => String::new(),
            Version::V2 => format!(
                "\n[plugins.\"io.containerd.shim.v1.manager\"]\nsocket_dir = {:?}\n\
                 \n[plugins.\"io.containerd.metadata.v1.bolt\"]\nno_sync = true\n",
                self.socket_dir()
            ),
        };
        let more = match services {
            Services::Tasks => String::new(),
            Services::Restarts => {
                let name = if self.version == Version::V16 { RESTARTS[0] } else { RESTARTS[1] };
                format!("\n[plugins.{name:?}]\ninterval = \"1s\"\n")
            }
            Services::Cri(tables) => (*tables).to_owned(),
        };
        format!("{head}{own}{more}")
    }
}

/// What a test of a shim does not need, and what would listen on the host or write outside the
/// folder.
const DISABLED_16: [&str; 4] = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
];
const DISABLED_2: [&str; 4] = [
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.differ.v1.erofs",
];

/// The plugin that restarts containers, in 1.6 and in 2.x.
const RESTARTS: [&str; 2] =
    ["io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart"];

/// What a containerd does beside serving tasks.
pub(crate) enum Services<'a> {
    /// Nothing.
    Tasks,
    /// The restarts that containers are labelled for.
    Restarts,
    /// With tables for the configuration.
    Cri(&'a str),
}

/// The plugins of CRI, in both.
const CRI: [&str; 3] =
    ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"];

/// A containerd that the harness runs; stopped when dropped.
#[derive(Debug)]
pub struct Daemon {
    endpoint: Endpoint,
    /// The folder of shims: all there is on its PATH.
    path: PathBuf,
    /// See [`Self::start_holding`].
    hold: Option<PathBuf>,
    process: Option<Running>,
}

impl Daemon {
    /// Starts one in `dir`, which is made.
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    #[must_use]
    pub fn start(version: Version, dir: &Path, namespace: &str) -> Self {
        Self::configured(version, dir, namespace, &Services::Tasks).started()
    }

    /// Starts one in `dir` that looks for shims in the folder `path`.
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    #[must_use]
    pub fn start_with_path(version: Version, dir: &Path, namespace: &str, path: &Path) -> Self {
        let mut daemon = Self::configured(version, dir, namespace, &Services::Tasks);
        daemon.path = path.to_path_buf();
        daemon.started()
    }

    /// Starts one in `dir` whose shims are held wherever the file `hold` says, when it is there
    /// (`MYSHIM_HOLD_FILE`, see the runtime's `process::hold`).
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    #[must_use]
    pub fn start_holding(version: Version, dir: &Path, namespace: &str, hold: &Path) -> Self {
        let mut daemon = Self::configured(version, dir, namespace, &Services::Tasks);
        let binary = hold_binary();
        assert!(binary.exists(), "run `make hold`");
        binary.parent().unwrap_or(&binary).clone_into(&mut daemon.path);
        daemon.hold = Some(hold.to_path_buf());
        daemon.started()
    }

    /// Starts one in `dir` that looks each second which containers are to be started again.
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    #[must_use]
    pub fn start_with_restarts(version: Version, dir: &Path, namespace: &str) -> Self {
        Self::configured(version, dir, namespace, &Services::Restarts).started()
    }

    /// Starts one in `dir` that serves CRI, with `cri` at the end of its configuration.
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    #[must_use]
    pub fn start_with_cri(version: Version, dir: &Path, cri: &str) -> Self {
        Self::configured(version, dir, "k8s.io", &Services::Cri(cri)).started()
    }

    fn started(mut self) -> Self {
        self.up();
        self
    }

    /// One in `dir` that does not run yet.
    pub(crate) fn configured(
        version: Version,
        dir: &Path,
        namespace: &str,
        services: &Services<'_>,
    ) -> Self {
        assert!(dir.as_os_str().len() <= 38, "too long for the sockets in it: {}", dir.display());
        fs::create_dir_all(dir).unwrap();
        let endpoint = Endpoint {
            version,
            dir: dir.to_path_buf(),
            namespace: namespace.to_owned(),
            inside: None,
        };
        fs::write(dir.join("config.toml"), endpoint.config(services)).unwrap();
        Self { endpoint, path: shim_dir(version), hold: None, process: None }
    }

    pub(crate) fn set_inside(&mut self, pid: u32) {
        self.endpoint.inside = Some(pid);
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its process id; `None` while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Running::pid)
    }

    /// Starts it (again), and returns when it answers.
    ///
    /// # Panics
    /// When it does not come up; the message carries its log.
    pub fn up(&mut self) {
        let endpoint = &self.endpoint;
        // The daemon must not outlive the process that would stop it.
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(endpoint.version.bin().join("containerd"));
        command.arg("--config").arg(endpoint.dir.join("config.toml"));
        command.env_clear().env("PATH", &self.path);
        command.envs(self.hold.iter().map(|file| ("MYSHIM_HOLD_FILE", file)));
        self.run(command);
    }

    /// Starts it with this command, and returns when it answers.
    pub(crate) fn run(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "it runs already");
        let endpoint = &self.endpoint;
        let log = fs::File::options().create(true).append(true).open(endpoint.log()).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut process = Running::start(command);
        let answers = wait::within(wait::SOON, || {
            if !process.is_running() {
                return Some(false);
            }
            UnixStream::connect(endpoint.address()).ok()?;
            UnixStream::connect(endpoint.ttrpc_address()).ok()?;
            Some(true)
        });
        if answers != Some(true) {
            let log = fs::read_to_string(endpoint.log()).unwrap_or_default();
            panic!("{} does not come up:\n{log}", endpoint.version.name());
        }
        self.process = Some(process);
    }

    /// Ends it with a signal and waits until it is gone.
    ///
    /// # Panics
    /// When it does not end.
    pub fn down(&mut self, signal: Signal) {
        if let Some(process) = self.process.take() {
            process.signal(signal);
            drop(process.finish(Duration::from_secs(30)));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(Signal::TERM);
            if let Err(late) = process.end_within(Duration::from_secs(15)) {
                late.signal(Signal::KILL);
                drop(late.end_within(Duration::from_secs(5)));
            }
        }
    }
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
