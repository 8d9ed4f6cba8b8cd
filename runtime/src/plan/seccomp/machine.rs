//! The classic BPF machine, as far as seccomp filters use it: runs a compiled filter in tests.
#![cfg(target_arch = "x86_64")]

const X86_64: u32 = 0xC000_003E;

/// SECCOMP_RET_* with their data.
pub(super) const ALLOW: u32 = 0x7FFF_0000;
pub(super) const KILL_THREAD: u32 = 0;
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const TRAP: u32 = 0x0003_0000;
pub(super) const LOG: u32 = 0x7FFC_0000;
pub(super) const NOTIFY: u32 = 0x7FC0_0000;

pub(super) fn errno(errno: u32) -> u32 {
    0x0005_0000 | errno
}

pub(super) fn trace(data: u32) -> u32 {
    0x7FF0_0000 | data
}

/// What a system call looks like to a filter (struct seccomp_data).
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    /// One of x86_64, by name, with its first arguments.
    pub(super) fn named(name: &str, arguments: &[u64]) -> Call {
        let number = super::compile::number(name, libseccomp::ScmpArch::X8664).unwrap();
        Call::numbered(number, arguments)
    }

    pub(super) fn numbered(number: u32, arguments: &[u64]) -> Call {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        Call { arch: X86_64, number, arguments: all }
    }

    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, high: bool| {
            let bytes = value.to_le_bytes();
            let half = if high { &bytes[4..] } else { &bytes[..4] };
            u32::from_le_bytes(half.try_into().unwrap())
        };
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 => {
                let index = usize::try_from((offset - 16) / 8).unwrap();
                half(self.arguments[index], offset % 8 == 4)
            }
            _ => panic!("load of {offset}"),
        }
    }
}

/// What the filter answers.
pub(super) fn run(program: &[u8], call: &Call) -> u32 {
    let (instructions, rest) = program.as_chunks::<8>();
    assert!(rest.is_empty());
    let (mut next, mut accumulator) = (0, 0);
    loop {
        let [c0, c1, if_true, if_false, k0, k1, k2, k3] = instructions[next];
        let k = u32::from_ne_bytes([k0, k1, k2, k3]);
        next += 1;
        let taken = match u16::from_ne_bytes([c0, c1]) {
            0x20 => {
                accumulator = call.word(k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                next += usize::try_from(k).unwrap();
                continue;
            }
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            code => panic!("instruction {code:#x}"),
        };
        next += usize::from(if taken { if_true } else { if_false });
    }
}
