//! Verification of face tracks by the protocol of YouTube Faces (Wolf et al. 2011): ten folds of pairs of videos from a splits file.
//!
//! Two ways to make one similarity of two tracks. `Pairs` is FaceNet's (section 5.7): the mean similarity of all pairs of the first
//! 100 frames in which the detector finds a face; for vectors of length one that is the product of the two mean vectors, so no list of pairs is
//! made. `Pool` is VGG-Face's (section 5.1): one unit vector a track, the mean of its best K frames, compared by cosine; best is most certainly
//! detected here.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use facelatch_shared::embedding::{DIM, Embedding};
use thiserror::Error;

use super::lfw::NOT_FOUND;
use super::pictures::{self, Eyes, PictureError, Seen};
use super::roc::{self, FoldAccuracy, FoldRate, Roc, Score};
use crate::progress::Progress;

/// Two videos to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoPair {
    /// `Name/number`, a folder below the frames.
    pub first: String,
    /// The other.
    pub second: String,
    /// Whether they show one person.
    pub same: bool,
    /// From 0.
    pub fold: usize,
    /// Line in the file, from 1.
    pub line: usize,
}

/// A splits file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits {
    /// In the order of the file.
    pub pairs: Vec<VideoPair>,
    /// How many folds there are.
    pub folds: usize,
}

/// How a pair of tracks becomes one similarity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compare {
    /// Mean similarity of all pairs of frames (FaceNet)
    Pairs,
    /// Cosine of the tracks' pooled vectors (VGG-Face)
    Pool,
}

/// What to measure on.
#[derive(Clone, Debug)]
pub struct Job {
    /// Folder with `Name/number/*.jpg`.
    pub frames: PathBuf,
    /// The pairs measured.
    pub splits: Splits,
    /// How tracks are compared.
    pub compare: Compare,
    /// Frames of each track: the first that show a face, or for pooling the best of all that do. At least 1.
    pub most_frames: usize,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Report {
    /// Accuracy over the folds, thresholds from the other folds.
    pub accuracy: FoldAccuracy,
    /// VAL at a false-accept rate of 1e-3.
    pub val_at_far_1e3: Option<FoldRate>,
    /// Equal error rate, 0 to 1.
    pub equal_error_rate: f64,
    /// Tracks, and those without any face.
    pub tracks: usize,
    /// Tracks without any face: their pairs score −1.
    pub blind_tracks: usize,
    /// Frames decoded.
    pub frames_read: usize,
    /// Frames of them with a face.
    pub frames_used: usize,
    /// Pairs of one person.
    pub genuine_pairs: usize,
    /// Pairs of two people.
    pub impostor_pairs: usize,
    /// Folds.
    pub folds: usize,
    /// Similarity of every pair, in the order of the file.
    pub similarities: Vec<f32>,
}

impl Splits {
    /// Reads a splits file: `fold, first, second, same` a line, with or without a line of headings.
    ///
    /// # Errors
    /// [`SplitsError`], naming file and line.
    pub fn read(path: &Path) -> Result<Self, SplitsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SplitsError::Unreadable { path: path.into(), source })?;
        Self::parse(&text).map_err(|(line, reason)| SplitsError::Line { path: path.into(), line, reason })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut pairs = Vec::new();
        for (line, content) in text.lines().enumerate().map(|(i, content)| (i + 1, content)) {
            let fields: Vec<&str> = content.split(',').map(str::trim).collect();
            let heading = line == 1 && fields[0].parse::<usize>().is_err();
            if heading || content.trim().is_empty() {
                continue;
            }
            let [fold, first, second, same] = fields[..] else {
                return Err((line, format!("{} fields; `fold, first, second, same` is due", fields.len())));
            };
            let fold = fold.parse().ok().filter(|f| (1..=MAX_FOLDS).contains(f));
            let fold: usize = fold.ok_or((line, format!("'{}' is no fold, from 1", fields[0])))?;
            let same = match same {
                "1" => true,
                "0" => false,
                _ => return Err((line, format!("'{same}' must be 1 (one person) or 0 (two)"))),
            };
            for video in [first, second] {
                let parts: Vec<&str> = video.split('/').collect();
                if parts.len() != 2 || parts.iter().any(|part| part.is_empty() || part.starts_with('.')) {
                    return Err((line, format!("'{video}' is no video; `Name/number` is due")));
                }
            }
            if same != (person(first) == person(second)) {
                let is = if same { "one person" } else { "two people" };
                return Err((line, format!("{first} and {second} cannot be of {is}")));
            }
            pairs.push(VideoPair { first: first.into(), second: second.into(), same, fold: fold - 1, line });
        }
        let folds = pairs.iter().map(|pair| pair.fold + 1).max().ok_or((1, "it lists no pairs".into()))?;
        Ok(Self { pairs, folds })
    }
}

