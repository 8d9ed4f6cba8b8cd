//! A curve for each contender: as a picture, and as a table for who wants the figures.

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// One contender's figures: what was varied, and milliseconds.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Curves over the same axis.
#[derive(Debug)]
pub(crate) struct Chart {
    /// Of the picture's file, without its end.
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    /// What is varied.
    pub(crate) axis: &'static str,
    pub(crate) curves: Vec<Curve>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 45.0;
/// Of Okabe and Ito, which the colour-blind can tell apart.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000"];

impl Chart {
    /// Writes the picture into `dir`, when there is one, and gives the Markdown that shows it.
    pub(crate) fn publish(&self, dir: Option<&Path>) -> String {
        let mut text = format!("### {}\n\n", self.title);
        if let Some(dir) = dir {
            fs::write(dir.join(format!("{}.svg", self.file)), self.svg()).unwrap();
            write!(text, "![{}]({}.svg)\n\n", self.title, self.file).unwrap();
        }
        text + &self.table()
    }

    fn table(&self) -> String {
        let steps: Vec<f64> = self.curves[0].points.iter().map(|(x, _)| *x).collect();
        let mut text = format!("| median ms, at {} |", self.axis);
        steps.iter().for_each(|x| write!(text, " {x} |").unwrap());
        text += " last : first |\n|---|";
        text += &"---|".repeat(steps.len() + 1);
        text.push('\n');
        for curve in &self.curves {
            write!(text, "| {} |", curve.name).unwrap();
            curve.points.iter().for_each(|(_, y)| write!(text, " {y:.2} |").unwrap());
            let (first, last) = (curve.points[0].1, curve.points[curve.points.len() - 1].1);
            writeln!(text, " {:.2} |", last / first).unwrap();
        }
        text + "\n"
    }

    fn svg(&self) -> String {
        let all = || self.curves.iter().flat_map(|curve| &curve.points);
        let far = all().map(|(x, _)| *x).fold(1.0, f64::max);
        let high = round_up(all().map(|(_, y)| *y).fold(0.0, f64::max));
        let across = |x: f64| LEFT + x / far * (WIDTH - LEFT - RIGHT);
        let up = |y: f64| HEIGHT - BOTTOM - y / high * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{}</text>\n",
            self.title
        );
        for step in 0..=4 {
            let y = high * f64::from(step) / 4.0;
            let (line, end) = (up(y), WIDTH - RIGHT);
            writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{line:.1}\" x2=\"{end}\" y2=\"{line:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{y}</text>",
                LEFT - 5.0,
                line + 4.0
            )
            .unwrap();
        }
        for (x, _) in &self.curves[0].points {
            let (at, below) = (across(*x), HEIGHT - BOTTOM + 16.0);
            writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{x}</text>")
                .unwrap();
        }
        let (middle, low) = (across(far / 2.0), HEIGHT - 10.0);
        let axis = self.axis;
        writeln!(svg, "<text x=\"{middle}\" y=\"{low}\" text-anchor=\"middle\">{axis}</text>")
            .unwrap();
        writeln!(svg, "<text x=\"8\" y=\"{:.1}\">ms</text>", up(high) + 14.0).unwrap();
        for (index, curve) in self.curves.iter().enumerate() {
            svg += &line(curve, COLOURS[index % COLOURS.len()], &across, &up);
        }
        svg + "</svg>\n"
    }
}

fn line(
    curve: &Curve,
    colour: &str,
    across: &dyn Fn(f64) -> f64,
    up: &dyn Fn(f64) -> f64,
) -> String {
    let mut path = String::new();
    let mut dots = String::new();
    for (x, y) in &curve.points {
        let (x, y) = (across(*x), up(*y));
        write!(path, "{x:.1},{y:.1} ").unwrap();
        write!(dots, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>").unwrap();
    }
    let (x, y) = curve.points[curve.points.len() - 1];
    format!(
        "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>{dots}\n\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>\n",
        across(x) + 8.0,
        up(y) + 4.0,
        curve.name
    )
}

/// The next of 1, 2, 4, 6, 8 or 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(0.1).log10().floor());
    let factors = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    factors.into_iter().map(|factor| factor * power).find(|top| *top >= value).unwrap_or(value)
}
