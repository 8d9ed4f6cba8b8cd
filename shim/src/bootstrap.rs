//! What containerd says to `start` on stdin, and how it wants to be answered.
//!
//! | containerd | stdin | environment | answer on stdout |
//! |---|---|---|---|
//! | ≤ 1.6 | `Any` with the options, or nothing | no `MAX_SHIM_VERSION` | bare address |
//! | 1.7 | the same | `MAX_SHIM_VERSION=2` | bare address (JSON up to version 2 is taken too) |
//! | 2.0 – 2.2 | the same | `MAX_SHIM_VERSION=2` | JSON, version up to 3 |
//! | ≥ 2.3 | `BootstrapParams` | `MAX_SHIM_VERSION=2` | `BootstrapResult` |
//!
//! Two things need care. An `Any` decodes as `BootstrapParams` too (its first two fields have
//! the same numbers and are strings): so a message is taken for `BootstrapParams` only when it
//! names the container and the namespace of the command line. And 1.7 is told from 2.0 by the
//! program that called, see [`crate::caller`]. A bare address means version 2 of the task
//! service, the other two say version 3; the daemon serves both.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use containerd_shim_protos::bootstrap_api::{
    BootstrapParams, BootstrapResult, Extension, LogLevel as Level,
};
use protobuf::well_known_types::any::Any;
use protobuf::{Enum, Message};
use runtime::{At, Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde::Serialize;

use crate::args::Args;
use crate::caller::Generation;
use crate::options;
use crate::serve_args::{Containerd, LogLevel};

/// What containerd limits itself to when it reads the same message.
const STDIN_MAX: usize = 10 << 20;
const STDIN_DEADLINE: Duration = Duration::from_secs(5);

/// The task service's version that is announced where containerd knows it.
const VERSION: i32 = 3;
const PROTOCOL: &str = "ttrpc";

/// How `start` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A `BootstrapResult` (containerd ≥ 2.3).
    Protobuf,
    /// The same as JSON (2.0 – 2.2).
    Json,
    /// The address as it is (1.x).
    Bare,
}

/// A `start`, whatever the dialect it was asked in.
#[derive(Debug, PartialEq)]
pub(crate) struct Bootstrap {
    /// The container's (or sandbox's) id.
    pub(crate) id: String,
    /// containerd's namespace.
    pub(crate) namespace: String,
    /// How to reach containerd.
    pub(crate) containerd: Containerd,
    /// What goes to the log.
    pub(crate) log_level: LogLevel,
    /// The runtime's options, see [`crate::options`].
    pub(crate) options: Option<Any>,
    /// Where containerd wants the socket.
    pub(crate) socket_dir: Option<PathBuf>,
    /// How to answer.
    pub(crate) dialect: Dialect,
}

/// What containerd says by environment variables. Empty where they are not set.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// `TTRPC_ADDRESS`.
    pub(crate) ttrpc_address: String,
    /// `GRPC_ADDRESS`, since 1.7.
    pub(crate) grpc_address: String,
    /// `NAMESPACE`, since 1.7.
    pub(crate) namespace: String,
    /// `MAX_SHIM_VERSION` is set: 1.7 or newer. Its value has been 2 ever since.
    pub(crate) max_shim_version: bool,
}

impl Environment {
    /// This process's.
    pub(crate) fn new() -> Environment {
        let text = |name| std::env::var(name).unwrap_or_default();
        Environment {
            ttrpc_address: text("TTRPC_ADDRESS"),
            grpc_address: text("GRPC_ADDRESS"),
            namespace: text("NAMESPACE"),
            max_shim_version: std::env::var_os("MAX_SHIM_VERSION").is_some(),
        }
    }
}

/// All of stdin; nothing when a person sits at it.
///
/// # Errors
/// When stdin cannot be read, has more than 10 MiB, or does not end within 5 s: containerd has
/// written all of it before, and waits for the answer.
pub(crate) fn read_stdin() -> Result<Vec<u8>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(Vec::new());
    }
    read_to_end(&stdin, Instant::now() + STDIN_DEADLINE).at("read stdin")
}

