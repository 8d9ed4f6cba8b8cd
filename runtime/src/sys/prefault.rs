//! Memory that is there before it is needed: a page fault costs about a microsecond, and a fork
//! has one for each page of its own that it touches.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::ptr;

use rustix::mm::{Advice, madvise};

/// What an operation has been seen to use of the stack, in bytes.
const STACK: usize = 48 << 10;
/// The same for the heap; below what malloc gives back to the kernel (M_TRIM_THRESHOLD).
const HEAP: usize = 96 << 10;

// SAFETY: ld(1) defines both, and only their addresses are taken.
unsafe extern "C" {
    /// Where the program begins in memory (ld).
    safe static __executable_start: u8;
    /// Where its code ends.
    safe static etext: u8;
}

/// Takes the page faults of an operation ahead of it: in a process that waits for one.
pub fn touch() {
    black_box([0u8; STACK]);
    touch_heap();
    let start = ptr::from_ref(&__executable_start).cast_mut();
    let length = (ptr::from_ref(&etext) as usize).saturating_sub(start as usize);
    // SAFETY: MADV_POPULATE_READ (Linux 5.14) maps pages of the program's own file and changes
    // nothing that can be seen. Without it the pages come one fault at a time.
    unsafe { madvise(start.cast(), length, Advice::LinuxPopulateRead) }.unwrap_or_default();
}

/// By the system's allocator itself: what is counted in tests is what operations ask for.
fn touch_heap() {
    let Ok(layout) = Layout::from_size_align(HEAP, 1) else { return };
    // SAFETY: the size is not zero.
    let memory = unsafe { System.alloc(layout) };
    if memory.is_null() {
        return;
    }
    // SAFETY: so much was allocated.
    unsafe { memory.write_bytes(1, HEAP) };
    black_box(memory);
    // SAFETY: it comes from there, with this layout.
    unsafe { System.dealloc(memory, layout) };
}
