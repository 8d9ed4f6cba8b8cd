//! ENOSYS for system calls that are newer than the profile.
//!
//! A profile is a list of what its author knew. libc probes for newer calls, and falls back when
//! it is told ENOSYS; told EPERM, or killed, it does not. So whatever has a higher number than
//! all that a profile names gets ENOSYS before the rules are asked:
//!
//! ```text
//!   ld  arch
//!   for each architecture of the profile:
//!     jne  <arch>, next
//!     ld   nr
//!     jgt  <highest>, 0, 1
//!     ret  ENOSYS
//!     ja   rules
//!   next:
//!   rules:
//! ```
//!
//! x86_64 and x32 share an arch: the second has bit 30 set in its numbers, and its own highest.
//! On s390 a call with a number that fits no instruction arrives as 0, which else is unused.

use libseccomp::ScmpArch;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};

use super::compile::number;
use super::{names, rules};
use crate::error::{Error, Result};

/// Of a struct sock_filter.
pub(super) const INSTRUCTION_BYTES: usize = 8;

const ENOSYS: u32 = 38;
const RET_ERRNO_ENOSYS: u32 = 0x0005_0000 | ENOSYS;

/// Bit 30 of a system call's number (__X32_SYSCALL_BIT).
const X32_BIT: u32 = 1 << 30;

/// Offsets in struct seccomp_data.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;

/// include/uapi/linux/bpf_common.h
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// One struct sock_filter.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

impl Instruction {
    const fn new(code: u16, k: u32) -> Instruction {
        Instruction { code, if_true: 0, if_false: 0, k }
    }

    /// Skips so many instructions if the comparison is true, and so many if not.
    const fn branch(code: u16, k: u32, if_true: u8, if_false: u8) -> Instruction {
        Instruction { code, if_true, if_false, k }
    }

    fn bytes(self) -> [u8; INSTRUCTION_BYTES] {
        let [code_0, code_1] = self.code.to_ne_bytes();
        let [k_0, k_1, k_2, k_3] = self.k.to_ne_bytes();
        [code_0, code_1, self.if_true, self.if_false, k_0, k_1, k_2, k_3]
    }
}

/// What is asked of one AUDIT_ARCH.
#[derive(Debug)]
struct Section {
    audit_arch: u32,
    highest: Option<u32>,
    /// The highest of x32, with its bit.
    highest_x32: Option<u32>,
    /// 0 stands for a call that is not known.
    zero_is_unknown: bool,
}

/// The prologue for a profile; empty where the default action lets new calls pass, or says
/// ENOSYS itself.
pub(super) fn for_profile(profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    let says_enosys = profile.default_action() == Action::ScmpActErrno
        && profile.default_errno_ret() == Some(ENOSYS);
    let lets_pass = matches!(
        profile.default_action(),
        // Whoever traces is to handle new calls itself.
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
    );
    if says_enosys || lets_pass {
        return Ok(Vec::new());
    }
    Ok(assemble(&sections(profile)?))
}

fn sections(profile: &LinuxSeccomp) -> Result<Vec<Section>> {
    // A filter always has the native architecture, listed or not.
    let mut architectures = vec![ScmpArch::native()];
    for word in profile.architectures().iter().flatten() {
        if let Some((arch, _)) = names::architecture(*word)
            && !architectures.contains(&arch)
        {
            architectures.push(arch);
        }
    }
    let mut sections: Vec<Section> = Vec::new();
    for arch in architectures {
        let Some((_, audit_arch)) = names::by_library(arch) else {
            let why = format!("{arch:?} is not supported");
            return Err(Error::field("linux.seccomp.architectures", why));
        };
        let names = rules(profile).iter().flat_map(|rule| rule.names());
        let highest = names.filter_map(|name| number(name, arch)).max();
        let found = sections.iter_mut().find(|section| section.audit_arch == audit_arch);
        let place = match found {
            Some(section) => section,
            None => {
                let zero_is_unknown = matches!(arch, ScmpArch::S390 | ScmpArch::S390X);
                let new = Section { audit_arch, highest: None, highest_x32: None, zero_is_unknown };
                sections.push(new);
                let last = sections.len() - 1;
                &mut sections[last]
            }
        };
        match arch {
            ScmpArch::X32 => place.highest_x32 = highest,
            _ => place.highest = highest,
        }
    }
    // Without a single call known there is no telling what is new.
    sections.retain(|section| section.highest.is_some() || section.highest_x32.is_some());
    Ok(sections)
}

fn assemble(sections: &[Section]) -> Vec<u8> {
    if sections.is_empty() {
        return Vec::new();
    }
    // Backwards, since a jump to the rules has to know how much comes after it.
    let mut program: Vec<Instruction> = Vec::new();
    for section in sections.iter().rev() {
        let to_rules = u32::try_from(program.len()).unwrap_or(u32::MAX);
        let mut instructions = section.instructions(to_rules);
        instructions.append(&mut program);
        program = instructions;
    }
    program.insert(0, Instruction::new(LOAD_WORD, OFFSET_ARCH));
    program.into_iter().flat_map(Instruction::bytes).collect()
}

impl Section {
    /// `to_rules` instructions lie between the end of this section and the rules.
    fn instructions(&self, to_rules: u32) -> Vec<Instruction> {
        let mut tests = Vec::new();
        if self.zero_is_unknown {
            // (0) is it 0? then ENOSYS, which comes after the test below.
            tests.push(Instruction::branch(JUMP_IF_EQUAL, 0, 1, 0));
        }
        match (self.highest, self.highest_x32) {
            (Some(highest), None) if self.audit_arch == 0xC000_003E => {
                // What is x32 is for the rules to refuse.
                tests.push(Instruction::branch(JUMP_IF_GREATER_OR_EQUAL, X32_BIT, 2, 0));
                tests.push(Instruction::branch(JUMP_IF_GREATER, highest, 0, 1));
            }
            (Some(highest), None) => {
                tests.push(Instruction::branch(JUMP_IF_GREATER, highest, 0, 1));
            }
            (highest, Some(highest_x32)) => {
                tests.push(Instruction::branch(JUMP_IF_GREATER_OR_EQUAL, X32_BIT, 1, 0));
                let highest = highest.unwrap_or(u32::MAX);
                tests.push(Instruction::branch(JUMP_IF_GREATER, highest, 1, 2));
                tests.push(Instruction::branch(JUMP_IF_GREATER, highest_x32, 0, 1));
            }
            (None, None) => {}
        }
        let mut section = vec![Instruction::new(LOAD_WORD, OFFSET_NR)];
        section.append(&mut tests);
        section.push(Instruction::new(RETURN, RET_ERRNO_ENOSYS));
        section.push(Instruction::new(JUMP, to_rules));
        let length = u8::try_from(section.len()).unwrap_or(u8::MAX);
        section.insert(0, Instruction::branch(JUMP_IF_EQUAL, self.audit_arch, 0, length));
        section
    }
}