fn read_to_end(fd: impl AsFd, deadline: Instant) -> Result<Vec<u8>> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 8192]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        let mut polled = [PollFd::new(&fd, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(0) => {
                let after_ms = u64::try_from(STDIN_DEADLINE.as_millis()).unwrap_or(u64::MAX);
                let awaited = "end of what containerd writes".to_owned();
                return Err(Error::new(Kind::Deadline { awaited, after_ms }));
            }
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::call("poll([stdin])", errno)),
        }
        match rustix::io::read(&fd, &mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(_) if bytes.len() > STDIN_MAX => {
                return Err(Error::argument("stdin", "has more than 10 MiB"));
            }
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(Error::call("read([stdin])", errno)),
        }
    }
}

impl Bootstrap {
    /// Makes one of what `start` was given; `caller` is asked only where it matters.
    ///
    /// # Errors
    /// When there is no namespace or id, when stdin is for another container, or is neither of
    /// the two messages.
    pub(crate) fn new(
        args: &Args,
        stdin: &[u8],
        environment: &Environment,
        caller: impl FnOnce(&Path) -> Generation,
    ) -> Result<Bootstrap> {
        let namespace = first([&args.namespace, &environment.namespace]);
        if namespace.is_empty() {
            return Err(Error::argument("-namespace", "shim namespace cannot be empty"));
        }
        if args.id.is_empty() {
            return Err(Error::argument("-id", "shim id cannot be empty"));
        }
        let legacy = Bootstrap {
            id: args.id.clone(),
            namespace,
            containerd: containerd_of(args, environment),
            log_level: if args.debug { LogLevel::Debug } else { LogLevel::Info },
            options: None,
            socket_dir: None,
            dialect: Dialect::Bare,
        };
        match Stdin::tell(stdin, &legacy)? {
            Stdin::Params(params) => Ok(legacy.refined_by(*params)),
            Stdin::Options(options) => {
                let dialect = if !environment.max_shim_version {
                    Dialect::Bare
                } else {
                    match caller(&legacy.containerd.publish_binary) {
                        Generation::One => Dialect::Bare,
                        Generation::Two => Dialect::Json,
                    }
                };
                Ok(Bootstrap { options, dialect, ..legacy })
            }
        }
    }

    /// What 2.3 says on stdin goes over what it says elsewhere.
    fn refined_by(self, params: BootstrapParams) -> Bootstrap {
        let debug = params.log_level.value() <= Level::LOG_LEVEL_DEBUG.value();
        let given = self.containerd;
        Bootstrap {
            containerd: Containerd {
                ttrpc_address: path_or(&params.containerd_ttrpc_address, given.ttrpc_address),
                grpc_address: first([&params.containerd_grpc_address, &given.grpc_address]),
                publish_binary: path_or(&params.containerd_binary, given.publish_binary),
            },
            log_level: if debug { LogLevel::Debug } else { self.log_level },
            options: options_of(params.extensions),
            socket_dir: params.socket_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from),
            dialect: Dialect::Protobuf,
            ..self
        }
    }
}

/// Which of the messages stdin is.
enum Stdin {
    Params(Box<BootstrapParams>),
    Options(Option<Any>),
}

impl Stdin {
    /// `started` is what the command line says.
    fn tell(bytes: &[u8], started: &Bootstrap) -> Result<Stdin> {
        if bytes.is_empty() {
            return Ok(Stdin::Options(None));
        }
        if let Ok(params) = BootstrapParams::parse_from_bytes(bytes) {
            if params.instance_id == started.id && params.namespace == started.namespace {
                return Ok(Stdin::Params(Box::new(params)));
            }
            if has_more_than_an_any(&params) {
                let (theirs, ours) = (&params.instance_id, &started.id);
                let why = format!("is for {theirs:?} in {:?}, not {ours:?}", params.namespace);
                return Err(Error::argument("bootstrap parameters", why));
            }
        }
        match Any::parse_from_bytes(bytes) {
            Ok(any) if !any.type_url.is_empty() => Ok(Stdin::Options(Some(any))),
            _ => Err(Error::argument("stdin", "is neither bootstrap parameters nor options")),
        }
    }
}

