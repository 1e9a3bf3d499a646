//! The camera's picture on the panel, small, with a frame around the face that the door attends to: whoever is enrolled sees where to stand.
//!
//! It is made from a frame that was looked at, shown and forgotten; it never leaves the board.

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::primitives::Rectangle;
use facelatch_shared::detection::BoxPx;
use facelatch_shared::frame::RgbView;
use facelatch_shared::observation::Observation;
use facelatch_shared::vision::observe::attend;

/// A small picture: packed RGB, `[height_px, width_px, 3]`, at most [`MOST_WIDTH_PX`] × [`MOST_HEIGHT_PX`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preview {
    rgb: Vec<u8>,
    width_px: usize,
    height_px: usize,
    /// The attended face, in this picture's pixels.
    face: Option<BoxPx>,
}

/// Most pixels across.
pub const MOST_WIDTH_PX: usize = 240;
/// Most pixels down.
pub const MOST_HEIGHT_PX: usize = 180;

impl Preview {
    /// Shrinks `frame` by leaving out pixels, and takes over which face `observation` attends to.
    #[must_use]
    pub fn of(frame: &RgbView<'_>, observation: &Observation) -> Self {
        let (from_w, from_h) = (frame.width_px(), frame.height_px());
        let shrink =
            (from_w as f32 / MOST_WIDTH_PX as f32).max(from_h as f32 / MOST_HEIGHT_PX as f32).max(1.0);
        let (width_px, height_px) = ((from_w as f32 / shrink) as usize, (from_h as f32 / shrink) as usize);
        let mut rgb = Vec::with_capacity(width_px * height_px * 3);
        for y in 0..height_px {
            let from = y * from_h / height_px * from_w;
            for x in 0..width_px {
                let at = (from + x * from_w / width_px) * 3;
                rgb.extend_from_slice(&frame.data()[at..at + 3]);
            }
        }
        let face = attend(&observation.faces, from_w).ok().map(|index| {
            let BoxPx { x, y, w, h } = observation.faces[index].bbox;
            BoxPx { x: x / shrink, y: y / shrink, w: w / shrink, h: h / shrink }
        });
        Self { rgb, width_px, height_px, face }
    }

    /// Left and right swapped: people know their mirror image.
    #[must_use]
    pub fn mirrored(mut self) -> Self {
        for row in self.rgb.chunks_exact_mut(self.width_px.max(1) * 3) {
            row.as_chunks_mut::<3>().0.reverse();
        }
        self.face = self.face.map(|face| BoxPx { x: self.width_px as f32 - face.x - face.w, ..face });
        self
    }

    /// Fills `room` as far as the shape allows, centred, with the frame in `colour`.
    ///
    /// # Errors
    /// Only what the target itself reports.
    pub fn draw<D: DrawTarget<Color = Rgb888>>(
        &self,
        target: &mut D,
        room: Rectangle,
        colour: Rgb888,
    ) -> Result<(), D::Error> {
        if self.width_px == 0 || self.height_px == 0 || room.is_zero_sized() {
            return Ok(());
        }
        let scale = (room.size.width as f32 / self.width_px as f32)
            .min(room.size.height as f32 / self.height_px as f32);
        let size = Size::new((self.width_px as f32 * scale) as u32, (self.height_px as f32 * scale) as u32);
        let (width, height) = (size.width as usize, size.height as usize);
        let corner = room.top_left
            + Point::new(
                ((room.size.width - size.width) / 2) as i32,
                ((room.size.height - size.height) / 2) as i32,
            );
        let area = Rectangle::new(corner, size);
        let pixels = (0..height).flat_map(|y| {
            let from = y * self.height_px / height * self.width_px;
            (0..width).map(move |x| {
                let at = (from + x * self.width_px / width) * 3;
                Rgb888::new(self.rgb[at], self.rgb[at + 1], self.rgb[at + 2])
            })
        });
        target.fill_contiguous(&area, pixels)?;
        let Some(face) = self.face else { return Ok(()) };
        let spot = |x: f32, y: f32| corner + Point::new((x * scale) as i32, (y * scale) as i32);
        frame(target, &area, spot(face.x, face.y), spot(face.x + face.w, face.y + face.h), colour)
    }
}

/// The four corners of a frame, cut off where they leave `area`.
fn frame<D: DrawTarget<Color = Rgb888>>(
    target: &mut D,
    area: &Rectangle,
    low: Point,
    high: Point,
    colour: Rgb888,
) -> Result<(), D::Error> {
    let line = (area.size.width / 80).max(2);
    let arm = ((high.x - low.x).max(4) as u32 / 4).max(line);
    for (x, across) in [(low.x, 1), (high.x, -1)] {
        for (y, down) in [(low.y, 1), (high.y, -1)] {
            for size in [Size::new(arm, line), Size::new(line, arm)] {
                let left = if across > 0 { x } else { x - size.width as i32 };
                let top = if down > 0 { y } else { y - size.height as i32 };
                target.fill_solid(&Rectangle::new(Point::new(left, top), size).intersection(area), colour)?;
            }
        }
    }
    Ok(())
}

