//! What happens to a picture on its way round the web: the edits that make near-duplicates.

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage, imageops};

use super::svm::below;

/// A way to change a picture that leaves it the same picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edit {
    /// Up to 12 % cut off at the edges.
    Crop,
    /// Compressed at quality 25 to 60.
    Jpeg,
    /// Brightness, contrast and saturation.
    Colour,
    /// A border of one colour, 4 to 15 % of the side.
    Border,
    /// Left and right swapped.
    Mirror,
    /// Shrunk to 55 to 85 % and stored so.
    Shrink,
}

impl Edit {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Crop, Self::Jpeg, Self::Colour, Self::Border, Self::Mirror, Self::Shrink];

    /// As in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crop => "crop",
            Self::Jpeg => "jpeg",
            Self::Colour => "colour",
            Self::Border => "border",
            Self::Mirror => "mirror",
            Self::Shrink => "shrink",
        }
    }

    /// The edited picture as a JPEG file; strengths are drawn from `state`.
    ///
    /// # Errors
    /// What the encoder says.
    pub fn make(self, picture: &RgbImage, state: &mut u64) -> Result<Vec<u8>, String> {
        let mut between = |low: f32, high: f32| low + (high - low) * below(state, 1001) as f32 / 1000.0;
        let (width, height) = picture.dimensions();
        let (w, h) = (width as f32, height as f32);
        let mut quality = 90;
        let edited = match self {
            Self::Crop => {
                let (left, top) = (between(0.0, 0.12) * w, between(0.0, 0.12) * h);
                let (right, bottom) = (w - between(0.0, 0.12) * w, h - between(0.0, 0.12) * h);
                let (cw, ch) = ((right - left).max(1.0) as u32, (bottom - top).max(1.0) as u32);
                imageops::crop_imm(picture, left as u32, top as u32, cw, ch).to_image()
            }
            Self::Jpeg => {
                quality = between(25.0, 60.0) as u8;
                picture.clone()
            }
            Self::Colour => {
                let (light, contrast, grey) = (between(-25.0, 25.0), between(0.75, 1.25), between(0.0, 0.8));
                let gains = [between(0.9, 1.1), between(0.9, 1.1), between(0.9, 1.1)];
                let mut edited = picture.clone();
                for pixel in edited.pixels_mut() {
                    let [r, g, b] = pixel.0.map(f32::from);
                    let luma = 0.299 * r + 0.587 * g + 0.114 * b;
                    pixel.0 = std::array::from_fn(|k| {
                        let value = [r, g, b][k] * (1.0 - grey) + luma * grey;
                        ((value - 128.0) * contrast * gains[k] + 128.0 + light).clamp(0.0, 255.0) as u8
                    });
                }
                edited
            }
            Self::Border => {
                let (bx, by) = ((between(0.04, 0.15) * w) as u32, (between(0.04, 0.15) * h) as u32);
                let colour = between(0.0, 255.0) as u8;
                let mut edited = RgbImage::from_pixel(width + 2 * bx, height + 2 * by, Rgb([colour; 3]));
                imageops::replace(&mut edited, picture, i64::from(bx), i64::from(by));
                edited
            }
            Self::Mirror => imageops::flip_horizontal(picture),
            Self::Shrink => {
                let scale = between(0.55, 0.85);
                let side = |px: f32| ((px * scale) as u32).max(1);
                imageops::resize(picture, side(w), side(h), imageops::FilterType::Triangle)
            }
        };
        let mut bytes = Vec::new();
        edited
            .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, quality))
            .map_err(|e| e.to_string())?;
        Ok(bytes)
    }
}

/// A picture without a face: stripes, cloud, ramp, or a face in shuffled tiles.
#[must_use]
pub fn no_face(face: &RgbImage, state: &mut u64) -> RgbImage {
    let side = 128_u32;
    let draw = below(state, 4);
    let colours: [[f32; 3]; 2] = std::array::from_fn(|_| std::array::from_fn(|_| below(state, 256) as f32));
    let mix = |t: f32| Rgb(std::array::from_fn(|k| (colours[0][k] * (1.0 - t) + colours[1][k] * t) as u8));
    match draw {
        0 => {
            let (fx, fy) = (below(state, 60) as f32 / 100.0, below(state, 60) as f32 / 100.0 + 0.05);
            RgbImage::from_fn(side, side, |x, y| mix(0.5 + 0.5 * (x as f32 * fx + y as f32 * fy).sin()))
        }
        1 => {
            let coarse = RgbImage::from_fn(8, 8, |_, _| mix(below(state, 101) as f32 / 100.0));
            imageops::resize(&coarse, side, side, imageops::FilterType::CatmullRom)
        }
        2 => RgbImage::from_fn(side, side, |x, y| mix((x + y) as f32 / (2 * side) as f32)),
        _ => {
            let picture = imageops::resize(face, side, side, imageops::FilterType::Triangle);
            let mut tiles: Vec<u32> = (0..64).collect();
            for i in (1..tiles.len()).rev() {
                tiles.swap(i, below(state, i + 1));
            }
            RgbImage::from_fn(side, side, |x, y| {
                let tile = tiles[(y / 16 * 8 + x / 16) as usize];
                *picture.get_pixel(tile % 8 * 16 + x % 16, tile / 8 * 16 + y % 16)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edit_changes_the_file_and_gives_the_same_again() {
        let picture = RgbImage::from_fn(90, 120, |x, y| Rgb([x as u8 * 2, y as u8 * 2, (x ^ y) as u8]));
        for edit in Edit::ALL {
            let (mut one, mut two) = (9, 9);
            let bytes = edit.make(&picture, &mut one).unwrap();
            assert_eq!(bytes, edit.make(&picture, &mut two).unwrap(), "{}", edit.name());
            let again = image::load_from_memory(&bytes).unwrap().into_rgb8();
            match edit {
                Edit::Crop | Edit::Shrink => assert!(again.width() < 90 && again.height() < 120),
                Edit::Border => assert!(again.width() > 90 && again.height() > 120),
                _ => assert_eq!(again.dimensions(), (90, 120)),
            }
        }
        let mut state = 1;
        for _ in 0..8 {
            assert_eq!(no_face(&picture, &mut state).dimensions(), (128, 128));
        }
    }
}
