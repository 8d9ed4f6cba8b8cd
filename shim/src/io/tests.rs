//! With real fifos, pipes, terminals and loggers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::pty::OpenptFlags;
use tokio::time::sleep;

use super::*;

/// A folder with a client's fifos, removed in the end.
struct Client {
    dir: PathBuf,
    reaper: Arc<Reaper>,
}

impl Client {
    fn new(name: &str) -> Client {
        let dir = std::env::temp_dir().join(format!("myshim-io-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let client = Client { dir, reaper: Arc::new(Reaper::default()) };
        for name in ["in", "out", "err"] {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(CWD, client.path(name), FileType::Fifo, mode, 0).unwrap();
        }
        client
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn stdio(&self) -> Stdio {
        Stdio {
            stdin: self.text("in"),
            stdout: self.text("out"),
            stderr: self.text("err"),
            terminal: false,
        }
    }

    /// A reader that does not wait for a writer, as the client's.
    fn reader(&self, name: &str) -> File {
        open(&self.path(name), OFlags::RDONLY | OFlags::NONBLOCK)
    }

    async fn prepare(&self, stdio: &Stdio, role: Role) -> Result<Prepared> {
        let owner = Owner::default();
        prepare(stdio, Subject { id: "web", namespace: "ns", owner, role }, &self.reaper).await
    }

    /// The process's ends, as descriptors of its own, and the daemon's part.
    async fn connect(&self, stdio: &Stdio, role: Role) -> (Vec<File>, ProcessIo) {
        let prepared = self.prepare(stdio, role).await.unwrap();
        let ends = prepared.ends.iter().map(|end| File::from(end.try_clone().unwrap())).collect();
        let mut io = prepared.attach(None).unwrap();
        io.started().unwrap();
        (ends, io)
    }

    fn logger(&self, scheme: &str, script: &str) -> Stdio {
        let path = self.path("logger");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).mode(0o755).open(&path).unwrap();
        write!(file, "#!/bin/sh\n{script}\n").unwrap();
        let stdout = format!("{scheme}://{}?--id&a%20b", path.display());
        Stdio { stdout, ..Stdio::default() }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn open(path: &Path, flags: OFlags) -> File {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap().into()
}

/// What there is to read, until the end; awaited, since the daemon's part has the same thread.
async fn read_all(mut file: File, within: Duration) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 65536];
    let end = Instant::now() + within;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return all,
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < end, "no end after {} bytes", all.len());
        sleep(Duration::from_millis(1)).await;
    }
}

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn without_paths_a_process_has_dev_null() {
    let client = Client::new("null");
    let (mut ends, io) = client.connect(&Stdio::default(), Role::Init).await;
    assert_eq!(ends.len(), 3);
    ends[1].write_all(b"lost").unwrap();
    assert_eq!(ends[0].read(&mut [0; 8]).unwrap(), 0);
    io.finish(SOON).await;
}

#[tokio::test]
async fn an_init_writes_to_the_fifo_itself_and_its_end_is_the_readers() {
    let client = Client::new("direct");
    // Nobody reads yet, and nothing waits for that.
    let (mut ends, mut io) = client.connect(&client.stdio(), Role::Init).await;
    let mut out = client.reader("out");
    ends[1].write_all(b"hello").unwrap();
    let mut buffer = [0; 16];
    assert_eq!(out.read(&mut buffer).unwrap(), 5, "without any task of the daemon's");
    ends[1].write_all(b"bye").unwrap();
    drop(ends);
    let error = out.read(&mut [0; 0]);
    assert!(error.is_ok());
    io.exited();
    assert_eq!(read_all(out, SOON).await, b"bye");
    io.finish(SOON).await;
}

#[tokio::test]
async fn an_execs_output_arrives_whole_at_a_slow_reader_and_stops_the_writer() {
    let client = Client::new("splice");
    let (mut ends, mut io) = client.connect(&client.stdio(), Role::Exec).await;
    let out = client.reader("out");
    let writer = ends.remove(1);
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let mut sent = 0_usize;
    let pattern: Vec<u8> = (0..4096_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    // Until both pipes are full: the memory of the daemon is not in between.
    for _ in 0..200 {
        match rustix::io::write(&writer, &pattern) {
            Ok(length) => sent += length,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    assert!(sent <= 2 * 65536, "{sent} bytes in flight without a reader");
    drop(writer);
    drop(ends);
    io.exited();
    let got = read_all(out, SOON).await;
    assert_eq!(got.len(), sent);
    assert!(got.chunks(4096).all(|chunk| chunk == &pattern[..chunk.len()]));
    io.finish(SOON).await;
}

#[tokio::test]
async fn a_copy_between_a_busy_writer_and_a_busy_reader_never_stalls() {
    const ALL: usize = 300 << 20;
    let client = Client::new("busy");
    let (mut ends, io) = client.connect(&client.stdio(), Role::Exec).await;
    let mut out = open(&client.path("out"), OFlags::RDONLY);
    let mut process = ends.remove(1);
    drop(ends);
    let writer = std::thread::spawn(move || {
        // Pieces that are no whole pages: full and empty come in all combinations.
        let piece = [b'x'; 1021];
        let mut left = ALL;
        while left > 0 {
            let length = left.min(piece.len());
            process.write_all(&piece[..length]).unwrap();
            left -= length;
        }
    });
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 32768];
        let mut got = 0;
        loop {
            match out.read(&mut buffer).unwrap() {
                0 => return got,
                length => got += length,
            }
        }
    });
    let begun = Instant::now();
    while !writer.is_finished() && begun.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(5)).await;
    }
    assert!(writer.is_finished(), "the copy stalls");
    io.finish(SOON).await;
    assert_eq!(reader.join().unwrap(), ALL);
}

