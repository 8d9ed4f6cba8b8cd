//! Fifos of clients, opened so that nothing ever waits for a client or dies of its absence.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::{Call, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};

/// What a client's path leads to.
#[derive(Debug)]
pub(super) enum Opened {
    /// A fifo, open for reading and writing at once, non-blocking: the open waits for nobody, a
    /// writer never gets SIGPIPE, and what is in it stays when the client goes.
    Fifo(OwnedFd),
    /// Anything else, open for appending.
    File(OwnedFd),
}

/// Opens where output goes to. The path must exist.
///
/// # Errors
/// stat(2), open(2).
pub(super) fn open_output(path: &Path) -> Result<Opened> {
    if is_fifo(path)? {
        return Ok(Opened::Fifo(open(path, OFlags::RDWR | OFlags::NONBLOCK)?));
    }
    Ok(Opened::File(open(path, OFlags::WRONLY | OFlags::APPEND)?))
}

/// Opens the writing end of a fifo for the process itself: blocking, a description of its own.
/// Somebody must have it open for reading, or this waits.
///
/// # Errors
/// open(2).
pub(super) fn open_for_process(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::WRONLY)
}

/// What a client's stdin leads to.
#[derive(Debug)]
pub(super) enum Input {
    /// The reading end of a fifo, non-blocking.
    Fifo(OwnedFd),
    /// Anything else, open for reading.
    File(OwnedFd),
}

/// Opens where input comes from.
///
/// # Errors
/// stat(2), open(2).
pub(super) fn open_input(path: &Path) -> Result<Input> {
    if !is_fifo(path)? {
        return Ok(Input::File(open(path, OFlags::RDONLY)?));
    }
    Ok(Input::Fifo(open(path, OFlags::RDONLY | OFlags::NONBLOCK)?))
}

/// A writing end of the fifo of which this is the reading end: as long as it is open, the fifo
/// does not end.
///
/// # Errors
/// open(2).
pub(super) fn hold(reader: &OwnedFd) -> Result<OwnedFd> {
    open(&own_path(reader), OFlags::WRONLY | OFlags::NONBLOCK)
}

/// Whether writers have come and all have gone. Not so as long as none has come.
///
/// # Errors
/// poll(2).
pub(super) fn was_left(reader: &OwnedFd) -> Result<bool> {
    Ok(poll_now(reader)?.contains(PollFlags::HUP))
}

/// The way to open the same file again, wherever its path leads to by now.
fn own_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// /dev/null. A description of its own each time: flags and owners of descriptions are shared by
/// all that hold them.
///
/// # Errors
/// open(2).
pub(super) fn open_null() -> Result<OwnedFd> {
    open(Path::new("/dev/null"), OFlags::RDWR)
}

fn is_fifo(path: &Path) -> Result<bool> {
    let stat = rustix::fs::stat(path).call(|| format!("stat({path:?})"))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .call(|| format!("open({path:?}, {flags:?})"))
}

/// Gives up a fifo that no process writes to any more: its reader gets to the end.
///
/// When no client has it open at present (its open is slower than the process was, or containerd
/// is being restarted), it is kept until one has come, or the future is dropped: the kernel throws
/// away what is in a fifo that nobody has open, and an open for reading waits for a writer, for
/// ever if there will be none. There is nothing to await for that, so this looks from time to
/// time, in this case only.
pub(super) async fn release(fifo: OwnedFd) -> Result<()> {
    let writer = hold(&fifo)?;
    drop(fifo);
    let mut pause = Duration::from_millis(2);
    while !has_reader(&writer)? {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    Ok(())
}

/// How many bytes are in a fifo or pipe.
///
/// # Errors
/// ioctl(2).
pub(super) fn unread(fifo: &OwnedFd) -> Result<u64> {
    rustix::io::ioctl_fionread(fifo).call(|| "ioctl(fifo, FIONREAD)".into())
}

/// Whether anybody has the fifo open for reading: without a reader, its writer polls as erroneous.
fn has_reader(writer: &OwnedFd) -> Result<bool> {
    Ok(!poll_now(writer)?.contains(PollFlags::ERR))
}

/// What keeps bytes from moving from one pipe to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Between {
    /// The source is empty and will stay so.
    Ended,
    /// Nothing.
    Both,
    /// At least one of the two.
    Waiting {
        /// There is nothing to be read.
        source_is_empty: bool,
        /// There is no room.
        sink_is_full: bool,
    },
}

