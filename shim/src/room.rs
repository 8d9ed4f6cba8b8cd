//! Room for descriptors that are to come.
//!
//! What a message carries, and the receiver has no number free for, the kernel closes. If that is
//! the pidfd of a process, nobody will ever reap it; if it is the channel to an init, the container
//! that was just made ends. So who asks for something that will bring descriptors makes room first,
//! while nothing has been done yet, and is refused then.

use std::os::fd::OwnedFd;

use runtime::{Call, Result};

/// Above the standard streams.
const LOWEST: i32 = 3;

/// Numbers that are free once it is dropped. The daemon has one thread: what it does then, without
/// an await in between, finds them free.
#[derive(Debug)]
pub(crate) struct Room(#[allow(dead_code, reason = "held, and never used")] Vec<OwnedFd>);

impl Room {
    /// For so many.
    ///
    /// # Errors
    /// EMFILE: there is none.
    pub(crate) fn make(count: usize) -> Result<Room> {
        // Any that is open will do.
        let number = |_| rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), LOWEST);
        let numbers = (0..count).map(number).collect::<rustix::io::Result<Vec<OwnedFd>>>();
        numbers.map(Room).call(|| format!("fcntl(0, F_DUPFD_CLOEXEC), room for {count} fds"))
    }
}
