//! Cumulative error curves as SVG: the share of faces, over the error that they do not exceed.

use plotters::prelude::{
    BLACK, ChartBuilder, Color as _, DrawingAreaErrorKind, IntoDrawingArea as _, LineSeries, PathElement,
    RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
};

use super::fiducials::Errors;

/// The curves of `lines`, each with its name, up to 15 % of the distance of the outer eye corners.
///
/// # Errors
/// What could not be drawn, as text.
pub fn svg(title: &str, lines: &[(String, &Errors)]) -> Result<String, String> {
    picture(title, lines).map_err(|e| e.to_string())
}

fn picture(title: &str, lines: &[(String, &Errors)]) -> Result<String, DrawingAreaErrorKind<std::io::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (SIDE.0, SIDE.1)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..MOST * 100.0, 0.0..100.0)?;
        chart
            .configure_mesh()
            .x_desc("mean error, % of the distance of the outer eye corners")
            .y_desc("% of faces")
            .light_line_style(WHITE)
            .label_style(("sans-serif", 15))
            .axis_desc_style(("sans-serif", 17))
            .draw()?;
        for ((name, errors), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let points = (0..=STEPS).map(|i| f64::from(i) / f64::from(STEPS) * MOST);
            let points = points.map(|limit| (limit * 100.0, errors.within(limit) * 100.0));
            let label = format!("{name}: mean {:.2} %, {} faces", errors.nme() * 100.0, errors.faces());
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.4))
            .label_font(("sans-serif", 16))
            .draw()?;
        root.present()?;
    }
    Ok(svg)
}

const SIDE: (u32, u32) = (720, 460);
/// The largest error shown.
const MOST: f64 = 0.15;
const STEPS: u32 = 300;
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x22, 0x22, 0x22),
    RGBColor(0x1f, 0x6f, 0xb4),
    RGBColor(0x1b, 0x9e, 0x77),
    RGBColor(0xd9, 0x5f, 0x02),
    RGBColor(0xb3, 0x24, 0x3c),
    RGBColor(0x7a, 0x3f, 0xa0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_and_named_with_its_mean() {
        let errors = Errors::of([0.02, 0.03, 0.2].into_iter());
        let svg = svg("a net", &[("all".into(), &errors), ("none".into(), &Errors::default())]).unwrap();
        for word in ["a net", "all: mean 8.33 %, 3 faces", "none: mean 0.00 %, 0 faces"] {
            assert!(svg.contains(word), "{word}");
        }
        assert!(svg.matches("<polyline").count() >= 2 && !svg.contains("NaN"));
    }
}
