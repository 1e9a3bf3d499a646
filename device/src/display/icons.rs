//! The icons, drawn on a 24 by 24 grid with lines of one width and round ends, so that they read as one family.
//!
//! Colour never says anything alone: each state has an icon that is told from all others by its outline.

use super::paint::{Pen, Picture, Shape, Spot, at};
use embedded_graphics::pixelcolor::Rgb888;

/// Sides of the grid.
pub(crate) const GRID: f32 = 24.0;

/// Every icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Icon {
    Padlock,
    FaceCloser,
    FaceBack,
    FaceStill,
    Moon,
    Sun,
    TwoFaces,
    FaceTurn,
    FaceFrame,
    Tick,
    DoorOut,
    DoorAlert,
    Cross,
    Barred,
    Warning,
    FaceTick,
    FaceCard,
    Hourglass,
    CameraOff,
    Chip,
    MemoryCard,
    PadlockOff,
    Wrench,
    HeadLeft,
    HeadRight,
    HeadUp,
    HeadDown,
    Clock,
    Calendar,
    Keypad,
}

/// Where and in which colours an icon is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The grid's top left corner, in pixels.
    pub(crate) origin: Spot,
    /// Pixels to a grid unit.
    pub(crate) scale: f32,
    /// The icon's lines.
    pub(crate) mark: Rgb888,
    /// What lies behind it, for the parts cut out of it.
    pub(crate) behind: Rgb888,
}

