//! Terminals, and descriptors that are handed on.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::bench::{Bench, Running, until};

/// A socket for a terminal, and where it is.
fn console(bench: &Bench) -> (UnixListener, PathBuf) {
    let path = bench.dir.join("console");
    (UnixListener::bind(&path).unwrap(), path)
}

fn received(listener: &UnixListener) -> File {
    let (socket, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let mut data = [IoSliceMut::new(&mut name)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    assert!(rustix::net::recvmsg(&socket, &mut data, &mut ancillary, flags).unwrap().bytes > 0);
    let fd: Option<OwnedFd> = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    File::from(fd.expect("a descriptor"))
}

/// Whether there is something to read in a minute.
fn readable(file: &File) -> bool {
    let timeout = Timespec { tv_sec: 60, tv_nsec: 0 };
    poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

/// All that is shown until the last user of the terminal is gone (EIO).
fn shown(mut master: File) -> String {
    let mut shown = Vec::new();
    master.read_to_end(&mut shown).ok();
    String::from_utf8(shown).unwrap()
}

#[test]
fn the_terminal_of_a_created_container_goes_to_its_socket() {
    let bench = Bench::new();
    bench.script("tty; echo x > /dev/console; stty size");
    bench.change(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 11, "width": 22});
    });
    let (listener, path) = console(&bench);
    bench.create(&["--console-socket", path.to_str().unwrap()], "c");
    let master = received(&listener);
    bench.oci(&["start", "c"]).ok();
    assert_eq!(shown(master), "/dev/pts/0\r\nx\r\n11 22\r\n");
    bench.await_status("c", "stopped");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn the_terminal_of_a_tenant_goes_to_its_socket() {
    let bench = Bench::new();
    bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    let (listener, path) = console(&bench);
    let socket = path.to_str().unwrap();
    let args = ["exec", "-d", "-t", "--console-socket", socket, "c", "sh", "-c", "read x; echo $x"];
    bench.oci(&args).ok();
    let mut master = received(&listener);
    master.write_all(b"hello\n").unwrap();
    assert_eq!(shown(master), "hello\r\nhello\r\n");
    bench.oci(&["delete", "-f", "c"]).ok();
    bench.finish();
}

/// Both ends of a terminal for the command.
fn own_terminal() -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
    let size = Winsize { ws_row: 33, ws_col: 44, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).unwrap();
    (File::from(master), File::from(slave))
}

