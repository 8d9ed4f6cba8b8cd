use super::super::DeviceClass::{Block as BLOCK, Char as CHAR};
use super::machine::run;
use super::*;

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;

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