impl Icon {
    /// Adds the icon to `picture`.
    pub(crate) fn add_to(self, picture: &mut Picture, place: Place) {
        let mut drawing = Drawing { picture, place };
        let d = &mut drawing;
        match self {
            Self::Padlock => d.padlock(),
            Self::PadlockOff => {
                d.padlock();
                d.strike_out();
            }
            Self::FaceCloser => {
                d.face(at(12.0, 12.0), 0.62);
                d.corner_arrows(6.0, 2.0);
            }
            Self::FaceBack => {
                d.face(at(12.0, 12.0), 0.8);
                d.corner_arrows(1.5, 5.2);
            }
            Self::FaceStill => {
                d.line(Shape::Oval { at: at(12.0, 12.0), rx: 8.2, ry: 10.2 });
                d.path(2.8, &[(9.3, 8.6), (9.3, 15.4)]);
                d.path(2.8, &[(14.7, 8.6), (14.7, 15.4)]);
            }
            Self::Moon => {
                d.fill(Shape::Disc { at: at(11.6, 12.4), radius: 9.4 });
                d.cut(Shape::Disc { at: at(16.2, 8.6), radius: 8.0 }, Pen::Fill);
            }
            Self::Sun => {
                d.fill(Shape::Disc { at: at(12.0, 12.0), radius: 4.8 });
                for ray in [(0.0, 1.0), (0.707, 0.707), (1.0, 0.0), (0.707, -0.707)] {
                    for way in [1.0, -1.0] {
                        let spot = |far: f32| (12.0 + ray.0 * far * way, 12.0 + ray.1 * far * way);
                        d.path(WIDTH, &[spot(7.8), spot(10.8)]);
                    }
                }
            }
            Self::TwoFaces => {
                d.face(at(5.9, 12.0), 0.72);
                d.face(at(18.1, 12.0), 0.72);
            }
            Self::FaceTurn => {
                d.line(Shape::Oval { at: at(12.0, 8.4), rx: 6.4, ry: 7.8 });
                d.fill(Shape::Disc { at: at(12.6, 7.6), radius: 1.15 });
                d.fill(Shape::Disc { at: at(16.0, 7.6), radius: 1.0 });
                d.line(Shape::Arc { at: at(12.0, 10.4), radius: 12.0, from: 0.39, sweep: 0.23 });
                d.arrow_head(at(3.79, 19.15), at(-0.72, -0.69), 3.6);
            }
            Self::FaceFrame => {
                d.face(at(12.0, 12.0), 0.74);
                for (x, y) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
                    let corner = |dx: f32, dy: f32| (12.0 + x * (11.0 - dx), 12.0 + y * (11.0 - dy));
                    d.path(WIDTH, &[corner(0.0, 5.2), corner(0.0, 1.2), corner(1.2, 0.0), corner(5.2, 0.0)]);
                }
            }
            Self::Tick => d.path(3.4, &[(3.6, 12.8), (9.4, 18.6), (20.4, 6.2)]),
            Self::Cross => {
                d.path(3.4, &[(5.0, 5.0), (19.0, 19.0)]);
                d.path(3.4, &[(19.0, 5.0), (5.0, 19.0)]);
            }
            Self::Barred => {
                d.stroke(2.8, Shape::Disc { at: at(12.0, 12.0), radius: 9.6 });
                d.path(2.8, &[(5.4, 5.4), (18.6, 18.6)]);
            }
            Self::DoorOut => {
                d.open_door();
                d.path(WIDTH, &[(15.6, 12.0), (23.0, 12.0)]);
                d.arrow_head(at(23.2, 12.0), at(1.0, 0.0), 3.6);
            }
            Self::DoorAlert => {
                d.open_door();
                d.path(WIDTH, &[(12.6, 8.4), (12.6, 15.6)]);
                d.path(3.0, &[(19.6, 4.6), (19.6, 13.4)]);
                d.fill(Shape::Disc { at: at(19.6, 18.8), radius: 1.8 });
            }
            Self::Warning => {
                let corners = vec![at(12.0, 2.6), at(22.4, 20.4), at(1.6, 20.4)];
                d.fill(Shape::Area(corners.clone()));
                d.stroke(2.4, Shape::Area(corners));
                d.cut(Shape::Path(vec![at(12.0, 8.8), at(12.0, 13.6)]), Pen::Line(2.6));
                d.cut(Shape::Disc { at: at(12.0, 17.6), radius: 1.5 }, Pen::Fill);
            }
            Self::FaceTick => {
                d.face(at(10.6, 10.8), 1.0);
                d.cut(Shape::Disc { at: at(18.6, 18.0), radius: 6.6 }, Pen::Fill);
                d.path(2.8, &[(13.9, 18.4), (17.4, 21.8), (23.6, 14.8)]);
            }
            Self::FaceCard => {
                d.line(Shape::Block { at: at(12.0, 12.0), half: at(11.4, 8.8), corner: 2.2 });
                d.fill(Shape::Disc { at: at(7.2, 9.6), radius: 2.4 });
                d.line(Shape::Arc { at: at(7.2, 16.8), radius: 3.2, from: 0.78, sweep: 0.44 });
                d.path(WIDTH, &[(14.4, 9.4), (19.0, 9.4)]);
                d.path(WIDTH, &[(14.4, 14.6), (19.0, 14.6)]);
            }
            Self::Hourglass => {
                d.path(2.4, &[(4.8, 2.0), (19.2, 2.0)]);
                d.path(2.4, &[(4.8, 22.0), (19.2, 22.0)]);
                d.path(WIDTH, &[(6.8, 2.4), (6.8, 6.6), (12.0, 12.0), (17.2, 6.6), (17.2, 2.4)]);
                d.path(WIDTH, &[(6.8, 21.6), (6.8, 17.4), (12.0, 12.0), (17.2, 17.4), (17.2, 21.6)]);
                d.fill(Shape::Area(vec![at(8.2, 21.0), at(15.8, 21.0), at(12.0, 16.6)]));
                d.fill(Shape::Area(vec![at(9.6, 7.6), at(14.4, 7.6), at(12.0, 10.6)]));
            }
            Self::CameraOff => {
                d.line(Shape::Block { at: at(9.0, 12.0), half: at(8.0, 6.4), corner: 2.0 });
                let lens = vec![at(19.6, 11.4), at(23.2, 8.6), at(23.2, 15.4), at(19.6, 12.6)];
                d.fill(Shape::Area(lens.clone()));
                d.line(Shape::Area(lens));
                d.strike_out();
            }
            Self::Chip => {
                d.line(Shape::Block { at: at(12.0, 12.0), half: at(7.2, 7.2), corner: 1.8 });
                d.fill(Shape::Block { at: at(12.0, 12.0), half: at(3.0, 3.0), corner: 0.8 });
                for along in [8.6, 15.4] {
                    for (near, far) in [(4.8, 1.4), (19.2, 22.6)] {
                        d.path(WIDTH, &[(along, near), (along, far)]);
                        d.path(WIDTH, &[(near, along), (far, along)]);
                    }
                }
            }
            Self::MemoryCard => {
                let outline = [(9.6, 1.8), (19.2, 1.8), (19.2, 22.2), (4.8, 22.2), (4.8, 6.6)];
                d.line(Shape::Area(spots(&outline)));
                d.path(2.6, &[(12.0, 8.4), (12.0, 13.0)]);
                d.fill(Shape::Disc { at: at(12.0, 17.4), radius: 1.5 });
            }
            Self::HeadLeft => d.turned_head(-1.0),
            Self::HeadRight => d.turned_head(1.0),
            Self::HeadUp => d.nodding_head(-1.0),
            Self::HeadDown => d.nodding_head(1.0),
            Self::Clock => {
                d.line(Shape::Disc { at: at(12.0, 12.0), radius: 9.6 });
                d.path(WIDTH, &[(12.0, 5.8), (12.0, 12.0), (16.4, 15.2)]);
            }
            Self::Calendar => {
                d.line(Shape::Block { at: at(12.0, 13.0), half: at(9.4, 8.6), corner: 1.8 });
                d.path(2.8, &[(3.6, 9.4), (20.4, 9.4)]);
                for x in [7.6, 16.4] {
                    d.path(WIDTH, &[(x, 1.8), (x, 6.2)]);
                }
                for (x, y) in [(8.0, 13.6), (12.0, 13.6), (16.0, 13.6), (8.0, 17.8), (12.0, 17.8)] {
                    d.fill(Shape::Disc { at: at(x, y), radius: 1.2 });
                }
            }
            Self::Keypad => {
                for x in [5.4, 12.0, 18.6] {
                    for y in [3.4, 9.2, 15.0] {
                        d.fill(Shape::Block { at: at(x, y), half: at(2.2, 1.9), corner: 0.8 });
                    }
                }
                d.fill(Shape::Block { at: at(12.0, 20.8), half: at(2.2, 1.9), corner: 0.8 });
            }
            Self::Wrench => {
                d.path(5.0, &[(4.8, 19.2), (14.0, 10.0)]);
                d.fill(Shape::Disc { at: at(16.4, 7.6), radius: 6.2 });
                d.cut(Shape::Path(vec![at(17.4, 6.6), at(21.8, 2.2)]), Pen::Line(5.0));
                d.cut(Shape::Disc { at: at(4.8, 19.2), radius: 1.1 }, Pen::Fill);
            }
        }
    }
}