/// The person of a video's name.
#[must_use]
pub fn person(video: &str) -> &str {
    video.split('/').next().unwrap_or(video)
}

/// Measures `job` with as many threads as there are `eyes`.
///
/// # Errors
/// [`YtfError`].
pub fn measure<E: Eyes + Send>(
    job: &Job,
    eyes: &mut [E],
    progress: &dyn Progress,
) -> Result<Report, YtfError> {
    let videos: Vec<&str> = job
        .splits
        .pairs
        .iter()
        .flat_map(|pair| [pair.first.as_str(), pair.second.as_str()])
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut files = Vec::new();
    let mut owner = Vec::new();
    for (at, video) in videos.iter().enumerate() {
        for frame in frames(&job.frames.join(video), job)? {
            files.push(frame);
            owner.push(at);
        }
    }
    let seen = pictures::embed_files(&files, eyes, progress)?;
    let mut tracks: Vec<Vec<Seen>> = vec![Vec::new(); videos.len()];
    for (&at, seen) in owner.iter().zip(&seen) {
        tracks[at].extend(seen);
    }
    let vectors: HashMap<&str, Option<[f32; DIM]>> =
        videos.iter().zip(&mut tracks).map(|(&video, track)| (video, summary(track, job))).collect();
    let scores: Vec<Score> = job
        .splits
        .pairs
        .iter()
        .map(|pair| {
            let of = |video: &String| vectors.get(video.as_str()).copied().flatten();
            let similarity = match (of(&pair.first), of(&pair.second)) {
                (Some(a), Some(b)) => a.iter().zip(&b).map(|(a, b)| a * b).sum(),
                _ => NOT_FOUND,
            };
            (similarity, pair.same)
        })
        .collect();
    let folds: Vec<usize> = job.splits.pairs.iter().map(|pair| pair.fold).collect();
    let count = job.splits.folds;
    Ok(Report {
        accuracy: roc::fold_accuracy(&scores, &folds, count, None).ok_or(YtfError::Degenerate)?,
        val_at_far_1e3: roc::fold_val(&scores, &folds, count, 1e-3),
        equal_error_rate: Roc::new(&scores).ok_or(YtfError::Degenerate)?.equal_error_rate(),
        tracks: videos.len(),
        blind_tracks: vectors.values().filter(|vector| vector.is_none()).count(),
        frames_read: files.len(),
        frames_used: seen.iter().flatten().count(),
        genuine_pairs: scores.iter().filter(|s| s.1).count(),
        impostor_pairs: scores.iter().filter(|s| !s.1).count(),
        folds: count,
        similarities: scores.iter().map(|s| s.0).collect(),
    })
}

