//! A machine for the operations that a program is made of, as the kernel runs them.

use super::*;

/// Whether the program allows an access, in the bits of linux/bpf.h. Panics on a program that the
/// kernel's verifier would refuse.
pub(crate) fn run(
    program: &[Instruction],
    class: DeviceClass,
    access: u8,
    major: u32,
    minor: u32,
) -> bool {
    let class = match class {
        DeviceClass::Block => 1,
        DeviceClass::Char => 2,
    };
    let mut registers = [0u64; 11];
    let mut next = 0usize;
    // Jumps go forward only.
    for _ in 0..program.len() {
        let Some(Instruction { code, registers: pair, offset, value }) = program.get(next) else {
            panic!("runs past its end");
        };
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let value = i64::from(*value).cast_unsigned();
        let Ok(skip) = usize::try_from(*offset) else { panic!("jumps back") };
        next += 1;
        match *code {
            LOAD_WORD => {
                registers[to] = match offset {
                    0 => class | u64::from(access) << 16,
                    4 => major.into(),
                    8 => minor.into(),
                    _ => panic!("load beyond the context"),
                }
            }
            MOVE => registers[to] = registers[from],
            MOVE_VALUE => registers[to] = value,
            AND_VALUE => registers[to] &= value,
            SHIFT_RIGHT => registers[to] >>= value,
            JUMP_IF_NOT if registers[to] != value => next += skip,
            JUMP_IF if registers[to] == value => next += skip,
            JUMP_IF | JUMP_IF_NOT => {}
            EXIT => return registers[usize::from(RESULT)] == 1,
            code => panic!("operation {code:#x}"),
        }
    }
    panic!("does not end");
}
