//! Smooth shapes: each is a signed distance (Quilez, "2D distance functions"), so an edge covers a pixel in part
//! and lines look straight on a coarse panel. A [`Picture`] is a stack of them on one flat background, drawn
//! as one rectangle so that a slow panel receives every pixel once.

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::Point;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::{PointsIter, Rectangle};

/// A place in picture units (pixels, unless the shape is scaled by [`Picture::place`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spot {
    pub(crate) x: f32,
    pub(crate) y: f32,
}

/// A place from its coordinates.
pub(crate) const fn at(x: f32, y: f32) -> Spot {
    Spot { x, y }
}

/// What is drawn.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A full circle.
    Disc { at: Spot, radius: f32 },
    /// An ellipse with its axes along x and y.
    Oval { at: Spot, rx: f32, ry: f32 },
    /// A rectangle with rounded corners: the centre and half its sides.
    Block { at: Spot, half: Spot, corner: f32 },
    /// Part of a circle's rim, clockwise; `from` and `sweep` in turns, 0 is twelve o'clock.
    Arc { at: Spot, radius: f32, from: f32, sweep: f32 },
    /// Straight lines from place to place.
    Path(Vec<Spot>),
    /// A closed area.
    Area(Vec<Spot>),
}

/// How a shape is inked: its inside, or a line of this width along its edge.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pen {
    Fill,
    Line(f32),
}

/// Layers of shapes on a flat background, bottom first.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    background: Rgb888,
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    shape: Shape,
    pen: Pen,
    color: Rgb888,
    origin: Spot,
    scale: f32,
}

impl Picture {
    pub(crate) const fn new(background: Rgb888) -> Self {
        Self { background, layers: Vec::new() }
    }

    /// Adds a shape given in pixels.
    pub(crate) fn add(&mut self, shape: Shape, pen: Pen, color: Rgb888) {
        self.place(shape, pen, color, at(0.0, 0.0), 1.0);
    }

    /// Adds a shape given in its own units: `scale` pixels each, its zero at `origin`.
    pub(crate) fn place(&mut self, shape: Shape, pen: Pen, color: Rgb888, origin: Spot, scale: f32) {
        self.layers.push(Layer { shape, pen, color, origin, scale });
    }

    /// Paints the part of the picture that lies in `area`.
    pub(crate) fn draw<D: DrawTarget<Color = Rgb888>>(
        &self,
        target: &mut D,
        area: Rectangle,
    ) -> Result<(), D::Error> {
        target.fill_contiguous(&area, area.points().map(|point| self.color_at(point)))
    }

    fn color_at(&self, point: Point) -> Rgb888 {
        #[allow(clippy::cast_precision_loss)] // panels are at most a few thousand pixels wide
        let centre = at(point.x as f32 + 0.5, point.y as f32 + 0.5);
        self.layers.iter().fold(self.background, |below, layer| match layer.coverage(centre) {
            0 => below,
            coverage => blend(below, layer.color, coverage),
        })
    }
}

impl Layer {
    /// How much of the pixel around `spot` is inked, 0 to 255.
    fn coverage(&self, spot: Spot) -> u8 {
        let own = at((spot.x - self.origin.x) / self.scale, (spot.y - self.origin.y) / self.scale);
        let edge = distance(&self.shape, own);
        let distance_px = self.scale
            * match self.pen {
                Pen::Fill => edge,
                Pen::Line(width) => edge.abs() - width / 2.0,
            };
        level(0.5 - distance_px)
    }
}

/// `share` of a pixel, 0 to 1, as 0 to 255 in 16 steps: as many as the eye tells on an edge, and pictures of
/// few colours make small files.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to 0..=15
pub(crate) fn level(share: f32) -> u8 {
    (share.clamp(0.0, 1.0) * 15.0 + 0.5) as u8 * 17
}

/// `over` covering `below` by `coverage` of 255.
pub(crate) fn blend(below: Rgb888, over: Rgb888, coverage: u8) -> Rgb888 {
    let mix = |below: u8, over: u8| {
        let (below, over, share) = (u32::from(below), u32::from(over), u32::from(coverage));
        #[allow(clippy::cast_possible_truncation)] // a weighted mean of two bytes is a byte
        let mixed = ((below * (255 - share) + over * share + 127) / 255) as u8;
        mixed
    };
    Rgb888::new(mix(below.r(), over.r()), mix(below.g(), over.g()), mix(below.b(), over.b()))
}

/// Signed distance from `spot` to the edge: negative inside, zero on it. Paths and arcs have no inside.
fn distance(shape: &Shape, spot: Spot) -> f32 {
    match shape {
        Shape::Disc { at: centre, radius } => length(minus(spot, *centre)) - radius,
        Shape::Oval { at: centre, rx, ry } => {
            let p = minus(spot, *centre);
            let near = length(at(p.x / rx, p.y / ry));
            let slope = length(at(p.x / (rx * rx), p.y / (ry * ry)));
            if slope == 0.0 { -rx.min(*ry) } else { near * (near - 1.0) / slope }
        }
        Shape::Block { at: centre, half, corner } => {
            let p = minus(spot, *centre);
            let q = at(p.x.abs() - half.x + corner, p.y.abs() - half.y + corner);
            length(at(q.x.max(0.0), q.y.max(0.0))) + q.x.max(q.y).min(0.0) - corner
        }
        Shape::Arc { at: centre, radius, from, sweep } => arc(minus(spot, *centre), *radius, *from, *sweep),
        Shape::Path(spots) => {
            spots.windows(2).map(|pair| to_segment(spot, pair[0], pair[1])).fold(f32::INFINITY, f32::min)
        }
        Shape::Area(spots) => area(spots, spot),
    }
}

