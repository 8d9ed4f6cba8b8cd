//! Whose memory limit was hit when the kernel killed.
//!
//! ```text
//!   pods/            memory.events.local: oom 1     its limit was hit
//!     web/           memory.events: oom 0, oom_kill 1     the container's process was killed
//!       own/nested   a cgroup that the container made, with a limit of its own
//! ```
//!
//! `oom` of memory.events.local counts what this very cgroup's limit led to, `oom` of
//! memory.events also what the limits below it did (Documentation/admin-guide/cgroup-v2.rst).

use std::fmt;
use std::path::{Path, PathBuf};

use super::files;

/// The cgroup whose limit was hit, seen from the container's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitHit {
    /// The container's own.
    Own,
    /// One that the container made below its own and gave a limit: its own affair.
    Below,
    /// One above it: the nearest, by its path.
    Above(PathBuf),
    /// None's: the host itself was out of memory.
    Host,
    /// v1 does not tell.
    Untold,
}

impl fmt::Display for LimitHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitHit::Own => f.write_str("the container's own"),
            LimitHit::Below => f.write_str("of a cgroup that the container made"),
            LimitHit::Above(path) => write!(f, "of {}", path.display()),
            LimitHit::Host => f.write_str("none: the host is out of memory"),
            LimitHit::Untold => f.write_str("not told by cgroup v1"),
        }
    }
}

/// The counters of the container's cgroup and of those above it.
#[derive(Debug)]
pub(super) struct Limits {
    /// The container's, with what its limit has led to.
    own: Counter,
    /// The nearest first.
    above: Vec<Counter>,
    /// `oom` of the container's memory.events: its own limit and those below it.
    tree: u64,
}

/// `oom` of a cgroup's memory.events.local, as it was last read.
#[derive(Debug)]
struct Counter {
    directory: PathBuf,
    seen: u64,
}

impl Limits {
    /// `events` is what memory.events of `directory` says now.
    pub(super) fn of(directory: &Path, events: &str) -> Limits {
        let above = directory.ancestors().skip(1).map_while(Counter::now).collect();
        let own = Counter::now(directory);
        let own = own.unwrap_or(Counter { directory: directory.to_owned(), seen: 0 });
        Limits { own, above, tree: ooms(events) }
    }

    /// Which it was since the last call that found kills.
    pub(super) fn hit(&mut self, events: &str) -> LimitHit {
        let tree = std::mem::replace(&mut self.tree, ooms(events));
        let own = self.own.has_risen();
        // All are read, so that the next answer is about what is new then.
        let mut above = None;
        for counter in &mut self.above {
            if counter.has_risen() && above.is_none() {
                above = Some(counter.directory.clone());
            }
        }
        match (own, above) {
            (true, _) => LimitHit::Own,
            (false, Some(path)) => LimitHit::Above(path),
            (false, None) if self.tree > tree => LimitHit::Below,
            (false, None) => LimitHit::Host,
        }
    }
}

impl Counter {
    /// None at the top of the hierarchy, which has no limit.
    fn now(directory: &Path) -> Option<Counter> {
        let seen = ooms(&files::try_read(&directory.join("memory.events.local")).ok()?);
        Some(Counter { directory: directory.to_owned(), seen })
    }

    fn has_risen(&mut self) -> bool {
        // A cgroup that is gone has no news.
        let seen = Counter::now(&self.directory).map_or(self.seen, |now| now.seen);
        std::mem::replace(&mut self.seen, seen) < seen
    }
}

/// Of memory.events or memory.events.local; v1's file has no such line.
pub(super) fn ooms(events: &str) -> u64 {
    files::flat_value(events, "oom").and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// v1 counts how often the limit on memory was reached, by what could be reclaimed as well, and
/// not reliably that on memory and swap together: no count says nothing.
pub(super) fn hit_v1(directory: &Path) -> LimitHit {
    let count = files::try_read(&directory.join("memory.failcnt"));
    match count.is_ok_and(|count| count.trim() != "0") {
        true => LimitHit::Own,
        false => LimitHit::Untold,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Folders in place of cgroups: `oom` of memory.events.local.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let root = std::env::temp_dir().join(format!("myshim-{name}-{}", std::process::id()));
            fs::create_dir_all(root.join("pod/web")).unwrap();
            Tree(root)
        }

        fn set(&self, directory: &str, ooms: u64) {
            let text = format!("low 0\nhigh 0\nmax 7\noom {ooms}\noom_kill 0\n");
            fs::write(self.0.join(directory).join("memory.events.local"), text).unwrap();
        }

        fn web(&self) -> PathBuf {
            self.0.join("pod/web")
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_limit_that_was_hit_is_told_each_time_anew() {
        let tree = Tree::new("limit-hit");
        tree.set("pod", 4);
        tree.set("pod/web", 1);
        let mut limits = Limits::of(&tree.web(), "oom 3\noom_kill 3\n");
        tree.set("pod/web", 2);
        assert_eq!(limits.hit("oom 4\noom_kill 4\n"), LimitHit::Own);
        assert_eq!(limits.hit("oom 5\noom_kill 5\n"), LimitHit::Below);
        tree.set("pod", 5);
        assert_eq!(limits.hit("oom 5\noom_kill 6\n"), LimitHit::Above(tree.0.join("pod")));
        assert_eq!(limits.hit("oom 5\noom_kill 7\n"), LimitHit::Host);
    }

    #[test]
    fn the_own_limit_goes_before_one_above() {
        let tree = Tree::new("limit-hit-both");
        tree.set("pod", 0);
        tree.set("pod/web", 0);
        let mut limits = Limits::of(&tree.web(), "oom 0\n");
        tree.set("pod", 1);
        tree.set("pod/web", 1);
        assert_eq!(limits.hit("oom 1\n"), LimitHit::Own);
    }
}