#[tokio::test]
async fn a_background_process_does_not_keep_the_client_from_the_end() {
    let client = Client::new("background");
    let (ends, mut io) = client.connect(&client.stdio(), Role::Exec).await;
    let out = client.reader("out");
    let mut background = ends[1].try_clone().unwrap();
    drop(ends);
    background.write_all(b"still here").unwrap();
    io.exited();
    let begun = Instant::now();
    io.finish(Duration::from_millis(50)).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(read_all(out, SOON).await, b"still here");
    assert!(background.write_all(b"x").is_err(), "nobody is there any more");
}

#[tokio::test]
async fn a_reader_that_vanishes_does_not_wedge_the_end() {
    let client = Client::new("vanish");
    let (mut ends, mut io) = client.connect(&client.stdio(), Role::Exec).await;
    drop(client.reader("out"));
    rustix::io::ioctl_fionbio(&ends[1], true).unwrap();
    for _ in 0..100 {
        drop(ends[1].write(&[7; 4096]));
        sleep(Duration::from_millis(1)).await;
    }
    drop(ends);
    io.exited();
    let begun = Instant::now();
    io.finish(Duration::from_millis(50)).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn stdin_ends_when_it_is_closed_and_not_when_the_client_goes_away() {
    let client = Client::new("stdin");
    let (ends, mut io) = client.connect(&client.stdio(), Role::Exec).await;
    let stdin = &ends[0];
    rustix::io::ioctl_fionbio(stdin, true).unwrap();
    let mut first = open(&client.path("in"), OFlags::WRONLY | OFlags::NONBLOCK);
    first.write_all(b"one ").unwrap();
    drop(first);
    sleep(Duration::from_millis(20)).await;
    let mut buffer = [0; 16];
    assert_eq!((&*stdin).read(&mut buffer).unwrap(), 4);
    let again = (&*stdin).read(&mut buffer).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::WouldBlock, "no end: a client may come again");
    let mut second = open(&client.path("in"), OFlags::WRONLY | OFlags::NONBLOCK);
    second.write_all(b"two").unwrap();
    io.close_stdin();
    // The second client keeps its end open.
    let rest = read_all(stdin.try_clone().unwrap(), SOON).await;
    assert_eq!(rest, b"two");
    drop(second);
    io.finish(SOON).await;
}

#[tokio::test]
async fn a_client_that_is_through_before_the_start_has_ended_stdin() {
    let client = Client::new("stdin-early");
    let prepared = client.prepare(&client.stdio(), Role::Init).await.unwrap();
    let stdin = File::from(prepared.ends[0].try_clone().unwrap());
    rustix::io::ioctl_fionbio(&stdin, true).unwrap();
    let mut io = prepared.attach(None).unwrap();
    let mut keys = open(&client.path("in"), OFlags::WRONLY | OFlags::NONBLOCK);
    keys.write_all(b"all there is").unwrap();
    drop(keys);
    io.started().unwrap();
    assert_eq!(read_all(stdin, SOON).await, b"all there is");
    io.finish(SOON).await;
}

#[tokio::test]
async fn both_streams_of_a_file_are_appended_in_the_order_in_which_they_are_written() {
    let client = Client::new("file");
    let path = client.path("logs/deep/x.log");
    let stdout = format!("file://{}", path.display());
    for round in 0..2 {
        let stdio = Stdio { stdout: stdout.clone(), ..Stdio::default() };
        let (mut ends, mut io) = client.connect(&stdio, Role::Init).await;
        writeln!(ends[1], "out {round}").unwrap();
        writeln!(ends[2], "err {round}").unwrap();
        drop(ends);
        io.exited();
        io.finish(SOON).await;
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "out 0\nerr 0\nout 1\nerr 1\n");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
}