/// The frames of a video in the order of their numbers. For `Pairs` as many as could be needed: three times as many as are used, so that
/// frames without a face can be passed over.
fn frames(folder: &Path, job: &Job) -> Result<Vec<PathBuf>, YtfError> {
    let line = || {
        let video = folder.strip_prefix(&job.frames).map(|v| v.to_string_lossy().into_owned());
        let video = video.unwrap_or_default();
        job.splits.pairs.iter().find(|p| p.first == video || p.second == video).map_or(0, |p| p.line)
    };
    let missing = |reason: String| YtfError::Video { folder: folder.into(), line: line(), reason };
    let entries = std::fs::read_dir(folder).map_err(|e| missing(e.to_string()))?;
    let mut frames: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "jpg" || e == "png"))
        .map(|path| (last_number(&path), path))
        .collect();
    if frames.is_empty() {
        return Err(missing("it holds no .jpg or .png".into()));
    }
    frames.sort();
    let limit = if job.compare == Compare::Pairs { job.most_frames.saturating_mul(3) } else { usize::MAX };
    Ok(frames.into_iter().take(limit).map(|(_, path)| path).collect())
}

/// The last number in a file's name: `2.1234.jpg` and `aligned_detect_2.1234.jpg` are frame 1234.
fn last_number(path: &Path) -> u64 {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let digits: Vec<&str> = stem.split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty()).collect();
    digits.last().and_then(|d| d.parse().ok()).unwrap_or(0)
}

/// What a track is compared by; `None` without a face.
fn summary(track: &mut Vec<Seen>, job: &Job) -> Option<[f32; DIM]> {
    if job.compare == Compare::Pool {
        // Stable, so that of equally certain frames the earlier count.
        track.sort_by(|a, b| b.detection.score.total_cmp(&a.detection.score));
    }
    track.truncate(job.most_frames);
    let mut mean = [0.0_f64; DIM];
    for seen in track.iter() {
        mean.iter_mut().zip(seen.embedding.values()).for_each(|(m, &v)| *m += f64::from(v));
    }
    let mean = mean.map(|m| (m / track.len().max(1) as f64) as f32);
    match job.compare {
        _ if track.is_empty() => None,
        Compare::Pairs => Some(mean),
        // The door's own normalisation; frames that cancel out leave nothing to compare.
        Compare::Pool => Embedding::from_raw(&mean).ok().map(|unit| *unit.values()),
    }
}

/// Why a splits file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SplitsError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{} line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is there and what is due.
        reason: String,
    },
}

/// Why nothing was measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum YtfError {
    /// A video that a pair names is not there.
    #[error("{} (line {line} of the splits file): {reason}", folder.display())]
    Video {
        /// Its folder.
        folder: PathBuf,
        /// Line that names it.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A frame.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// Too few pairs for any figure.
    #[error("the pairs are too few: every fold needs pairs of one person and of two")]
    Degenerate,
}

