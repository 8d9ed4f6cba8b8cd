//! Descriptors that came with the process.

use rustix::io::Errno;

/// Marks all descriptors from `first` on close-on-exec (close_range(2), Linux ≥ 5.11).
///
/// # Errors
/// EINVAL before Linux 5.11, ENOSYS before 5.9.
pub fn close_on_exec_from(first: u32) -> std::result::Result<(), Errno> {
    // SAFETY: no descriptor is closed, so none that is owned elsewhere becomes invalid.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    let errno = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&errno).unwrap_or(Errno::INVAL))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::io::FdFlags;

    use super::*;

    #[test]
    fn a_descriptor_that_was_let_through_is_closed_at_exec() {
        // High up: other tests of this process have descriptors too.
        let null = File::open("/dev/null").unwrap();
        let file = rustix::io::fcntl_dupfd_cloexec(&null, 900).unwrap();
        rustix::io::fcntl_setfd(&file, FdFlags::empty()).unwrap();
        close_on_exec_from(900).unwrap();
        assert_eq!(rustix::io::fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
    }
}
