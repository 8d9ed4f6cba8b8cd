//! What holds for any input: each function is a claim, and panics on an input for which it does
//! not hold. `integration/fuzz` calls them with what libFuzzer makes up; the tests of this crate
//! with the inputs that it kept.
//!
//! A claim is more than the absence of panics: what is refused is refused by its field, what is
//! taken is the same again after the way through its written form, and twice the same input is
//! twice the same plan.

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod effects;
pub(crate) mod refusal;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::cgroup::fuzz::{cgroup_path, devices, resources, unit_property};
pub use crate::dbus::fuzz::dbus;
pub use crate::plan::fuzz::{mount_options, process, spec};
pub use crate::process::fuzz::channel;

use crate::apply::home;
use crate::container::State;

/// passwd(5): the HOME of a user does not depend on how the file comes in, and is one string.
pub fn passwd(input: &[u8]) {
    let found = home::find(input, 1000);
    let in_pieces = home::find(std::io::BufReader::with_capacity(7, input), 1000);
    let (Ok(found), Ok(in_pieces)) = (found, in_pieces) else { panic!("memory cannot be read") };
    assert_eq!(found, in_pieces);
    let home = found.unwrap_or_default();
    assert!(!home.contains(['\0', '\n', ':']), "{home:?}");
}

/// state.json and net-devices.json: what is taken is the same when it is written and read again.
pub fn state(input: &[u8]) {
    survives::<State>(input);
    if let Some(record) = survives::<crate::apply::net_devices::Record>(input) {
        drop(record.check());
    }
}

/// Takes a value apart and together again.
pub(crate) fn survives<T: Serialize + DeserializeOwned>(input: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(input).ok()?;
    let written = written(&value);
    match serde_json::from_slice::<T>(&written) {
        Ok(again) => assert!(written == self::written(&again), "written otherwise again"),
        Err(error) => panic!("what was written is not read: {error}"),
    }
    Some(value)
}

/// As JSON.
pub(crate) fn written<T: Serialize>(value: &T) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(written) => written,
        Err(error) => panic!("cannot be written: {error}"),
    }
}
