//! For tests of what an operation allocates, never for use: an allocator that counts, in a page
//! that all forks share.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use nix::errno::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// The system's allocator, with a count of what is asked of it.
#[derive(Debug)]
pub struct Counting;

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    bytes: AtomicU64,
}

static SHARED: AtomicPtr<Counters> = AtomicPtr::new(ptr::null_mut());
static COUNTED: AtomicBool = AtomicBool::new(false);

/// Begins to share counters with the forks to come. Once.
///
/// # Errors
/// The errno of mmap(2).
pub fn share() -> Result<(), Errno> {
    let (read_write, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let memory =
        unsafe { mmap_anonymous(ptr::null_mut(), size_of::<Counters>(), read_write, shared) };
    let memory = memory.map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    SHARED.store(memory.cast(), Ordering::Release);
    Ok(())
}

/// Whether this process and those that it forks from now on are counted.
pub fn count(counted: bool) {
    COUNTED.store(counted, Ordering::Relaxed);
}

/// Allocations and bytes since the last time.
pub fn take() -> (u64, u64) {
    match shared() {
        Some(counters) => {
            (counters.calls.swap(0, Ordering::Relaxed), counters.bytes.swap(0, Ordering::Relaxed))
        }
        None => (0, 0),
    }
}

fn shared() -> Option<&'static Counters> {
    // SAFETY: null, or a mapping that is aligned to a page, zeroed by the kernel (which is a valid
    // Counters), and never unmapped.
    unsafe { SHARED.load(Ordering::Acquire).as_ref() }
}

fn note(bytes: usize) {
    if COUNTED.load(Ordering::Relaxed)
        && let Some(counters) = shared()
    {
        counters.calls.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: all is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` comes from the system's allocator, by `alloc` or `realloc`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}
