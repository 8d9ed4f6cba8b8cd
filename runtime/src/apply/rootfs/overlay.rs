//! Overlay mounts with more or longer layers than one parameter holds.
//!
//! fsconfig(2) takes values of up to 255 bytes. A longer `lowerdir` is given layer by layer
//! (`lowerdir+`, Linux 6.7; as descriptors, Linux 6.13, when one path alone is too long). Before
//! that, mount(2) with its page of options does it, in a mount namespace that lives as long as the
//! call: the host's mount table never has it.

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

use super::filesystem::{self, Wanted, is};
use crate::plan::is_context;
use crate::sys::mount::{Change, Depth, FsContext, Tree};
use crate::{At, Call, Error, Kind, Result};

/// mount(2) copies a page of options and ignores the rest.
const MAX_OPTIONS: usize = 4095;

/// Mounts an overlay, detached. `site` is a directory of the host that may be mounted over, out
/// of sight, where the kernel is too old for anything else.
pub(super) fn mount(wanted: &Wanted<'_>, site: &Path) -> Result<Tree> {
    let too_long = |value: &Option<String>| {
        value.as_ref().is_some_and(|value| value.len() > FsContext::MAX_VALUE)
    };
    if !wanted.data.iter().any(|(_, value)| too_long(value)) {
        return wanted.mount(None, &[]);
    }
    match by_layers(wanted) {
        // Before Linux 6.5 an unknown key is noticed when the super block is made, later at once.
        Err(error) if is(&error, Errno::EINVAL) => {
            by_options(wanted, site).map_err(|second| second.at(format!("after {error}")))
        }
        result => result,
    }
}

/// Mounts an overlay whose lower layers have their owners mapped, detached. An overlay itself
/// cannot be mapped; its upper layer belongs to the container's ids already.
///
/// # Errors
/// EINVAL: before Linux 6.15 an overlay takes no layer that is a detached mount.
pub(super) fn mount_mapped(wanted: &Wanted<'_>, namespace: BorrowedFd<'_>) -> Result<Tree> {
    let context = wanted.context()?;
    // A detached mount is gone with its descriptor: they have to last until the super block is.
    let mut mapped = Vec::new();
    for parameter in wanted.data {
        match parameter {
            (key, Some(value)) if key == "lowerdir" => {
                for (key, layer) in layers(value) {
                    let tree = Tree::copy_path(&layer, Depth::Mount)?;
                    let change = Change { idmap: Some(namespace), ..Change::default() };
                    tree.change(&change, Depth::Mount).at("id map")?;
                    context.fd(key, tree.as_fd())?;
                    mapped.push(tree);
                }
            }
            parameter => other_parameter(&context, parameter)?,
        }
    }
    context.mount(wanted.attributes)
}

fn by_layers(wanted: &Wanted<'_>) -> Result<Tree> {
    let context = wanted.context()?;
    for parameter in wanted.data {
        match parameter {
            (key, Some(value)) if key == "lowerdir" => {
                for (key, layer) in layers(value) {
                    layer_parameter(&context, key, &layer)?;
                }
            }
            parameter => other_parameter(&context, parameter)?,
        }
    }
    context.mount(wanted.attributes)
}

fn other_parameter(context: &FsContext<'_>, parameter: &(String, Option<String>)) -> Result<()> {
    match parameter {
        (key, Some(value)) if key == "upperdir" || key == "workdir" => {
            layer_parameter(context, key, Path::new(value))
        }
        parameter => filesystem::set(context, parameter),
    }
}

fn layer_parameter(context: &FsContext<'_>, key: &str, path: &Path) -> Result<()> {
    if path.as_os_str().len() <= FsContext::MAX_VALUE {
        return context.string(key, path);
    }
    let layer = rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .call(|| format!("openat({path:?})"))?;
    context.fd(key, layer.as_fd())
}

/// The layers of a `lowerdir` value, top first: `:` separates, `\` escapes, and after `::` come
/// data-only layers (Documentation/filesystems/overlayfs.rst).
fn layers(value: &str) -> Vec<(&'static str, PathBuf)> {
    let mut layers = Vec::new();
    let mut key = "lowerdir+";
    let mut layer = String::new();
    let mut characters = value.chars();
    loop {
        match characters.next() {
            Some('\\') => layer.extend(characters.next()),
            Some(':') | None if !layer.is_empty() => {
                layers.push((key, PathBuf::from(std::mem::take(&mut layer))));
                if characters.as_str().is_empty() {
                    return layers;
                }
            }
            Some(':') => key = "datadir+",
            Some(character) => layer.push(character),
            None => return layers,
        }
    }
}

