//! ROC and DET curves as one SVG picture: true-accept rate over a logarithmic false-accept rate, and both errors on normal-deviate axes
//! (Martin et al. 1997), each with a 95 % band from draws of people.

use std::fmt::Write as _;

use super::interval::{Interval, bootstrap_by_person};
use super::roc::{Roc, Score};

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// Printed above.
    pub title: &'a str,
    /// Similarities.
    pub scores: &'a [Score],
    /// The two people of each score.
    pub people: &'a [(u32, u32)],
    /// Draws of people for the band.
    pub draws: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// A point of a curve with its band.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The false-accept rate allowed, 0 to 1.
    pub far: f64,
    /// True-accept rate.
    pub tar: f64,
    /// Its 95 % interval by draws of people.
    pub band: Option<Interval>,
}

/// The curve at rates from one impostor pair upwards, twelve for each power of ten. `None` without both sorts of pairs.
#[must_use]
pub fn points(curve: &Curve<'_>) -> Option<Vec<Point>> {
    let roc = Roc::new(curve.scores)?;
    let impostors = roc.errors_at(0.0).impostor as f64;
    let steps = (impostors.log10() * 12.0).ceil() as i32;
    // Rounding of the power must not turn one impostor into none.
    let fars: Vec<f64> =
        (0..=steps).map(|i| 10_f64.powf(f64::from(i - steps) / 12.0).max((1.0 + 1e-9) / impostors)).collect();
    let bands = bootstrap_by_person(curve.scores, curve.people, &fars, curve.draws, curve.seed);
    let point = |(&far, band)| Point { far, tar: roc.at_far(far).tar, band };
    Some(fars.iter().zip(bands).map(point).collect())
}

/// The picture. `None` without both sorts of pairs.
#[must_use]
pub fn svg(curve: &Curve<'_>) -> Option<String> {
    let roc = Roc::new(curve.scores)?;
    let points = points(curve)?;
    let counts = roc.errors_at(0.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {W} {H}\" width=\"{W}\" height=\"{H}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{W}\" height=\"{H}\" fill=\"#fff\"/>\n\
         <text x=\"{}\" y=\"22\" text-anchor=\"middle\" font-size=\"15\">{}</text>\n\
         <text x=\"{}\" y=\"40\" text-anchor=\"middle\" fill=\"#555\">{} genuine and {} impostor pairs; band: 95 %, people drawn {} times</text>\n",
        W / 2.0,
        escape(curve.title),
        W / 2.0,
        counts.genuine,
        counts.impostor,
        curve.draws,
    );
    let lowest = points[0].far;
    let worst = points.iter().map(|p| p.band.map_or(p.tar, |b| b.low.min(p.tar))).fold(1.0, f64::min);
    let floor = ((worst * 10.0).floor() / 10.0).min(0.9);
    let decades = -lowest.log10();
    let left = Panel {
        x: 60.0,
        to_x: Box::new(move |far| 1.0 + far.log10() / decades),
        to_y: Box::new(move |tar| (tar - floor) / (1.0 - floor)),
    };
    let ticks: Vec<f64> = (0..=decades.floor() as i32).map(|i| 10_f64.powi(-i)).collect();
    let rates: Vec<f64> = (0..=5).map(|i| floor + (1.0 - floor) * f64::from(i) / 5.0).collect();
    left.frame(&mut out, ["false-accept rate", "true-accept rate"], &ticks, &rates, |t| format!("{t}"));
    left.curve(&mut out, &points, |tar| tar);

    // Rates below half a pair have no place on a deviate axis.
    let clip_y = move |rate: f64| rate.clamp(0.5 / counts.genuine as f64, 0.6);
    let (low_x, low_y, high) = (deviate(lowest), deviate(0.5 / counts.genuine as f64), deviate(0.6));
    let right = Panel {
        x: 530.0,
        to_x: Box::new(move |far: f64| (deviate(far.min(0.6)) - low_x) / (high - low_x)),
        to_y: Box::new(move |frr| (deviate(clip_y(frr)) - low_y) / (high - low_y)),
    };
    let shown = |low: f64| -> Vec<f64> { DEVIATE_TICKS.iter().copied().filter(|&t| t >= low).collect() };
    right.frame(
        &mut out,
        ["false-accept rate", "false-reject rate"],
        &shown(lowest),
        &shown(0.5 / counts.genuine as f64),
        |t| format!("{} %", t * 100.0),
    );
    let inside: Vec<Point> = points.into_iter().filter(|p| p.far <= 0.6).collect();
    right.curve(&mut out, &inside, |tar| 1.0 - tar);
    out += "</svg>\n";
    Some(out)
}

/// One of the two diagrams; `to_x` and `to_y` bring rates to 0–1.
struct Panel {
    x: f64,
    to_x: Box<dyn Fn(f64) -> f64>,
    to_y: Box<dyn Fn(f64) -> f64>,
}

