//! How verification suffers from JPEG compression and from small pictures: FaceNet's table 4 through the door's own eyes.
//!
//! Every picture of the pairs is spoilt in one way at a time and then goes through detection, alignment and embedding as a camera's
//! frame does, so that a face no longer found counts too. The threshold is the one a door would have kept: chosen once, on pictures as they are.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};

use facelatch_shared::embedding::Embedding;

use super::lfw::{LfwError, NOT_FOUND, find_missing};
use super::operating_point::FARS;
use super::pairs::{Pairs, Picture};
use super::pictures::{self, Eyes, Seen, look};
use super::roc::{self, Roc, Score};
use crate::progress::Progress;

/// One way to spoil a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// As it is.
    Nothing,
    /// Encoded as JPEG of this quality (1–100) and decoded.
    Jpeg(u8),
    /// Shrunk so that the longer side has this many pixels; smaller pictures stay as they are.
    Side(u32),
}

/// What to measure on.
#[derive(Clone, Debug)]
pub struct Job {
    /// Folder with `name/name_0001.jpg`.
    pub images: PathBuf,
    /// The pairs measured.
    pub pairs: Pairs,
    /// Pairs whose pictures, as they are, choose the threshold; without them the measured pairs themselves, as they are, do.
    pub calibrate: Option<Pairs>,
    /// The rows of the table.
    pub spoils: Vec<Spoil>,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// What was done to the pictures.
    pub spoil: Spoil,
    /// Share of pairs decided rightly at the threshold kept.
    pub accuracy: f64,
    /// True-accept rate at the threshold kept for a false-accept rate of 1e-2.
    pub tar: f64,
    /// False-accept rate at that threshold.
    pub far: f64,
    /// VAL at a false-accept rate of 1e-2, with the threshold set anew for these pictures (over folds).
    pub val: Option<f64>,
    /// Median distance of the eyes in the spoilt pictures, in pixels; zero when no face was found.
    pub eye_distance_px: f32,
    /// Pictures without a face.
    pub faces_not_found: usize,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order asked for.
    pub rows: Vec<Row>,
    /// Distinct pictures.
    pub pictures: usize,
    /// Pairs.
    pub pairs: usize,
    /// The threshold of the accuracy.
    pub threshold: f32,
    /// The threshold of the true-accept rate.
    pub strict_threshold: f32,
}

/// Measures `job` with as many threads as there are `eyes`.
///
/// # Errors
/// [`LfwError`], naming the picture or the file.
pub fn measure<E: Eyes + Send>(
    job: &Job,
    eyes: &mut [E],
    progress: &dyn Progress,
) -> Result<Report, LfwError> {
    let chooser = job.calibrate.as_ref().unwrap_or(&job.pairs);
    find_missing(&job.images, &job.pairs)?;
    find_missing(&job.images, chooser)?;
    let mut at = |pairs: &Pairs, spoil| scores(job, pairs, spoil, eyes, progress);
    let chosen = Roc::new(&at(chooser, Spoil::Nothing)?.0).ok_or(LfwError::Degenerate)?;
    let (threshold, strict_threshold) = (chosen.best_threshold(), chosen.at_far(FARS[0]).threshold);
    let folds: Vec<usize> = job.pairs.pairs.iter().map(|pair| pair.fold).collect();
    let mut rows = Vec::with_capacity(job.spoils.len());
    let mut pictures = 0;
    for &spoil in &job.spoils {
        let (scores, seen) = at(&job.pairs, spoil)?;
        let errors = Roc::new(&scores).ok_or(LfwError::Degenerate)?.errors_at(strict_threshold);
        pictures = seen.len();
        rows.push(Row {
            spoil,
            accuracy: roc::accuracy(&scores, threshold),
            tar: 1.0 - errors.refused as f64 / errors.genuine as f64,
            far: errors.accepted as f64 / errors.impostor as f64,
            val: roc::fold_val(&scores, &folds, job.pairs.folds, FARS[0]).map(|val| val.mean),
            eye_distance_px: median(&seen),
            faces_not_found: seen.iter().filter(|s| s.is_none()).count(),
        });
    }
    Ok(Report { rows, pictures, pairs: job.pairs.pairs.len(), threshold, strict_threshold })
}

