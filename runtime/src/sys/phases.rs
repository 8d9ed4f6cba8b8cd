//! What the processes of one operation are at, and since when: a page that main shares with all
//! that it forks.

use std::ffi::CStr;
use std::fmt::Write;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// More than any operation has. What comes later is not kept.
const MARKS: usize = 48;
/// As a process's name: 15 bytes and a NUL.
const NAME: usize = 16;

/// Who is at what, and since when.
#[derive(Debug)]
struct Mark {
    name: [AtomicU64; NAME / 8],
    at_ns: AtomicU64,
}

/// All of it is atomic, and zero to begin with: several processes write, one reads.
#[derive(Debug)]
struct Page {
    count: AtomicUsize,
    marks: [Mark; MARKS],
}

static SHARED: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());

/// Begins to keep marks, in this process and in those that it will fork. Once.
///
/// # Errors
/// The errno of mmap(2).
pub fn keep() -> Result<(), Errno> {
    let (read_write, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    let flags = shared | MapFlags::POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let memory = unsafe { mmap_anonymous(ptr::null_mut(), size_of::<Page>(), read_write, flags) };
    let memory = memory.map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    SHARED.store(memory.cast(), Ordering::Relaxed);
    Ok(())
}

/// This process marks nothing any more: its operation has ended, and the page is the next one's.
pub fn leave() {
    SHARED.store(ptr::null_mut(), Ordering::Relaxed);
}

/// From here on this process is at what `name` says (15 bytes of it). Where nothing is kept, it
/// does nothing.
pub fn mark(name: &CStr) {
    let Some(page) = page() else { return };
    let Some(mark) = page.marks.get(page.count.fetch_add(1, Ordering::Relaxed)) else { return };
    let mut bytes = [0; NAME];
    for (to, from) in bytes.iter_mut().zip(name.to_bytes().iter().take(NAME - 1)) {
        *to = *from;
    }
    let word = |index: usize| bytes.get(index * 8..).and_then(|rest| rest.first_chunk().copied());
    for (index, half) in mark.name.iter().enumerate() {
        half.store(u64::from_ne_bytes(word(index).unwrap_or_default()), Ordering::Relaxed);
    }
    // Last: who reads a time reads the name that belongs to it.
    mark.at_ns.store(now_ns(), Ordering::Release);
}

/// What was marked since the last time, each with how many µs went by until the next:
/// `plan 153, cgroup 412, init:rootfs 530`. Empty where nothing is kept.
pub fn take() -> String {
    let Some(page) = page() else { return String::new() };
    let count = page.count.swap(0, Ordering::Relaxed).min(MARKS);
    let mut marks: Vec<(u64, String)> = page.marks.iter().take(count).map(Mark::take).collect();
    marks.retain(|(at_ns, _)| *at_ns != 0);
    marks.sort_unstable();
    let ends = marks.iter().skip(1).map(|(at_ns, _)| *at_ns).chain([now_ns()]);
    let mut text = String::new();
    for ((at_ns, name), end) in marks.iter().zip(ends) {
        let separator = if text.is_empty() { "" } else { ", " };
        let us = end.saturating_sub(*at_ns) / 1000;
        // To a string nothing fails.
        write!(text, "{separator}{name} {us}").unwrap_or_default();
    }
    text
}

impl Mark {
    fn take(&self) -> (u64, String) {
        let at_ns = self.at_ns.swap(0, Ordering::Acquire);
        let bytes = self.name.iter().flat_map(|half| half.load(Ordering::Relaxed).to_ne_bytes());
        let name: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
        (at_ns, String::from_utf8_lossy(&name).into_owned())
    }
}

fn page() -> Option<&'static Page> {
    // SAFETY: the mapping is aligned to a page, as large as a Page, zeroed by the kernel (which
    // is a valid Page), and never unmapped.
    unsafe { SHARED.load(Ordering::Relaxed).as_ref() }
}

/// The wall clock: the monotonic one is another one in a time namespace.
fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_a_process_and_its_fork_come_in_order_with_their_times() {
        keep().unwrap();
        take();
        mark(c"plan");
        crate::sys::testing::in_fork(|_| mark(c"init:a-name-that-is-long"));
        mark(c"cgroup");
        let text = take();
        let names: Vec<&str> =
            text.split(", ").filter_map(|mark| Some(mark.rsplit_once(' ')?.0)).collect();
        assert_eq!(names, ["plan", "init:a-name-tha", "cgroup"], "{text}");
        assert_eq!(take(), "");
    }
}
