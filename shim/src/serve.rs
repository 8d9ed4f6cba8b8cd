//! The daemon.

use runtime::{Error, Kind, Result};

use crate::serve_args::ServeArgs;

/// Serves containers until the last one is gone.
///
/// # Errors
/// When the daemon cannot come up.
pub(crate) fn run(args: ServeArgs) -> Result<()> {
    Err(Error::new(Kind::Unsupported(format!("no service for {}", args.id))))
}