pub(super) fn by_options(wanted: &Wanted<'_>, site: &Path) -> Result<Tree> {
    let (parent, options) = options(wanted)?;
    let home = open_path(Path::new("/proc/self/ns/mnt"), OFlags::RDONLY)?;
    let cwd = open_path(Path::new("."), OFlags::PATH | OFlags::DIRECTORY)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).call(|| "unshare(CLONE_NEWNS)".to_owned())?;
    let mounted = mount_aside(wanted, site, &parent, &options);
    nix::sched::setns(&home, CloneFlags::CLONE_NEWNS)
        .call(|| "setns(/proc/self/ns/mnt)".to_owned())?;
    rustix::process::fchdir(&cwd).call(|| "fchdir(.)".to_owned())?;
    mounted.at("mount aside")
}

/// In a mount namespace of its own: mounts over `site`, and takes a copy that outlives it.
fn mount_aside(wanted: &Wanted<'_>, site: &Path, parent: &Path, options: &str) -> Result<Tree> {
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", downstream)
        .call(|| "mount(/, MS_SLAVE|MS_REC)".to_owned())?;
    rustix::process::chdir(parent).call(|| format!("chdir({parent:?})"))?;
    let data = crate::sys::inside::c_string(options.as_ref())?;
    let flags = super_block_flags(wanted)?;
    rustix::mount::mount(wanted.source, site, wanted.fstype, flags, Some(data.as_c_str())).call(
        || format!("mount({:?}, {site:?}, {:?}, {options:?})", wanted.source, wanted.fstype),
    )?;
    let tree = Tree::copy_path(site, Depth::Mount)?;
    let change = Change {
        propagation: MountPropagationFlags::PRIVATE,
        ..filesystem::change(wanted.attributes, 0)
    };
    tree.change(&change, Depth::Mount)?;
    Ok(tree)
}

/// The page of options, its layers relative to their common parent directory.
fn options(wanted: &Wanted<'_>) -> Result<(PathBuf, String)> {
    let lower = wanted.data.iter().find(|(key, _)| key == "lowerdir");
    let lower = lower.and_then(|(_, value)| value.as_deref()).unwrap_or_default();
    let parent = common_parent(lower);
    let mut options = String::new();
    for (key, value) in wanted.data {
        let comma = if options.is_empty() { "" } else { "," };
        let written = match value {
            Some(value) if key == "lowerdir" => {
                write!(options, "{comma}{key}={}", relative(value, &parent))
            }
            Some(value) if is_context(key) => write!(options, "{comma}{key}=\"{value}\""),
            Some(value) => write!(options, "{comma}{key}={value}"),
            None => write!(options, "{comma}{key}"),
        };
        written.map_err(|_| Error::argument("overlay options", "cannot be formatted"))?;
    }
    if options.len() > MAX_OPTIONS {
        return Err(Error::new(Kind::Unsupported(format!(
            "an overlay with {} bytes of options needs Linux 6.7 (lowerdir+), mount(2) takes {MAX_OPTIONS}",
            options.len()
        ))));
    }
    Ok((parent, options))
}

/// The deepest directory above all layers; `/` when one of them has an escape in it.
fn common_parent(lower: &str) -> PathBuf {
    if lower.contains('\\') {
        return PathBuf::from("/");
    }
    let mut layers = lower.split(':').filter(|layer| !layer.is_empty()).map(Path::new);
    let mut common = layers.next().and_then(Path::parent).unwrap_or(Path::new("/"));
    for layer in layers {
        while !layer.starts_with(common) || layer == common {
            let Some(up) = common.parent() else { return PathBuf::from("/") };
            common = up;
        }
    }
    common.to_path_buf()
}

fn relative(lower: &str, parent: &Path) -> String {
    if parent == Path::new("/") {
        return lower.to_owned();
    }
    let prefix = format!("{}/", parent.display());
    let layers = lower.split(':').map(|layer| layer.strip_prefix(&prefix).unwrap_or(layer));
    layers.collect::<Vec<_>>().join(":")
}

fn super_block_flags(wanted: &Wanted<'_>) -> Result<MountFlags> {
    wanted.flags.iter().try_fold(MountFlags::empty(), |flags, flag| {
        Ok(flags
            | match flag.as_str() {
                "ro" => MountFlags::RDONLY,
                "rw" | "async" => MountFlags::empty(),
                "sync" => MountFlags::SYNCHRONOUS,
                "dirsync" => MountFlags::DIRSYNC,
                "lazytime" => MountFlags::LAZYTIME,
                other => {
                    return Err(Error::argument(
                        "overlay options",
                        format!("{other:?} is no flag of mount(2)"),
                    ));
                }
            })
    })
}

fn open_path(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
        .call(|| format!("openat({path:?})"))
}
