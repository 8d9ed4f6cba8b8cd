//! bpf(2), for device programs of cgroups.
//!
//! Every call passes the whole of `union bpf_attr`, zeroed: Linux 6.17 to 7.1 writes results of
//! BPF_PROG_QUERY behind the end of a shorter one.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{At, Call, Result};

/// One instruction, struct bpf_insn of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// Operation code.
    pub(crate) code: u8,
    /// Destination register in the lower half, source register in the upper.
    pub(crate) registers: u8,
    /// Of a jump or a load.
    pub(crate) offset: i16,
    /// The constant operand.
    pub(crate) value: i32,
}

impl Instruction {
    /// `to` and `from` are register numbers.
    pub(crate) fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
        // The order of the two bit fields is that of the machine's bytes.
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        Instruction { code, registers, offset, value }
    }
}

/// Commands and types of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;

/// How our programs are called, to know them again. At most 15 bytes.
const NAME: &[u8] = b"myshim_devices";

/// The verifier's log is only asked for when it refused a program.
const LOG_SIZE: u32 = 64 * 1024;

/// More than the size of `union bpf_attr` in any kernel (Linux 6.18: 152); the rest is zero, as
/// the kernel demands of what it does not know.
const ATTR_SIZE: usize = 256;

/// `union bpf_attr`, aligned as it demands.
#[repr(C, align(8))]
struct Attr([u8; ATTR_SIZE]);

impl Attr {
    fn new() -> Attr {
        Attr([0; ATTR_SIZE])
    }

    fn set(mut self, offset: usize, bytes: &[u8]) -> Attr {
        if let Some(field) = self.0.get_mut(offset..offset + bytes.len()) {
            field.copy_from_slice(bytes);
        }
        self
    }

    fn u32(self, offset: usize, value: u32) -> Attr {
        self.set(offset, &value.to_ne_bytes())
    }

    fn fd(self, offset: usize, fd: BorrowedFd<'_>) -> Attr {
        self.set(offset, &fd.as_raw_fd().to_ne_bytes())
    }

    fn pointer<T>(self, offset: usize, pointer: *const T) -> Attr {
        let address = u64::try_from(pointer.addr()).unwrap_or_default();
        self.set(offset, &address.to_ne_bytes())
    }

    fn get_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        if let Some(field) = self.0.get(offset..offset + 4) {
            bytes.copy_from_slice(field);
        }
        u32::from_ne_bytes(bytes)
    }
}

/// # Safety
/// Every address in `attr` is of memory that is as large as the length beside it says, lives
/// until the return, and is not borrowed elsewhere where the command writes to it.
unsafe fn bpf(command: libc::c_int, attr: &mut Attr) -> nix::Result<i32> {
    let pointer: *mut Attr = attr;
    // SAFETY: the kernel reads and writes ATTR_SIZE bytes of `attr`, which is that large, and
    // what it points to, for which the caller answers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, ATTR_SIZE) };
    let result = nix::errno::Errno::result(result)?;
    i32::try_from(result).map_err(|_| nix::errno::Errno::EOVERFLOW)
}

/// A call whose `attr` has no address in it.
fn bpf_plain(command: libc::c_int, attr: &mut Attr) -> nix::Result<i32> {
    // SAFETY: there is no address in `attr`.
    unsafe { bpf(command, attr) }
}

/// # Safety
/// `fd` is open, new, and nobody else's.
unsafe fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Loads a program into the kernel. It lives as long as this fd, or as the cgroup it is
/// attached to.
///
/// # Errors
/// `Call` with the verifier's reason, when it refuses the program.
pub(crate) fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    let errno = match load(program, None) {
        Ok(fd) => return Ok(fd),
        Err(errno) => errno,
    };
    let mut log = vec![0u8; usize::try_from(LOG_SIZE).unwrap_or_default()];
    let count = program.len();
    let step = || format!("bpf(PROG_LOAD, CGROUP_DEVICE, {count} instructions)");
    match load(program, Some(&mut log)) {
        Ok(fd) => Ok(fd),
        Err(_) => {
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
            let refused = Err(errno).call(step);
            match log.trim().lines().last() {
                Some(line) => refused.at_with(|| format!("the kernel's verifier: {line}")),
                None => refused,
            }
        }
    }
}