/// An `Any` has fields 1 and 2 only.
fn has_more_than_an_any(params: &BootstrapParams) -> bool {
    let rest =
        BootstrapParams { instance_id: String::new(), namespace: String::new(), ..params.clone() };
    rest != BootstrapParams::default()
}

/// From arguments and environment; the ttrpc socket is beside the gRPC one unless it is named.
fn containerd_of(args: &Args, environment: &Environment) -> Containerd {
    let grpc_address = first([&args.address, &environment.grpc_address]);
    let beside =
        if grpc_address.is_empty() { String::new() } else { format!("{grpc_address}.ttrpc") };
    let ttrpc_address = first([&args.ttrpc_address, &environment.ttrpc_address, &beside]);
    Containerd {
        ttrpc_address: path_or(&ttrpc_address, PathBuf::new()),
        grpc_address,
        publish_binary: PathBuf::from(&args.publish_binary),
    }
}

/// The one extension that is the runtime's options; others are for other readers.
fn options_of(extensions: Vec<Extension>) -> Option<Any> {
    let mut values = extensions.into_iter().filter_map(|extension| extension.value.into_option());
    values.find(options::is_options)
}

fn first<const N: usize>(texts: [&str; N]) -> String {
    texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default().to_owned()
}

fn path_or(text: &str, otherwise: PathBuf) -> PathBuf {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if path.is_empty() { otherwise } else { PathBuf::from(path) }
}

impl Dialect {
    /// The answer to `start`: where the daemon listens.
    ///
    /// # Errors
    /// When the message cannot be encoded.
    pub(crate) fn answer(self, address: &str) -> Result<Vec<u8>> {
        match self {
            Dialect::Protobuf => BootstrapResult {
                version: VERSION,
                address: address.to_owned(),
                protocol: PROTOCOL.to_owned(),
                ..BootstrapResult::default()
            }
            .write_to_bytes()
            .map_err(|error| Error::new(Kind::Corrupt(format!("encode the answer: {error}")))),
            Dialect::Json => {
                serde_json::to_vec(&Answer { version: VERSION, address, protocol: PROTOCOL })
                    .map_err(|error| {
                        Error::new(Kind::Corrupt(format!("encode the answer: {error}")))
                    })
            }
            Dialect::Bare => Ok(address.as_bytes().to_vec()),
        }
    }
}

