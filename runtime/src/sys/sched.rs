//! Scheduling attributes of the calling thread that neither rustix nor nix can set.

use nix::errno::Errno;

use crate::plan::Scheduler;

/// `struct sched_attr` of linux/sched/types.h, version 0 (48 bytes, Linux 3.14).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// IOPRIO_WHO_PROCESS of linux/ioprio.h.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
/// IOPRIO_CLASS_SHIFT of linux/ioprio.h.
const IOPRIO_CLASS_SHIFT: u16 = 13;

/// sched_setattr(2) for the calling thread.
///
/// # Errors
/// The errno of sched_setattr(2).
pub fn set_scheduler(scheduler: &Scheduler) -> Result<(), Errno> {
    let mut attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    };
    // SAFETY: `attr.size` is the size of `attr`; the kernel writes to it only when it refuses the
    // size. Pid 0 is the calling thread, and there are no flags yet.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut attr, 0) }).map(drop)
}

/// sched_getattr(2) of the calling thread.
///
/// # Errors
/// The errno of sched_getattr(2).
pub fn scheduler() -> Result<Scheduler, Errno> {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>();
    // SAFETY: the kernel writes at most `size` bytes to `attr`.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) })?;
    Ok(Scheduler {
        policy: attr.policy,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        runtime: attr.runtime,
        deadline: attr.deadline,
        period: attr.period,
    })
}

/// ioprio_set(2) for the calling thread.
///
/// # Errors
/// The errno of ioprio_set(2).
pub fn set_io_priority(class: u16, level: u16) -> Result<(), Errno> {
    let value = libc::c_int::from(class) << IOPRIO_CLASS_SHIFT | libc::c_int::from(level);
    // SAFETY: ioprio_set takes three integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })
        .map(drop)
}

/// ioprio_get(2) of the calling thread, as (class, level).
///
/// # Errors
/// The errno of ioprio_get(2).
pub fn io_priority() -> Result<(u16, u16), Errno> {
    // SAFETY: ioprio_get takes two integers.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
    let value = Errno::result(value)? as u16;
    Ok((value >> IOPRIO_CLASS_SHIFT, value & ((1 << IOPRIO_CLASS_SHIFT) - 1)))
}

/// sched_setaffinity(2) for the calling thread; the kernel takes as much of the mask as it has
/// CPUs, and leaves out those that the cpuset does not allow.
///
/// # Errors
/// The errno of sched_setaffinity(2): EINVAL when no CPU of the mask may be used.
pub fn set_affinity(mask: &Mask) -> Result<(), Errno> {
    // SAFETY: the kernel reads at most the length that is given, which is that of the mask.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.bytes(), mask.words.as_ptr()) };
    Errno::result(result).map(drop)
}

/// set_mempolicy(2) for the calling thread: `mode` is MPOL_* with MPOL_F_* or'ed in.
///
/// # Errors
/// The errno of set_mempolicy(2).
pub fn set_memory_policy(mode: u32, nodes: &Mask) -> Result<(), Errno> {
    // The kernel takes one bit less than it is told (mm/mempolicy.c, get_nodes).
    let bits = if nodes.words.is_empty() { 0 } else { nodes.bytes() * 8 + 1 };
    // SAFETY: the kernel reads `bits - 1` bits of the mask, which is all of it.
    let result =
        unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.words.as_ptr(), bits) };
    Errno::result(result).map(drop)
}

/// personality(2).
///
/// # Errors
/// The errno of personality(2).
pub fn set_personality(persona: u64) -> Result<(), Errno> {
    // SAFETY: personality takes one integer; it applies to later mappings and to execve.
    Errno::result(unsafe { libc::personality(persona) }).map(drop)
}

/// A bit mask as the kernel reads it: an array of long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mask {
    words: Vec<libc::c_ulong>,
}

impl Mask {
    /// The mask with exactly these bits. As long as the highest of them asks for.
    pub fn of(bits: &[u32]) -> Mask {
        let mut words = Vec::new();
        for bit in bits {
            let word = (bit / libc::c_ulong::BITS) as usize;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (bit % libc::c_ulong::BITS);
        }
        Mask { words }
    }

    /// All bits up to the most CPUs that Linux can be built for (NR_CPUS, 8192).
    pub fn all() -> Mask {
        Mask { words: vec![libc::c_ulong::MAX; 8192 / libc::c_ulong::BITS as usize] }
    }

    fn bytes(&self) -> usize {
        self.words.len() * size_of::<libc::c_ulong>()
    }
}
