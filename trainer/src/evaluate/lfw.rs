//! Verification on LFW or any data set in its layout, through the door's own eyes.
//!
//! Every picture named by a pair is decoded, searched, aligned and embedded once, exactly as a camera frame is. Of several
//! faces the one counts whose side, times its closeness to the middle, is largest: LFW's subject is in the middle. A picture
//! without a face is not dropped: its pairs score −1 and are refused at any threshold, so that a blind detector cannot look
//! good.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use facelatch_shared::embedding::{Embedding, Template};
use thiserror::Error;

use super::operating_point::{self, Applied};
use super::pairs::{Pair, Pairs, Picture};
use super::pictures::{self, Eyes, PictureError};
use super::roc::{self, FoldAccuracy, FoldRate, OperatingPoint, Roc, Score};
use crate::progress::Progress;

/// What to measure on.
#[derive(Clone, Debug)]
pub struct Job {
    /// Folder with `name/name_0001.jpg`.
    pub images: PathBuf,
    /// The pairs measured.
    pub pairs: Pairs,
    /// Other pairs on which the accuracy's threshold is chosen; without them it is cross-validated over the folds.
    pub calibrate: Option<Pairs>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Report {
    /// Accuracy over the folds.
    pub accuracy: FoldAccuracy,
    /// Genuine pairs accepted at a false-accept rate of 1e-2.
    pub at_far_1e2: OperatingPoint,
    /// The same at 1e-3.
    pub at_far_1e3: OperatingPoint,
    /// VAL at a false-accept rate of 1e-3 with thresholds from the other folds, as FaceNet reports it; needs two folds.
    pub val_at_far_1e3: Option<FoldRate>,
    /// Operating points whose thresholds were chosen on the calibration pairs alone; empty without them.
    pub operating_points: Vec<Applied>,
    /// Equal error rate, 0 to 1.
    pub equal_error_rate: f64,
    /// What int8 templates cost against float embeddings.
    pub templates: TemplateCost,
    /// Distinct pictures of the measured pairs, and those of them without a face.
    pub pictures: Count,
    /// The same for the calibration pairs.
    pub calibration_pictures: Option<Count>,
    /// Pairs of one person measured.
    pub genuine_pairs: usize,
    /// Pairs of two people measured.
    pub impostor_pairs: usize,
    /// Folds of the accuracy.
    pub folds: usize,
    /// Similarity of every measured pair, in the order of the file; [`NOT_FOUND`] where a face was not found.
    pub similarities: Vec<f32>,
}

/// Pictures, and those among them without a face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Distinct pictures.
    pub total: usize,
    /// Those without a face.
    pub faces_not_found: usize,
}

/// Differences in similarity between int8 templates and float embeddings, over the measured pairs with both faces found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TemplateCost {
    /// Mean of the absolute differences.
    pub mean: f64,
    /// Largest absolute difference.
    pub max: f64,
    /// Accuracy with templates minus accuracy with floats, each with its own thresholds.
    pub accuracy_change: f64,
}

/// Similarity given to a pair when one of its faces is not found.
pub const NOT_FOUND: f32 = -1.0;

