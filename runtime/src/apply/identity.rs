//! Who the process is: groups, user, capabilities, no_new_privs.
//!
//! On entry the process is root of its user namespace with all capabilities there. On exit it is
//! the user of the spec with exactly the spec's sets.

use rustix::thread::{self, CapabilitySet, CapabilitySets, Gid, Uid};

use crate::error::{Call, Result};
use crate::plan::{Capabilities, Process};

/// Becomes the user with the capabilities, in the only order that works: the bounding set while
/// CAP_SETPCAP is there, groups while CAP_SETGID is, the user last, the other sets after it.
///
/// # Errors
/// The call that the kernel refused, with the ids.
pub fn assume(process: &Process) -> Result<()> {
    drop_bounding(process.capabilities.bounding)?;
    // Without it the change of uid would empty the permitted set (capabilities(7)).
    thread::set_keep_capabilities(true).call(|| "prctl(PR_SET_KEEPCAPS, 1)".into())?;
    set_groups(process)?;
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    thread::set_thread_res_gid(gid, gid, gid)
        .call(|| format!("setresgid({0}, {0}, {0})", process.gid))?;
    thread::set_thread_res_uid(uid, uid, uid)
        .call(|| format!("setresuid({0}, {0}, {0})", process.uid))?;
    thread::set_keep_capabilities(false).call(|| "prctl(PR_SET_KEEPCAPS, 0)".into())?;
    set_capabilities(&process.capabilities)
}

/// Where setgroups(2) is denied (a user namespace mapped without privileges) an empty list is
/// what is there already.
fn set_groups(process: &Process) -> Result<()> {
    let groups: Vec<Gid> = process.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match thread::set_thread_groups(&groups) {
        Err(rustix::io::Errno::PERM) if groups.is_empty() => Ok(()),
        other => other.call(|| format!("setgroups({:?})", process.groups)),
    }
}

/// A capability number beyond the kernel's last one is EINVAL and ends the walk.
fn drop_bounding(keep: u64) -> Result<()> {
    for number in 0..u64::BITS {
        let bit = 1_u64 << number;
        if keep & bit != 0 {
            continue;
        }
        let capability = CapabilitySet::from_bits_retain(bit);
        match thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            Err(errno) => {
                return Err(errno).call(|| format!("prctl(PR_CAPBSET_DROP, {number})"));
            }
        }
    }
    Ok(())
}

/// Ambient capabilities are best effort (runtime-spec, config.md, "capabilities"): one that is
/// not permitted and inheritable cannot be raised.
fn set_capabilities(sets: &Capabilities) -> Result<()> {
    let wanted = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(sets.effective),
        permitted: CapabilitySet::from_bits_retain(sets.permitted),
        inheritable: CapabilitySet::from_bits_retain(sets.inheritable),
    };
    thread::set_capabilities(None, wanted).call(|| {
        format!(
            "capset(effective {:#x}, permitted {:#x}, inheritable {:#x})",
            sets.effective, sets.permitted, sets.inheritable
        )
    })?;
    thread::clear_ambient_capability_set()
        .call(|| "prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)".into())?;
    let raisable = sets.ambient & sets.permitted & sets.inheritable;
    for number in (0..u64::BITS).filter(|number| raisable & (1 << number) != 0) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        thread::configure_capability_in_ambient_set(capability, true)
            .call(|| format!("prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, {number})"))?;
    }
    Ok(())
}

/// Sets no_new_privs when the spec says true; false is false.
///
/// # Errors
/// prctl(2).
pub fn limit_privileges(process: &Process) -> Result<()> {
    if process.no_new_privileges {
        thread::set_no_new_privs(true).call(|| "prctl(PR_SET_NO_NEW_PRIVS, 1)".into())?;
    }
    Ok(())
}