impl Spoil {
    /// The spoilt picture.
    ///
    /// # Errors
    /// What the codec says.
    pub fn apply(self, picture: RgbImage) -> image::ImageResult<RgbImage> {
        Ok(match self {
            Self::Nothing => picture,
            Self::Jpeg(quality) => {
                let mut bytes = Vec::new();
                JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&picture)?;
                image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg)?.into_rgb8()
            }
            Self::Side(side) => {
                let (width, height) = picture.dimensions();
                let longer = width.max(height);
                if longer <= side {
                    return Ok(picture);
                }
                let scaled = |length: u32| (length * side).div_ceil(longer).max(1);
                imageops::resize(&picture, scaled(width), scaled(height), imageops::FilterType::Triangle)
            }
        })
    }
}

impl std::fmt::Display for Spoil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.pad("as they are"),
            Self::Jpeg(quality) => f.pad(&format!("JPEG quality {quality}")),
            Self::Side(side) => f.pad(&format!("{side} px wide")),
        }
    }
}

type Looked = (Vec<Score>, Vec<Option<Seen>>);

fn scores<E: Eyes + Send>(
    job: &Job,
    pairs: &Pairs,
    spoil: Spoil,
    eyes: &mut [E],
    progress: &dyn Progress,
) -> Result<Looked, LfwError> {
    let pictures: BTreeSet<&Picture> =
        pairs.pairs.iter().flat_map(|pair| [&pair.first, &pair.second]).collect();
    let files: Vec<PathBuf> = pictures.iter().map(|picture| job.images.join(picture.path())).collect();
    let seen = pictures::each(&files, eyes, progress, |eyes, picture| look(eyes, &spoil.apply(picture)?))?;
    let known: HashMap<&Picture, Embedding> =
        pictures.into_iter().zip(&seen).filter_map(|(p, s)| Some((p, s.as_ref()?.embedding))).collect();
    let scores = pairs
        .pairs
        .iter()
        .map(|pair| match (known.get(&pair.first), known.get(&pair.second)) {
            (Some(a), Some(b)) => (a.similarity(b).0, pair.same()),
            _ => (NOT_FOUND, pair.same()),
        })
        .collect();
    Ok((scores, seen))
}

fn median(seen: &[Option<Seen>]) -> f32 {
    let mut distances: Vec<f32> =
        seen.iter().flatten().map(|s| s.detection.landmarks.eye_distance_px()).collect();
    distances.sort_unstable_by(f32::total_cmp);
    distances.get(distances.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::pictures::testing::ColourEyes;
    use crate::progress::Silent;

    fn picture() -> RgbImage {
        RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * 4) as u8, (y * 5) as u8, ((x * y) % 251) as u8]))
    }

    #[test]
    fn spoiling_does_what_it_says() {
        let picture = picture();
        let error = |spoil: Spoil| -> f64 {
            let spoilt = spoil.apply(picture.clone()).unwrap();
            let pairs = spoilt.as_raw().iter().zip(picture.as_raw());
            pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
        };
        assert_eq!(error(Spoil::Nothing), 0.0);
        assert!(error(Spoil::Jpeg(90)) > 0.0 && error(Spoil::Jpeg(10)) > 2.0 * error(Spoil::Jpeg(90)));
        assert_eq!(Spoil::Side(32).apply(picture.clone()).unwrap().dimensions(), (32, 24));
        assert_eq!(Spoil::Side(100).apply(picture.clone()).unwrap().dimensions(), (64, 48));
    }

    #[test]
    fn each_row_keeps_the_threshold_of_pictures_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        for (name, number, colour) in
            [("A", 1, [240, 0, 0]), ("A", 2, [200, 9, 0]), ("B", 1, [0, 240, 0]), ("B", 2, [9, 200, 0])]
        {
            let path = dir.path().join(format!("{name}/{name}_{number:04}.jpg"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(16, 16, image::Rgb(colour)).save(path).unwrap();
        }
        let file = dir.path().join("pairs.txt");
        std::fs::write(&file, "2 1\nA 1 2\nA 1 B 1\nB 1 2\nA 2 B 2\n").unwrap();
        let job = Job {
            images: dir.path().into(),
            pairs: Pairs::read(&file).unwrap(),
            calibrate: None,
            spoils: vec![Spoil::Nothing, Spoil::Jpeg(30), Spoil::Side(4)],
        };
        let report = measure(&job, &mut [ColourEyes], &Silent).unwrap();
        assert_eq!((report.rows.len(), report.pictures, report.pairs), (3, 4, 4));
        for row in &report.rows {
            assert_eq!((row.accuracy, row.tar, row.faces_not_found), (1.0, 1.0, 0), "{row:?}");
        }
        // The strict threshold lies just above the best impostor as it is; compression may lift another above it.
        assert_eq!(report.rows[0].far, 0.0);
        assert_eq!(format!("{:<16}|", report.rows[1].spoil), "JPEG quality 30 |");
    }
}
