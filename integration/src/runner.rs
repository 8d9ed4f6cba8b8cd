//! Runs claims: each in a process of its own with a deadline, all on two containerds that are
//! started once.
//!
//! ```text
//!  runner ──▶ containerd 1.6, containerd 2            started first, stopped last
//!         ──▶ suite --claim NAME (one process each)   killed when its time is over
//!               └──▶ ctr, shims by hand, a containerd of its own
//! ```
//!
//! The runner's own claim is that after all of them the machine is as it was.

use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::claim::Claim;
use crate::command::Running;
use crate::containerd::{Daemon, Endpoint, Version, shim_binary};
use crate::host;
use crate::test::{Fixture, Test, import};
use crate::wait;

/// A list of claims by the functions' names, each with the options of [`Claim`] it needs:
/// `claims![a_thing_holds, a_slow_thing_holds.within(120).alone()]`.
#[macro_export]
macro_rules! claims {
    ($($name:ident $(. $option:ident ($($value:expr)?))*),* $(,)?) => {
        &[$(
            $crate::claim::Claim::new(module_path!(), stringify!($name), $name)
                $(.$option($($value)?))*
        ),*]
    };
}

/// One claim on one containerd.
#[derive(Debug, Clone)]
struct Job {
    claim: Claim,
    version: Version,
    name: String,
}

/// How a job ended.
#[derive(Debug)]
enum Verdict {
    Passed,
    Failed(String),
}

/// The command line; the words that `cargo test` passes on.
#[derive(Debug, Default)]
struct Args {
    filters: Vec<String>,
    skip: Vec<String>,
    threads: Option<usize>,
    exact: bool,
    list: bool,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--exact" => args.exact = true,
                "--list" => args.list = true,
                "--skip" => args.skip.push(value()?),
                "--test-threads" => {
                    args.threads = Some(value()?.parse().map_err(|e| format!("{word}: {e}"))?);
                }
                flag if flag.starts_with("--") => return Err(format!("unknown flag {flag}")),
                _ => args.filters.push(word),
            }
        }
        Ok(args)
    }

    fn wants(&self, name: &str) -> bool {
        (self.filters.is_empty() || self.filters.iter().any(|filter| self.hits(name, filter)))
            && !self.skip.iter().any(|skip| name.contains(skip.as_str()))
    }

    fn hits(&self, name: &str, filter: &str) -> bool {
        if self.exact { name == filter } else { name.contains(filter) }
    }
}

/// Where the process of one claim finds its [`Fixture`].
const FIXTURE: &str = "MYSHIM_FIXTURE";

/// The `main` of a test program.
#[must_use]
pub fn main(modules: &[&'static [Claim]]) -> ExitCode {
    let claims: Vec<Claim> = modules.iter().flat_map(|claims| claims.iter().copied()).collect();
    if let Ok(fixture) = std::env::var(FIXTURE) {
        return run_one(&claims, &fixture);
    }
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    let (jobs, impossible) = jobs(&claims, &args);
    if let Some(filter) =
        args.filters.iter().find(|filter| !names(&claims).any(|n| args.hits(&n, filter)))
    {
        eprintln!("no claim has the name {filter}");
        return ExitCode::FAILURE;
    }
    if args.list {
        jobs.iter().for_each(|job| println!("{}: test", job.name));
        return ExitCode::SUCCESS;
    }
    run_all(&jobs, &impossible, &args)
}

/// The side of the process of one claim.
fn run_one(claims: &[Claim], fixture: &str) -> ExitCode {
    let wanted = std::env::args().nth(2).unwrap_or_default();
    let fixture: Fixture = serde_json::from_str(fixture).unwrap();
    let claim = claims.iter().find(|claim| claim.path() == wanted).expect("a claim of this name");
    let test = Test::new(fixture);
    (claim.body)(&test);
    test.finish();
    ExitCode::SUCCESS
}

/// What is to be run, and what cannot be on this machine.
fn jobs(claims: &[Claim], args: &Args) -> (Vec<Job>, Vec<String>) {
    let (mut jobs, mut impossible) = (Vec::new(), Vec::new());
    for claim in claims {
        for &version in claim.versions() {
            let name = name_of(claim, version);
            match claim.needs.missing() {
                _ if !args.wants(&name) => {}
                Some(reason) => impossible.push(format!("{name}: {reason}")),
                None => jobs.push(Job { claim: *claim, version, name }),
            }
        }
    }
    (jobs, impossible)
}

fn name_of(claim: &Claim, version: Version) -> String {
    let place = if claim.once { "" } else { version.name() };
    format!("{}@{place}", claim.path()).trim_end_matches('@').to_owned()
}

fn names(claims: &[Claim]) -> impl Iterator<Item = String> {
    claims.iter().flat_map(|claim| claim.versions().iter().map(|&v| name_of(claim, v)))
}

fn run_all(jobs: &[Job], impossible: &[String], args: &Args) -> ExitCode {
    if jobs.is_empty() {
        eprintln!("there is no claim to run");
        impossible.iter().for_each(|line| eprintln!("cannot be shown on this machine: {line}"));
        return ExitCode::FAILURE;
    }
    let begin = Instant::now();
    let bench = Bench::set_up(jobs);
    println!("running {} tests", jobs.len());
    let threads = args.threads.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(2, |n| n.get() * 2).clamp(2, 16)
    });
    let (alone, beside): (Vec<_>, Vec<_>) = jobs.iter().partition(|job| job.claim.alone);
    let mut failed = bench.run(beside, threads);
    failed.extend(bench.run(alone, 1));
    let left = bench.tear_down();
    if !left.is_empty() {
        let text = format!("left behind by the suite:\n  {}", left.join("\n  "));
        failed.push(("the_machine_is_as_it_was".to_owned(), text));
    }
    report(jobs.len() + 1, &failed, impossible, begin.elapsed())
}

