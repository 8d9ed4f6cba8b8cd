//! `check`: whether this host has what containers need, told to whoever runs it.
//!
//! One line for each thing, in a fixed order: state, name, detail. What is looked for is really
//! called, on objects that nobody else sees and that are gone when their descriptor is closed.
//! docs/operate.md explains the lines.

mod kernel;
mod machine;

use runtime::plan::Host;
use runtime::sys::process::SingleThreaded;
use runtime::{Error, Result};

/// What a probe has to work with.
pub(crate) struct Bench {
    host: Host,
    single: SingleThreaded,
}

/// What follows when a thing is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// No container runs.
    Nothing,
    /// This is slower, or refused.
    This(&'static str),
}

/// One thing to look for.
struct Probe {
    name: &'static str,
    without: Without,
    /// What there is; the error says why it is not there.
    look: fn(&Bench) -> Result<String>,
}

/// The table, and whether everything that is required is there.
#[derive(Debug)]
pub(crate) struct Report {
    /// A line for each thing, and one for all.
    pub(crate) text: String,
    /// Whether containers run on this host.
    pub(crate) usable: bool,
}

/// Looks for everything.
///
/// # Errors
/// When /proc and /sys do not tell the least about the host.
pub(crate) fn run() -> Result<Report> {
    let single = SingleThreaded::verify()
        .ok_or_else(|| Error::argument("check", "this process has more than one thread"))?;
    let bench = Bench { host: Host::read(None)?, single };
    let probes = kernel::PROBES.iter().chain(machine::PROBES);
    Ok(report(probes.map(|probe| (probe, (probe.look)(&bench)))))
}

fn report<'a>(found: impl Iterator<Item = (&'a Probe, Result<String>)>) -> Report {
    let (mut text, mut missing, mut absent) = (String::new(), 0, 0);
    for (probe, found) in found {
        let (state, detail) = match (found, probe.without) {
            (Ok(detail), _) => ("ok", detail),
            (Err(error), Without::Nothing) => {
                missing += 1;
                ("MISSING", format!("{error}; without it: no container"))
            }
            (Err(error), Without::This(less)) => {
                absent += 1;
                ("absent", format!("{error}; without it: {less}"))
            }
        };
        line(&mut text, state, probe.name, &detail);
    }
    let usable = missing == 0;
    let (state, verdict) = if usable { ("ok", "usable") } else { ("MISSING", "not usable") };
    line(&mut text, state, "host", &format!("{verdict}: {missing} missing, {absent} absent"));
    Report { text, usable }
}

fn line(text: &mut String, state: &str, name: &str, detail: &str) {
    text.push_str(&format!("{state:<8} {name:<22} {detail}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(name: &'static str, without: Without) -> Probe {
        Probe { name, without, look: |_| Ok(String::new()) }
    }

    fn no() -> Result<String> {
        Err(Error::argument("it", "is not there"))
    }

    #[test]
    fn what_is_missing_makes_the_host_unusable_and_what_is_absent_does_not() {
        let (a, b) = (probe("a", Without::Nothing), probe("b", Without::This("slower")));
        let good = report([(&a, Ok("fine".to_owned())), (&b, no())].into_iter());
        assert!(good.usable);
        let lines: Vec<&str> = good.text.lines().collect();
        assert_eq!(lines[0], "ok       a                      fine");
        assert!(lines[1].starts_with("absent   b                      "), "{}", lines[1]);
        assert!(lines[1].ends_with("is not there; without it: slower"), "{}", lines[1]);
        assert_eq!(lines[2], "ok       host                   usable: 0 missing, 1 absent");
        let bad = report([(&a, no())].into_iter());
        assert!(!bad.usable && bad.text.starts_with("MISSING  a "), "{}", bad.text);
        assert!(bad.text.ends_with("not usable: 1 missing, 0 absent\n"), "{}", bad.text);
    }

    #[test]
    fn names_are_short_and_distinct() {
        let probes = || kernel::PROBES.iter().chain(machine::PROBES);
        let mut names: Vec<&str> = probes().map(|probe| probe.name).collect();
        assert!(names.iter().all(|name| name.len() <= 22), "{names:?}");
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
