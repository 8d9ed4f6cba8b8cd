//! What failed, where, and of what: an error is a kind, a trail of steps and one call.
//!
//! An [`Error`] crosses the forks of the process chain as data (it is `Serialize`), so that what
//! a client reads is what the innermost child saw:
//!
//! ```text
//! create web: init: build rootfs: mount 3 of 7 at /proc: fsmount([9]<proc>, NOSUID|NODEV): EPERM: Operation not permitted
//! └──────────────────── trail ────────────────────────┘ └──────── call ────────────────┘  └─ errno ─┘
//! ```

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure this is: decides the status code a client gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A system call failed; `errno` is its number (errno(3)).
    Call {
        /// The call with its arguments, for example `openat2([5]<root>, "etc")`.
        call: String,
        /// The raw errno.
        errno: i32,
    },
    /// A field of the bundle's config.json, of a process.json or of resources is not acceptable.
    Field {
        /// The JSON path of the field, for example `linux.seccomp.syscalls[3].action`.
        path: String,
        /// Why it is refused.
        why: String,
    },
    /// A request that is not about a spec field is malformed (an option, a rootfs mount, …).
    Argument {
        /// The name of the argument.
        name: String,
        /// Why it is refused.
        why: String,
    },
    /// The user's program cannot be executed. Displays in the words of runc, which clients match.
    Program {
        /// `args[0]`, or the path it was resolved to.
        program: String,
        /// `executable file not found in $PATH`, `no such file or directory`, `permission denied`, …
        why: String,
    },
    /// A hook failed.
    Hook {
        /// For example `createRuntime hook 1 of 2 (/opt/hook)`.
        hook: String,
        /// How it ended, and what it printed (bounded).
        outcome: String,
    },
    /// A process of the chain ended before it had answered.
    PeerDied {
        /// Which one (`init`, `intermediate`, `main`, `spawner`).
        who: String,
        /// What it died of, for example `killed by SIGKILL` or `exit status 3`.
        how: String,
    },
    /// An answer did not come in time.
    Deadline {
        /// What was awaited.
        awaited: String,
        /// How long, in milliseconds.
        after_ms: u64,
    },
    /// Something that was asked for is not there.
    NotFound(String),
    /// Something that was to be made is there already.
    AlreadyExists(String),
    /// Not possible in the present state (for example exec in a paused container).
    State(String),
    /// This host cannot do what is asked (a kernel feature, an LSM, a controller is missing).
    Unsupported(String),
    /// Data that another part of this program wrote does not parse (a state file, a message).
    Corrupt(String),
}

/// As [`Kind::PeerDied`] names it.
const MAIN: &str = "main";

/// A failure with the steps that led to it. See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Steps, innermost first (pushed while the error travels up).
    trail: Vec<Cow<'static, str>>,
    kind: Kind,
    /// What failed while the effects of the failed operation were undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    undo: Vec<Error>,
}

impl Error {
    /// An error of this kind, with an empty trail.
    pub fn new(kind: Kind) -> Error {
        Error { trail: Vec::new(), kind, undo: Vec::new() }
    }

    /// A failed system call: `call` is written as it would be in C, with its arguments.
    pub fn call(call: impl Into<String>, errno: impl ToErrno) -> Error {
        Error::new(Kind::Call { call: call.into(), errno: errno.to_errno() })
    }

    /// Main, which runs an operation, has ended without an answer, or is as good as dead: it can
    /// neither go on nor undo. Whoever asked undoes what it had made.
    pub fn death_of_main(how: impl Into<String>) -> Error {
        Error::new(Kind::PeerDied { who: MAIN.into(), how: how.into() })
    }

    /// Whether it is a [`Error::death_of_main`].
    pub fn is_death_of_main(&self) -> bool {
        matches!(&self.kind, Kind::PeerDied { who, .. } if who == MAIN)
    }

    /// A spec field that is not acceptable; `path` is its JSON path.
    pub fn field(path: impl Into<String>, why: impl Into<String>) -> Error {
        Error::new(Kind::Field { path: path.into(), why: why.into() })
    }

    /// An argument of a request that is not acceptable.
    pub fn argument(name: impl Into<String>, why: impl Into<String>) -> Error {
        Error::new(Kind::Argument { name: name.into(), why: why.into() })
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The errno, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match &self.kind {
            Kind::Call { errno, .. } => Some(Errno::from_raw(*errno)),
            _ => None,
        }
    }

    /// The same failure, one step further out.
    #[must_use]
    pub fn at(mut self, step: impl Into<Cow<'static, str>>) -> Error {
        self.trail.push(step.into());
        self
    }

    /// The same failure, with what failed while its effects were undone.
    #[must_use]
    pub fn with_undo(mut self, failed: Vec<Error>) -> Error {
        self.undo.extend(failed);
        self
    }