/// Measures `job` with as many threads as there are `eyes`.
///
/// # Errors
/// [`LfwError`], naming the picture or the file.
pub fn measure<E: Eyes + Send>(
    job: &Job,
    eyes: &mut [E],
    progress: &dyn Progress,
) -> Result<Report, LfwError> {
    let pictures: Vec<&Picture> = job
        .calibrate
        .iter()
        .chain([&job.pairs])
        .flat_map(|pairs| &pairs.pairs)
        .flat_map(|pair| [&pair.first, &pair.second])
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    find_missing(&job.images, &job.pairs)?;
    if let Some(pairs) = &job.calibrate {
        find_missing(&job.images, pairs)?;
    }
    let files: Vec<PathBuf> = pictures.iter().map(|picture| job.images.join(picture.path())).collect();
    let seen = pictures::embed_files(&files, eyes, progress)?;
    let known: Known =
        pictures.into_iter().cloned().zip(seen.into_iter().map(|s| s.map(|s| s.embedding))).collect();

    let scores = score(&job.pairs, &known, float_similarity);
    let coded = score(&job.pairs, &known, template_similarity);
    let operating_points = match &job.calibrate {
        Some(pairs) => {
            let calibration =
                Roc::new(&score(pairs, &known, float_similarity)).ok_or(LfwError::Degenerate)?;
            let measured = Roc::new(&scores).ok_or(LfwError::Degenerate)?;
            operating_point::apply(&calibration, &measured, &operating_point::FARS)
        }
        None => Vec::new(),
    };
    let calibration = |similarity: Similarity| -> Result<Option<f32>, LfwError> {
        let Some(pairs) = &job.calibrate else { return Ok(None) };
        let roc = Roc::new(&score(pairs, &known, similarity)).ok_or(LfwError::Degenerate)?;
        Ok(Some(roc.best_threshold()))
    };
    let folds: Vec<usize> = job.pairs.pairs.iter().map(|pair| pair.fold).collect();
    let accuracy = |scores: &[Score], fixed| {
        roc::fold_accuracy(scores, &folds, job.pairs.folds, fixed).ok_or(LfwError::Degenerate)
    };
    let float_accuracy = accuracy(&scores, calibration(float_similarity)?)?;
    let coded_accuracy = accuracy(&coded, calibration(template_similarity)?)?;
    let curve = Roc::new(&scores).ok_or(LfwError::Degenerate)?;
    Ok(Report {
        at_far_1e2: curve.at_far(1e-2),
        at_far_1e3: curve.at_far(1e-3),
        val_at_far_1e3: roc::fold_val(&scores, &folds, job.pairs.folds, 1e-3),
        operating_points,
        equal_error_rate: curve.equal_error_rate(),
        templates: TemplateCost {
            accuracy_change: coded_accuracy.mean - float_accuracy.mean,
            ..template_cost(&scores, &coded)
        },
        accuracy: float_accuracy,
        pictures: count(&job.pairs, &known),
        calibration_pictures: job.calibrate.as_ref().map(|pairs| count(pairs, &known)),
        genuine_pairs: scores.iter().filter(|s| s.1).count(),
        impostor_pairs: scores.iter().filter(|s| !s.1).count(),
        folds: job.pairs.folds,
        similarities: scores.iter().map(|s| s.0).collect(),
    })
}

type Known = HashMap<Picture, Option<Embedding>>;
type Similarity = fn(&Embedding, &Embedding) -> f32;

fn float_similarity(a: &Embedding, b: &Embedding) -> f32 {
    a.similarity(b).0
}

fn template_similarity(a: &Embedding, b: &Embedding) -> f32 {
    Template::quantize(a).similarity(&Template::quantize(b)).0
}

/// Named before the long work begins, not after half of it.
pub(super) fn find_missing(images: &Path, pairs: &Pairs) -> Result<(), LfwError> {
    let mut missing = pairs
        .pairs
        .iter()
        .flat_map(|pair| [(pair, &pair.first), (pair, &pair.second)])
        .filter(|(_, picture)| !images.join(picture.path()).is_file());
    match missing.next() {
        None => Ok(()),
        Some((Pair { line, .. }, picture)) => Err(LfwError::Missing {
            path: images.join(picture.path()),
            line: *line,
            others: missing.map(|(_, picture)| picture).collect::<BTreeSet<_>>().len(),
        }),
    }
}

fn score(pairs: &Pairs, known: &Known, similarity: Similarity) -> Vec<Score> {
    let of = |picture| known.get(picture).and_then(Option::as_ref);
    pairs
        .pairs
        .iter()
        .map(|pair| match (of(&pair.first), of(&pair.second)) {
            (Some(first), Some(second)) => (similarity(first, second), pair.same()),
            _ => (NOT_FOUND, pair.same()),
        })
        .collect()
}

fn count(pairs: &Pairs, known: &Known) -> Count {
    let pictures: BTreeSet<&Picture> =
        pairs.pairs.iter().flat_map(|pair| [&pair.first, &pair.second]).collect();
    let found = pictures.iter().filter(|&&picture| known.get(picture).is_some_and(Option::is_some)).count();
    Count { total: pictures.len(), faces_not_found: pictures.len() - found }
}

fn template_cost(floats: &[Score], coded: &[Score]) -> TemplateCost {
    let differences: Vec<f64> = floats
        .iter()
        .zip(coded)
        .filter(|((float, _), _)| *float != NOT_FOUND)
        .map(|((float, _), (code, _))| f64::from((float - code).abs()))
        .collect();
    TemplateCost {
        mean: differences.iter().sum::<f64>() / differences.len().max(1) as f64,
        max: differences.iter().fold(0.0, |most, &difference| most.max(difference)),
        accuracy_change: 0.0,
    }
}