fn report(
    total: usize,
    failed: &[(String, String)],
    impossible: &[String],
    time: Duration,
) -> ExitCode {
    for (name, text) in failed {
        println!("\n---- {name} ----\n{text}");
    }
    if !impossible.is_empty() {
        println!("\ncannot be shown on this machine:");
        impossible.iter().for_each(|line| println!("    {line}"));
    }
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|(name, _)| println!("    {name}"));
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; \
         finished in {:.2}s\n",
        total - failed.len(),
        failed.len(),
        time.as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What all claims share.
struct Bench {
    dir: PathBuf,
    tag: String,
    daemons: Vec<Daemon>,
    counter: Mutex<u32>,
}

impl Bench {
    /// Starts the containerds that the jobs need.
    fn set_up(jobs: &[Job]) -> Self {
        let needed = Version::ALL.into_iter().filter(|&v| jobs.iter().any(|job| job.version == v));
        let needed: Vec<Version> = needed.collect();
        for &version in &needed {
            let shim = shim_binary(version);
            assert!(shim.exists(), "{} is not there: run `make build`", shim.display());
            let containerd = version.bin().join("containerd");
            assert!(containerd.exists(), "{} is not there: run `make tools`", containerd.display());
        }
        let tag = format!("{:08x}", random());
        let dir = PathBuf::from(format!("/tmp/ms-{tag}"));
        fs::create_dir_all(dir.join("t")).unwrap();
        let start = |version: Version| {
            let short = if version == Version::V16 { "c1" } else { "c2" };
            let daemon = Daemon::start(version, &dir.join(short), &format!("ms-{tag}"));
            import(daemon.endpoint(), &dir);
            daemon
        };
        let daemons = needed.into_iter().map(start).collect();
        Self { dir, tag, daemons, counter: Mutex::new(0) }
    }

    fn endpoint(&self, version: Version) -> &Endpoint {
        let daemon = self.daemons.iter().find(|d| d.endpoint().version == version);
        daemon.expect("what a job needs runs").endpoint()
    }