impl Panel {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x + (self.to_x)(x) * SIDE, TOP + SIDE - (self.to_y)(y) * SIDE)
    }

    fn frame(&self, out: &mut String, names: [&str; 2], xs: &[f64], ys: &[f64], label: fn(f64) -> String) {
        let (left, bottom) = (self.x, TOP + SIDE);
        for &value in xs {
            let x = left + (self.to_x)(value) * SIDE;
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                label(rounded(value)),
            );
        }
        for &value in ys {
            let y = bottom - (self.to_y)(value) * SIDE;
            let _ = writeln!(
                out,
                "<path d=\"M{left} {y:.1}h{SIDE}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 4.0,
                label(rounded(value)),
            );
        }
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"{TOP}\" width=\"{SIDE}\" height=\"{SIDE}\" fill=\"none\" stroke=\"#333\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate({} {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            left + SIDE / 2.0,
            bottom + 36.0,
            names[0],
            left - 46.0,
            TOP + SIDE / 2.0,
            names[1],
        );
    }

    fn curve(&self, out: &mut String, points: &[Point], rate: fn(f64) -> f64) {
        let place = |far, tar| {
            let (x, y) = self.at(far, rate(tar));
            format!("{x:.1} {y:.1}")
        };
        let banded: Vec<(f64, Interval)> = points.iter().filter_map(|p| Some((p.far, p.band?))).collect();
        let upper = banded.iter().map(|(far, band)| place(*far, band.high));
        let lower = banded.iter().rev().map(|(far, band)| place(*far, band.low));
        let around: Vec<String> = upper.chain(lower).collect();
        if !around.is_empty() {
            let _ =
                writeln!(out, "<path d=\"M{}Z\" fill=\"#2a6fb0\" fill-opacity=\"0.2\"/>", around.join("L"));
        }
        let line: Vec<String> = points.iter().map(|p| place(p.far, p.tar)).collect();
        let _ = writeln!(
            out,
            "<path d=\"M{}\" fill=\"none\" stroke=\"#2a6fb0\" stroke-width=\"2\"/>",
            line.join("L")
        );
    }
}

/// Three digits, so that 0.30000000000000004 is shown as 0.3.
fn rounded(value: f64) -> f64 {
    let scale = 10_f64.powf(3.0 - value.abs().max(1e-9).log10().ceil());
    (value * scale).round() / scale
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The normal deviate below which a share `p` (0–1) lies: Abramowitz and Stegun 1964, 26.2.23, off by less than 4.5e-4.
fn deviate(p: f64) -> f64 {
    let tail = p.min(1.0 - p).max(1e-12);
    let t = (-2.0 * tail.ln()).sqrt();
    let x = t
        - (2.515_517 + 0.802_853 * t + 0.010_328 * t * t)
            / (1.0 + 1.432_788 * t + 0.189_269 * t * t + 0.001_308 * t * t * t);
    if p < 0.5 { -x } else { x }
}

const W: f64 = 960.0;
const H: f64 = 490.0;
const SIDE: f64 = 380.0;
const TOP: f64 = 56.0;
const DEVIATE_TICKS: [f64; 11] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6];

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Vec<Score>, Vec<(u32, u32)>) {
        let genuine = (0..200).map(|i| ((0.3 + 0.6 * (i as f32 / 200.0), true), (i % 40, i % 40)));
        let impostor = (0..1000).map(|i| ((i as f32 / 1000.0 - 0.45, false), (i % 40, (i + 7) % 40)));
        genuine.chain(impostor).unzip()
    }

    #[test]
    fn the_curve_rises_inside_its_band() {
        let (scores, people) = example();
        let curve = Curve { title: "t", scores: &scores, people: &people, draws: 60, seed: 1 };
        let points = points(&curve).unwrap();
        assert!((points[0].far - 1e-3).abs() < 1e-6 && points.last().unwrap().far == 1.0);
        assert!(points.windows(2).all(|w| w[0].tar <= w[1].tar && w[0].far < w[1].far));
        for point in &points {
            let band = point.band.unwrap();
            assert!(band.low <= point.tar + 0.05 && point.tar <= band.high + 0.05, "{point:?}");
        }
        assert!(points[0].band.unwrap().low < points[0].band.unwrap().high);
    }

    #[test]
    fn the_picture_is_well_formed_and_names_what_it_shows() {
        let (scores, people) = example();
        let curve = Curve { title: "a < b & c", scores: &scores, people: &people, draws: 20, seed: 1 };
        let svg = svg(&curve).unwrap();
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("200 genuine and 1000 impostor pairs"));
        assert_eq!(svg.matches("fill-opacity").count(), 2, "a band in each diagram");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(super::svg(&Curve { scores: &scores[..10], people: &people[..10], ..curve }).is_none());
    }

    #[test]
    fn deviates_are_those_of_the_normal_distribution() {
        for (p, x) in [(0.5, 0.0), (0.975, 1.959_964), (0.01, -2.326_348), (0.001, -3.090_232)] {
            assert!((deviate(p) - x).abs() < 5e-4, "{p}");
        }
    }
}
