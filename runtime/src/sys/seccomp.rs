//! Loading a compiled filter, seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// SECCOMP_FILTER_FLAG_NEW_LISTENER of linux/seccomp.h (Linux 5.0).
pub const NEW_LISTENER: u64 = 1 << 3;

/// Loads `program`, an array of struct sock_filter in bytes, into this thread. With
/// [`NEW_LISTENER`] the notify fd comes back (close-on-exec).
///
/// # Errors
/// EINVAL when `program` is no whole number of instructions or the kernel refuses it; EACCES
/// without no_new_privs and without CAP_SYS_ADMIN.
pub fn load(program: &[u8], flags: u64) -> Result<Option<OwnedFd>, Errno> {
    const SIZE: usize = size_of::<libc::sock_filter>();
    // The kernel reads instructions at their alignment, which bytes need not have.
    let mut filter: Vec<libc::sock_filter> = program
        .chunks_exact(SIZE)
        .map(|chunk| {
            // SAFETY: a sock_filter is integers only, and `chunk` has exactly its size.
            unsafe { chunk.as_ptr().cast::<libc::sock_filter>().read_unaligned() }
        })
        .collect();
    if !program.len().is_multiple_of(SIZE) {
        return Err(Errno::EINVAL);
    }
    let length = u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to `len` instructions that outlive the call, which copies them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags as libc::c_uint,
            &raw const program,
        )
    };
    match Errno::result(result)? {
        fd if flags & NEW_LISTENER != 0 => {
            // SAFETY: with NEW_LISTENER the result is a descriptor just opened for us.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }))
        }
        // With TSYNC, which is not asked for, this would be a thread that could not follow.
        _ => Ok(None),
    }
}
