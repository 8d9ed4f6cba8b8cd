use super::*;

const BLOCK: u64 = 1;
const CHAR: u64 = 2;
const MKNOD: u64 = 1;
const READ: u64 = 2;
const WRITE: u64 = 4;

/// A machine for the operations above.
fn run(program: &[Instruction], class: u64, access: u64, major: u64, minor: u64) -> bool {
    let mut registers = [0u64; 11];
    let mut next = 0usize;
    for _ in 0..10_000 {
        let Instruction { code, registers: pair, offset, value } = program[next];
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let value = i64::from(value).cast_unsigned();
        let skip = usize::try_from(offset).unwrap();
        next += 1;
        match code {
            LOAD_WORD => {
                registers[to] = match offset {
                    0 => class | access << 16,
                    4 => major,
                    8 => minor,
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

fn of(rules: &str) -> Vec<Instruction> {
    program(&DevicePolicy::new(&serde_json::from_str::<Vec<_>>(rules).unwrap()).unwrap())
}

#[test]
fn by_default_only_the_default_devices_can_be_opened() {
    let program = of("[]");
    assert!(run(&program, CHAR, READ | WRITE, 1, 3));
    assert!(run(&program, CHAR, READ | WRITE, 136, 7));
    assert!(run(&program, CHAR, MKNOD, 4, 64));
    assert!(run(&program, BLOCK, MKNOD, 8, 0));
    assert!(!run(&program, CHAR, READ, 1, 1));
    assert!(!run(&program, BLOCK, READ, 1, 3));
    assert!(!run(&program, BLOCK, READ | MKNOD, 8, 0));
}

#[test]
fn two_exceptions_together_allow_what_each_allows_in_part() {
    let program = of(r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},
            {"allow":true,"type":"b","major":8,"access":"w"}]"#);
    assert!(run(&program, BLOCK, READ | WRITE, 8, 0));
    assert!(!run(&program, BLOCK, READ | WRITE, 8, 1));
    assert!(run(&program, BLOCK, WRITE, 8, 1));
}

#[test]
fn a_denied_write_also_denies_read_and_write() {
    let program = of(r#"[{"allow":true,"access":"rwm"},
            {"allow":false,"type":"b","major":8,"minor":0,"access":"w"}]"#);
    assert!(run(&program, BLOCK, READ, 8, 0));
    assert!(!run(&program, BLOCK, WRITE, 8, 0));
    assert!(!run(&program, BLOCK, READ | WRITE, 8, 0));
    assert!(run(&program, BLOCK, READ | WRITE, 8, 1));
    assert!(run(&program, CHAR, READ | WRITE, 8, 0));
}
