//! The command line, in the dialect of Go's `flag` package, which containerd's callers speak:
//! `-name value`, `-name=value`, one dash or two, flags before the action.

use std::ffi::OsString;

use runtime::{Error, Kind, Result};

/// The command line, taken apart. Texts that were not given are empty, as in Go.
#[derive(Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "they are command line flags")]
pub(crate) struct Args {
    /// `-debug`: log what a developer wants to know.
    pub(crate) debug: bool,
    /// `-v`, `-version`: print the version, and nothing else.
    pub(crate) version: bool,
    /// `-info`: answer with a `RuntimeInfo`, and nothing else.
    pub(crate) info: bool,
    /// `-h`, `-help`: print the flags, and nothing else.
    pub(crate) help: bool,
    /// `-namespace`: containerd's namespace.
    pub(crate) namespace: String,
    /// `-id`: the container's (or sandbox's) id.
    pub(crate) id: String,
    /// `-socket`: the path to serve.
    pub(crate) socket: String,
    /// `-debug-socket`: accepted; there is nothing behind it.
    pub(crate) debug_socket: String,
    /// `-bundle`: the bundle, where it is not the working directory (`delete`).
    pub(crate) bundle: String,
    /// `-address`: containerd's gRPC address.
    pub(crate) address: String,
    /// `-publish-binary`: containerd's program.
    pub(crate) publish_binary: String,
    /// `-ttrpc-address`: containerd's ttrpc address; only from `start` to `serve`.
    pub(crate) ttrpc_address: String,
    /// `-group`: what the daemon's containers have in common; only from `start` to `serve`.
    pub(crate) group: String,
    /// `-oom-score-adj`: the daemon's; only from `start` to `serve`.
    pub(crate) oom_score_adj: String,
    /// `-not-overlaid`: why the binary runs from memory; only from `start` to `serve`.
    pub(crate) not_overlaid: String,
    /// `start`, `delete` or `serve`.
    pub(crate) action: String,
}

/// Where a flag's value goes.
enum Slot<'a> {
    Switch(&'a mut bool),
    Text(&'a mut String),
}

/// What `-help` prints.
pub(crate) const USAGE: &str = "\
Usage: containerd-shim-myshim-v2 [flags] start|delete
       containerd-shim-myshim-v2 check
`check` tells whether this host has what containers need: status 0 unless something required is
missing. The rest is for containerd. Flags:
  -namespace NS         namespace that owns the shim
  -id ID                id of the task
  -address ADDRESS      gRPC address of containerd
  -publish-binary PATH  containerd's program (not needed: events go to $TTRPC_ADDRESS)
  -bundle PATH          path to the bundle if not the working directory (delete)
  -socket PATH          socket path to serve
  -debug-socket PATH    accepted for compatibility
  -debug                enable debug output in logs
  -info                 read the options from stdin, print the runtime's info (both protobuf)
  -v, -version          show the version
";

impl Args {
    /// Takes the command line apart; `arguments` has no program name.
    ///
    /// # Errors
    /// In the words of Go's `flag`, for an unknown flag, a missing or an unacceptable value.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args> {
        let mut args = Args::default();
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let argument = text(argument)?;
            let Some(flag) = flag_of(&argument)? else {
                if argument != "--" {
                    args.action = argument;
                } else if let Some(action) = rest.next() {
                    args.action = text(action)?;
                }
                return Ok(args);
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            match (args.slot(name)?, value) {
                (Slot::Switch(switch), None) => *switch = true,
                (Slot::Switch(switch), Some(value)) => *switch = truth(name, value)?,
                (Slot::Text(slot), Some(value)) => value.clone_into(slot),
                (Slot::Text(slot), None) => {
                    let value = rest.next().ok_or_else(|| needs_value(name))?;
                    *slot = text(value)?;
                }
            }
        }
        Ok(args)
    }

    fn slot(&mut self, name: &str) -> Result<Slot<'_>> {
        Ok(match name {
            "debug" => Slot::Switch(&mut self.debug),
            "v" | "version" => Slot::Switch(&mut self.version),
            "info" => Slot::Switch(&mut self.info),
            "h" | "help" => Slot::Switch(&mut self.help),
            "namespace" => Slot::Text(&mut self.namespace),
            "id" => Slot::Text(&mut self.id),
            "socket" => Slot::Text(&mut self.socket),
            "debug-socket" => Slot::Text(&mut self.debug_socket),
            "bundle" => Slot::Text(&mut self.bundle),
            "address" => Slot::Text(&mut self.address),
            "publish-binary" => Slot::Text(&mut self.publish_binary),
            "ttrpc-address" => Slot::Text(&mut self.ttrpc_address),
            "group" => Slot::Text(&mut self.group),
            "oom-score-adj" => Slot::Text(&mut self.oom_score_adj),
            "not-overlaid" => Slot::Text(&mut self.not_overlaid),
            _ => return Err(usage(format!("flag provided but not defined: -{name}"))),
        })
    }
}

