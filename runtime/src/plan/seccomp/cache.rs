//! Compiled filters on disk, by the hash of what they were compiled from.
//!
//! libseccomp needs milliseconds for a profile that every container of a host has in common.
//! A file of the cache is believed when it belongs to us, has the key in it that it was looked up
//! by, and a digest that fits: a file cut short, or put in another's place, is as good as none.
//! A cache that cannot be read or written is no failure, the filter is compiled then.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, read_dir, remove_file, rename};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::unistd::geteuid;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::prologue::INSTRUCTION_BYTES;
use crate::plan::host::Host;

/// Changes with everything here that changes what a profile compiles to.
const FORMAT: &[u8; 8] = b"myshim 1";

const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = FORMAT.len() + 2 * HASH_BYTES;

/// Header and the largest program that the kernel takes.
const MAX_FILE_BYTES: u64 = 33 << 10;

/// A client that makes a profile of its own for each container shall not fill the disk.
const MAX_FILES: usize = 256;

/// What a program is compiled from, hashed.
#[derive(Debug)]
pub(super) struct Key([u8; HASH_BYTES]);

/// All that a program depends on. The order of serialisation is that of the fields.
#[derive(Serialize)]
struct Source<'a> {
    machine: &'static str,
    libseccomp: (u32, u32, u32),
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    architectures: &'a Option<Vec<Arch>>,
    syscalls: &'a Option<Vec<LinuxSyscall>>,
}

impl Key {
    /// None: the profile cannot be written down, so nothing can be kept for it.
    pub(super) fn of(profile: &LinuxSeccomp, host: &Host) -> Option<Key> {
        let source = Source {
            machine: std::env::consts::ARCH,
            libseccomp: host.libseccomp,
            default_action: profile.default_action(),
            default_errno_ret: profile.default_errno_ret(),
            architectures: profile.architectures(),
            syscalls: profile.syscalls(),
        };
        let mut text = Vec::with_capacity(16 << 10);
        text.extend_from_slice(FORMAT);
        serde_json::to_writer(&mut text, &source).ok()?;
        Some(Key(Sha256::digest(&text).into()))
    }

    fn file_name(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn digest(&self, bpf: &[u8]) -> [u8; HASH_BYTES] {
        Sha256::new().chain_update(self.0).chain_update(bpf).finalize().into()
    }
}

/// The program of this key, if there is one that can be believed.
pub(super) fn load(directory: &Path, key: &Key) -> Option<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(directory.join(key.file_name())).ok()?;
    let metadata = file.metadata().ok()?;
    let ours = metadata.is_file()
        && metadata.uid() == geteuid().as_raw()
        && metadata.permissions().mode() & 0o077 == 0;
    if !ours || metadata.len() > MAX_FILE_BYTES {
        return None;
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).ok()? + 1);
    file.take(MAX_FILE_BYTES).read_to_end(&mut content).ok()?;
    let bpf = content.get(HEADER_BYTES..)?;
    let whole = !bpf.is_empty() && bpf.len() % INSTRUCTION_BYTES == 0;
    (whole && content[..HEADER_BYTES] == header(key, bpf)).then(|| bpf.to_vec())
}

/// Keeps a program. Fails in silence, see the module.
pub(super) fn store(directory: &Path, key: &Key, bpf: &[u8]) {
    if DirBuilder::new().recursive(true).mode(0o700).create(directory).is_err() {
        return;
    }
    let full = read_dir(directory).map_or(true, |entries| entries.count() >= MAX_FILES);
    if full {
        return;
    }
    let name = key.file_name();
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let written =
        write(&temporary, key, bpf).and_then(|()| rename(&temporary, directory.join(name)));
    if written.is_err() {
        // If it cannot be removed either, it counts among MAX_FILES and does no more harm.
        remove_file(&temporary).unwrap_or_default();
    }
}

fn write(path: &Path, key: &Key, bpf: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file: File = options.write(true).create_new(true).mode(0o600).open(path)?;
    // The umask may have taken more away.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(&header(key, bpf))?;
    file.write_all(bpf)
}

fn header(key: &Key, bpf: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let fields = FORMAT.iter().chain(&key.0).copied().chain(key.digest(bpf));
    header.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    header
}
