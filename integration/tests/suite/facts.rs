//! Small helpers that several modules of claims share.

use std::fs;
use std::path::Path;

use myshim_integration::Test;
use myshim_integration::command::Running;
use myshim_integration::process::{Process, descriptors};
use myshim_integration::wait;

/// Waits until a running program has written `word` to its standard output.
#[track_caller]
pub(crate) fn says(running: &Running, word: &str) {
    let said = wait::within(wait::SOON, || running.out_so_far().contains(word).then_some(()));
    let (out, err) = (running.out_so_far(), running.err_so_far());
    assert!(said.is_some(), "{word:?} is not said; stdout: {out:?}, stderr: {err:?}");
}

/// The identity of a namespace, as `net:[4026531840]`.
pub(crate) fn namespace(pid: &str, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.to_string_lossy().into_owned()
}

/// Whether a mask of /proc/PID/status has a capability.
pub(crate) fn cap(mask: &str, number: u32) -> bool {
    u64::from_str_radix(mask, 16).unwrap() & (1 << number) != 0
}

/// The trimmed content of the first of `names` that is in `dir`.
#[track_caller]
pub(crate) fn first_of(dir: &Path, names: &[&str]) -> String {
    let found = names.iter().find_map(|name| fs::read_to_string(dir.join(name)).ok());
    found.unwrap_or_else(|| panic!("none of {names:?} in {}", dir.display())).trim().to_owned()
}

/// The last 200 characters.
pub(crate) fn tail(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(200);
    text.chars().skip(skip).collect()
}

/// The descriptors of a process, once two looks in a row show as many.
pub(crate) fn settled_descriptors(pid: u32) -> Vec<String> {
    let mut last = descriptors(pid);
    wait::within(wait::SOON, || {
        std::thread::sleep(std::time::Duration::from_millis(30));
        let now = descriptors(pid);
        let same = now.len() == last.len();
        last = now;
        same.then_some(())
    });
    last
}

/// The pid of the test's process with these arguments, once there is one.
#[track_caller]
pub(crate) fn process(t: &Test, line: &str) -> u32 {
    let found = wait::within(wait::SOON, || find(t, line));
    found.unwrap_or_else(|| panic!("no process {line:?} in {:#?}", Process::tagged(&t.tag)))
}

/// [`process`], with what the client says when there is none.
#[track_caller]
pub(crate) fn process_of(t: &Test, client: &Running, line: &str) -> u32 {
    let found = wait::within(wait::SOON, || find(t, line));
    found.unwrap_or_else(|| panic!("no process {line:?}; the client: {}", client.err_so_far()))
}

fn find(t: &Test, line: &str) -> Option<u32> {
    Process::tagged(&t.tag).values().find(|p| p.line == line).map(|p| p.pid)
}

/// How many processes the test has on the machine.
pub(crate) fn process_count(t: &Test) -> usize {
    Process::tagged(&t.tag).len()
}
