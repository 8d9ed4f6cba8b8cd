//! The device rules of v2: a BPF program that the kernel runs at each open(2) of a device node
//! and at each mknod(2), bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE.
//!
//! ```text
//!  r2 = class, r3 = access wanted, r4 = major, r5 = minor
//!  for each exception:   if it is not this device, go on
//!      default deny:     r3 &= ~access; if r3 == 0 return 1
//!      default allow:    if r3 & access return 0
//!  return the default
//! ```
//!
//! So an access of read and write is allowed when two exceptions allow one of them each, and
//! denied when one exception denies one of them.

use super::devices::{DeviceAction, DeviceClass, DevicePolicy, DeviceRule};
use crate::sys::bpf::Instruction;

/// Operation codes: class | operation | source, linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61; // LDX | MEM | W
const MOVE: u8 = 0xbf; // ALU64 | MOV | X
const MOVE_VALUE: u8 = 0xb7; // ALU64 | MOV | K
const AND_VALUE: u8 = 0x57; // ALU64 | AND | K
const SHIFT_RIGHT: u8 = 0x77; // ALU64 | RSH | K
const JUMP_IF_NOT: u8 = 0x55; // JMP | JNE | K
const JUMP_IF: u8 = 0x15; // JMP | JEQ | K
const EXIT: u8 = 0x95; // JMP | EXIT

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const CLASS: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// The program for a policy.
pub(super) fn program(policy: &DevicePolicy) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx: access_type (class in the lower half, access in the upper),
    // major, minor; a u32 each.
    let mut program = vec![
        Instruction::new(LOAD_WORD, CLASS, CONTEXT, 0, 0),
        Instruction::new(MOVE, WANTED, CLASS, 0, 0),
        Instruction::new(AND_VALUE, CLASS, 0, 0, 0xffff),
        Instruction::new(SHIFT_RIGHT, WANTED, 0, 0, 16),
        Instruction::new(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        Instruction::new(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for exception in &policy.exceptions {
        program.extend(block(exception, policy.default));
    }
    program.extend(answer(policy.default));
    program
}

fn block(rule: &DeviceRule, default: DeviceAction) -> Vec<Instruction> {
    let access = i32::from(rule.access.bits());
    let mut body = match default {
        DeviceAction::Deny => vec![
            Instruction::new(AND_VALUE, WANTED, 0, 0, !access),
            Instruction::new(JUMP_IF_NOT, WANTED, 0, 2, 0),
        ],
        DeviceAction::Allow => vec![
            Instruction::new(MOVE, SCRATCH, WANTED, 0, 0),
            Instruction::new(AND_VALUE, SCRATCH, 0, 0, access),
            Instruction::new(JUMP_IF, SCRATCH, 0, 2, 0),
        ],
    };
    body.extend(answer(match default {
        DeviceAction::Deny => DeviceAction::Allow,
        DeviceAction::Allow => DeviceAction::Deny,
    }));
    // BPF_DEVCG_DEV_BLOCK and BPF_DEVCG_DEV_CHAR of linux/bpf.h.
    let class = match rule.class {
        DeviceClass::Block => 1,
        DeviceClass::Char => 2,
    };
    let number = |number: Option<u32>| number.and_then(|number| i32::try_from(number).ok());
    let conditions =
        [(MINOR, number(rule.minor)), (MAJOR, number(rule.major)), (CLASS, Some(class))];
    let mut block = body;
    for (register, value) in conditions {
        if let Some(value) = value {
            let past = i16::try_from(block.len()).unwrap_or(i16::MAX);
            block.insert(0, Instruction::new(JUMP_IF_NOT, register, 0, past, value));
        }
    }
    block
}

fn answer(action: DeviceAction) -> [Instruction; 2] {
    let value = match action {
        DeviceAction::Deny => 0,
        DeviceAction::Allow => 1,
    };
    [Instruction::new(MOVE_VALUE, RESULT, 0, 0, value), Instruction::new(EXIT, 0, 0, 0, 0)]
}

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod machine;
#[cfg(test)]
mod tests;
