//! A pid that a fork leaves where its parent finds it, whatever becomes of the fork.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// One number in memory that forks share with their parent. The kernel writes it in the middle of
/// clone3(2) (CLONE_PARENT_SETTID): there is no moment at which the child exists and the number
/// does not, however soon the caller is killed.
#[derive(Debug)]
pub struct SharedPid(NonNull<AtomicI32>);

impl SharedPid {
    /// No pid yet.
    ///
    /// # Errors
    /// The errno of mmap(2).
    pub fn new() -> Result<SharedPid, Errno> {
        let (read_write, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let memory =
            unsafe { mmap_anonymous(ptr::null_mut(), size_of::<AtomicI32>(), read_write, shared) };
        let memory = memory.map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
        NonNull::new(memory.cast()).map(SharedPid).ok_or(Errno::ENOMEM)
    }

    /// The pid, in the pid namespace of who cloned; None before there is one.
    pub fn get(&self) -> Option<i32> {
        Some(self.number().load(Ordering::Acquire)).filter(|pid| *pid > 0)
    }

    /// Where the kernel is to write. The page is touched, so that it is there when it does.
    pub(super) fn address(&self) -> u64 {
        self.number().store(0, Ordering::Release);
        self.0.as_ptr() as u64
    }

    fn number(&self) -> &AtomicI32 {
        // SAFETY: the mapping is aligned to a page, zeroed, and lives as long as `self`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedPid {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping any more. A failure leaves a page mapped.
        unsafe { munmap(self.0.as_ptr().cast(), size_of::<AtomicI32>()) }.unwrap_or_default();
    }
}
