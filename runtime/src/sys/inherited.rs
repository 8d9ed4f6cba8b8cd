//! Descriptors that came with the process.

/// Marks all descriptors from `first` on close-on-exec: by close_range(2), or before Linux 5.11
/// one by one, as /proc/self/fd lists them. For processes with one thread.
///
/// # Errors
/// On old kernels only: when /proc/self/fd cannot be read.
pub fn close_on_exec_from(first: u32) -> std::io::Result<()> {
    // SAFETY: no descriptor is closed, so none that is owned elsewhere becomes invalid.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { one_by_one(first) }
}

fn one_by_one(first: u32) -> std::io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(number) = number.filter(|number| *number >= first.cast_signed()) else { continue };
        // SAFETY: it only sets a flag of a descriptor, and what owns it remains its owner.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
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
        for close_on_exec in [close_on_exec_from, one_by_one] {
            let file = rustix::io::fcntl_dupfd_cloexec(&null, 900).unwrap();
            rustix::io::fcntl_setfd(&file, FdFlags::empty()).unwrap();
            close_on_exec(900).unwrap();
            assert_eq!(rustix::io::fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
        }
    }
}