/// Why nothing was measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LfwError {
    /// A picture that a pair names is not there.
    #[error("{} does not exist (line {line} of the pairs file, and {others} other pictures)", path.display())]
    Missing {
        /// The picture.
        path: PathBuf,
        /// Line that names it.
        line: usize,
        /// How many more are missing.
        others: usize,
    },
    /// A picture cannot be decoded or measured.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// Too few pairs for any figure.
    #[error("the pairs are too few: every fold needs pairs of one person and of two")]
    Degenerate,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::pictures::testing::ColourEyes;
    use crate::progress::Silent;

    fn data_set(pictures: &[(&str, u32, [u8; 3])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (person, number, colour) in pictures {
            let picture = Picture { person: (*person).into(), number: *number };
            let path = dir.path().join(picture.path());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::from_pixel(8, 8, image::Rgb(*colour)).save(path).unwrap();
        }
        dir
    }

    fn pairs(dir: &Path, text: &str) -> Pairs {
        let path = dir.join("pairs.txt");
        std::fs::write(&path, text).unwrap();
        Pairs::read(&path).unwrap()
    }

    const PEOPLE: [(&str, u32, [u8; 3]); 5] = [
        ("Red", 1, [250, 0, 0]),
        ("Red", 2, [200, 5, 0]),
        ("Green", 1, [0, 250, 0]),
        ("Green", 2, [5, 200, 0]),
        ("Dark", 1, [0, 0, 0]),
    ];

    #[test]
    fn a_face_not_found_is_an_error_of_its_genuine_pairs() {
        let mut people = PEOPLE.to_vec();
        people.push(("Dark", 2, [0, 0, 200]));
        let dir = data_set(&people);
        let text = "2 2\nRed 1 2\nGreen 1 2\nRed 1 Green 1\nRed 2 Green 2\n\
                    Red 2 1\nDark 1 2\nRed 1 Green 2\nDark 1 Green 1\n";
        let job = Job { images: dir.path().into(), pairs: pairs(dir.path(), text), calibrate: None };
        let report = measure(&job, &mut [ColourEyes, ColourEyes], &Silent).unwrap();
        assert_eq!(report.pictures, Count { total: 6, faces_not_found: 1 });
        assert_eq!(report.similarities[5], NOT_FOUND);
        // Seven of eight pairs are told apart; the blind one is wrong, not dropped.
        assert_eq!(report.accuracy.mean, 0.875);
        assert_eq!((report.genuine_pairs, report.impostor_pairs, report.folds), (4, 4, 2));
        assert_eq!(report.at_far_1e3.tar, 0.75);
        assert!(report.templates.max < 0.01 && report.templates.mean <= report.templates.max);
    }

    #[test]
    fn a_calibration_file_sets_the_threshold() {
        let dir = data_set(&PEOPLE);
        let measured = pairs(dir.path(), "2 1\nRed 1 2\nRed 1 Green 1\nGreen 1 2\nRed 2 Green 2\n");
        let calibrate = pairs(dir.path(), "1\nGreen 1 2\nGreen 1 Red 2\n");
        let job = Job { images: dir.path().into(), pairs: measured, calibrate: Some(calibrate) };
        let report = measure(&job, &mut [ColourEyes], &Silent).unwrap();
        assert_eq!((report.accuracy.mean, report.accuracy.std), (1.0, 0.0));
        assert!((report.accuracy.threshold - 0.5).abs() < 0.1);
        assert_eq!(report.calibration_pictures, Some(Count { total: 3, faces_not_found: 0 }));
    }

    #[test]
    fn missing_and_broken_pictures_are_named() {
        let dir = data_set(&PEOPLE);
        let job = |text| Job { images: dir.path().into(), pairs: pairs(dir.path(), text), calibrate: None };
        let missing = job("1\nRed 1 7\nRed 1 Green 9\n");
        let error = measure(&missing, &mut [ColourEyes], &Silent).unwrap_err().to_string();
        assert!(
            error.contains("Red_0007.jpg") && error.contains("line 2") && error.contains("1 other"),
            "{error}"
        );
        std::fs::write(dir.path().join("Red/Red_0002.jpg"), b"\xff\xd8\xffcut").unwrap();
        let broken = job("1\nRed 1 2\nRed 1 Green 1\n");
        let error = measure(&broken, &mut [ColourEyes], &Silent).unwrap_err();
        assert!(error.to_string().contains("cannot decode") && error.to_string().contains("Red_0002.jpg"));
    }
}
