//! Two curves of the same errors, as SVG: the share of genuine pairs that pass (TAR) and the share that does not (DET), both over the
//! false-match rate on a logarithmic axis, with 95 % bands.

use std::fmt::Write as _;

use super::all_pairs::Rate;

/// One line of the plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// False-match rate, falling, and the share of genuine pairs that pass.
    pub points: Vec<(f64, Rate)>,
}

/// Rates from 1e-1 down to `least`, `per_decade` in each factor of ten.
#[must_use]
pub fn rates(least: f64, per_decade: u32) -> Vec<f64> {
    let steps = (-(least.log10() + 1.0) * f64::from(per_decade)).round() as u32;
    (0..=steps).map(|step| 10_f64.powf(-1.0 - f64::from(step) / f64::from(per_decade))).collect()
}

/// The plot of `series` over what `pairs` says it was measured on.
#[must_use]
pub fn svg(title: &str, pairs: &str, series: &[Series]) -> String {
    let mut out = String::new();
    let least = series.iter().flat_map(|s| &s.points).map(|p| p.0).fold(1.0, f64::min);
    let decades = (least.log10() + 1e-9).floor().min(-2.0);
    let lowest = series.iter().flat_map(|s| &s.points).map(|p| p.1.low).fold(1.0, f64::min);
    let floor = ((lowest * 10.0).floor() / 10.0).clamp(0.0, 0.9);
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>\n<text x=\"{LEFT}\" y=\"42\" fill=\"#555555\">{}</text>\n",
        escaped(title),
        escaped(pairs)
    );
    let x = |fmr: f64, left: f64| left + (fmr.log10() - decades) / (-1.0 - decades) * PANEL;
    let linear = |v: f64| BOTTOM - (v - floor) / (1.0 - floor) * (BOTTOM - TOP);
    let miss = |v: f64| {
        let log = (1.0 - v).max(1e-3).log10();
        BOTTOM - (log + 3.0) / 3.0 * (BOTTOM - TOP)
    };
    let linear_ticks: Vec<(f64, String)> = (0..=10)
        .map(|i| f64::from(i) / 10.0)
        .filter(|v| *v >= floor - 1e-9)
        .map(|v| (v, format!("{:.0} %", v * 100.0)))
        .collect();
    let miss_ticks: Vec<(f64, String)> =
        [(0.999, "0.1 %"), (0.99, "1 %"), (0.9, "10 %"), (0.0, "100 %")].map(|(v, t)| (v, t.into())).into();
    type Panel<'a> = (f64, &'a str, &'a dyn Fn(f64) -> f64, &'a [(f64, String)]);
    let panels: [Panel<'_>; 2] = [
        (LEFT, "pairs of one person that pass (TAR)", &linear, &linear_ticks),
        (LEFT + PANEL + GAP, "pairs of one person refused (DET)", &miss, &miss_ticks),
    ];
    for (left, label, y, ticks) in panels {
        for exponent in decades as i32..=-1 {
            let at = x(10_f64.powi(exponent), left);
            let _ = writeln!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\" stroke=\"#dddddd\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">1e{exponent}</text>",
                BOTTOM + 16.0
            );
        }
        for (value, text) in ticks {
            let at = y(*value);
            let _ = writeln!(
                out,
                "<line x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                left + PANEL,
                left - 6.0,
                at + 4.0
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{left}\" y=\"{:.1}\" fill=\"#333333\">{label}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#333333\">pairs of two people that pass</text>",
            TOP - 10.0,
            left + PANEL / 2.0,
            BOTTOM + 34.0
        );
        for (index, series) in series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let line = |value: fn(&Rate) -> f64| -> Vec<String> {
                series
                    .points
                    .iter()
                    .map(|(fmr, rate)| format!("{:.1},{:.1}", x(*fmr, left), y(value(rate))))
                    .collect()
            };
            let (low, mut high) = (line(|r| r.low), line(|r| r.high));
            high.reverse();
            let _ = writeln!(
                out,
                "<polygon points=\"{} {}\" fill=\"{colour}\" fill-opacity=\"0.12\"/>\
                 <polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{}/>",
                low.join(" "),
                high.join(" "),
                line(|r| r.value).join(" "),
                DASHES[index % DASHES.len()]
            );
        }
    }
    for (index, series) in series.iter().enumerate() {
        let (at, colour) = (LEFT + 150.0 * index as f64, COLOURS[index % COLOURS.len()]);
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{:.1}\" y1=\"{LEGEND}\" y2=\"{LEGEND}\" stroke=\"{colour}\" stroke-width=\"3\"{}/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            at + 26.0,
            DASHES[index % DASHES.len()],
            at + 32.0,
            LEGEND + 4.0,
            escaped(&series.name)
        );
    }
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 60.0;
const PANEL: f64 = 390.0;
const GAP: f64 = 80.0;
const TOP: f64 = 80.0;
const BOTTOM: f64 = 380.0;
const LEGEND: f64 = 438.0;
const COLOURS: [&str; 6] = ["#222222", "#1f6fb4", "#d95f02", "#1b9e77", "#7a3fa0", "#a6761d"];
/// Lines that lie on each other stay visible.
const DASHES: [&str; 4] = ["", "", " stroke-dasharray=\"7 4\"", " stroke-dasharray=\"2 3\""];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_to_the_least() {
        let rates = rates(1e-3, 4);
        assert_eq!(rates.len(), 9);
        assert!((rates[0] - 0.1).abs() < 1e-12 && (rates[8] - 1e-3).abs() < 1e-12);
    }

    #[test]
    fn every_series_has_a_line_and_a_band_in_both_panels_and_stays_inside() {
        let points = rates(1e-4, 2)
            .into_iter()
            .map(|fmr| {
                let value = 1.0 + fmr.log10() * 0.1;
                (fmr, Rate { value, low: value - 0.02, high: (value + 0.02).min(1.0) })
            })
            .collect();
        let series = Series { name: "a<b".into(), points };
        let svg = svg("Title", "pairs", &[series.clone(), Series { name: "other".into(), ..series }]);
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert_eq!(svg.matches("<polygon").count(), 4);
        assert!(svg.contains("a&lt;b") && svg.contains("1e-4") && svg.ends_with("</svg>\n"));
        for pair in
            svg.split("points=\"").skip(1).flat_map(|p| p.split('"').next()).flat_map(str::split_whitespace)
        {
            let (x, y) = pair.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT - 1.0..=WIDTH).contains(&x) && (TOP - 20.0..=BOTTOM + 1.0).contains(&y), "{pair}");
        }
    }
}
