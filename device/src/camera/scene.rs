//! Pictures for the replayed camera: photographs placed before a blank wall, as a door's camera would see them.

use facelatch_shared::detection::BoxPx;
use facelatch_shared::frame::{FrameError, RgbView};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

/// A picture that owns its pixels: packed RGB, `[height_px, width_px, 3]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    rgb: Vec<u8>,
    width_px: usize,
    height_px: usize,
}

impl Picture {
    /// Takes `rgb`, which must hold `width_px * height_px * 3` bytes.
    ///
    /// # Errors
    /// [`FrameError`] when it does not.
    pub fn new(rgb: Vec<u8>, width_px: usize, height_px: usize) -> Result<Self, FrameError> {
        RgbView::new(&rgb, width_px, height_px)?;
        Ok(Self { rgb, width_px, height_px })
    }

    /// The pixels.
    #[must_use]
    pub fn view(&self) -> RgbView<'_> {
        match RgbView::new(&self.rgb, self.width_px, self.height_px) {
            Ok(view) => view,
            Err(_) => unreachable!("`new` checked the sizes and nothing changes them"),
        }
    }

    /// Width in pixels.
    #[must_use]
    pub const fn width_px(&self) -> usize {
        self.width_px
    }

    /// Height in pixels.
    #[must_use]
    pub const fn height_px(&self) -> usize {
        self.height_px
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}x{})", self.width_px, self.height_px)
    }
}

/// A canvas on which photographs are placed. Starts as an empty wall.
#[derive(Clone, Debug)]
pub struct Scene {
    canvas: RgbImage,
}

impl Scene {
    /// An empty wall of 640×480 px, a little darker towards the floor.
    #[must_use]
    pub fn blank() -> Self {
        let canvas = RgbImage::from_fn(WIDTH_PX, HEIGHT_PX, |_, y| {
            // 150 at the top to 112 at the bottom.
            let grey = 150 - (y * 38 / (HEIGHT_PX - 1)) as u8;
            Rgb([grey, grey, grey - 4])
        });
        Self { canvas }
    }

    /// Puts the whole of `photo` on the wall, as large as fits, centred.
    #[must_use]
    pub fn letterbox(self, photo: &RgbView<'_>) -> Self {
        let (width_px, height_px) = (photo.width_px() as f32, photo.height_px() as f32);
        let scale = (WIDTH_PX as f32 / width_px).min(HEIGHT_PX as f32 / height_px);
        let centre = (WIDTH_PX as f32 * 0.5, HEIGHT_PX as f32 * 0.5);
        self.place(photo, (width_px * 0.5, height_px * 0.5), scale, centre)
    }

    /// Puts `photo` on the wall so that the box `face` in it (photo pixels) becomes `height_fraction` of the canvas's height and
    /// is centred at `centre_x_fraction` of its width and half its height. What reaches over the edge is cut off. Calls add up,
    /// for two people before one door. Nothing is placed for a box without area or a fraction that is not above zero.
    #[must_use]
    pub fn face(
        self,
        photo: &RgbView<'_>,
        face: &BoxPx,
        height_fraction: f32,
        centre_x_fraction: f32,
    ) -> Self {
        let scale = height_fraction * HEIGHT_PX as f32 / face.h;
        let from = face.centre();
        let to = (WIDTH_PX as f32 * centre_x_fraction, HEIGHT_PX as f32 * 0.5);
        self.place(photo, (from.x, from.y), scale, to)
    }

    /// Multiplies the light by `factor` (0 is black, 1 changes nothing): a dark entrance.
    #[must_use]
    pub fn dimmed(mut self, factor: f32) -> Self {
        for channel in self.canvas.iter_mut() {
            // `as` saturates.
            *channel = (f32::from(*channel) * factor).round() as u8;
        }
        self
    }

    /// Blurs by a Gaussian of `sigma_px` (not above zero: nothing): out of focus, or moving.
    #[must_use]
    pub fn blurred(mut self, sigma_px: f32) -> Self {
        if sigma_px > 0.0 {
            self.canvas = imageops::blur(&self.canvas, sigma_px);
        }
        self
    }

    /// The finished picture.
    #[must_use]
    pub fn finish(self) -> Picture {
        let (width_px, height_px) = (self.canvas.width() as usize, self.canvas.height() as usize);
        Picture { rgb: self.canvas.into_raw(), width_px, height_px }
    }

    /// Scales `photo` about its point `from` and puts that point at `to` on the canvas.
    fn place(mut self, photo: &RgbView<'_>, from: (f32, f32), scale: f32, to: (f32, f32)) -> Self {
        let all_finite = [scale, from.0, from.1, to.0, to.1].iter().all(|v| v.is_finite());
        if !all_finite || scale <= 0.0 {
            return self;
        }
        // Only the part that will be seen is scaled: a small face in a large photograph would need gigabytes otherwise.
        let across = seen(photo.width_px(), WIDTH_PX, from.0, scale, to.0);
        let down = seen(photo.height_px(), HEIGHT_PX, from.1, scale, to.1);
        let (Some(across), Some(down)) = (across, down) else { return self };
        let mut part = RgbImage::new(across.length, down.length);
        for (x, y, pixel) in part.enumerate_pixels_mut() {
            *pixel = Rgb(photo.pixel_clamped((across.first + x) as isize, (down.first + y) as isize));
        }
        // The triangle filter widens with the scale, so that large photographs shrink without aliasing.
        let scaled = imageops::resize(&part, across.scaled, down.scaled, FilterType::Triangle);
        imageops::replace(&mut self.canvas, &scaled, across.at, down.at);
        self
    }
}

