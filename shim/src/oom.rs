//! OOM kills of a container, as they happen.

use runtime::Result;
use runtime::cgroup::Cgroup;

#[derive(Debug)]
pub(crate) struct Watch;

impl Watch {
    pub(crate) fn start(
        _cgroup: &Cgroup,
        _ready: impl Fn() + Send + 'static,
    ) -> Result<Option<Watch>> {
        Ok(None)
    }

    pub(crate) fn take(&mut self) -> u64 {
        0
    }
}
