//! `delete`: removes what is left of a container, and says how it ended.
//!
//! containerd starts it after every removal, normal or not, and allows it 5 s. It needs no
//! daemon, finds whatever state there is, and does not mind that there is none. All that fails is
//! written to the standard error, which containerd logs; the answer comes regardless.
//!
//! On entry anything may be left: processes, cgroups, a mounted rootfs, a socket. On exit nothing
//! is, but for the bundle itself, which containerd removes.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use containerd_shim_protos::api::DeleteResponse;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{Message, MessageField};
use runtime::sys::process::SingleThreaded;
use runtime::{At, Call, Error, Kind, Result};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::address::Address;
use crate::args::Args;
use crate::exit_file::{Exit, STATE_DIR};
use crate::remains::{DEADLINE, Remains};
use crate::start::ADDRESS_FILE;

/// 128 + SIGKILL: what is answered where nobody saw the end.
const KILLED: u32 = 137;

/// More mounts than this on one folder are not ours.
const MOUNTS_MAX: usize = 64;

/// What `delete` answers, and what went wrong on the way.
pub(crate) struct Deleted {
    /// For the standard output.
    pub(crate) answer: Vec<u8>,
    /// For the standard error.
    pub(crate) failures: Vec<Error>,
}

/// Removes what is left of a container.
///
/// # Errors
/// When the bundle is not to be found out, or the answer cannot be encoded.
pub(crate) fn run(args: &Args) -> Result<Deleted> {
    let bundle = match &*args.bundle {
        "" => std::env::current_dir().call(|| "getcwd()".to_owned())?,
        bundle => PathBuf::from(bundle),
    };
    delete(&bundle, Instant::now() + DEADLINE)
}

fn delete(bundle: &Path, deadline: Instant) -> Result<Deleted> {
    let state_dir = bundle.join(STATE_DIR);
    let mut failures = Vec::new();
    let pid = keep(&mut failures, pid_in(&state_dir)).flatten();
    match delete_container(&state_dir) {
        Ok(warnings) => failures.extend(warnings.into_iter().map(|w| Error::new(Kind::State(w)))),
        Err(error) => failures.push(error),
    }
    delete_remains(bundle, deadline, pid, failures)
}

/// What could not be deleted by the whole state, was written by another version of it, or is no
/// part of it. `pid` is init's, and `failures` are those so far.
fn delete_remains(
    bundle: &Path,
    deadline: Instant,
    pid: Option<u32>,
    mut failures: Vec<Error>,
) -> Result<Deleted> {
    let state_dir = bundle.join(STATE_DIR);
    let remains = keep(&mut failures, Remains::load(&state_dir).at("read the state")).flatten();
    if let Some(remains) = &remains {
        keep(&mut failures, remains.kill(deadline).at("kill"));
    }
    keep(&mut failures, unmount(&bundle.join("rootfs")).at("unmount the rootfs"));
    if let Some(remains) = &remains {
        keep(&mut failures, remains.remove_cgroups(deadline).at("remove the cgroups"));
    }
    keep(&mut failures, remove_socket(bundle));
    // Last: a daemon that lives has seen the end by now.
    let exit = keep(&mut failures, Exit::read(&state_dir).at("read the exit")).flatten();
    let exit = exit.unwrap_or_else(|| {
        let pid = pid.or_else(|| remains.and_then(|remains| remains.pid()));
        Exit::new(pid.unwrap_or_default(), KILLED, SystemTime::now())
    });
    Ok(Deleted { answer: answer(&exit)?, failures })
}

fn pid_in(state_dir: &Path) -> Result<Option<u32>> {
    Ok(Remains::load(state_dir).at("read the state")?.and_then(|remains| remains.pid()))
}

/// The runtime's own delete: it runs the poststop hooks, which nobody else will.
fn delete_container(state_dir: &Path) -> Result<Vec<String>> {
    let single = SingleThreaded::verify()
        .ok_or_else(|| Error::new(Kind::State("delete has more than one thread".into())))?;
    runtime::process::delete_container(state_dir, &single).at("delete")
}

fn keep<T>(failures: &mut Vec<Error>, result: Result<T>) -> Option<T> {
    result.map_err(|error| failures.push(error)).ok()
}