/// Where on a panel the picture goes and where the words: beside each other on a wide one, else one above the other.
pub(super) fn split(panel: Rectangle) -> (Rectangle, Rectangle) {
    let Size { width, height } = panel.size;
    let at = |x: u32, y: u32, width: u32, height: u32| {
        Rectangle::new(panel.top_left + Point::new(x as i32, y as i32), Size::new(width, height))
    };
    if width * 10 >= height * 13 {
        let picture = width * 11 / 20;
        let margin = width / 60;
        (
            at(margin, margin, picture - margin, height.saturating_sub(2 * margin)),
            at(picture, 0, width - picture, height),
        )
    } else {
        let picture = height * 9 / 20;
        (at(0, 0, width, picture), at(0, picture, width, height - picture))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::display::{Canvas, Screen, damage, draw_live};
    use facelatch_shared::detection::{Detection, Landmarks5};
    use facelatch_shared::observation::StageTimings;
    use facelatch_shared::person::Name;
    use facelatch_shared::pose::View;
    use facelatch_shared::quality::Unusable;
    use facelatch_shared::time::Millis;

    /// A frame whose left half is dark and right half light, with a face at `x`.
    fn preview(x: f32, shade: u8) -> Preview {
        let pixels: Vec<u8> =
            (0..640 * 480).flat_map(|i| [if i % 640 < 320 { shade } else { 240 - shade }; 3]).collect();
        let mut landmarks = Landmarks5::default();
        landmarks.0[1].x = 60.0;
        let face = Detection { bbox: BoxPx { x, y: 100.0, w: 160.0, h: 200.0 }, landmarks, score: 0.9 };
        let observation = Observation {
            frame_seq: 1,
            at: Millis(0),
            width_px: 640,
            height_px: 480,
            faces: std::iter::once(face).collect(),
            attended: Err(Unusable::TooDark),
            timings: StageTimings::default(),
        };
        Preview::of(&RgbView::new(&pixels, 640, 480).unwrap(), &observation)
    }

    #[test]
    fn it_is_small_keeps_its_shape_and_knows_the_face() {
        let small = preview(80.0, 40);
        assert_eq!((small.width_px, small.height_px), (240, 180));
        assert_eq!(small.rgb.len(), 240 * 180 * 3);
        let face = small.face.unwrap();
        assert!((face.x - 30.0).abs() < 0.1 && (face.w - 60.0).abs() < 0.1);
        let mirror = small.clone().mirrored();
        assert_eq!((mirror.rgb[0], small.rgb[0]), (200, 40));
        assert!((mirror.face.unwrap().x - 150.0).abs() < 0.1);
        assert_eq!(mirror.mirrored(), small);
    }

    #[test]
    fn picture_and_words_share_the_panel_and_a_frame_costs_less_than_half_of_it() {
        let name = Name::new("Ada Lovelace").unwrap();
        let screen = Screen::Enrol { name, view: View::Left, instruction: None, taken: 1, wanted: 5 };
        for (width, height) in [(480, 320), (320, 240), (240, 240), (240, 320), (800, 480)] {
            let size = Size::new(width, height);
            let panel = Rectangle::new(Point::zero(), size);
            let (picture, words) = split(panel);
            assert!(picture.intersection(&words).is_zero_sized());
            assert_eq!((panel.intersection(&picture), panel.intersection(&words)), (picture, words));
            let drawn = |preview: &Preview| {
                let mut canvas = Canvas::new(size);
                draw_live(&mut canvas, &screen, preview).unwrap();
                canvas
            };
            let (before, after) = (drawn(&preview(80.0, 40)), drawn(&preview(200.0, 41)));
            let sent: u32 =
                damage::changed(&before, &after).iter().map(|a| a.size.width * a.size.height).sum();
            println!(
                "{width}×{height}: at most {sent} of {} pixels a frame, {} bytes on a 16-bit panel",
                width * height,
                sent * 2
            );
            assert!(
                sent > 0 && sent * 2 < width * height,
                "{sent} of {} at {width}×{height}",
                width * height
            );
        }
    }

    #[test]
    fn any_panel_and_any_face_can_be_drawn() {
        let name = Name::new("Ada").unwrap();
        let screen = Screen::Enrol { name, view: View::Front, instruction: None, taken: 1, wanted: 5 };
        for (width, height) in [(0, 0), (1, 1), (1, 300), (300, 1), (8, 8), (128, 64)] {
            for x in [-300.0, 0.0, 600.0, 1e9] {
                let mut canvas = Canvas::new(Size::new(width, height));
                draw_live(&mut canvas, &screen, &preview(x, 9)).unwrap();
            }
        }
        let nothing = Preview::default();
        draw_live(&mut Canvas::new(Size::new(64, 64)), &screen, &nothing).unwrap();
    }
}
