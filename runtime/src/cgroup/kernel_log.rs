//! OOM kills as the kernel's log has them: for a cgroup whose counters are gone.
//!
//! systemd takes the cgroup of a scope away with its last process, at once. A daemon that is late,
//! on a busy host, finds no memory.events any more; the log still says who was killed, in which
//! cgroup, and whose limit was hit (`dump_oom_summary`, mm/oom_kill.c, Linux ≥ 5.0):
//!
//! ```text
//! 6,812,5140900,-;oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/a.slice,task_memcg=/a.slice/x.scope,task=dd,pid=9,uid=0
//! ```

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;

use super::files;
use super::limit_hit::LimitHit;

/// Where systemd has cgroup v2 mounted, always.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The log from some moment on.
#[derive(Debug)]
pub(super) struct KernelLog {
    log: OwnedFd,
    /// The cgroup, as the log names it.
    cgroup: PathBuf,
}

impl KernelLog {
    /// From now on, about the cgroup in `directory` and those below it. None where the log may not
    /// be read: that takes CAP_SYSLOG on the host.
    pub(super) fn from_now(directory: &Path) -> Option<KernelLog> {
        let cgroup = Path::new("/").join(directory.strip_prefix(MOUNT_POINT).ok()?);
        let log = files::open(Path::new("/dev/kmsg"), OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
        rustix::fs::seek(&log, SeekFrom::End(0)).ok()?;
        Some(KernelLog { log, cgroup })
    }

    /// Whose limit was hit at each kill until now. It never blocks. The kernel writes no more than
    /// ten of these lines in five seconds, for all cgroups together.
    pub(super) fn kills(self) -> Vec<LimitHit> {
        /// More records than the largest log has.
        const MOST: usize = 1 << 16;
        let mut kills = Vec::new();
        // A read gives one record, and fails where that is longer (CONSOLE_EXT_LOG_MAX).
        let mut record = [0_u8; 8192];
        for _ in 0..MOST {
            match rustix::io::read(&self.log, &mut record) {
                Ok(length) => {
                    let text = record.get(..length).unwrap_or_default();
                    kills.extend(limit_hit(&String::from_utf8_lossy(text), &self.cgroup));
                }
                // Some were overwritten before they were read.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        kills
    }
}

/// Of a record about a kill in `cgroup`, or below it.
fn limit_hit(record: &str, cgroup: &Path) -> Option<LimitHit> {
    let text = record.lines().next()?.split_once(";oom-kill:")?.1;
    let field = |name: &str| text.split(',').find_map(|field| field.strip_prefix(name));
    let of_task = Path::new(field("task_memcg=")?);
    if !of_task.starts_with(cgroup) {
        return None;
    }
    Some(match field("oom_memcg=").map(Path::new) {
        None => LimitHit::Host,
        Some(limited) if limited == cgroup => LimitHit::Own,
        Some(limited) if limited.starts_with(cgroup) => LimitHit::Below,
        Some(limited) => {
            let below = limited.strip_prefix("/").unwrap_or(limited);
            LimitHit::Above(Path::new(MOUNT_POINT).join(below))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(limited: &str, task: &str) -> Option<LimitHit> {
        let record = format!(
            "6,812,5140900,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x.scope,\
             mems_allowed=0,{limited},task_memcg={task},task=dd,pid=9,uid=0\n SUBSYSTEM=x\n"
        );
        limit_hit(&record, Path::new("/a.slice/x.scope"))
    }

    #[test]
    fn a_kill_in_the_cgroup_is_told_with_the_limit() {
        let task = "/a.slice/x.scope";
        assert_eq!(hit("oom_memcg=/a.slice/x.scope", task), Some(LimitHit::Own));
        assert_eq!(hit("oom_memcg=/a.slice/x.scope/own", task), Some(LimitHit::Below));
        let above = LimitHit::Above("/sys/fs/cgroup/a.slice".into());
        assert_eq!(hit("oom_memcg=/a.slice", "/a.slice/x.scope/own"), Some(above));
        assert_eq!(hit("global_oom", task), Some(LimitHit::Host));
    }

    #[test]
    fn a_kill_elsewhere_is_not() {
        assert_eq!(hit("oom_memcg=/a.slice", "/a.slice/y.scope"), None);
        assert_eq!(hit("oom_memcg=/a.slice", "/a.slice/x.scope2"), None);
        assert_eq!(limit_hit("6,1,2,-;x oom-kill:task_memcg=/a", Path::new("/a")), None);
        assert_eq!(limit_hit("", Path::new("/a")), None);
    }

    #[test]
    fn a_log_without_news_has_no_kills() {
        let directory = Path::new(MOUNT_POINT).join("none-of-this-name");
        if let Some(log) = KernelLog::from_now(&directory) {
            assert_eq!(log.kills(), []);
        }
    }
}
