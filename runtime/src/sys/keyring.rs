//! Session keyrings, keyctl(2).

use std::ffi::CStr;

use nix::errno::Errno;

// linux/keyctl.h; libc lacks them.
#[cfg(test)]
const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
const KEYCTL_SETPERM: libc::c_int = 5;
const KEYCTL_DESCRIBE: libc::c_int = 6;
#[cfg(test)]
const KEY_SPEC_SESSION_KEYRING: libc::c_int = -3;

/// The serial number of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(i32);

/// Joins the session keyring of this name, or makes it (KEYCTL_JOIN_SESSION_KEYRING).
///
/// # Errors
/// The errno of keyctl(2): ENOSYS without CONFIG_KEYS, EDQUOT beyond the user's quota.
pub fn join_session(name: &CStr) -> Result<Key, Errno> {
    // SAFETY: the kernel reads the string, which ends with NUL.
    let key =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(key).map(|key| Key(key as i32))
}

/// The description of a key: `type;uid;gid;permissions;name`, permissions in hexadecimal.
///
/// # Errors
/// The errno of keyctl(2); EMSGSIZE when the description is longer than any of ours.
pub fn describe(key: Key) -> Result<String, Errno> {
    let mut buffer = [0_u8; 512];
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    let length = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key.0, buffer.as_mut_ptr(), buffer.len())
    };
    let length = usize::try_from(Errno::result(length)?).unwrap_or(usize::MAX);
    let text = buffer.get(..length).ok_or(Errno::EMSGSIZE)?;
    Ok(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}

/// Sets the permissions of a key (KEYCTL_SETPERM).
///
/// # Errors
/// The errno of keyctl(2).
pub fn set_permissions(key: Key, permissions: u32) -> Result<(), Errno> {
    // SAFETY: KEYCTL_SETPERM takes two integers.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key.0, permissions) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
pub(crate) fn session_of_this_process() -> Key {
    // SAFETY: KEYCTL_GET_KEYRING_ID takes integers only.
    let key = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
    };
    Key(Errno::result(key).unwrap() as i32)
}
