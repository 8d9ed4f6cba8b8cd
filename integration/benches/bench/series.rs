//! Interleaved runs, and what comes of them.

use std::time::Duration;

/// One contender.
pub(crate) struct Subject<'a> {
    pub(crate) name: String,
    pub(crate) run: Box<dyn FnMut() -> Duration + 'a>,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(name: impl Into<String>, run: impl FnMut() -> Duration + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Rounds that are run before the first one that counts.
const WARM_UP: usize = 5;
/// Before each run: what the one before has left to the kernel (mounts, cgroups, RCU) is done.
const SETTLE: Duration = Duration::from_millis(5);

/// Runs all subjects in turn, `rounds` times, each round beginning with another one: whatever the
/// machine does meanwhile, it does to all of them. The first one is the ruler. Gives a table in
/// Markdown, and the times.
pub(crate) fn table(
    title: &str,
    rounds: usize,
    subjects: &mut [Subject<'_>],
) -> (String, Vec<Vec<Duration>>) {
    let times = run(rounds, subjects);
    let mut text = format!(
        "### {title}\n\n{rounds} interleaved rounds.\n\n| | median ms | fastest ms | ratio, median \
         | ratio, quartiles | ratio of the fastest |\n|---|---|---|---|---|---|\n"
    );
    let ruler = &times[0];
    for (subject, own) in subjects.iter().zip(&times) {
        let ratios = ratios(own, ruler);
        let (mut sorted, fastest) = (own.clone(), ruler.iter().min().copied().unwrap_or_default());
        sorted.sort();
        text += &format!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} – {:.2} | {:.2} |\n",
            subject.name,
            ms(sorted[rounds / 2]),
            ms(sorted[0]),
            ratios[rounds / 2],
            ratios[rounds / 4],
            ratios[rounds * 3 / 4],
            sorted[0].as_secs_f64() / fastest.as_secs_f64(),
        );
    }
    (text + "\n", times)
}

/// Of each round, in order of size.
fn ratios(own: &[Duration], ruler: &[Duration]) -> Vec<f64> {
    let ratios = own.iter().zip(ruler).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64());
    let mut ratios: Vec<f64> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    ratios
}

/// The median of the rounds' ratios.
pub(crate) fn ratio(own: &[Duration], ruler: &[Duration]) -> f64 {
    ratios(own, ruler)[own.len() / 2]
}

/// The times of each subject.
pub(crate) fn run(rounds: usize, subjects: &mut [Subject<'_>]) -> Vec<Vec<Duration>> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::with_capacity(rounds); subjects.len()];
    let count = subjects.len();
    for round in 0..WARM_UP + rounds {
        for turn in 0..count {
            let index = (round + turn) % count;
            std::thread::sleep(SETTLE);
            let time = (subjects[index].run)();
            if round >= WARM_UP {
                times[index].push(time);
            }
        }
    }
    times
}

/// The one in the middle.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
