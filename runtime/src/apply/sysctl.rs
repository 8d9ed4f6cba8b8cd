//! Kernel parameters of the container's namespaces.

use std::path::Path;

use crate::sys::procfs::Procfs;
use crate::{At, Result};

/// Writes each value to its file below /proc/sys. The caller is in the container's namespaces:
/// the kernel takes the parameters' owner from the writer.
///
/// # Errors
/// ENOENT: no such parameter (in this namespace); EINVAL: the value.
pub fn apply(procfs: &Procfs, sysctls: &[(String, String)]) -> Result<()> {
    for (path, value) in sysctls {
        procfs
            .write(Path::new("sys").join(path), value.as_bytes())
            .at_with(|| format!("sysctl {path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::rootfs::tests::{alone, filesystem};

    #[test]
    fn a_sysctl_is_set_in_the_containers_namespaces() {
        alone(module_path!(), "a_sysctl_is_set_in_the_containers_namespaces", |scene| {
            let host = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
            let other = if host.trim() == "0" { "1" } else { "0" };
            let root = scene.enter(&scene.rootfs(vec![filesystem("/proc", "proc", &[])]));
            let procfs = root.procfs().unwrap();
            let sysctl = |path: &str, value: &str| (path.to_owned(), value.to_owned());
            let sysctls = [sysctl("net/ipv4/ip_forward", other), sysctl("kernel/msgmax", "4242")];
            apply(&procfs, &sysctls).unwrap();
            assert_eq!(
                procfs.read("sys/net/ipv4/ip_forward").unwrap(),
                format!("{other}\n").as_bytes()
            );
            assert_eq!(procfs.read("sys/kernel/msgmax").unwrap(), b"4242\n");
            let error = apply(&procfs, &[sysctl("net/no/such", "1")]).unwrap_err().to_string();
            assert!(error.starts_with("sysctl net/no/such: "), "{error}");
        });
    }
}
