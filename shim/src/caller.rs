//! Which containerd called: 1.x or 2.x.
//!
//! From 2.3 on, containerd says so on stdin (see [`crate::bootstrap`]). Before that, nothing in
//! arguments, environment or bundle tells 1.7 and 2.0–2.2 apart: all three set
//! `MAX_SHIM_VERSION=2`. But 2.x takes version 3 of the task service, which spares a start of
//! this binary for each further container of a pod, and 1.7 fails on it. So the caller's own
//! program is asked: Go's linker leaves in it which modules it was made of (the section
//! `.go.buildinfo`, debug/buildinfo; since Go 1.18 the text itself is in there), and every
//! containerd 2.x is made of the module `github.com/containerd/containerd/v2`, also where it is
//! built into something else (k3s).
//!
//! The caller is the parent process; where its program cannot be read, the one that it names as
//! its own is. A program that says nothing is taken for 1.x: what that is answered, all versions
//! before 2.3 understand.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The generation of containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// 1.x, or not known.
    One,
    /// 2.x.
    Two,
}

/// Every program that has containerd 2.x in it has this module.
const MODULE_OF_TWO: &[u8] = b"github.com/containerd/containerd/v2";
const SECTION: &[u8] = b".go.buildinfo";
/// The section of the largest Go programs has some 100 KiB.
const SECTION_MAX: u64 = 1 << 20;

/// Which containerd called; `publish_binary` is what it calls itself.
pub(crate) fn generation(publish_binary: &Path) -> Generation {
    let parent = rustix::process::getppid().map(|pid| format!("/proc/{pid}/exe"));
    parent
        .and_then(|exe| of_program(Path::new(&exe)))
        .or_else(|| of_program(publish_binary))
        .unwrap_or(Generation::One)
}

/// None: not a Go program, or not readable.
fn of_program(path: &Path) -> Option<Generation> {
    let file = File::open(path).ok()?;
    let section = section(&file, SECTION).ok()??;
    let has_two = section.windows(MODULE_OF_TWO.len()).any(|window| window == MODULE_OF_TWO);
    Some(if has_two { Generation::Two } else { Generation::One })
}

/// A section of a 64 bit ELF file of this machine's byte order (elf(5)); None: there is none.
fn section(file: &File, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let native = if cfg!(target_endian = "little") { 1 } else { 2 };
    if &header[..4] != b"\x7fELF" || header[4] != 2 || header[5] != native {
        return Ok(None);
    }
    let (offset, count) = (number(&header, 0x28, 8), number(&header, 0x3c, 2));
    let (entry, names_at) = (number(&header, 0x3a, 2), number(&header, 0x3e, 2));
    if entry != 64 || names_at >= count {
        return Ok(None);
    }
    let table = read(file, offset, count * entry)?;
    let headers: Vec<&[u8]> = table.chunks_exact(64).collect();
    let Some(names) = headers.get(usize::try_from(names_at).unwrap_or(usize::MAX)) else {
        return Ok(None);
    };
    let names = contents(file, names)?;
    for header in headers {
        let start = usize::try_from(number(header, 0, 4)).unwrap_or(usize::MAX);
        let found = names.get(start..).and_then(|rest| rest.strip_prefix(name));
        if found.is_some_and(|rest| rest.first() == Some(&0)) {
            return contents(file, header).map(Some);
        }
    }
    Ok(None)
}

/// What a section header points to.
fn contents(file: &File, header: &[u8]) -> io::Result<Vec<u8>> {
    read(file, number(header, 0x18, 8), number(header, 0x20, 8))
}

fn read(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > SECTION_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// The number of `size` bytes at `at`, in this machine's byte order.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let digits = &bytes[at..at + size];
    let fold = |value: u64, digit: &u8| value << 8 | u64::from(*digit);
    if cfg!(target_endian = "little") {
        digits.iter().rev().fold(0, fold)
    } else {
        digits.iter().fold(0, fold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minimal ELF file: header, contents, names, section table.
    fn program(modules: &[u8]) -> Vec<u8> {
        let names = b"\0.go.buildinfo\0.shstrtab\0";
        let names_offset = 64 + modules.len();
        let table_offset = names_offset + names.len();
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x28..0x30].copy_from_slice(&table_offset.to_le_bytes());
        file[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
        file[0x3c..0x3e].copy_from_slice(&3u16.to_le_bytes());
        file[0x3e..0x40].copy_from_slice(&2u16.to_le_bytes());
        file.extend(modules);
        file.extend(names);
        file.extend([0; 64]);
        for (name, offset, size) in [(1u32, 64, modules.len()), (15, names_offset, names.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&offset.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&size.to_le_bytes());
            file.extend(header);
        }
        file
    }

    fn generation_of(bytes: &[u8], name: &str) -> Option<Generation> {
        let path = std::env::temp_dir().join(format!("caller-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let generation = of_program(&path);
        std::fs::remove_file(&path).unwrap();
        generation
    }

    #[test]
    fn containerd_is_told_by_the_modules_in_its_program() {
        let two = b"\xff Go buildinf:\x08\x02path\tgithub.com/containerd/containerd/v2/cmd/containerd\nmod\tgithub.com/containerd/containerd/v2\t(devel)";
        let one = b"\xff Go buildinf:\x08\x02path\tgithub.com/containerd/containerd/cmd/containerd\nmod\tgithub.com/containerd/containerd\tv1.7.27";
        assert_eq!(generation_of(&program(two), "two"), Some(Generation::Two));
        assert_eq!(generation_of(&program(one), "one"), Some(Generation::One));
    }

    #[test]
    fn a_program_that_is_not_of_go_says_nothing() {
        assert_eq!(of_program(Path::new("/proc/self/exe")), None);
        assert_eq!(of_program(Path::new("/no/such/program")), None);
        assert_eq!(generation_of(b"#!/bin/sh\n", "script"), None);
    }

    #[test]
    fn a_broken_program_is_no_trouble() {
        let good = program(b"path\tgithub.com/containerd/containerd/v2");
        for length in (0..good.len()).step_by(7) {
            generation_of(&good[..length], "cut");
        }
        let mut huge = good.clone();
        huge[0x28..0x30].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(generation_of(&huge, "huge"), None);
    }
}