#[tokio::test]
async fn a_logger_gets_its_arguments_its_environment_and_all_output() {
    let client = Client::new("logger");
    let log = client.text("log");
    let script = format!(
        "echo \"$# $1 $3 $CONTAINER_ID $CONTAINER_NAMESPACE\" >{log}\nexec 5>&-\ncat <&3 >>{log}\ncat <&4 >>{log}\necho end >>{log}"
    );
    let (mut ends, mut io) = client.connect(&client.logger("binary", &script), Role::Init).await;
    writeln!(ends[2], "to stderr").unwrap();
    writeln!(ends[1], "to stdout").unwrap();
    drop(ends);
    io.exited();
    for _ in 0..500 {
        if std::fs::read_to_string(&log).unwrap().ends_with("end\n") {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    io.finish(SOON).await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(text, "4 --id a b web ns\nto stdout\nto stderr\nend\n");
}

#[tokio::test]
async fn a_logger_that_fails_fails_the_preparation() {
    let client = Client::new("logger-fails");
    let error =
        client.prepare(&client.logger("binary-v2", "exit 1"), Role::Init).await.unwrap_err();
    assert!(error.to_string().contains("did not call ready"), "{error}");
    let missing = Stdio { stdout: "binary:///no/such/logger".into(), ..Stdio::default() };
    let error = client.prepare(&missing, Role::Init).await.unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    assert!(
        client.prepare(&client.logger("binary-v2", "echo >&5; sleep 60"), Role::Init).await.is_ok()
    );
}

#[tokio::test]
async fn a_logger_that_dies_takes_no_process_with_it() {
    let client = Client::new("logger-dies");
    let (mut ends, io) =
        client.connect(&client.logger("binary-v2", "echo >&5; exit 3"), Role::Init).await;
    rustix::io::ioctl_fionbio(&ends[1], true).unwrap();
    let mut written = 0;
    for _ in 0..1000 {
        match ends[1].write(&[1; 4096]) {
            Ok(length) => written += length,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        sleep(Duration::from_millis(1)).await;
        if written > 4 * 65536 {
            break;
        }
    }
    assert!(written > 4 * 65536, "only {written} bytes were taken");
    drop(ends);
    io.finish(SOON).await;
}

fn terminal() -> (OwnedFd, PathBuf) {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let slave = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    (master, PathBuf::from(slave.to_str().unwrap()))
}

#[tokio::test]
async fn a_terminal_is_copied_both_ways_resized_and_drained_to_its_last_byte() {
    let client = Client::new("terminal");
    let stdio = Stdio { stderr: String::new(), terminal: true, ..client.stdio() };
    let prepared = client.prepare(&stdio, Role::Exec).await.unwrap();
    assert!(prepared.ends().is_empty());
    let (master, slave) = terminal();
    let mut process = open(&slave, OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK);
    let mut io = prepared.attach(Some(master)).unwrap();
    io.started().unwrap();
    io.resize(132, 43).unwrap();
    let size = rustix::termios::tcgetwinsize(&process).unwrap();
    assert_eq!((size.ws_col, size.ws_row), (132, 43));
    let out = client.reader("out");
    let mut keys = open(&client.path("in"), OFlags::WRONLY | OFlags::NONBLOCK);
    keys.write_all(b"typed\n").unwrap();
    sleep(Duration::from_millis(50)).await;
    let mut line = [0; 32];
    assert_eq!(process.read(&mut line).unwrap(), 6);
    // More than fits: the client's fifo, the terminal's buffers and the copy together.
    let words = vec![b'x'; 1000];
    let (mut sent, mut got) = (0, Vec::new());
    let mut out_now = out;
    let mut buffer = [0; 4096];
    while sent < 300_000 {
        if let Ok(length) = process.write(&words) {
            sent += length;
        }
        if let Ok(length) = out_now.read(&mut buffer) {
            got.extend_from_slice(&buffer[..length]);
        }
        sleep(Duration::from_micros(10)).await;
    }
    drop(process);
    io.exited();
    got.extend(read_all(out_now, SOON).await);
    assert_eq!(got.iter().filter(|byte| **byte == b'x').count(), sent);
    assert!(got.starts_with(b"typed\r\n"), "the echo");
    io.finish(SOON).await;
}

#[tokio::test]
async fn a_terminals_stdin_that_is_closed_is_an_end_of_file_for_who_reads_it() {
    let client = Client::new("terminal-eof");
    let stdio = Stdio { stderr: String::new(), terminal: true, ..client.stdio() };
    let prepared = client.prepare(&stdio, Role::Exec).await.unwrap();
    let (master, slave) = terminal();
    let mut process = open(&slave, OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK);
    let mut io = prepared.attach(Some(master)).unwrap();
    io.started().unwrap();
    let mut keys = open(&client.path("in"), OFlags::WRONLY | OFlags::NONBLOCK);
    keys.write_all(b"no newline").unwrap();
    drop(keys);
    io.close_stdin();
    sleep(Duration::from_millis(50)).await;
    let mut line = [0; 32];
    assert_eq!(process.read(&mut line).unwrap(), 10);
    assert_eq!(process.read(&mut line).unwrap(), 0, "the end of file");
    io.finish(Duration::from_millis(20)).await;
}
