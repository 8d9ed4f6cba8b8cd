//! `start`: finds the daemon of the container's group, or starts one, and says where it listens.
//!
//! On entry the working directory is the bundle. On exit the socket accepts connections: it is
//! bound before the daemon is started, which finds them waiting. Nothing but the answer goes to
//! the standard output, and the daemon has none of this process's streams: containerd reads
//! them, both together, to their end.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use runtime::{At, Call, Error, Result};
use rustix::thread::CoreSchedulingScope;
use serde::Deserialize;

use crate::address::{Address, Claim, DEFAULT_DIR};
use crate::args::Args;
use crate::bootstrap::{self, Bootstrap, Environment};
use crate::handover::Handover;
use crate::seal::SealedProgram;
use crate::{caller, oom_score, options, shim_cgroup};

/// Containers that have the same value of the first of these that they have share a daemon.
const GROUP_ANNOTATIONS: [&str; 2] =
    ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// In the bundle: the address, for `delete` and for a containerd that restarts (1.x always, 2.x
/// when it ended before it wrote its own note).
pub(crate) const ADDRESS_FILE: &str = "address";

/// The start of a container's daemon: what is to be written to the standard output.
///
/// # Errors
/// When there is no daemon that could be used. Nothing is left then.
pub(crate) fn run(args: &Args) -> Result<Vec<u8>> {
    let stdin = bootstrap::read_stdin()?;
    let bootstrap = Bootstrap::new(args, &stdin, &Environment::new(), caller::generation)?;
    let group = group(Path::new("config.json"), &bootstrap.id)?;
    let dir = bootstrap.socket_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DIR));
    let address =
        Address::new(&dir, &bootstrap.containerd.grpc_address, &bootstrap.namespace, &group);
    match address.claim()? {
        Claim::Answering => note(&address)?,
        Claim::Ours(listener) => {
            start_daemon(&bootstrap, &group, &address, listener).inspect_err(|_| {
                // The error that stopped the start is the one to tell. A socket that stays
                // behind is dead, and the next start or delete removes it.
                drop(address.remove_own());
            })?;
        }
    }
    bootstrap.dialect.answer(&address.url())
}

fn start_daemon(
    bootstrap: &Bootstrap,
    group: &str,
    address: &Address,
    listener: OwnedFd,
) -> Result<()> {
    note(address)?;
    let options = options::parse(bootstrap.options.as_ref())?;
    // This process goes ahead, and takes the daemon along: so all that the daemon ever starts is
    // where it belongs from its first moment.
    if !options.shim_cgroup.is_empty() {
        shim_cgroup::join(&options.shim_cgroup).at("shim cgroup")?;
    }
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        rustix::thread::create_core_scheduling_cookie(
            rustix::process::getpid(),
            CoreSchedulingScope::ThreadGroup,
        )
        .call(|| "prctl(PR_SCHED_CORE, CREATE, [self], THREAD_GROUP)".to_owned())?;
    }
    let program = SealedProgram::new(address.dir())?;
    let handover =
        Handover { bootstrap, group, address, oom_score_adj: Some(oom_score::for_daemon()?) };
    handover.start(&program, listener).at("start the daemon")
}

fn note(address: &Address) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(ADDRESS_FILE);
    file.and_then(|mut file| file.write_all(address.url().as_bytes()))
        .call(|| format!("write({ADDRESS_FILE:?})"))
}

/// What the container shares its daemon with others by. All else in config.json is for later.
fn group(config: &Path, id: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: Option<HashMap<String, String>>,
    }
    let text = match fs::read(config) {
        Ok(text) => text,
        Err(error) => return Err(Error::call(format!("read({config:?})"), error)),
    };
    let parsed: Config = serde_json::from_slice(&text)
        .map_err(|error| Error::field(config.display().to_string(), error.to_string()))?;
    let mut annotations = parsed.annotations.unwrap_or_default();
    let mut groups = GROUP_ANNOTATIONS.into_iter().filter_map(|name| annotations.remove(name));
    Ok(groups.next().unwrap_or_else(|| id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_of(config: &str) -> Result<String> {
        let name = format!("myshim-group-{}-{:x}", std::process::id(), config.len());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, config).unwrap();
        let group = group(&path, "web");
        fs::remove_file(path).unwrap();
        group
    }

    #[test]
    fn containers_of_a_sandbox_share_a_daemon() {
        let sandbox =
            r#"{"root":{"path":"x"},"annotations":{"io.kubernetes.cri.sandbox-id":"s","a":"b"}}"#;
        let both = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(group_of(sandbox).unwrap(), "s");
        assert_eq!(group_of(both).unwrap(), "g");
    }

    #[test]
    fn a_container_by_itself_has_a_daemon_of_its_own() {
        assert_eq!(group_of(r#"{"annotations":{"a":"b"}}"#).unwrap(), "web");
        assert_eq!(group_of(r#"{"annotations":null}"#).unwrap(), "web");
        assert_eq!(group_of("{ }").unwrap(), "web");
    }

    #[test]
    fn a_broken_config_is_named() {
        let error = group_of("{\"annotations\": [1]}").unwrap_err().to_string();
        assert!(error.contains("invalid type: sequence, expected a map at line 1"), "{error}");
    }
}