/// A rootfs that was mounted on the host, for hooks that look at it there. Detached: whoever
/// still has a file open in it does not hold up the rest.
fn unmount(rootfs: &Path) -> Result<()> {
    for _ in 0..MOUNTS_MAX {
        match rustix::mount::unmount(rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: nothing is mounted there (any more).
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(errno) => {
                let call = format!("umount2({rootfs:?}, MNT_DETACH|UMOUNT_NOFOLLOW)");
                return Err(Error::call(call, errno));
            }
        }
    }
    Err(Error::new(Kind::State(format!("{} has more than {MOUNTS_MAX} mounts", rootfs.display()))))
}

/// A daemon that lives may have other containers: its socket stays.
fn remove_socket(bundle: &Path) -> Result<()> {
    let file = bundle.join(ADDRESS_FILE);
    match std::fs::read_to_string(&file) {
        Ok(address) => Address::parse(address.trim()).remove_if_dead(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::call(format!("read({file:?})"), error)),
    }
}

fn answer(exit: &Exit) -> Result<Vec<u8>> {
    let response = DeleteResponse {
        pid: exit.pid,
        exit_status: exit.status,
        exited_at: MessageField::some(Timestamp::from(exit.exited_at())),
        ..DeleteResponse::default()
    };
    response
        .write_to_bytes()
        .map_err(|error| Error::new(Kind::Corrupt(format!("encode the answer: {error}"))))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use crate::address::Claim;

    use super::*;

    fn bundle(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("myshim-delete-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    fn response(bundle: &Path) -> DeleteResponse {
        let deleted = delete_remains(bundle, Instant::now() + DEADLINE, None, Vec::new()).unwrap();
        let failures: Vec<String> = deleted.failures.iter().map(Error::to_string).collect();
        assert_eq!(failures, Vec::<String>::new());
        DeleteResponse::parse_from_bytes(&deleted.answer).unwrap()
    }

    #[test]
    fn a_container_that_was_never_made_is_deleted() {
        let bundle = bundle("never");
        for _ in 0..2 {
            let response = response(&bundle);
            assert_eq!((response.pid, response.exit_status), (0, KILLED));
        }
        fs::remove_dir(&bundle).unwrap();
        response(&bundle);
    }

    #[test]
    fn the_true_exit_is_answered() {
        let bundle = bundle("exit");
        fs::create_dir(bundle.join(STATE_DIR)).unwrap();
        let exited_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        Exit::new(4711, 3, exited_at).write(&bundle.join(STATE_DIR)).unwrap();
        let response = response(&bundle);
        assert_eq!((response.pid, response.exit_status), (4711, 3));
        assert_eq!(response.exited_at.seconds, 1_700_000_000);
        fs::remove_dir_all(bundle).unwrap();
    }

    #[test]
    fn a_dead_socket_is_removed_and_a_live_one_stays() {
        let bundle = bundle("socket");
        let address = Address::new(&bundle.join("s"), "grpc", "ns", "web");
        let claim = address.claim().unwrap();
        fs::write(bundle.join(ADDRESS_FILE), address.url()).unwrap();
        response(&bundle);
        assert!(matches!(claim, Claim::Ours(_)) && address.path().exists());
        drop(claim);
        response(&bundle);
        assert!(!address.path().exists());
        fs::remove_dir_all(bundle).unwrap();
    }

    #[test]
    fn what_is_broken_does_not_keep_the_rest_from_going() {
        let bundle = bundle("broken");
        let address = Address::new(&bundle.join("s"), "grpc", "ns", "web");
        drop(address.claim().unwrap());
        fs::write(bundle.join(ADDRESS_FILE), address.url()).unwrap();
        fs::create_dir(bundle.join(STATE_DIR)).unwrap();
        fs::write(bundle.join(STATE_DIR).join("state.json"), "{").unwrap();
        let deleted = delete_remains(&bundle, Instant::now() + DEADLINE, None, Vec::new()).unwrap();
        assert_eq!(deleted.failures.len(), 1);
        assert!(deleted.failures[0].to_string().starts_with("read the state: "));
        assert!(!address.path().exists());
        let response = DeleteResponse::parse_from_bytes(&deleted.answer).unwrap();
        assert_eq!(response.exit_status, KILLED);
        fs::remove_dir_all(bundle).unwrap();
    }
}