/// Looks at both ends of a copy at once.
///
/// # Errors
/// poll(2).
pub(super) fn between(source: &OwnedFd, sink: &OwnedFd) -> Result<Between> {
    let source = poll_now(source)?;
    let sink = poll_now(sink)?;
    if source.contains(PollFlags::HUP) && !source.contains(PollFlags::IN) {
        return Ok(Between::Ended);
    }
    let source_is_empty = !source.contains(PollFlags::IN);
    // A sink that nobody reads polls as erroneous, and its next write says so.
    let sink_is_full = !sink.intersects(PollFlags::OUT | PollFlags::ERR);
    if source_is_empty || sink_is_full {
        return Ok(Between::Waiting { source_is_empty, sink_is_full });
    }
    Ok(Between::Both)
}

fn poll_now(fd: &OwnedFd) -> Result<PollFlags> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN | PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).call(|| "poll(fifo, 0)".into())?;
    Ok(fds.iter().fold(PollFlags::empty(), |all, fd| all | fd.revents()))
}

/// Makes a pipe: its reading end, its writing end.
///
/// # Errors
/// pipe2(2), ioctl(2).
pub(super) fn pipe(blocking: Blocking) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .call(|| "pipe2(O_CLOEXEC)".into())?;
    match blocking {
        Blocking::Both => {}
        Blocking::Reader => set_nonblocking(&writer)?,
        Blocking::Writer => set_nonblocking(&reader)?,
    }
    Ok((reader, writer))
}

/// The ends of a pipe whose reads and writes wait: those that are given away. The flag belongs to
/// the description, which is shared with whoever gets the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocking {
    /// The one to read from.
    Reader,
    /// The one to write to.
    Writer,
    /// Both.
    Both,
}

/// Makes reads and writes of a descriptor not wait.
///
/// # Errors
/// ioctl(2).
pub(super) fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    rustix::io::ioctl_fionbio(fd, true).call(|| "ioctl(fd, FIONBIO)".into())
}

/// Gives a stream to the user of `io_uid` and `io_gid`, who may then open it again by /proc.
///
/// # Errors
/// fchown(2).
pub(super) fn give(fd: &OwnedFd, owner: Owner) -> Result<()> {
    if owner == Owner::default() {
        return Ok(());
    }
    let uid = rustix::fs::Uid::from_raw(owner.uid);
    let gid = rustix::fs::Gid::from_raw(owner.gid);
    rustix::fs::fchown(fd, Some(uid), Some(gid))
        .call(|| format!("fchown(stream, {}, {})", owner.uid, owner.gid))
}

/// Who owns a container's streams; root unless the options say otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// `io_uid`.
    pub(crate) uid: u32,
    /// `io_gid`.
    pub(crate) gid: u32,
}

/// The error for a terminal's stdin that cannot be awaited.
pub(super) fn not_a_fifo(path: &Path) -> Error {
    Error::argument("stdin", format!("{} is not a fifo", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn fifo(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("myshim-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .unwrap();
        path
    }

    #[tokio::test]
    async fn what_was_written_without_a_reader_is_there_for_one_that_comes_after_the_end() {
        let path = fifo("release");
        let Opened::Fifo(hold) = open_output(&path).unwrap() else { panic!("not a fifo") };
        let process = open_for_process(&path).unwrap();
        assert_eq!(rustix::io::write(&process, b"last words").unwrap(), 10);
        drop(process);
        let released = tokio::spawn(release(hold));
        tokio::time::sleep(Duration::from_millis(120)).await;
        assert!(!released.is_finished());
        let mut client = std::fs::File::open(&path).unwrap();
        let mut text = [0; 10];
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"last words");
        released.await.unwrap().unwrap();
        assert_eq!(client.read(&mut text).unwrap(), 0, "the client gets to the end");
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_fifo_with_a_reader_ends_at_once() {
        let path = fifo("ends");
        let Opened::Fifo(hold) = open_output(&path).unwrap() else { panic!("not a fifo") };
        let mut client = std::fs::File::open(&path).unwrap();
        rustix::io::write(&hold, b"unread").unwrap();
        tokio::time::timeout(Duration::from_millis(40), release(hold)).await.unwrap().unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "unread");
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
