//! The user's program: found while an answer can still be an error of create, executed at start.
//!
//! The texts are runc's, which is Go's os/exec: kubelet, docker and their users look for them.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::plan::Process;
use crate::sys::process;

/// Used when the environment has no PATH: execvp(3)'s default in glibc and musl alike.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that was found, with all that execve(2) needs.
#[derive(Debug)]
pub struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    name: String,
}

impl Program {
    /// Finds `args[0]` as the process itself would: in its root, its working directory, as its
    /// user, and in its PATH when the name has no slash.
    ///
    /// # Errors
    /// [`Kind::Program`] when it is not there or not executable.
    pub fn find(process: &Process, home: Option<String>) -> Result<Program> {
        let name = process.args.first().cloned().unwrap_or_default();
        let path = if name.contains('/') {
            check(Path::new(&name)).map_err(|errno| stat_error(&name, errno))?;
            PathBuf::from(&name)
        } else {
            search(&name, search_path(&process.env))?
        };
        let mut env = process.env.clone();
        env.extend(home.map(|home| format!("HOME={home}")));
        Ok(Program {
            path: c_string(path.as_os_str(), "process.args[0]")?,
            args: c_strings(&process.args, "process.args")?,
            env: c_strings(&env, "process.env")?,
            name,
        })
    }

    /// Executes it. Returns only when that fails.
    pub fn execute(&self) -> Error {
        match process::execve(&self.path, &self.args, &self.env) {
            Ok(never) => match never {},
            Err(errno) => Error::new(Kind::Program {
                program: self.name.clone(),
                why: errno.desc().to_lowercase(),
            }),
        }
    }
}

/// The last PATH wins, as in getenv(3) of most shells and in Go.
fn search_path(env: &[String]) -> &str {
    env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH)
}

/// A candidate that is there but must not be executed is remembered: "permission denied" tells
/// more than "not found".
fn search(name: &str, path: &str) -> Result<PathBuf> {
    let (mut denied, mut odd) = (false, None);
    for directory in path.split(':').filter(|_| !name.is_empty()) {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = true,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NAMETOOLONG) => {
            }
            Err(errno) => odd = odd.or(Some((candidate, errno))),
        }
    }
    if let Some((candidate, errno)) = odd {
        return Err(Error::call(format!("stat({candidate:?})"), errno));
    }
    let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(Error::new(Kind::Program { program: name.into(), why: why.into() }))
}

/// A file that may be executed by the effective user.
fn check(path: &Path) -> std::result::Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // faccessat2 is newer than some seccomp profiles: execve itself will tell.
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        other => other,
    }
}

fn stat_error(name: &str, errno: Errno) -> Error {
    let why = match errno {
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        Errno::NOENT => format!("stat {name}: no such file or directory"),
        other => {
            let errno = nix::errno::Errno::from_raw(other.raw_os_error());
            format!("stat {name}: {}", errno.desc().to_lowercase())
        }
    };
    Error::new(Kind::Program { program: name.into(), why })
}

fn c_string(text: &OsStr, field: &str) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::field(field, "has a NUL byte"))
}

fn c_strings(texts: &[String], field: &str) -> Result<Vec<CString>> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| c_string(OsStr::new(text), &format!("{field}[{index}]")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_directory_has_is_told_in_the_words_that_clients_match() {
        let error = search("no-such-program", "/usr/bin:/bin").unwrap_err();
        assert_eq!(
            error.to_string(),
            "exec: \"no-such-program\": executable file not found in $PATH"
        );
    }

    #[test]
    fn a_missing_path_is_told_as_go_tells_it() {
        let error = stat_error("/nope", check(Path::new("/nope")).unwrap_err());
        assert_eq!(error.to_string(), "exec: \"/nope\": stat /nope: no such file or directory");
    }

    #[test]
    fn a_file_without_the_x_bit_and_a_directory_are_no_programs() {
        assert_eq!(check(Path::new("/etc/passwd")), Err(Errno::ACCESS));
        assert_eq!(check(Path::new("/etc")), Err(Errno::ISDIR));
    }

    #[test]
    fn the_last_path_of_the_environment_counts() {
        let env = ["PATH=/a".to_owned(), "X=1".to_owned(), "PATH=/b".to_owned()];
        assert_eq!(search_path(&env), "/b");
    }
}