fn arc(p: Spot, radius: f32, from: f32, sweep: f32) -> f32 {
    let rim = (length(p) - radius).abs();
    if sweep >= 1.0 {
        return rim;
    }
    let tip = |turn: f32| {
        let angle = turn * core::f32::consts::TAU;
        at(libm::sinf(angle) * radius, -libm::cosf(angle) * radius)
    };
    let turn = libm::atan2f(p.x, -p.y) / core::f32::consts::TAU;
    let past = turn - from;
    if past - libm::floorf(past) <= sweep {
        rim
    } else {
        length(minus(p, tip(from))).min(length(minus(p, tip(from + sweep))))
    }
}

fn area(spots: &[Spot], p: Spot) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    for (i, a) in spots.iter().enumerate() {
        let b = spots[(i + 1) % spots.len()];
        nearest = nearest.min(to_segment(p, *a, b));
        if (a.y > p.y) != (b.y > p.y) && p.x < (b.x - a.x) * (p.y - a.y) / (b.y - a.y) + a.x {
            inside = !inside;
        }
    }
    if inside { -nearest } else { nearest }
}

fn to_segment(p: Spot, a: Spot, b: Spot) -> f32 {
    let (pa, ba) = (minus(p, a), minus(b, a));
    let squared = ba.x * ba.x + ba.y * ba.y;
    let along = if squared == 0.0 { 0.0 } else { ((pa.x * ba.x + pa.y * ba.y) / squared).clamp(0.0, 1.0) };
    length(at(pa.x - ba.x * along, pa.y - ba.y * along))
}

const fn minus(a: Spot, b: Spot) -> Spot {
    at(a.x - b.x, a.y - b.y)
}

fn length(p: Spot) -> f32 {
    libm::sqrtf(p.x * p.x + p.y * p.y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::Canvas;
    use embedded_graphics::geometry::Size;

    const BLACK: Rgb888 = Rgb888::BLACK;
    const WHITE: Rgb888 = Rgb888::WHITE;

    fn painted(shape: Shape, pen: Pen) -> Canvas {
        let mut canvas = Canvas::new(Size::new(40, 40));
        let mut picture = Picture::new(BLACK);
        picture.add(shape, pen, WHITE);
        picture.draw(&mut canvas, Rectangle::new(Point::zero(), Size::new(40, 40))).unwrap();
        canvas
    }

    fn ink(canvas: &Canvas) -> f64 {
        canvas.rgb().iter().step_by(3).map(|level| f64::from(*level) / 255.0).sum()
    }

    #[test]
    fn inked_areas_are_those_of_geometry() {
        let centre = at(20.0, 20.0);
        let pi = core::f64::consts::PI;
        let cases = [
            ("disc", Shape::Disc { at: centre, radius: 15.0 }, Pen::Fill, pi * 225.0),
            (
                "ring",
                Shape::Disc { at: centre, radius: 15.0 },
                Pen::Line(4.0),
                pi * (17.0 * 17.0 - 13.0 * 13.0),
            ),
            ("oval", Shape::Oval { at: centre, rx: 10.0, ry: 16.0 }, Pen::Fill, pi * 160.0),
            ("block", Shape::Block { at: centre, half: at(12.0, 8.0), corner: 0.0 }, Pen::Fill, 24.0 * 16.0),
            ("triangle", Shape::Area(vec![at(4.0, 36.0), at(36.0, 36.0), at(20.0, 4.0)]), Pen::Fill, 512.0),
            ("line", Shape::Path(vec![at(8.0, 20.0), at(32.0, 20.0)]), Pen::Line(6.0), 144.0 + pi * 9.0),
            (
                "quarter arc",
                Shape::Arc { at: centre, radius: 15.0, from: 0.0, sweep: 0.25 },
                Pen::Line(4.0),
                pi * (17.0 * 17.0 - 13.0 * 13.0) / 4.0 + pi * 4.0,
            ),
        ];
        for (name, shape, pen, expected) in cases {
            let drawn = ink(&painted(shape, pen));
            // Half a percent: coverage is linear across an edge, corners are not.
            assert!((drawn - expected).abs() < 0.005 * expected + 1.0, "{name}: {drawn} of {expected}");
        }
    }

    #[test]
    fn arcs_run_clockwise_from_twelve() {
        let canvas =
            painted(Shape::Arc { at: at(20.0, 20.0), radius: 15.0, from: 0.0, sweep: 0.25 }, Pen::Line(4.0));
        assert_eq!(canvas.pixel(Point::new(30, 9)), Some(WHITE), "half past one");
        assert_eq!(canvas.pixel(Point::new(9, 9)), Some(BLACK), "half past ten");
        let whole =
            painted(Shape::Arc { at: at(20.0, 20.0), radius: 15.0, from: 0.0, sweep: 1.0 }, Pen::Line(4.0));
        let ring = painted(Shape::Disc { at: at(20.0, 20.0), radius: 15.0 }, Pen::Line(4.0));
        assert_eq!(whole, ring);
    }

    #[test]
    fn blending_reaches_both_ends_and_the_middle() {
        let (below, over) = (Rgb888::new(10, 200, 0), Rgb888::new(110, 100, 255));
        assert_eq!(blend(below, over, 0), below);
        assert_eq!(blend(below, over, 255), over);
        assert_eq!(blend(below, over, 51), Rgb888::new(30, 180, 51));
        assert_eq!([level(-3.0), level(0.5), level(7.0), level(f32::NAN)], [0, 136, 255, 0]);
    }
}
