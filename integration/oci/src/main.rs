//! `myshim-oci`: the command line of OCI runtimes over the library of myshim, so that the public
//! conformance suites can drive it. It is a tool of the tests, is not installed, and decides
//! nothing about containers.

mod args;
mod chain;
mod container;
mod create;
mod date;
mod events;
mod exec;
mod fds;
mod foreground;
mod life;
mod log;
mod show;
mod terminal;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use args::{Args, Operands, Takes};
use runtime::{Error, Result};

const GLOBAL: [args::Flag; 10] = [
    ("root", Takes::Value),
    ("log", Takes::Value),
    ("log-format", Takes::Value),
    ("rootless", Takes::Value),
    ("criu", Takes::Value),
    ("systemd-cgroup", Takes::Nothing),
    ("debug", Takes::Nothing),
    ("help|h", Takes::Nothing),
    ("version|v", Takes::Nothing),
    ("no-color", Takes::Nothing),
];

const USAGE: &str = "\
usage: myshim-oci [--root DIR] [--log FILE] [--log-format text|json] [--systemd-cgroup] [--debug] \
COMMAND …
commands: create start state kill delete run exec pause resume update ps list events features spec
";

/// What all commands need to know.
#[derive(Debug)]
pub(crate) struct Context {
    /// The directory of all states, absolute.
    pub(crate) root: PathBuf,
    /// `--systemd-cgroup`.
    pub(crate) systemd_cgroup: bool,
}

fn main() -> ExitCode {
    let globals = Args::parse(std::env::args().skip(1), &GLOBAL, Operands::Last);
    let log = log::Log::new(globals.as_ref().ok());
    let ended = globals.map_err(failed).and_then(run);
    match ended {
        Ok(code) => ExitCode::from(code),
        Err((error, code)) => {
            log.error(&error);
            ExitCode::from(code)
        }
    }
}

/// The exit code, or the error and the code that tells of it.
type Ended = std::result::Result<u8, Failed>;

/// An error that ends this program.
type Failed = (Error, u8);

fn run(mut globals: Args) -> Ended {
    if globals.has("version") {
        show::version();
        return Ok(0);
    }
    let Some(command) = globals.optional().filter(|_| !globals.has("help")) else {
        print!("{USAGE}");
        return Ok(0);
    };
    let root = globals.value("root").unwrap_or("/run/myshim");
    let root = std::path::absolute(root).map_err(|_| Error::argument("root", "is empty"));
    let context =
        Context { root: root.map_err(failed)?, systemd_cgroup: globals.has("systemd-cgroup") };
    dispatch(&context, &command, globals.rest())
}

fn dispatch(context: &Context, command: &str, words: Vec<String>) -> Ended {
    let done = |result: Result<()>| result.map(|()| 0).map_err(failed);
    match command {
        "create" => done(create::create(context, words)),
        "run" => create::run(context, words).map_err(failed),
        // As with runc: no exit status of a program is 255 by chance as often as 1.
        "exec" => exec::exec(context, words).map_err(|error| (error, u8::MAX)),
        "start" => done(life::start(context, words)),
        "kill" => done(life::kill(context, words)),
        "delete" => done(life::delete(context, words)),
        "pause" => done(life::pause(context, words)),
        "resume" => done(life::resume(context, words)),
        "update" => done(update::update(context, words)),
        "state" => done(show::state(context, words)),
        "list" => done(show::list(context, words)),
        "ps" => done(show::ps(context, words)),
        "features" => done(show::features(words)),
        "spec" => done(show::spec(words)),
        "events" => done(events::events(context, words)),
        other => Err(failed(Error::argument("command", format!("{other:?} is not known")))),
    }
}

fn failed(error: Error) -> Failed {
    (error, 1)
}
