//! The container's session keyring, session-keyring(7).
//!
//! Keyrings have no namespace: without one of its own, a container sees the keys of the shim's
//! session. Init and tenants of a container join the same one, by name.

use std::ffi::CString;

use nix::errno::Errno;

use crate::error::{At, Call, Error, Kind, Result};
use crate::sys::keyring::{self, Key};

/// Whether there is a session keyring now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The container's own.
    Own,
    /// A kernel without CONFIG_KEYS: there are no keys to protect.
    NoKeyrings,
}

/// KEY_USR_SEARCH of linux/key.h: who else runs as the owner may find keys in it. Tenants need
/// it to join a keyring that their ancestors do not possess.
const USER_SEARCH: u32 = 0x0008_0000;

/// Joins the session keyring `_ses.<id>` of the container, or makes it.
///
/// # Errors
/// The call that failed; EDQUOT when the user has too many keys (/proc/key-users).
pub fn join(id: &str) -> Result<Joined> {
    let name =
        CString::new(format!("_ses.{id}")).map_err(|_| Error::argument("id", "has a NUL byte"))?;
    let key = match keyring::join_session(&name) {
        Err(Errno::ENOSYS) => return Ok(Joined::NoKeyrings),
        other => other.call(|| format!("keyctl(KEYCTL_JOIN_SESSION_KEYRING, {name:?})"))?,
    };
    let_user_search(key).at("let the owner search the session keyring")?;
    Ok(Joined::Own)
}

fn let_user_search(key: Key) -> Result<()> {
    let permissions = permissions_of(key)?;
    if permissions & USER_SEARCH != 0 {
        return Ok(());
    }
    let permissions = permissions | USER_SEARCH;
    keyring::set_permissions(key, permissions)
        .call(|| format!("keyctl(KEYCTL_SETPERM, {key:?}, {permissions:#x})"))
}

fn permissions_of(key: Key) -> Result<u32> {
    let description =
        keyring::describe(key).call(|| format!("keyctl(KEYCTL_DESCRIBE, {key:?})"))?;
    description
        .split(';')
        .nth(3)
        .and_then(|field| u32::from_str_radix(field, 16).ok())
        .ok_or_else(|| Error::new(Kind::Corrupt(format!("key description {description:?}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::in_fork;

    #[test]
    fn the_session_keyring_is_named_after_the_container_and_searchable_by_its_owner() {
        in_fork(|_| {
            let id = format!("claim-{}", std::process::id());
            match join(&id).unwrap() {
                Joined::NoKeyrings => return,
                Joined::Own => {}
            }
            let key = keyring::session_of_this_process();
            let description = keyring::describe(key).unwrap();
            assert!(description.ends_with(&format!(";_ses.{id}")), "{description}");
            assert_ne!(permissions_of(key).unwrap() & USER_SEARCH, 0);
        });
    }

    #[test]
    fn a_tenant_joins_the_same_keyring_as_init() {
        in_fork(|_| {
            let id = format!("tenant-{}", std::process::id());
            if join(&id).unwrap() == Joined::NoKeyrings {
                return;
            }
            let of_init = keyring::session_of_this_process();
            in_fork(|_| {
                join("another").unwrap();
                assert_ne!(keyring::session_of_this_process(), of_init);
                join(&id).unwrap();
                assert_eq!(keyring::session_of_this_process(), of_init);
            });
        });
    }
}