/// The part of one side of a photograph that reaches the canvas.
struct Part {
    first: u32,
    length: u32,
    scaled: u32,
    at: i64,
}

fn seen(photo_px: usize, canvas_px: u32, from: f32, scale: f32, to: f32) -> Option<Part> {
    // At most MAX_SIDE_PX, exact in both types.
    let photo = photo_px as f32;
    let first = (from - to / scale).floor().clamp(0.0, photo);
    let last = (from + (canvas_px as f32 - to) / scale).ceil().clamp(0.0, photo);
    let at = (to + (first - from) * scale).round();
    let scaled = ((last - first) * scale).round();
    // Up to one photograph's pixel hangs over each edge; a scale at which that alone exceeds the bound is not a picture.
    if last <= first || !(1.0..=MAX_SCALED_PX).contains(&scaled) {
        return None;
    }
    Some(Part { first: first as u32, length: (last - first) as u32, scaled: scaled as u32, at: at as i64 })
}

/// Width of a scene in pixels.
pub const WIDTH_PX: u32 = 640;
/// Height of a scene in pixels.
pub const HEIGHT_PX: u32 = 480;
const MAX_SCALED_PX: f32 = 4096.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Red, with a green box of `face`.
    fn photo(width_px: usize, height_px: usize, face: &BoxPx) -> Picture {
        let mut rgb = Vec::new();
        for y in 0..height_px {
            for x in 0..width_px {
                let (x, y) = (x as f32, y as f32);
                let inside = x >= face.x && x < face.x + face.w && y >= face.y && y < face.y + face.h;
                rgb.extend_from_slice(if inside { &[0, 255, 0] } else { &[255, 0, 0] });
            }
        }
        Picture::new(rgb, width_px, height_px).unwrap()
    }

    fn is_green(view: &RgbView<'_>, x: isize, y: isize) -> bool {
        let [r, g, b] = view.pixel_clamped(x, y);
        g > 200 && r < 60 && b < 60
    }

    #[test]
    fn a_face_gets_the_height_and_place_asked_for() {
        let face = BoxPx { x: 900.0, y: 500.0, w: 300.0, h: 400.0 };
        let photo = photo(1600, 1200, &face);
        for (fraction, centre_x) in [(0.5, 0.5), (0.25, 0.25)] {
            let picture = Scene::blank().face(&photo.view(), &face, fraction, centre_x).finish();
            let view = picture.view();
            assert_eq!((view.width_px(), view.height_px()), (640, 480));
            let column = (640.0 * centre_x) as isize;
            let green = (0..480).filter(|y| is_green(&view, column, *y)).count() as f32;
            assert!((green - fraction * 480.0).abs() <= 3.0, "{green} rows of face at fraction {fraction}");
            assert!(is_green(&view, column, 240));
        }
    }

    #[test]
    fn two_people_fit_on_one_scene() {
        let face = BoxPx { x: 20.0, y: 20.0, w: 40.0, h: 50.0 };
        let photo = photo(80, 90, &face);
        let picture = Scene::blank()
            .face(&photo.view(), &face, 0.3, 0.25)
            .face(&photo.view(), &face, 0.3, 0.75)
            .finish();
        assert!(is_green(&picture.view(), 160, 240) && is_green(&picture.view(), 480, 240));
        assert!(!is_green(&picture.view(), 320, 240));
    }

    #[test]
    fn a_letterboxed_photo_is_whole() {
        let corner = BoxPx { x: 0.0, y: 0.0, w: 300.0, h: 300.0 };
        let picture = Scene::blank().letterbox(&photo(3000, 1000, &corner).view()).finish();
        let view = picture.view();
        // 640 × 213, from row 133 on.
        assert!(is_green(&view, 2, 137) && is_green(&view, 60, 190));
        assert_eq!(view.pixel_clamped(2, 120), Scene::blank().finish().view().pixel_clamped(2, 120));
        assert_eq!(view.pixel_clamped(639, 240), [255, 0, 0]);
    }

    #[test]
    fn nonsense_places_nothing() {
        let face = BoxPx { x: 5.0, y: 5.0, w: 4.0, h: 4.0 };
        let photo = photo(16, 16, &face);
        let blank = Scene::blank().finish();
        for (face, fraction) in [
            (BoxPx { h: 0.0, ..face }, 0.5),
            (BoxPx { h: f32::NAN, ..face }, 0.5),
            (BoxPx { x: f32::INFINITY, ..face }, 0.5),
            (BoxPx { x: 1.0e9, ..face }, 0.5),
            (face, 0.0),
            (face, -1.0),
            (face, 1.0e9),
        ] {
            assert_eq!(
                Scene::blank().face(&photo.view(), &face, fraction, 0.5).finish(),
                blank,
                "{face:?} {fraction}"
            );
        }
    }

    #[test]
    fn light_and_focus() {
        let dark = Scene::blank().dimmed(0.1).finish();
        assert!(dark.view().data().iter().all(|v| *v <= 15));
        let face = BoxPx { x: 4.0, y: 4.0, w: 8.0, h: 8.0 };
        let sharp = Scene::blank().letterbox(&photo(16, 16, &face).view());
        let step = |p: &Picture| {
            p.view()
                .data()
                .chunks(3)
                .zip(p.view().data()[3..].chunks(3))
                .map(|(a, b)| a[1].abs_diff(b[1]))
                .max()
        };
        assert!(step(&sharp.clone().blurred(6.0).finish()) < step(&sharp.finish()));
    }
}