fn load(program: &[Instruction], log: Option<&mut [u8]>) -> nix::Result<OwnedFd> {
    const LICENSE: &CStr = c"Apache-2.0";
    let count = u32::try_from(program.len()).map_err(|_| nix::errno::Errno::E2BIG)?;
    let mut attr = Attr::new()
        .u32(0, PROG_TYPE_CGROUP_DEVICE)
        .u32(4, count)
        .pointer(8, program.as_ptr())
        .pointer(16, LICENSE.as_ptr())
        .set(48, NAME);
    if let Some(log) = log {
        attr = attr.u32(24, 1).u32(28, LOG_SIZE).pointer(32, log.as_mut_ptr());
    }
    // SAFETY: `program` has `count` instructions of 8 bytes, LICENSE ends with NUL, and the log
    // has LOG_SIZE bytes and is borrowed mutably.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    // SAFETY: the kernel has just made this fd for us.
    Ok(unsafe { owned(fd) })
}

/// Attaches a program to a cgroup directory beside those that are there: an access is allowed
/// when all of them allow it.
///
/// # Errors
/// `Call`.
pub(crate) fn attach_device_program(cgroup: &OwnedFd, program: &OwnedFd) -> Result<()> {
    use std::os::fd::AsFd;
    let mut attr = Attr::new()
        .fd(0, cgroup.as_fd())
        .fd(4, program.as_fd())
        .u32(8, ATTACH_CGROUP_DEVICE)
        .u32(12, ALLOW_MULTI);
    bpf_plain(PROG_ATTACH, &mut attr)
        .call(|| "bpf(PROG_ATTACH, CGROUP_DEVICE, ALLOW_MULTI)".into())
        .map(drop)
}

/// Detaches a program from a cgroup directory.
///
/// # Errors
/// `Call`.
pub(crate) fn detach_device_program(cgroup: &OwnedFd, program: &OwnedFd) -> Result<()> {
    use std::os::fd::AsFd;
    let mut attr =
        Attr::new().fd(0, cgroup.as_fd()).fd(4, program.as_fd()).u32(8, ATTACH_CGROUP_DEVICE);
    bpf_plain(PROG_DETACH, &mut attr).call(|| "bpf(PROG_DETACH, CGROUP_DEVICE)".into()).map(drop)
}

/// The programs attached to this very cgroup that carry our name.
///
/// # Errors
/// `Call`.
pub(crate) fn own_device_programs(cgroup: &OwnedFd) -> Result<Vec<OwnedFd>> {
    use std::os::fd::AsFd;
    // BPF_CGROUP_MAX_PROGS of kernel/bpf/cgroup.c.
    let mut ids = [0u32; 64];
    let mut attr = Attr::new()
        .fd(0, cgroup.as_fd())
        .u32(4, ATTACH_CGROUP_DEVICE)
        .pointer(16, ids.as_mut_ptr())
        .u32(24, 64);
    // SAFETY: `ids` has the 64 places that the attr says, and is not read before the return.
    unsafe { bpf(PROG_QUERY, &mut attr) }.call(|| "bpf(PROG_QUERY, CGROUP_DEVICE)".into())?;
    let count = usize::try_from(attr.get_u32(24)).unwrap_or_default();
    let mut programs = Vec::new();
    for &id in ids.iter().take(count) {
        let mut attr = Attr::new().u32(0, id);
        let fd = match bpf_plain(PROG_GET_FD_BY_ID, &mut attr) {
            // SAFETY: the kernel has just made this fd for us.
            Ok(fd) => unsafe { owned(fd) },
            // Gone since, or shielded by an LSM: then it is not ours.
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EACCES) => continue,
            Err(errno) => return Err(errno).call(|| format!("bpf(PROG_GET_FD_BY_ID, {id})")),
        };
        if is_ours(&fd)? {
            programs.push(fd);
        }
    }
    Ok(programs)
}

/// Compares the name in struct bpf_prog_info: 16 bytes from byte 64 on.
fn is_ours(program: &OwnedFd) -> Result<bool> {
    use std::os::fd::AsFd;
    let mut info = [0u64; 32];
    let mut attr = Attr::new().fd(0, program.as_fd()).u32(4, 256).pointer(8, info.as_mut_ptr());
    // SAFETY: `info` has the 256 bytes that the attr says; being zero, it has no addresses in
    // it for the kernel to follow.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.call(|| "bpf(OBJ_GET_INFO_BY_FD)".into())?;
    let name: Vec<u8> = info.iter().skip(8).take(2).flat_map(|word| word.to_ne_bytes()).collect();
    Ok(CStr::from_bytes_until_nul(&name).is_ok_and(|name| name.to_bytes() == NAME))
}
