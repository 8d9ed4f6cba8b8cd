//! Which version of the shim this is.

use std::path::Path;

/// The version of the release.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit; `unknown` when it was built from something else than a checkout.
pub(crate) const REVISION: &str = env!("MYSHIM_REVISION");

/// What `-v` prints, in the form of Go's shim.
pub(crate) fn text(program: &str) -> String {
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    format!("{name}:\n  Version:  {VERSION}\n  Revision: {REVISION}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_printed_as_go_does() {
        let expected =
            format!("shim:\n  Version:  {}\n  Revision: {REVISION}\n\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(text("/usr/bin/shim"), expected);
        assert!(REVISION == "unknown" || REVISION.len() == 40, "{REVISION}");
    }
}