const MAX_FOLDS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::pictures::testing::ColourEyes;
    use crate::progress::Silent;

    #[test]
    fn splits_are_read_with_and_without_headings() {
        let body = "1, Ann/0, Ann/3, 1\n2, Ann/0, Bob/1, 0\n\n";
        let plain = Splits::parse(body).unwrap();
        let headed =
            Splits::parse(&format!("split number, first name, second name, is same\n{body}")).unwrap();
        assert_eq!((plain.folds, plain.pairs.len()), (2, 2));
        assert_eq!(
            plain.pairs[1],
            VideoPair { first: "Ann/0".into(), second: "Bob/1".into(), same: false, fold: 1, line: 2 }
        );
        assert_eq!(headed.pairs[1].line, 3);
    }

    #[test]
    fn wrong_lines_are_numbered() {
        for (text, line, part) in [
            ("", 1, "no pairs"),
            ("1, Ann/0, Ann/1\n", 1, "3 fields"),
            ("1, Ann/0, Ann/1, 1\n0, Ann/0, Bob/1, 0\n", 2, "'0' is no fold"),
            ("1, Ann/0, Ann/1, yes\n", 1, "'yes'"),
            ("1, Ann, Ann/1, 1\n", 1, "'Ann' is no video"),
            ("1, ../x, Ann/1, 0\n", 1, "'../x' is no video"),
            ("1, Ann/0, Bob/1, 1\n", 1, "cannot be of one person"),
        ] {
            let (at, why) = Splits::parse(text).unwrap_err();
            assert!(at == line && why.contains(part), "{text:?}: {at} {why}");
        }
    }

    /// Videos of flat colours; black frames hold no face.
    fn videos(videos: &[(&str, &[[u8; 3]])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (video, frames) in videos {
            std::fs::create_dir_all(dir.path().join(video)).unwrap();
            for (i, colour) in frames.iter().enumerate() {
                let path = dir.path().join(video).join(format!("0.{}.png", i + 9));
                image::RgbImage::from_pixel(8, 8, image::Rgb(*colour)).save(path).unwrap();
            }
        }
        dir
    }

    const RED: [u8; 3] = [250, 0, 0];
    const GREEN: [u8; 3] = [0, 250, 0];
    const BLACK: [u8; 3] = [0; 3];

    fn job(dir: &Path, compare: Compare, most_frames: usize) -> Job {
        let text = "1, A/0, A/1, 1\n1, A/0, B/0, 0\n2, B/0, B/1, 1\n2, A/1, B/1, 0\n";
        Job { frames: dir.into(), splits: Splits::parse(text).unwrap(), compare, most_frames }
    }

    #[test]
    fn frames_are_averaged_and_blind_tracks_are_counted_as_errors() {
        let dir = videos(&[
            ("A/0", &[RED, BLACK, RED]),
            ("A/1", &[BLACK, RED, GREEN]),
            ("B/0", &[GREEN; 3]),
            ("B/1", &[BLACK; 2]),
        ]);
        let report = measure(&job(dir.path(), Compare::Pairs, 100), &mut [ColourEyes], &Silent).unwrap();
        // A/1 is half red, half green: mean similarity to red 0.5; pooled it is 45° away.
        assert!((report.similarities[0] - 0.5).abs() < 1e-6);
        assert_eq!(report.similarities[2], NOT_FOUND);
        assert_eq!(
            (report.tracks, report.blind_tracks, report.frames_read, report.frames_used),
            (4, 1, 11, 7)
        );
        let pooled = measure(&job(dir.path(), Compare::Pool, 100), &mut [ColourEyes], &Silent).unwrap();
        assert!((pooled.similarities[0] - 0.5_f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn the_mean_of_all_pairs_is_the_product_of_the_means() {
        let (a, b) = ([RED, [200, 100, 0], [90, 90, 90]], [GREEN, [10, 60, 240]]);
        let dir = videos(&[("A/0", &a), ("A/1", &[RED]), ("B/0", &b), ("B/1", &[GREEN])]);
        let report = measure(&job(dir.path(), Compare::Pairs, 100), &mut [ColourEyes], &Silent).unwrap();
        let unit = |c: [u8; 3]| {
            let c = c.map(f64::from);
            let length = c.iter().map(|v| v * v).sum::<f64>().sqrt();
            c.map(|v| v / length)
        };
        let mut sum = 0.0;
        for x in a {
            for y in b {
                sum += unit(x).iter().zip(unit(y)).map(|(x, y)| x * y).sum::<f64>();
            }
        }
        assert!((f64::from(report.similarities[1]) - sum / 6.0).abs() < 1e-6);
    }

    #[test]
    fn only_the_first_frames_count_in_the_order_of_their_numbers() {
        // Numbers 9, 10, 11: by name 10 and 11 would come first.
        let dir =
            videos(&[("A/0", &[RED, GREEN, GREEN]), ("A/1", &[RED]), ("B/0", &[GREEN]), ("B/1", &[GREEN])]);
        let report = measure(&job(dir.path(), Compare::Pairs, 1), &mut [ColourEyes], &Silent).unwrap();
        assert!((report.similarities[0] - 1.0).abs() < 1e-6 && report.accuracy.mean == 1.0);
    }

    #[test]
    fn a_missing_video_is_named_with_its_line() {
        let dir = videos(&[("A/0", &[RED]), ("A/1", &[RED]), ("B/0", &[GREEN])]);
        let error = measure(&job(dir.path(), Compare::Pool, 9), &mut [ColourEyes], &Silent).unwrap_err();
        assert!(error.to_string().contains("B/1") && error.to_string().contains("line 3"), "{error}");
    }
}
