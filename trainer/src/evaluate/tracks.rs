//! Tracks made from stills, in the layout of YouTube Faces: each picture becomes a short video by a hand-held camera's drift, changing light, blur and
//! compression. They exercise the protocol where no videos are at hand; they are no substitute for them, since a face in them never
//! turns, speaks or leaves.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage, imageops};
use thiserror::Error;

use super::interval::below;
use super::pairs::{Pairs, Picture};
use crate::progress::Progress;

/// Name of the splits file in the folder made.
pub const SPLITS: &str = "splits.txt";

/// Writes `Name/number/0.frame.jpg` for every picture of `pairs`, and a splits file with the same pairs and folds. Returns how many tracks
/// there are. The same arguments give the same bytes.
///
/// # Errors
/// [`TrackError`], naming the file.
pub fn make(
    images: &Path,
    pairs: &Pairs,
    out: &Path,
    frames: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<usize, TrackError> {
    let pictures: BTreeSet<&Picture> =
        pairs.pairs.iter().flat_map(|pair| [&pair.first, &pair.second]).collect();
    progress.start("tracks", pictures.len() as u64);
    for (number, picture) in pictures.iter().enumerate() {
        let path = images.join(picture.path());
        let still = image::open(&path).map_err(|source| TrackError::Picture { path, source })?.into_rgb8();
        let folder = out.join(video(picture));
        std::fs::create_dir_all(&folder).map_err(|source| written(&folder, source))?;
        let mut camera = Camera::new(seed.wrapping_add(number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
        for frame in 0..frames {
            let path = folder.join(format!("0.{frame}.jpg"));
            let (picture, quality) = camera.frame(&still);
            let mut bytes = Vec::new();
            JpegEncoder::new_with_quality(&mut bytes, quality)
                .encode_image(&picture)
                .map_err(|source| TrackError::Picture { path: path.clone(), source })?;
            std::fs::write(&path, bytes).map_err(|source| written(&path, source))?;
        }
        progress.step();
    }
    progress.finish();
    let mut splits = String::from("fold, first, second, same\n");
    for pair in &pairs.pairs {
        let (first, second, same) = (video(&pair.first), video(&pair.second), u8::from(pair.same()));
        // Writing to a String cannot fail.
        let _ = writeln!(splits, "{}, {first}, {second}, {same}", pair.fold + 1);
    }
    let path = out.join(SPLITS);
    std::fs::write(&path, splits).map_err(|source| written(&path, source))?;
    Ok(pictures.len())
}

fn video(picture: &Picture) -> String {
    format!("{}/{}", picture.person, picture.number)
}

/// A camera that drifts: each value moves a little from frame to frame and is pulled back to its middle.
struct Camera {
    state: u64,
    /// Shift x and y as shares of the side, tilt in radians, log scale, log light.
    pose: [f32; 5],
}

impl Camera {
    const STEPS: [f32; 5] = [0.012, 0.012, 0.02, 0.03, 0.06];

    fn new(seed: u64) -> Self {
        let mut camera = Self { state: seed, pose: [0.0; 5] };
        // Starts anywhere the drift leads, not always with the still itself.
        (0..10).for_each(|_| camera.drift());
        camera
    }

    fn even(&mut self) -> f32 {
        below(&mut self.state, 1 << 16) as f32 / f32::from(u16::MAX)
    }

    fn drift(&mut self) {
        for (i, step) in Self::STEPS.into_iter().enumerate() {
            let push = self.even() * 2.0 - 1.0;
            self.pose[i] = self.pose[i] * 0.9 + push * step;
        }
    }

    /// The next frame, and the JPEG quality that it is stored with.
    fn frame(&mut self, still: &RgbImage) -> (RgbImage, u8) {
        self.drift();
        let [dx, dy, tilt, scale, light] = self.pose;
        let (width, height) = (still.width() as f32, still.height() as f32);
        let (sin, cos) = tilt.sin_cos();
        let (zoom, gain) = (scale.exp(), light.exp());
        let frame = RgbImage::from_fn(still.width(), still.height(), |x, y| {
            let (u, v) = ((x as f32 - width / 2.0) * zoom, (y as f32 - height / 2.0) * zoom);
            let sx = (cos * u - sin * v + width * (0.5 + dx)).clamp(0.0, width - 1.0);
            let sy = (sin * u + cos * v + height * (0.5 + dy)).clamp(0.0, height - 1.0);
            let Rgb(p) = imageops::interpolate_bilinear(still, sx, sy).unwrap_or(Rgb([0; 3]));
            Rgb(p.map(|v| (f32::from(v) * gain).min(255.0) as u8))
        });
        let sigma = (self.even() - 0.6) * 3.0;
        let frame = if sigma > 0.1 { imageops::fast_blur(&frame, sigma) } else { frame };
        (frame, 30 + below(&mut self.state, 60) as u8)
    }
}

/// Why no tracks were made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrackError {
    /// A still cannot be read, or a frame not encoded.
    #[error("cannot use {}", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// A frame cannot be written.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn written(path: &Path, source: std::io::Error) -> TrackError {
    TrackError::Unwritable { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::pictures::testing::ColourEyes;
    use crate::evaluate::ytf::{self, Compare, Job, Splits};
    use crate::progress::Silent;

    #[test]
    fn tracks_of_stills_go_through_the_protocol() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("stills");
        for (name, number, colour) in [
            ("Ann", 1, [220, 20, 20]),
            ("Ann", 2, [200, 40, 20]),
            ("Bob", 1, [20, 30, 220]),
            ("Bob", 2, [20, 20, 200]),
        ] {
            let path = images.join(format!("{name}/{name}_{number:04}.jpg"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(32, 32, Rgb(colour)).save(path).unwrap();
        }
        let file = dir.path().join("pairs.txt");
        std::fs::write(&file, "2 1\nAnn 1 2\nAnn 1 Bob 1\nBob 1 2\nAnn 2 Bob 2\n").unwrap();
        let pairs = Pairs::read(&file).unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        assert_eq!(make(&images, &pairs, &a, 4, 7, &Silent).unwrap(), 4);
        make(&images, &pairs, &b, 4, 7, &Silent).unwrap();
        let frame = |root: &Path, i| std::fs::read(root.join(format!("Ann/1/0.{i}.jpg"))).unwrap();
        assert_eq!(frame(&a, 3), frame(&b, 3));
        assert_ne!(frame(&a, 3), frame(&a, 2), "the camera moves");
        let splits = Splits::read(&a.join(SPLITS)).unwrap();
        assert_eq!((splits.folds, splits.pairs.len()), (2, 4));
        let job = Job { frames: a, splits, compare: Compare::Pairs, most_frames: 100 };
        let report = ytf::measure(&job, &mut [ColourEyes], &Silent).unwrap();
        assert_eq!((report.accuracy.mean, report.frames_used), (1.0, 16));
    }
}
