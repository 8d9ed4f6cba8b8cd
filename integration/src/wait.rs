//! Bounded waiting. Tests poll, the product does not.

use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a test waits for what ought to happen at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// How many times slower than a usual one the machine is: an emulated one sets `MYSHIM_SLOW`.
static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let value = std::env::var("MYSHIM_SLOW").ok();
    value.map_or(1, |text| text.parse().expect("MYSHIM_SLOW is a whole number"))
});

/// What is `limit` on a usual machine, here. [`within`] and programs with deadlines apply it
/// themselves.
#[must_use]
pub fn scaled(limit: Duration) -> Duration {
    limit * *SLOWNESS
}

/// Calls `probe` until it gives a value, or gives up after `limit` ([`scaled`]).
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + scaled(limit);
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

/// Calls `probe` until it gives a value.
///
/// # Panics
/// When that takes longer than [`SOON`], with `what` in the message.
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(SOON, probe).unwrap_or_else(|| panic!("waited {:?} in vain: {what}", scaled(SOON)))
}

/// [`until`] for a condition.
///
/// # Panics
/// As [`until`].
pub fn until_true(what: &str, mut probe: impl FnMut() -> bool) {
    until(what, || probe().then_some(()));
}
