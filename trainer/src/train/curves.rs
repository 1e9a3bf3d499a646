//! `curves.svg`: the log of a run as a picture, one panel for each quantity.

use std::collections::BTreeMap;
use std::path::Path;

use plotters::prelude::{
    BLACK, ChartBuilder, Color as _, DrawingAreaErrorKind, IntoDrawingArea as _, IntoFont as _, LineSeries,
    RGBColor, SVGBackend, ShapeStyle, TextStyle, WHITE,
};

use super::log::{LOG, read_line};

/// The picture's name in a run's folder.
pub const CURVES: &str = "curves.svg";

const WIDTH: u32 = 960;
const PANEL: u32 = 220;
const LINE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const HELD_OUT: RGBColor = RGBColor(0xb3, 0x44, 0x1c);

/// Draws the log of the run in `folder` into its `curves.svg`; nothing when it holds less than two points.
///
/// # Errors
/// What could not be read or drawn, as text.
pub fn draw(folder: &Path, title: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(folder.join(LOG)).map_err(|e| e.to_string())?;
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for line in text.lines().filter_map(read_line) {
        for (name, value) in line.values.into_iter().filter(|(_, v)| v.is_finite()) {
            series.entry(name).or_default().push((line.step as f64, value));
        }
    }
    series.retain(|_, points| points.len() > 1);
    if series.is_empty() {
        return Ok(());
    }
    let path = folder.join(CURVES);
    let svg = picture(&series, title).map_err(|e| e.to_string())?;
    std::fs::write(&path, svg).map_err(|e| format!("{}: {e}", path.display()))
}

type Failure = DrawingAreaErrorKind<std::io::Error>;

fn picture(series: &BTreeMap<String, Vec<(f64, f64)>>, title: &str) -> Result<String, Failure> {
    // Loss first, then what was held out, then the rest by name.
    let mut names: Vec<&String> = series.keys().collect();
    names.sort_by_key(|name| (*name != "loss", !name.starts_with("held_out_"), name.as_str()));
    let rows = names.len().div_ceil(2);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 40 + PANEL * rows as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(title, ("sans-serif", 18))?;
        for (panel, name) in root.split_evenly((rows, 2)).iter().zip(names) {
            panel_of(panel, name, &series[name])?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn panel_of(
    panel: &plotters::drawing::DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    name: &str,
    points: &[(f64, f64)],
) -> Result<(), Failure> {
    let held_out = name.strip_prefix("held_out_");
    let (low, high) = points.iter().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.1), h.max(p.1)));
    let room = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-9);
    let last = points.last().map_or(1.0, |p| p.0.max(1.0));
    let caption = match held_out {
        Some(rest) => format!("held out: {}", rest.replace('_', " ")),
        None => name.replace('_', " "),
    };
    let mut chart = ChartBuilder::on(panel)
        .caption(caption, ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, low - room..high + room)?;
    let small: TextStyle<'_> = ("sans-serif", 11).into_font().color(&BLACK);
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(5)
        .light_line_style(ShapeStyle::from(&WHITE))
        .label_style(small)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|v| {
            if v.abs() < 0.01 && *v != 0.0 { format!("{v:.1e}") } else { format!("{v:.3}") }
        })
        .draw()?;
    let colour = if held_out.is_some() { HELD_OUT } else { LINE };
    chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quantity_of_the_log_has_a_panel_and_one_point_draws_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let line = |step: u64| {
            format!("{{\"step\":{step},\"loss\":{},\"held_out_cosine\":0.{step}}}\n", 1.0 / step as f64)
        };
        std::fs::write(dir.path().join(LOG), line(1)).unwrap();
        draw(dir.path(), "a run").unwrap();
        assert!(!dir.path().join(CURVES).exists());
        std::fs::write(dir.path().join(LOG), (1..9).map(line).collect::<String>()).unwrap();
        draw(dir.path(), "a run").unwrap();
        let svg = std::fs::read_to_string(dir.path().join(CURVES)).unwrap();
        for word in ["a run", "loss", "held out: cosine", "polyline"] {
            assert!(svg.contains(word), "{word}");
        }
    }
}