/// Width of a line on the grid.
const WIDTH: f32 = 2.2;

struct Drawing<'a> {
    picture: &'a mut Picture,
    place: Place,
}

impl Drawing<'_> {
    fn add(&mut self, shape: Shape, pen: Pen, color: Rgb888) {
        self.picture.place(shape, pen, color, self.place.origin, self.place.scale);
    }

    fn fill(&mut self, shape: Shape) {
        self.add(shape, Pen::Fill, self.place.mark);
    }

    fn line(&mut self, shape: Shape) {
        self.stroke(WIDTH, shape);
    }

    fn stroke(&mut self, width: f32, shape: Shape) {
        self.add(shape, Pen::Line(width), self.place.mark);
    }

    fn path(&mut self, width: f32, places: &[(f32, f32)]) {
        self.stroke(width, Shape::Path(spots(places)));
    }

    fn cut(&mut self, shape: Shape, pen: Pen) {
        self.add(shape, pen, self.place.behind);
    }

    /// A face, 17 high at `size` 1.
    fn face(&mut self, centre: Spot, size: f32) {
        self.line(Shape::Oval { at: centre, rx: 7.0 * size, ry: 8.5 * size });
        for side in [-1.0, 1.0] {
            let eye = at(centre.x + side * 2.6 * size, centre.y - 1.4 * size);
            self.fill(Shape::Disc { at: eye, radius: 0.7 + 0.5 * size });
        }
        let mouth = at(centre.x, centre.y + 0.9 * size);
        let smile = Shape::Arc { at: mouth, radius: 3.3 * size, from: 0.37, sweep: 0.26 };
        self.stroke(WIDTH * 0.8, smile);
    }

    /// A face that looks to one side, and an arrow that way.
    fn turned_head(&mut self, side: f32) {
        let x = |from_middle: f32| 12.0 + side * from_middle;
        self.line(Shape::Oval { at: at(x(-1.5), 8.6), rx: 6.6, ry: 8.0 });
        for (eye, radius) in [(0.4, 1.15), (3.2, 1.0)] {
            self.fill(Shape::Disc { at: at(x(eye), 7.4), radius });
        }
        self.path(2.6, &[(x(-9.5), 20.6), (x(9.0), 20.6)]);
        self.arrow_head(at(x(9.8), 20.6), at(side, 0.0), 4.0);
    }

    /// A head whose eyes are above or below the middle, and an arrow beside it: −1 is up.
    fn nodding_head(&mut self, side: f32) {
        self.line(Shape::Oval { at: at(8.4, 12.0), rx: 6.6, ry: 8.6 });
        for x in [5.8, 11.0] {
            self.fill(Shape::Disc { at: at(x, 11.0 + side * 3.4), radius: 1.15 });
        }
        self.path(2.6, &[(20.2, 12.0 - side * 8.0), (20.2, 12.0 + side * 7.6)]);
        self.arrow_head(at(20.2, 12.0 + side * 8.4), at(0.0, side), 4.0);
    }

    /// Four arrows on the diagonals: heads at `head` from the grid's corners, tails at `tail`.
    fn corner_arrows(&mut self, tail: f32, head: f32) {
        for (x, y) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
            let spot =
                |from_corner: f32| at(12.0 + x * (12.0 - from_corner), 12.0 + y * (12.0 - from_corner));
            self.line(Shape::Path(vec![spot(tail), spot(head)]));
            let way = if head < tail {
                core::f32::consts::FRAC_1_SQRT_2
            } else {
                -core::f32::consts::FRAC_1_SQRT_2
            };
            self.arrow_head(spot(head), at(x * way, y * way), 3.4);
        }
    }

    /// Two barbs of `length` behind `tip`, which points along the unit vector `way`.
    fn arrow_head(&mut self, tip: Spot, way: Spot, length: f32) {
        let barb = |side: f32| {
            let back = length * core::f32::consts::FRAC_1_SQRT_2;
            at(tip.x - back * (way.x - side * way.y), tip.y - back * (way.y + side * way.x))
        };
        self.line(Shape::Path(vec![barb(1.0), tip, barb(-1.0)]));
    }

    fn padlock(&mut self) {
        self.fill(Shape::Block { at: at(12.0, 15.8), half: at(8.2, 6.6), corner: 2.0 });
        self.stroke(2.4, Shape::Arc { at: at(12.0, 7.4), radius: 4.8, from: 0.75, sweep: 0.5 });
        self.path(2.4, &[(7.2, 7.4), (7.2, 11.0)]);
        self.path(2.4, &[(16.8, 7.4), (16.8, 11.0)]);
        self.cut(Shape::Disc { at: at(12.0, 14.6), radius: 1.7 }, Pen::Fill);
        self.cut(Shape::Path(vec![at(12.0, 15.0), at(12.0, 18.2)]), Pen::Line(1.7));
    }

    fn open_door(&mut self) {
        self.path(WIDTH, &[(2.0, 21.4), (2.0, 2.6), (12.6, 2.6), (12.6, 8.4)]);
        self.path(WIDTH, &[(12.6, 15.6), (12.6, 21.4)]);
        let leaf = [(2.4, 2.8), (8.6, 5.4), (8.6, 23.6), (2.4, 21.4)];
        self.fill(Shape::Area(spots(&leaf)));
        self.cut(Shape::Disc { at: at(6.7, 14.4), radius: 1.0 }, Pen::Fill);
    }

    fn strike_out(&mut self) {
        self.cut(Shape::Path(vec![at(3.4, 3.4), at(20.6, 20.6)]), Pen::Line(6.0));
        self.path(2.4, &[(1.6, 1.6), (22.4, 22.4)]);
    }
}

