//! From a heap of candidate pictures to a training set with its provenance (Parkhi et al. 2015, section 3).
//!
//! One folder of work holds one curation: a store of what every stage decided about every picture. Pictures stay where they are, in
//! folders and archives. Each stage goes through the people in the order of their numbers and stores what it decided together with how
//! far it has come, so that a run that was killed goes on where it was and ends with the same result. Nothing is held for all
//! pictures at once: the most that any stage holds is the pictures of one person.
//!
//! Candidates → describe (detect, align, embed) → verify → rank → dedupe → review → report, export.

pub mod store;
mod table;
pub mod names;
pub mod sources;
pub mod fetch;
pub mod candidates;
pub mod edit;
pub mod noisy;
pub mod describe;
pub mod local;
pub mod fisher;
pub mod svm;
pub mod rank;
pub mod vlad;
pub mod dedupe;
pub mod trial;
pub mod review;
pub mod server;
pub mod document;
pub mod report;
pub mod export;
pub mod truth;

pub use store::{Key, Stage, Store, StoreError};

use facelatch_shared::align::similarity::{SimilarityTransform, warp};
use facelatch_shared::align::{CANONICAL_112, CHIP_PX};
use facelatch_shared::detection::{Landmarks5, Point};
use facelatch_shared::frame::RgbView;
use image::RgbImage;

use store::Face;

/// Side of an aligned canvas: the 112 chip with 8 px round it, as the trainer reads it.
pub const CANVAS_PX: usize = 128;

/// Decodes a picture file, within bounds of size and memory.
///
/// # Errors
/// What the decoder says.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    let mut reader = image::ImageReader::new(std::io::Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| e.to_string())?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(16_384);
    limits.max_image_height = Some(16_384);
    reader.limits(limits);
    Ok(reader.decode().map_err(|e| e.to_string())?.into_rgb8())
}

/// The aligned canvas of a face, `[128, 128, 3]` RGB.
///
/// # Errors
/// Why its landmarks admit none.
pub fn canvas(picture: &RgbImage, face: &Face) -> Result<RgbImage, String> {
    let margin = ((CANVAS_PX - CHIP_PX) / 2) as f32;
    let to = Landmarks5(CANONICAL_112.0.map(|p| Point::new(p.x + margin, p.y + margin)));
    let view = RgbView::new(picture.as_raw(), picture.width() as usize, picture.height() as usize)
        .map_err(|e| e.to_string())?;
    let transform = SimilarityTransform::fit(&face.landmarks5(), &to).map_err(|e| e.to_string())?;
    let mut pixels = vec![0; CANVAS_PX * CANVAS_PX * 3];
    warp(&view, &transform, CANVAS_PX, &mut pixels).map_err(|e| e.to_string())?;
    RgbImage::from_raw(CANVAS_PX as u32, CANVAS_PX as u32, pixels).ok_or_else(|| "no canvas".to_owned())
}

/// Luma of a picture, 0 to 255.
#[must_use]
pub fn grey(picture: &RgbImage) -> Vec<f32> {
    let luma = |p: &image::Rgb<u8>| {
        0.299 * f32::from(p.0[0]) + 0.587 * f32::from(p.0[1]) + 0.114 * f32::from(p.0[2])
    };
    picture.pixels().map(luma).collect()
}

#[cfg(test)]
mod tests;
