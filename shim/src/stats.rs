//! Metrics.
use protobuf::well_known_types::any::Any;
use runtime::cgroup::Cgroup;
use runtime::{Error, Kind, Result};
pub(crate) fn read(_cgroup: &Cgroup) -> Result<Any> {
    Err(Error::new(Kind::Unsupported("stats".into())))
}
