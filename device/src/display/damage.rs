//! What of a picture changed: a panel on a slow bus is sent that and no more.
//!
//! Both pictures are compared in squares of [`TILE_PX`]; neighbours that changed are joined into rectangles. A countdown on a 480×320 panel
//! changes about a tenth of it.

use embedded_graphics::geometry::{OriginDimensions as _, Point, Size};
use embedded_graphics::primitives::Rectangle;

use super::Canvas;

/// Side of the squares that are compared.
pub const TILE_PX: u32 = 16;

/// How much one picture cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redraw {
    /// Pixels that were sent.
    pub pixels: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Rectangles.
    pub areas: usize,
}

/// The rectangles, disjoint and inside the picture, that hold every pixel in which `now` differs from `before`; all of it where the sizes differ.
#[must_use]
pub fn changed(before: &Canvas, now: &Canvas) -> Vec<Rectangle> {
    let size = now.size();
    if before.size() != size {
        return vec![Rectangle::new(Point::zero(), size)];
    }
    let mut areas: Vec<Rectangle> = Vec::new();
    // Areas that end at the row of squares above and may grow down.
    let mut open: Vec<usize> = Vec::new();
    for top in (0..size.height).step_by(TILE_PX as usize) {
        let height = TILE_PX.min(size.height - top);
        let mut still_open = Vec::new();
        for (left, width) in runs(before, now, top, height) {
            let grown = open.iter().copied().find(|&index| {
                let area = &areas[index];
                (area.top_left.x, area.size.width) == (left as i32, width)
            });
            let index = if let Some(index) = grown {
                areas[index].size.height += height;
                index
            } else {
                areas.push(Rectangle::new(Point::new(left as i32, top as i32), Size::new(width, height)));
                areas.len() - 1
            };
            still_open.push(index);
        }
        open = still_open;
    }
    areas
}

/// Runs of changed squares in one row of them: left edge and width in pixels.
fn runs(before: &Canvas, now: &Canvas, top: u32, height: u32) -> Vec<(u32, u32)> {
    let width_px = now.size().width;
    let mut found: Vec<(u32, u32)> = Vec::new();
    for left in (0..width_px).step_by(TILE_PX as usize) {
        let width = TILE_PX.min(width_px - left);
        let differs = (top..top + height).any(|y| {
            let from = (y as usize * width_px as usize + left as usize) * 3;
            let range = from..from + width as usize * 3;
            before.rgb()[range.clone()] != now.rgb()[range]
        });
        match found.last_mut() {
            Some((start, long)) if differs && *start + *long == left => *long += width,
            _ if differs => found.push((left, width)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::Drawable as _;
    use embedded_graphics::Pixel;
    use embedded_graphics::pixelcolor::Rgb888;
    use proptest::prelude::*;

    fn with(size: Size, points: &[(i32, i32)]) -> Canvas {
        let mut canvas = Canvas::new(size);
        for &(x, y) in points {
            let Ok(()) = Pixel(Point::new(x, y), Rgb888::new(1, 2, 3)).draw(&mut canvas);
        }
        canvas
    }

    #[test]
    fn nothing_changed_is_nothing_sent_and_another_size_is_everything() {
        let (small, large) = (Canvas::new(Size::new(40, 30)), Canvas::new(Size::new(50, 30)));
        assert!(changed(&small, &small).is_empty());
        assert_eq!(changed(&small, &large), [Rectangle::new(Point::zero(), Size::new(50, 30))]);
    }

    #[test]
    fn neighbours_are_joined_across_and_down_and_edges_are_cut() {
        let size = Size::new(40, 40);
        // Two squares beside each other in two rows, and the cut one in the corner.
        let now = with(size, &[(0, 0), (17, 3), (2, 16), (31, 31), (39, 39)]);
        let expected = [
            Rectangle::new(Point::zero(), Size::new(32, 32)),
            Rectangle::new(Point::new(32, 32), Size::new(8, 8)),
        ];
        assert_eq!(changed(&Canvas::new(size), &now), expected);
    }

    proptest! {
        #[test]
        fn every_change_is_in_exactly_one_rectangle(
            points in proptest::collection::vec((0_i32..70, 0_i32..50), 0..12),
        ) {
            let size = Size::new(70, 50);
            let (before, now) = (Canvas::new(size), with(size, &points));
            let areas = changed(&before, &now);
            for point in points {
                let holders = areas.iter().filter(|area| area.contains(Point::new(point.0, point.1))).count();
                prop_assert_eq!(holders, 1);
            }
            let whole = Rectangle::new(Point::zero(), size);
            for (index, area) in areas.iter().enumerate() {
                prop_assert_eq!(area.intersection(&whole), *area);
                for other in &areas[..index] {
                    prop_assert!(area.intersection(other).is_zero_sized());
                }
            }
        }
    }
}
