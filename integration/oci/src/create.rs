//! `create` and `run`.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use runtime::process::{
    CreateOptions, CreateRequest, Created, DeleteRequest, PoststartRequest, Request, StartedBy,
};
use runtime::spec::Spec;
use runtime::{At, Call, Error, Kind, Result};

use crate::args::{Args, Flag, Operands, Takes};
use crate::foreground::{self, Signals};
use crate::{Context, chain, container, fds, life, terminal};

const FLAGS: [Flag; 11] = [
    ("bundle|b", Takes::Value),
    ("console-socket", Takes::Value),
    ("pidfd-socket", Takes::Value),
    ("pid-file", Takes::Value),
    ("no-pivot", Takes::Nothing),
    ("no-new-keyring", Takes::Nothing),
    ("preserve-fds", Takes::Value),
    ("detach|d", Takes::Nothing),
    ("keep", Takes::Nothing),
    ("no-subreaper", Takes::Nothing),
    ("help|h", Takes::Nothing),
];

/// A container that is asked for.
struct Wanted {
    request: CreateRequest,
    extra: Vec<OwnedFd>,
    terminal: bool,
    console_socket: Option<PathBuf>,
}

/// `create [flags] ID`.
pub(crate) fn create(context: &Context, words: Vec<String>) -> Result<()> {
    let wanted =
        Wanted::new(context, Args::parse(words, &FLAGS, Operands::Between)?, Stay::Detached)?;
    let created = wanted.make(StartedBy::Anyone)?;
    wanted.hand_out(&created)
}

/// `run [flags] ID`. The exit status of its init.
pub(crate) fn run(context: &Context, words: Vec<String>) -> Result<u8> {
    let args = Args::parse(words, &FLAGS, Operands::Between)?;
    let (stay, keep) = (Stay::of(&args), args.has("keep"));
    let wanted = Wanted::new(context, args, stay)?;
    let signals = stay.signals()?;
    let created = wanted.make(StartedBy::Daemon)?;
    let ended = wanted.live(created, signals.as_ref());
    if ended.is_err() || !(stay == Stay::Detached || keep) {
        let deleted = wanted.delete();
        let ended = ended?;
        return deleted.map(|()| ended);
    }
    ended
}

impl Wanted {
    fn new(context: &Context, mut args: Args, stay: Stay) -> Result<Wanted> {
        let preserve = args.number("preserve-fds")?.unwrap_or(0);
        let preserve = usize::try_from(preserve)
            .map_err(|_| Error::argument("preserve-fds", "is negative"))?;
        let (extra_fds, extra) = fds::take(fds::listening(), preserve)?;
        let bundle = args.value("bundle").unwrap_or(".");
        let bundle = std::fs::canonicalize(bundle).call(|| format!("realpath({bundle:?})"))?;
        let terminal = Spec::load(&bundle)?.process.and_then(|process| process.terminal);
        let terminal = terminal.unwrap_or(false);
        let console_socket = args.value("console-socket").map(PathBuf::from);
        check_console(stay, terminal, console_socket.as_deref())?;
        let id = args.operand("container id")?;
        let options = CreateOptions {
            no_pivot_root: args.has("no-pivot"),
            no_new_keyring: args.has("no-new-keyring"),
            systemd_cgroup: context.systemd_cgroup,
            extra_fds,
            started_by: StartedBy::Daemon,
        };
        let request = CreateRequest {
            state_dir: container::directory(&context.root, &id)?,
            pid_file: args.value("pid-file").map(absolute).transpose()?,
            rootfs: Vec::new(),
            id,
            bundle,
            options,
        };
        make_root(context)?;
        Ok(Wanted { request, extra, terminal, console_socket })
    }

    fn make(&self, started_by: StartedBy) -> Result<Created> {
        let mut request = self.request.clone();
        request.options.started_by = started_by;
        let mut streams: Vec<BorrowedFd<'_>> = Vec::new();
        if !self.terminal {
            streams.extend(fds::stdio());
        }
        streams.extend(self.extra.iter().map(AsFd::as_fd));
        chain::make(&Request::Create(request), &streams)
            .at("create")
            .map_err(|error| if error.is_death_of_main() { self.undone(error) } else { error })
    }

    /// Deletes what an error leaves behind.
    fn undone(&self, error: Error) -> Error {
        match self.delete() {
            Ok(()) => error,
            Err(undo) => error.with_undo(vec![undo]),
        }
    }

    /// Gives the terminal to who asked for it. A container whose terminal nobody has is none.
    fn hand_out(&self, created: &Created) -> Result<()> {
        let (Some(console), Some(socket)) = (&created.console, &self.console_socket) else {
            return Ok(());
        };
        terminal::send(console.as_fd(), socket).map_err(|error| self.undone(error))
    }

    /// Starts it, and stays with it in the foreground.
    fn live(&self, created: Created, signals: Option<&Signals>) -> Result<u8> {
        self.hand_out(&created)?;
        let Created { process, start, console, facts } = created;
        let console = console.filter(|_| self.console_socket.is_none());
        console.as_ref().map_or(Ok(()), |console| terminal::copy_size(console.as_fd()))?;
        chain::start(&process, start).at("start")?;
        if facts.has_poststart {
            let state_dir = self.request.state_dir.clone();
            chain::run(&Request::Poststart(PoststartRequest { state_dir }))?;
        }
        signals.map_or(Ok(0), |signals| foreground::attend(&process, signals, console))
    }

    fn delete(&self) -> Result<()> {
        let state_dir = self.request.state_dir.clone();
        chain::run(&Request::Delete(DeleteRequest { state_dir })).at("delete")?;
        life::forget(&self.request.state_dir)
    }
}

/// Whether this program stays with the process that it has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    Foreground,
    Detached,
}

impl Stay {
    /// As `--detach` has it.
    pub(crate) fn of(args: &Args) -> Stay {
        if args.has("detach") { Stay::Detached } else { Stay::Foreground }
    }

    /// Signals for a process in the foreground.
    pub(crate) fn signals(self) -> Result<Option<Signals>> {
        match self {
            Stay::Detached => Ok(None),
            Stay::Foreground => Signals::catch().map(Some),
        }
    }
}

/// Who is to have the terminal has to be known.
pub(crate) fn check_console(stay: Stay, terminal: bool, socket: Option<&Path>) -> Result<()> {
    let why = match (stay == Stay::Detached && terminal, socket) {
        (true, None) => "cannot allocate tty if we will detach without setting console socket",
        (false, Some(_)) => "cannot use console socket if we will not detach or allocate tty",
        _ => return Ok(()),
    };
    Err(Error::argument("console-socket", why))
}

/// A path, whatever the working directory will be.
pub(crate) fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|_| Error::argument("path", "is empty"))
}

fn make_root(context: &Context) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&context.root)
        .call(|| format!("mkdir({:?}, 0700)", context.root))
        .map_err(|error| match error.errno() {
            Some(_) => error,
            None => Error::new(Kind::State(format!("root {:?} cannot be made", context.root))),
        })
}
