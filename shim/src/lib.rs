//! containerd-shim-myshim-v2: a containerd shim with the OCI runtime inside.
//!
//! containerd starts it as `start`, which starts it again as `serve`, the daemon; as `delete`,
//! after a container is gone; and with `-info`. Only the daemon has an event loop.

mod address;
mod answering;
mod args;
mod bootstrap;
mod bridge;
mod caller;
mod cell;
mod check;
mod delete;
mod events;
mod exit_file;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod handover;
#[cfg(feature = "hold")]
mod hold;
mod info;
mod io;
mod journal;
mod log;
mod lost;
mod oom;
mod oom_score;
mod options;
mod readiness;
mod reaper;
mod remains;
mod room;
mod seal;
mod serve;
mod serve_args;
mod server;
mod service;
mod shim_cgroup;
mod start;
mod stats;
mod task;
mod version;

use std::io::Write;
use std::process::ExitCode;

use runtime::{At, Call, Error, Result};

use crate::args::Args;

/// The program.
pub fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let args = Args::parse(std::env::args_os().skip(1))?;
    if args.action == "check" {
        let report = check::run().at("check")?;
        print(report.text.as_bytes())?;
        return Ok(if report.usable { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    act(args).map(|()| ExitCode::SUCCESS)
}

fn act(args: Args) -> Result<()> {
    if args.help {
        return print(args::USAGE.as_bytes());
    }
    if args.version {
        let program = std::env::args().next().unwrap_or_default();
        return print(version::text(&program).as_bytes());
    }
    if args.info {
        return print(&info::run(features).at("info")?);
    }
    match &*args.action {
        "start" => print(&start::run(&args).at("start")?),
        "delete" => {
            let deleted = delete::run(&args).at("delete")?;
            deleted.failures.iter().for_each(complain);
            print(&deleted.answer)
        }
        "serve" => serve(args).at("serve"),
        "" => Err(Error::argument("action", "is missing: start, delete or check")),
        action => {
            Err(Error::argument("action", format!("{action:?} is not start, delete or check")))
        }
    }
}

fn serve(args: Args) -> Result<()> {
    let args = handover::receive(args)?;
    log::start(&args);
    serve::run(args)
}

/// The features document of the OCI runtime, as JSON.
fn features() -> Result<Vec<u8>> {
    let host = runtime::plan::Host::read(None)?;
    Ok(runtime::features::features(&host).to_string().into_bytes())
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).call(|| "write([1]<stdout>)".to_owned())
}

/// One line for whoever started this. There is nobody left to tell that it could not be written.
fn complain(error: &Error) {
    drop(writeln!(std::io::stderr(), "{}: {error}", info::NAME));
}