fn spots(places: &[(f32, f32)]) -> Vec<Spot> {
    places.iter().map(|(x, y)| at(*x, *y)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::screens::Card;
    use crate::display::{Canvas, Screen};
    use embedded_graphics::geometry::{Point, Size};
    use embedded_graphics::pixelcolor::RgbColor;
    use embedded_graphics::primitives::{PointsIter, Rectangle};
    use facelatch_shared::person::Name;

    const SIDE: u32 = 120;

    fn drawn(icon: Icon) -> Canvas {
        let mut picture = Picture::new(Rgb888::BLACK);
        let centre = at(60.0, 60.0);
        picture.add(Shape::Disc { at: centre, radius: 58.0 }, Pen::Fill, Rgb888::BLUE);
        let scale = 116.0 * 0.68 / GRID;
        let origin = at(60.0 - scale * GRID / 2.0, 60.0 - scale * GRID / 2.0);
        icon.add_to(&mut picture, Place { origin, scale, mark: Rgb888::WHITE, behind: Rgb888::BLUE });
        let mut canvas = Canvas::new(Size::new(SIDE, SIDE));
        picture.draw(&mut canvas, Rectangle::new(Point::zero(), Size::new(SIDE, SIDE))).unwrap();
        canvas
    }

    fn used() -> Vec<Icon> {
        let name = Name::new("Ada").unwrap();
        Screen::examples(&name, &name).iter().map(|screen| Card::of(screen).icon).collect()
    }

    #[test]
    fn icons_stay_on_their_disc() {
        let bare = {
            let mut picture = Picture::new(Rgb888::BLACK);
            picture.add(Shape::Disc { at: at(60.0, 60.0), radius: 58.0 }, Pen::Fill, Rgb888::BLUE);
            let mut canvas = Canvas::new(Size::new(SIDE, SIDE));
            picture.draw(&mut canvas, Rectangle::new(Point::zero(), Size::new(SIDE, SIDE))).unwrap();
            canvas
        };
        for icon in used() {
            let canvas = drawn(icon);
            for point in Rectangle::new(Point::zero(), Size::new(SIDE, SIDE)).points() {
                let from_centre = point - Point::new_equal(60);
                if from_centre.x.pow(2) + from_centre.y.pow(2) > 54 * 54 {
                    assert_eq!(canvas.pixel(point), bare.pixel(point), "{icon:?} touches the rim at {point}");
                }
            }
        }
    }

    #[test]
    fn icons_are_told_apart_by_their_outline() {
        let inked =
            |icon| -> Vec<bool> { drawn(icon).rgb().as_chunks::<3>().0.iter().map(|p| p[0] > 127).collect() };
        let icons = used();
        for (i, a) in icons.iter().enumerate() {
            let first = inked(*a);
            assert!(first.iter().filter(|ink| **ink).count() > 700, "{a:?} is too thin to see");
            for b in icons[..i].iter().filter(|b| *b != a) {
                let second = inked(*b);
                let differing = first.iter().zip(&second).filter(|(x, y)| x != y).count();
                assert!(
                    differing > 400,
                    "{a:?} and {b:?} differ in {differing} of {} pixels only",
                    first.len()
                );
            }
        }
    }
}