/// What follows the dashes of a flag; None: the flags end here.
fn flag_of(argument: &str) -> Result<Option<&str>> {
    let Some(flag) = argument.strip_prefix('-') else { return Ok(None) };
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    match (argument, flag.chars().next()) {
        ("-" | "--", _) => Ok(None),
        (_, None | Some('-' | '=')) => Err(usage(format!("bad flag syntax: {argument}"))),
        _ => Ok(Some(flag)),
    }
}

/// What Go's `strconv.ParseBool` takes.
fn truth(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(usage(format!("invalid boolean value {value:?} for -{name}"))),
    }
}

fn text(argument: OsString) -> Result<String> {
    argument.into_string().map_err(|argument| {
        usage(format!("argument is not UTF-8: {:?}", argument.to_string_lossy()))
    })
}

fn needs_value(name: &str) -> Error {
    usage(format!("flag needs an argument: -{name}"))
}

fn usage(why: String) -> Error {
    Error::new(Kind::Argument { name: "command line".to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args> {
        Args::parse(arguments.iter().map(OsString::from))
    }

    fn refusal(arguments: &[&str]) -> String {
        parse(arguments).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_of_containerd_is_understood() {
        let args = parse(&[
            "-namespace",
            "k8s.io",
            "-address",
            "/run/containerd/containerd.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "web",
            "-bundle",
            "/run/b/web",
            "-debug",
            "delete",
        ])
        .unwrap();
        let expected = Args {
            namespace: "k8s.io".to_owned(),
            address: "/run/containerd/containerd.sock".to_owned(),
            publish_binary: "/usr/bin/containerd".to_owned(),
            id: "web".to_owned(),
            bundle: "/run/b/web".to_owned(),
            debug: true,
            action: "delete".to_owned(),
            ..Args::default()
        };
        assert_eq!(args, expected);
    }

    #[test]
    fn one_dash_or_two_and_an_equals_sign_are_the_same() {
        for form in [&["-id", "a=b"][..], &["--id", "a=b"], &["-id=a=b"], &["--id=a=b"]] {
            assert_eq!(parse(form).unwrap().id, "a=b", "{form:?}");
        }
        assert!(!parse(&["-debug=false"]).unwrap().debug);
        assert!(parse(&["--debug=T"]).unwrap().debug);
    }

    #[test]
    fn flags_end_at_the_action() {
        let args = parse(&["start", "-no-such-flag"]).unwrap();
        assert_eq!(args.action, "start");
        assert_eq!(parse(&["--", "-start"]).unwrap().action, "-start");
        assert_eq!(parse(&["-"]).unwrap().action, "-");
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        assert_eq!(parse(&["-id", "-debug"]).unwrap().id, "-debug");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert!(refusal(&["-colour"]).ends_with("flag provided but not defined: -colour"));
        assert!(refusal(&["-id"]).ends_with("flag needs an argument: -id"));
        assert!(refusal(&["---id"]).ends_with("bad flag syntax: ---id"));
        assert!(refusal(&["-=x"]).ends_with("bad flag syntax: -=x"));
        assert!(
            refusal(&["-debug=perhaps"]).ends_with("invalid boolean value \"perhaps\" for -debug")
        );
    }
}
