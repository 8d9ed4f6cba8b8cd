//! HOME for a process whose environment has none: from the container's own /etc/passwd, as login(1)
//! does it and runc after it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;

use crate::plan::Process;

/// No line of a passwd file is taken to be longer, and no file to be larger: an image may hold
/// anything.
const LONGEST_LINE: u64 = 4096;
const LARGEST_FILE: u64 = 16 << 20;

/// The HOME to add; None when the environment has one. `/` when the user has no entry.
///
/// Runs inside the container's root. A passwd that cannot be read is as good as none.
pub fn of(process: &Process) -> Option<String> {
    if process.env.iter().any(|entry| entry.starts_with("HOME=")) {
        return None;
    }
    // An image may place a FIFO here, which would hold a blocking open forever.
    let passwd = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open("/etc/passwd")
        .ok()
        .filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()));
    let home = passwd.and_then(|file| find(BufReader::new(file.take(LARGEST_FILE)), process.uid));
    Some(home.unwrap_or_else(|| "/".into()))
}

/// The sixth field of the first entry of this user (passwd(5)).
fn find(mut passwd: impl BufRead, uid: u32) -> Option<String> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = passwd.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).ok()?;
        if length == 0 {
            return None;
        }
        let Ok(text) = std::str::from_utf8(&line) else { continue };
        let mut fields = text.trim_end().split(':');
        if fields.nth(2).and_then(|field| field.parse().ok()) == Some(uid) {
            return fields.nth(2).filter(|home| !home.is_empty()).map(Into::into);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_the_sixth_field_of_the_users_line() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\n# no entry\nweb:x:101:101::/srv/web:/bin/false\n";
        assert_eq!(find(passwd.as_bytes(), 101).as_deref(), Some("/srv/web"));
        assert_eq!(find(passwd.as_bytes(), 0).as_deref(), Some("/root"));
        assert_eq!(find(passwd.as_bytes(), 5), None);
    }

    #[test]
    fn an_endless_line_is_read_in_pieces_and_found_to_be_nothing() {
        let endless = BufReader::new(std::io::repeat(b'x').take(1 << 20));
        assert_eq!(find(endless, 7), None);
    }
}