#[test]
fn in_the_foreground_the_terminal_is_our_own() {
    let bench = Bench::new();
    bench.script("stty size; read x; echo got $x; exit 3");
    bench.change(|config| config["process"]["terminal"] = json!(true));
    let (mut master, slave) = own_terminal();
    let line = bench.line(&["run", "--bundle", &bench.bundle(), "c"]);
    let mut command = Command::new(&line[0]);
    let streams = [&slave, &slave, &slave].map(|slave| Stdio::from(slave.try_clone().unwrap()));
    let [stdin, stdout, stderr] = streams;
    command.args(&line[1..]).stdin(stdin).stdout(stdout).stderr(stderr);
    let mut child = command.spawn().unwrap();
    drop((command, slave));
    let mut seen = String::new();
    let mut buffer = [0; 256];
    let mut expect = |text: &str, master: &mut File| {
        while !seen.contains(text) {
            let length = if readable(master) { master.read(&mut buffer).unwrap_or(0) } else { 0 };
            assert!(length > 0, "{text:?} is not shown: {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    expect("33 44\r\n", &mut master);
    master.write_all(b"word\r").unwrap();
    expect("got word\r\n", &mut master);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    bench.finish();
}

/// The command behind a shell that opens descriptors for it.
fn with_fds(bench: &Bench, prelude: &str, args: &[&str]) -> Running {
    let quoted: Vec<String> = bench.line(args).iter().map(|word| format!("'{word}'")).collect();
    let script = format!("{prelude}; exec {}", quoted.join(" "));
    bench.start_line(&["/bin/sh".into(), "-c".into(), script])
}

fn file(bench: &Bench, name: &str) -> String {
    let path = bench.dir.join(name);
    fs::write(&path, name).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn descriptors_that_are_preserved_and_no_others_come_into_the_container() {
    let bench = Bench::new();
    bench.script("cat <&3; cat <&4; ls /proc/self/fd");
    let (a, b, c) = (file(&bench, "a"), file(&bench, "b"), file(&bench, "c"));
    let prelude = format!("exec 3<{a} 4<{b} 5<{c} 6<{c}");
    let run = ["run", "--preserve-fds", "2", "--bundle", &bench.bundle(), "c"];
    // ls has one of its own, for the directory it reads.
    assert_eq!(with_fds(&bench, &prelude, &run).finish().ok(), "ab0\n1\n2\n3\n4\n5\n");
    let create = ["create", "--preserve-fds", "2", "--bundle", &bench.bundle(), "c"];
    let created = with_fds(&bench, &prelude, &create);
    let out = created.finish();
    assert!(out.status.success(), "{out:?}");
    bench.oci(&["start", "c"]).ok();
    bench.await_status("c", "stopped");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn a_created_container_keeps_its_descriptors_until_it_is_started_by_another() {
    let bench = Bench::new();
    bench.script("cat <&3; ls /proc/self/fd");
    let prelude = format!("exec 3<{}", file(&bench, "a"));
    let create = ["create", "--preserve-fds", "1", "--bundle", &bench.bundle(), "c"];
    let out = bench.dir.join("program.out");
    let prelude = format!("{prelude} >{}", out.display());
    with_fds(&bench, &prelude, &create).finish().ok();
    bench.oci(&["start", "c"]).ok();
    bench.await_status("c", "stopped");
    assert_eq!(fs::read_to_string(Path::new(&out)).unwrap(), "a0\n1\n2\n3\n4\n");
    bench.oci(&["delete", "c"]).ok();
    bench.finish();
}

#[test]
fn descriptors_of_a_service_manager_come_first_and_are_told_of() {
    let bench = Bench::new();
    bench.script("cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID");
    let (a, b) = (file(&bench, "a"), file(&bench, "b"));
    let prelude = format!("exec 3<{a} 4<{b}; export LISTEN_FDS=1 LISTEN_PID=$$");
    let run = ["run", "--preserve-fds", "1", "--bundle", &bench.bundle(), "c"];
    assert_eq!(with_fds(&bench, &prelude, &run).finish().ok(), "ab1 1\n");
    bench.script("echo $LISTEN_FDS");
    let prelude = format!("exec 3<{a}; export LISTEN_FDS=1 LISTEN_PID=1");
    let run = ["run", "--bundle", &bench.bundle(), "c"];
    assert_eq!(with_fds(&bench, &prelude, &run).finish().ok(), "\n");
    bench.finish();
}

#[test]
fn exec_hands_descriptors_on_as_well() {
    let bench = Bench::new();
    bench.create(&[], "c");
    bench.oci(&["start", "c"]).ok();
    let prelude = format!("exec 3<{} 4</dev/null", file(&bench, "a"));
    let script = "cat <&3; ls /proc/self/fd";
    let exec = ["exec", "--preserve-fds", "1", "c", "sh", "-c", script];
    assert_eq!(with_fds(&bench, &prelude, &exec).finish().ok(), "a0\n1\n2\n3\n4\n");
    let exec = ["exec", "--preserve-fds", "3", "c", "true"];
    with_fds(&bench, &prelude, &exec).finish().fails("descriptor 5 of 3 is not open");
    until("nobody else is there", || {
        bench.oci(&["ps", "-f", "json", "c"]).ok().matches(',').count() == 0
    });
    bench.oci(&["delete", "-f", "c"]).ok();
    bench.finish();
}
