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

/// Runs all subjects in turn, `rounds` times: whatever the machine does meanwhile, it does to all
/// of them. The first one is the ruler. Gives a table in Markdown.
pub(crate) fn table(title: &str, rounds: usize, subjects: &mut [Subject<'_>]) -> String {
    let mut times: Vec<Vec<Duration>> = vec![Vec::with_capacity(rounds); subjects.len()];
    for round in 0..WARM_UP + rounds {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let time = (subject.run)();
            if round >= WARM_UP {
                times.push(time);
            }
        }
    }
    let mut text = format!("### {title}\n\n{rounds} interleaved rounds.\n\n");
    text += "| | median ms | fastest ms | × first | spread of the ratio |\n|---|---|---|---|---|\n";
    for (subject, own) in subjects.iter().zip(&times) {
        let ratios = own.iter().zip(&times[0]).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64());
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        let mut sorted = own.clone();
        sorted.sort();
        text += &format!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} – {:.2} |\n",
            subject.name,
            ms(sorted[rounds / 2]),
            ms(sorted[0]),
            ratios[rounds / 2],
            ratios[rounds / 4],
            ratios[rounds * 3 / 4],
        );
    }
    text + "\n"
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
