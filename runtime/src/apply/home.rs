//! HOME for a process whose environment has none: from the container's own /etc/passwd, as login(1)
//! does it and runc after it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;

use crate::error::{Call, Result};
use crate::plan::Process;

const PASSWD: &str = "/etc/passwd";

/// No line of a passwd file is taken to be longer, and no file to be larger: an image may hold
/// anything.
const LONGEST_LINE: u64 = 4096;
const LARGEST_FILE: u64 = 16 << 20;

/// The HOME to add; None when the environment has one. `/` when the user has no entry.
///
/// Runs inside the container's root. A passwd that the image keeps from being read is as good as
/// none.
///
/// # Errors
/// open(2), fstat(2) and read(2), of want and not of what the image has there.
pub fn of(process: &Process) -> Result<Option<String>> {
    if process.env.iter().any(|entry| entry.starts_with("HOME=")) {
        return Ok(None);
    }
    let home = match open()? {
        Some(passwd) => find(BufReader::new(passwd.take(LARGEST_FILE)), process.uid)
            .call(|| format!("read({PASSWD:?})"))?,
        None => None,
    };
    Ok(Some(home.unwrap_or_else(|| "/".into())))
}

/// None: there is no such file, or none that may be read.
fn open() -> Result<Option<File>> {
    // An image may place a FIFO here, which would hold a blocking open forever.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let passwd = match File::options().read(true).custom_flags(flags).open(PASSWD) {
        Err(error) if is_want(&error) => return Err(error).call(|| format!("open({PASSWD:?})")),
        Err(_) => return Ok(None),
        Ok(passwd) => passwd,
    };
    let metadata = passwd.metadata().call(|| format!("fstat({PASSWD:?})"))?;
    Ok(metadata.is_file().then_some(passwd))
}

/// Of descriptors or memory; any other reason lies in the file.
fn is_want(error: &std::io::Error) -> bool {
    let raw = error.raw_os_error();
    [libc::EMFILE, libc::ENFILE, libc::ENOMEM].iter().any(|want| raw == Some(*want))
}

/// The sixth field of the first entry of this user (passwd(5)).
pub(crate) fn find(mut passwd: impl BufRead, uid: u32) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = passwd.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(None);
        }
        let Ok(text) = std::str::from_utf8(&line) else { continue };
        let mut fields = text.trim_end().split(':');
        if fields.nth(2).and_then(|field| field.parse().ok()) == Some(uid) {
            // A NUL byte would keep it from being an entry of the environment.
            let home = fields.nth(2).filter(|home| !home.is_empty() && !home.contains('\0'));
            return Ok(home.map(Into::into));
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
        assert_eq!(find(passwd.as_bytes(), 101).unwrap().as_deref(), Some("/srv/web"));
        assert_eq!(find(passwd.as_bytes(), 0).unwrap().as_deref(), Some("/root"));
        assert_eq!(find(passwd.as_bytes(), 5).unwrap(), None);
    }

    #[test]
    fn a_home_that_is_no_string_of_c_is_none() {
        assert_eq!(find(&b"web:x:101:101::/srv\0/web:/bin/false\n"[..], 101).unwrap(), None);
    }

    #[test]
    fn an_endless_line_is_read_in_pieces_and_found_to_be_nothing() {
        let endless = BufReader::new(std::io::repeat(b'x').take(1 << 20));
        assert_eq!(find(endless, 7).unwrap(), None);
    }
}
