//! A program on a real pseudo terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::spawn as spawn_thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::wait;

/// A terminal with a program on it.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `command` with standard input, output and error on a new terminal of 80 columns
    /// and 24 rows.
    ///
    /// # Panics
    /// When there is no terminal to be had.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
        tcsetwinsize(&master, size(80, 24)).unwrap();
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = command.spawn().unwrap();
        // The command holds the slave: as long as it lives, reading does not see its end.
        drop(command);
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().unwrap(), Arc::clone(&seen));
        spawn_thread(move || {
            let mut buffer = [0; 4096];
            // EIO is how a terminal says that its last user is gone.
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Self { master, child, seen }
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// All that was shown until now, without carriage returns: how many there are depends on
    /// whether both terminals add one.
    ///
    /// # Panics
    /// Never; the lock is not poisoned.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).replace('\r', "")
    }

    /// Waits until `text` is shown.
    ///
    /// # Panics
    /// When it is not, with what is.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let shown = wait::within(wait::SOON, || self.shown().contains(text).then_some(()));
        assert!(shown.is_some(), "{text:?} does not show; this does: {:?}", self.shown());
    }

    /// Changes the size and tells the program, as a terminal emulator and its shell do.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::WINCH).unwrap();
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// When it does not end; it is killed then.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> (ExitStatus, String) {
        let status = wait::within(limit, || self.child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| {
            self.child.kill().and_then(|()| self.child.wait()).ok();
            panic!("does not end; the terminal shows {:?}", self.shown())
        });
        (status, self.shown())
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}
