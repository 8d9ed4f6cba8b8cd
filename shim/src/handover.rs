//! From `start` to the daemon: both ends of the handover.
//!
//! The daemon's command line begins as that of Go's shim does, so that what looks for shims in
//! a list of processes finds it. Its standard input is the listening socket, from which it takes
//! it at once; its standard output is /dev/null; its standard error is the `log` fifo of the
//! bundle. It has no other descriptor: whatever the caller let slip through is closed.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runtime::{At, Call, Error, Result};
use rustix::fs::OFlags;

use crate::address::Address;
use crate::args::Args;
use crate::bootstrap::Bootstrap;
use crate::seal::SealedProgram;
use crate::serve_args::{Containerd, LogLevel, Sealed, ServeArgs};

/// The fifo in the bundle that containerd copies to its own log.
const LOG: &str = "log";
const NULL: &str = "/dev/null";

/// What the daemon is started with.
#[derive(Debug)]
pub(crate) struct Handover<'a> {
    /// What containerd said.
    pub(crate) bootstrap: &'a Bootstrap,
    /// What the daemon's containers have in common.
    pub(crate) group: &'a str,
    /// Where `listener` is bound.
    pub(crate) address: &'a Address,
    /// The daemon's oom_score_adj.
    pub(crate) oom_score_adj: Option<i32>,
}

impl Handover<'_> {
    /// Starts the daemon, in the working directory of this process: the bundle.
    ///
    /// # Errors
    /// When it cannot be executed. Then there is no daemon.
    pub(crate) fn start(&self, program: &SealedProgram, listener: OwnedFd) -> Result<()> {
        // Go opens everything close-on-exec, but what containerd itself inherited comes through.
        runtime::sys::close_on_exec_from(3)
            .call(|| "close_range(3, ~0, CLOSE_RANGE_CLOEXEC)".to_owned())?;
        let mut command = Command::new(&program.path);
        command
            .arg0(std::env::args_os().next().unwrap_or_default())
            .args(self.arguments(&program.how))
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .stderr(log_fifo()?);
        command.spawn().map(drop).call(|| format!("execve({:?})", program.path))
    }

    fn arguments(&self, sealed: &Sealed) -> Vec<String> {
        let Bootstrap { id, namespace, containerd, log_level, .. } = self.bootstrap;
        let path = |path: &Path| path.display().to_string();
        let mut arguments = vec![
            format!("-namespace={namespace}"),
            format!("-id={id}"),
            format!("-address={}", containerd.grpc_address),
            format!("-ttrpc-address={}", path(&containerd.ttrpc_address)),
            format!("-publish-binary={}", path(&containerd.publish_binary)),
            format!("-group={}", self.group),
            format!("-socket={}", path(self.address.path())),
        ];
        if let Some(score) = self.oom_score_adj {
            arguments.push(format!("-oom-score-adj={score}"));
        }
        if let Sealed::Memfd { because } = sealed {
            arguments.push(format!("-not-overlaid={because}"));
        }
        if *log_level == LogLevel::Debug {
            arguments.push("-debug".to_owned());
        }
        arguments.push("serve".to_owned());
        arguments
    }
}

/// Open for reading too: so it opens while nobody reads, and a containerd that goes away is no
/// SIGPIPE. Non-blocking: a containerd that does not read costs lines, not the daemon.
fn log_fifo() -> Result<Stdio> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    match File::options().read(true).write(true).custom_flags(flags).open(LOG) {
        Ok(fifo) => Ok(Stdio::from(fifo)),
        // Started by hand.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Stdio::null()),
        Err(error) => Err(Error::call(format!("open({LOG:?}, O_RDWR|O_NONBLOCK)"), error)),
    }
}

/// The daemon's end: a session and a process group of its own, the socket off standard input.
///
/// # Errors
/// When it was not started by [`Handover::start`].
pub(crate) fn receive(args: Args) -> Result<ServeArgs> {
    take(args).at("take over from start")
}

fn take(args: Args) -> Result<ServeArgs> {
    let stdin = std::io::stdin();
    let listens = rustix::net::sockopt::socket_acceptconn(&stdin)
        .call(|| "getsockopt([0]<stdin>, SO_ACCEPTCONN)".to_owned())?;
    if !listens {
        return Err(Error::argument("stdin", "is not a socket that listens"));
    }
    rustix::process::setsid().call(|| "setsid()".to_owned())?;
    // The name of a program that is executed from a descriptor is the descriptor's number.
    rustix::thread::set_name(c"containerd-shim").call(|| "prctl(PR_SET_NAME)".to_owned())?;
    let listener = rustix::io::fcntl_dupfd_cloexec(stdin.as_fd(), 3)
        .call(|| "fcntl([0]<socket>, F_DUPFD_CLOEXEC)".to_owned())?;
    let null = File::options().read(true).open(NULL).call(|| format!("open({NULL:?})"))?;
    rustix::stdio::dup2_stdin(&null).call(|| "dup2([null], 0)".to_owned())?;
    let oom_score_adj = match &*args.oom_score_adj {
        "" => None,
        score => Some(score.parse().map_err(|_| Error::argument("-oom-score-adj", score))?),
    };
    let sealed = match args.not_overlaid {
        because if because.is_empty() => Sealed::Overlay,
        because => Sealed::Memfd { because },
    };
    Ok(ServeArgs {
        id: args.id,
        namespace: args.namespace,
        group: args.group,
        containerd: Containerd {
            ttrpc_address: PathBuf::from(args.ttrpc_address),
            grpc_address: args.address,
            publish_binary: PathBuf::from(args.publish_binary),
        },
        listener,
        address: Address::parse(&args.socket),
        log_level: if args.debug { LogLevel::Debug } else { LogLevel::Info },
        oom_score_adj,
        sealed,
    })
}