    fn fmt_kind(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Call { call, errno } => {
                let errno = Errno::from_raw(*errno);
                write!(f, "{}: {errno:?}: {}", Short(call), errno.desc())
            }
            Kind::Field { path: name, why } | Kind::Argument { name, why } => {
                write!(f, "{}: {}", Short(name), Short(why))
            }
            // runc's words; kubelet and docker look for them.
            Kind::Program { program, why } => {
                write!(f, "exec: {:?}: {}", Short(program).to_string(), Short(why))
            }
            Kind::Hook { hook, outcome } => write!(f, "{hook}: {outcome}"),
            Kind::PeerDied { who, how } => write!(f, "{who} ended before it answered: {how}"),
            Kind::Deadline { awaited, after_ms } => {
                write!(f, "no {awaited} within {after_ms} ms")
            }
            Kind::NotFound(what) => write!(f, "{}: not found", Short(what)),
            Kind::AlreadyExists(what) => write!(f, "{}: already exists", Short(what)),
            Kind::State(why) | Kind::Unsupported(why) | Kind::Corrupt(why) => {
                write!(f, "{}", Short(why))
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in self.trail.iter().rev() {
            write!(f, "{}: ", Short(step))?;
        }
        self.fmt_kind(f)?;
        self.undo.iter().try_for_each(|error| write!(f, "; undo: {error}"))
    }
}

impl std::error::Error for Error {}

/// A piece of a message, without its middle when it is long: what is refused may be a megabyte.
struct Short<'a>(&'a str);

/// Bytes of the beginning and of the end that are shown.
const HEAD: usize = 384;
const TAIL: usize = 96;

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        if text.len() <= 2 * (HEAD + TAIL) {
            return f.write_str(text);
        }
        let whole = |at: &usize| text.is_char_boundary(*at);
        let (head, _) = text.split_at((0..=HEAD).rev().find(whole).unwrap_or_default());
        let (_, tail) = text.split_at((text.len() - TAIL..).find(whole).unwrap_or(text.len()));
        write!(f, "{head} [… {} bytes …] {tail}", text.len() - head.len() - tail.len())
    }
}

/// What can tell the errno of a failed system call.
pub trait ToErrno {
    /// The raw errno; 0 where there is none (a short write, say).
    fn to_errno(&self) -> i32;
}

impl ToErrno for Errno {
    fn to_errno(&self) -> i32 {
        std::io::Error::from(*self).raw_os_error().unwrap_or(0)
    }
}

impl ToErrno for rustix::io::Errno {
    fn to_errno(&self) -> i32 {
        self.raw_os_error()
    }
}

impl ToErrno for std::io::Error {
    fn to_errno(&self) -> i32 {
        self.raw_os_error().unwrap_or(0)
    }
}

/// Adds the step to an error on its way up.
pub trait At<T> {
    /// Names the step that failed.
    fn at(self, step: impl Into<Cow<'static, str>>) -> Result<T>;

    /// Names the step that failed; the name is built only then.
    fn at_with<S: Into<Cow<'static, str>>>(self, step: impl FnOnce() -> S) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at(self, step: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| error.at(step))
    }

    fn at_with<S: Into<Cow<'static, str>>>(self, step: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.at(step()))
    }
}

/// Turns the error of a system call into an [`Error`] that names the call and its arguments.
pub trait Call<T> {
    /// `call` is written as in C, with its arguments; it is built only on failure.
    fn call(self, call: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: ToErrno> Call<T> for std::result::Result<T, E> {
    fn call(self, call: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::call(call(), errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_from_the_outermost_step_to_the_errno() {
        let error = Error::call("fsmount([9]<proc>, NOSUID|NODEV)", Errno::EPERM)
            .at("mount 3 of 7 at /proc")
            .at("build rootfs")
            .at("init");
        assert_eq!(
            error.to_string(),
            "init: build rootfs: mount 3 of 7 at /proc: fsmount([9]<proc>, NOSUID|NODEV): \
             EPERM: Operation not permitted"
        );
    }

    #[test]
    fn what_is_long_is_shown_by_its_beginning_and_its_end() {
        let long = format!("{}END", "\u{e4}".repeat(1 << 20));
        let text = Error::field(format!("hostname{long}"), long).at("plan").to_string();
        assert!(text.starts_with("plan: hostname\u{e4}\u{e4}"), "{text}");
        assert!(text.ends_with("END") && text.contains(" bytes …] "), "{text}");
        assert!(text.len() < 1200, "{}", text.len());
        let longest = "x".repeat(2 * (HEAD + TAIL));
        assert_eq!(Error::field("a", &*longest).to_string(), format!("a: {longest}"));
    }

    #[test]
    fn an_error_survives_the_way_through_a_channel() {
        let error = Error::field("process.cwd", "must be absolute").at("plan");
        let bytes = serde_json::to_vec(&error).unwrap();
        assert_eq!(serde_json::from_slice::<Error>(&bytes).unwrap(), error);
    }
}
