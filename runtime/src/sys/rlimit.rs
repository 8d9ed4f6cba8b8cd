//! Resource limits by number, prlimit(2): the plan has numbers, and libc's enums lack some.

use std::ptr;

use nix::errno::Errno;

/// The soft and the hard limit of this process; `u64::MAX` is no limit.
///
/// # Errors
/// The errno of prlimit(2): EINVAL for a resource that the kernel does not know.
pub fn get(resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is the struct the kernel writes, and no new limit is given.
    Errno::result(unsafe { libc::prlimit64(0, resource, ptr::null(), &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets both limits of this process.
///
/// # Errors
/// The errno of prlimit(2): EPERM when the hard limit would rise without CAP_SYS_RESOURCE in the
/// initial user namespace, EINVAL when the soft limit is above the hard one.
pub fn set(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is the struct the kernel reads, and the old limit is not asked for.
    Errno::result(unsafe { libc::prlimit64(0, resource, &raw const limit, ptr::null_mut()) })
        .map(drop)
}
