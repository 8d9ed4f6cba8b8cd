//! Host and domain name of the container's UTS namespace.

use rustix::system::{setdomainname, sethostname};

use crate::error::{Call, Result};
use crate::plan::Plan;

/// Sets what the plan names. The plan has refused names without a UTS namespace.
///
/// # Errors
/// sethostname(2), setdomainname(2).
pub fn set(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        sethostname(name.as_bytes()).call(|| format!("sethostname({name:?})"))?;
    }
    if let Some(name) = &plan.domainname {
        setdomainname(name.as_bytes()).call(|| format!("setdomainname({name:?})"))?;
    }
    Ok(())
}