    /// Runs jobs on so many threads; the failed ones, with what they said.
    fn run(&self, jobs: Vec<&Job>, threads: usize) -> Vec<(String, String)> {
        let queue = Mutex::new(VecDeque::from(jobs));
        let failed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(job) = next else { break };
                        self.run_job(job, &failed);
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_job(&self, job: &Job, failed: &Mutex<Vec<(String, String)>>) {
        let fixture = self.fixture(job);
        let begin = Instant::now();
        let verdict = self.verdict(job, &fixture);
        let time = begin.elapsed().as_secs_f64();
        let mut out = std::io::stdout().lock();
        let word = if matches!(verdict, Verdict::Passed) { "ok" } else { "FAILED" };
        writeln!(out, "test {} ... {word} ({time:.1}s)", job.name).ok();
        drop(out);
        if let Verdict::Failed(text) = verdict {
            failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((job.name.clone(), text + &self.context(job.version, &fixture.tag)));
            host::sweep(&fixture.tag);
        }
        remove_dir(&fixture.dir);
    }

    fn fixture(&self, job: &Job) -> Fixture {
        let mut counter = self.counter.lock().unwrap_or_else(PoisonError::into_inner);
        *counter += 1;
        // Random in the run, distinct in it by count.
        let tag = format!("{:05x}{:03x}", random() >> 12, *counter & 0xfff);
        let dir = self.dir.join("t").join(&tag);
        fs::create_dir(&dir).unwrap();
        Fixture { endpoint: self.endpoint(job.version).clone(), tag, dir }
    }

    fn verdict(&self, job: &Job, fixture: &Fixture) -> Verdict {
        let log = self.dir.join(format!("{}.out", fixture.tag));
        let file = fs::File::create(&log).unwrap();
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if job.claim.own_network {
            let up = "ip link set lo up && exec \"$@\"";
            command.args(["/usr/bin/unshare", "--net", "--", "/bin/sh", "-c", up, "-"]);
        }
        command.arg(std::env::current_exe().unwrap());
        command.args(["--claim", &job.claim.path()]);
        command.env("RUST_BACKTRACE", "0");
        command.env(FIXTURE, serde_json::to_string(fixture).unwrap());
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let end = Running::start(command).end_within(job.claim.limit);
        let said = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        match end {
            Ok(output) if output.status.success() => Verdict::Passed,
            Ok(_) => Verdict::Failed(said),
            Err(late) => {
                let tree = process_list(&fixture.tag);
                late.signal(rustix::process::Signal::KILL);
                let gone = late.end_within(Duration::from_secs(10)).is_ok();
                let limit = wait::scaled(job.claim.limit);
                let text = format!("{said}\nnot at its end after {limit:?} (killed: {gone})");
                Verdict::Failed(format!("{text}; its processes then:\n{tree}"))
            }
        }
    }

    /// What containerd and the shims logged about a test.
    fn context(&self, version: Version, tag: &str) -> String {
        let shared = self.endpoint(version).log();
        let own = self.dir.join("t").join(tag).join("c/log");
        let mut lines = Vec::new();
        for log in [shared, own] {
            let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
            lines.extend(text.lines().filter(|l| l.contains(tag)).map(str::to_owned));
        }
        let from = lines.len().saturating_sub(60);
        format!("\nlast lines of containerd's log about it:\n{}\n", lines[from..].join("\n"))
    }

    /// Stops the daemons, and says what is left that has the run's tag.
    fn tear_down(mut self) -> Vec<String> {
        self.daemons.clear();
        for root in host::cgroup_roots() {
            fs::remove_dir(root.join(format!("ms-{}", self.tag))).ok();
        }
        let mut left = Vec::new();
        wait::within(Duration::from_secs(10), || {
            left = self.left();
            left.is_empty().then_some(())
        });
        if !left.is_empty() {
            host::sweep(&self.tag);
        }
        if std::env::var_os("MYSHIM_KEEP").is_none() {
            remove_dir(&self.dir);
        }
        left
    }

    /// Processes, mounts and cgroups with the run's tag.
    fn left(&self) -> Vec<String> {
        let processes = crate::process::Process::tagged(&self.tag);
        let mut left: Vec<String> = processes
            .values()
            .map(|p| format!("process {} {} {}", p.pid, p.state, p.line))
            .collect();
        left.extend(host::mounts().into_iter().filter(|mount| mount.contains(&self.tag)));
        let cgroups = host::cgroup_roots().into_iter().map(|r| r.join(format!("ms-{}", self.tag)));
        left.extend(
            cgroups.filter(|dir| dir.exists()).map(|dir| format!("cgroup {}", dir.display())),
        );
        left
    }
}

fn process_list(tag: &str) -> String {
    let lines: Vec<String> = crate::process::Process::tagged(tag)
        .values()
        .map(|p| format!("  {} (parent {}) {} {}", p.pid, p.parent, p.state, p.line))
        .collect();
    lines.join("\n")
}

/// Removes a folder of a test; never follows a mount that is still in it.
fn remove_dir(dir: &Path) {
    let mounted = host::mounts().iter().any(|mount| mount.starts_with(&*dir.to_string_lossy()));
    if !mounted {
        fs::remove_dir_all(dir).ok();
    }
}

/// 32 bits that no other run on the machine has.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let source = fs::File::open("/dev/urandom");
    source.and_then(|mut f| std::io::Read::read_exact(&mut f, &mut bytes)).unwrap();
    u32::from_ne_bytes(bytes)
}