/// `BootstrapResult` as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    version: i32,
    address: &'a str,
    protocol: &'a str,
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::shim::oci::Options;
    use protobuf::EnumOrUnknown;

    use super::*;

    fn args() -> Args {
        Args {
            id: "web".to_owned(),
            namespace: "k8s.io".to_owned(),
            address: "/run/containerd/containerd.sock".to_owned(),
            publish_binary: "/usr/bin/containerd".to_owned(),
            action: "start".to_owned(),
            ..Args::default()
        }
    }

    fn environment(max_shim_version: bool) -> Environment {
        Environment {
            ttrpc_address: "/run/containerd/containerd.sock.ttrpc".to_owned(),
            max_shim_version,
            ..Environment::default()
        }
    }

    fn options() -> Any {
        let options = Options { systemd_cgroup: true, ..Options::default() };
        Any {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        }
    }

    fn params() -> BootstrapParams {
        BootstrapParams {
            instance_id: "web".to_owned(),
            namespace: "k8s.io".to_owned(),
            containerd_version: "v2.3.4".to_owned(),
            containerd_ttrpc_address: "/run/two/containerd.sock.ttrpc".to_owned(),
            containerd_grpc_address: "/run/two/containerd.sock".to_owned(),
            containerd_binary: "/opt/containerd".to_owned(),
            extensions: vec![
                Extension {
                    value: Some(Any { type_url: "x/y.Z".to_owned(), ..Any::default() }).into(),
                    ..Extension::default()
                },
                Extension { value: Some(options()).into(), ..Extension::default() },
            ],
            ..BootstrapParams::default()
        }
    }

    fn never(_: &Path) -> Generation {
        panic!("the caller's program does not matter here")
    }

    #[test]
    fn containerd_2_3_is_answered_in_protobuf() {
        let stdin = params().write_to_bytes().unwrap();
        let start = Bootstrap::new(&args(), &stdin, &environment(true), never).unwrap();
        assert_eq!(start.dialect, Dialect::Protobuf);
        assert_eq!(start.containerd.grpc_address, "/run/two/containerd.sock");
        assert_eq!(start.containerd.publish_binary, Path::new("/opt/containerd"));
        assert_eq!(start.options, Some(options()));
        assert_eq!(start.socket_dir, None);
        let answer = start.dialect.answer("unix:///run/containerd/s/00").unwrap();
        let answer = BootstrapResult::parse_from_bytes(&answer).unwrap();
        assert_eq!(
            (answer.version, &*answer.address, &*answer.protocol),
            (3, "unix:///run/containerd/s/00", "ttrpc")
        );
    }

    #[test]
    fn containerd_2_3_says_how_much_to_log_and_where_the_socket_goes() {
        let mut params = params();
        params.log_level = EnumOrUnknown::new(Level::LOG_LEVEL_TRACE);
        params.socket_dir = Some("/run/s".to_owned());
        let stdin = params.write_to_bytes().unwrap();
        let start = Bootstrap::new(&args(), &stdin, &environment(true), never).unwrap();
        assert_eq!(start.log_level, LogLevel::Debug);
        assert_eq!(start.socket_dir, Some(PathBuf::from("/run/s")));
    }

    #[test]
    fn containerd_2_0_is_answered_in_json_of_version_3() {
        let stdin = options().write_to_bytes().unwrap();
        let start =
            Bootstrap::new(&args(), &stdin, &environment(true), |_| Generation::Two).unwrap();
        assert_eq!((start.dialect, start.options), (Dialect::Json, Some(options())));
        assert_eq!(
            start.dialect.answer("unix:///s").unwrap(),
            br#"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#
        );
    }

    #[test]
    fn containerd_1_is_answered_with_the_bare_address() {
        let stdin = options().write_to_bytes().unwrap();
        for (environment, generation) in
            [(environment(true), Some(Generation::One)), (environment(false), None)]
        {
            let caller = |_: &Path| generation.unwrap();
            for stdin in [&stdin[..], &[]] {
                let start = Bootstrap::new(&args(), stdin, &environment, caller).unwrap();
                assert_eq!(start.dialect, Dialect::Bare);
                assert_eq!(start.options.is_some(), !stdin.is_empty());
                assert_eq!(start.dialect.answer("unix:///s").unwrap(), b"unix:///s");
            }
        }
    }

    #[test]
    fn bootstrap_parameters_of_another_container_are_refused() {
        let stdin = BootstrapParams { instance_id: "db".to_owned(), ..params() };
        let stdin = stdin.write_to_bytes().unwrap();
        let error = Bootstrap::new(&args(), &stdin, &environment(true), never).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"bootstrap parameters: is for "db" in "k8s.io", not "web""#
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for stdin in [&b"hello"[..], b"\n\x00", b"\xff\xff"] {
            let error = Bootstrap::new(&args(), stdin, &environment(true), never).unwrap_err();
            assert_eq!(error.to_string(), "stdin: is neither bootstrap parameters nor options");
        }
    }

    #[test]
    fn the_environment_fills_in_what_the_command_line_leaves_out() {
        let args = Args { id: "web".to_owned(), ..Args::default() };
        let environment = Environment {
            grpc_address: "/run/c.sock".to_owned(),
            namespace: "default".to_owned(),
            ..Environment::default()
        };
        let start = Bootstrap::new(&args, &[], &environment, never).unwrap();
        assert_eq!(start.namespace, "default");
        assert_eq!(start.containerd.grpc_address, "/run/c.sock");
        assert_eq!(start.containerd.ttrpc_address, Path::new("/run/c.sock.ttrpc"));
        let error = Bootstrap::new(&args, &[], &Environment::default(), never).unwrap_err();
        assert_eq!(error.to_string(), "-namespace: shim namespace cannot be empty");
    }
}
