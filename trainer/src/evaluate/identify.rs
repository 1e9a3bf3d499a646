//! Open-set identification: is this one of the N people enrolled, and which? With the door's own gallery and int8 templates.
//!
//! People are halved by a hash of their names. In each half N people with enough pictures are enrolled with a few pictures each; their other
//! pictures must be recognised, everybody else's must not. The threshold for a false-positive identification rate (FPIR) is chosen on one half's
//! strangers and applied to the other half, whose detection-and-identification rate (DIR) is reported (Phillips et al. 2011; ISO/IEC
//! 19795-1 calls 1 − DIR the FNIR).

use std::path::{Path, PathBuf};

use facelatch_shared::embedding::{ModelBinding, Template};
use facelatch_shared::gallery::Gallery;
use facelatch_shared::person::SubjectId;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::interval::{Interval, below, wilson};
use super::pictures::{self, Eyes, PictureError};
use crate::progress::Progress;

/// What to measure on.
#[derive(Clone, Debug)]
pub struct Job {
    /// Folder with one sub-folder of pictures a person.
    pub images: PathBuf,
    /// People enrolled in each half.
    pub gallery: usize,
    /// Pictures each is enrolled with.
    pub templates: usize,
    /// Rates to choose thresholds for, 0 to 1.
    pub fpirs: Vec<f64>,
    /// Seed of who is enrolled.
    pub seed: u64,
}

/// What came out, on the half that chose nothing.
#[derive(Clone, Debug)]
pub struct Report {
    /// People enrolled.
    pub gallery: usize,
    /// Templates of each.
    pub templates: usize,
    /// Pictures of enrolled people, not enrolled themselves.
    pub known_probes: usize,
    /// Pictures of strangers.
    pub stranger_probes: usize,
    /// Strangers' pictures in the half that chose the thresholds.
    pub calibration_strangers: usize,
    /// Pictures without a face; a known person's counts as missed, a stranger's as refused.
    pub faces_not_found: usize,
    /// Share of known probes whose nearest person is the right one, at no threshold.
    pub rank_one: f64,
    /// One a rate asked for.
    pub points: Vec<Point>,
}

/// Rates at one threshold. Intervals are 95 %, Wilson's, and take pictures as independent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The rate that the threshold was chosen for.
    pub asked: f64,
    /// The least similarity accepted.
    pub threshold: f32,
    /// Strangers' pictures taken for somebody.
    pub fpir: f64,
    /// Its interval.
    pub fpir_interval: Interval,
    /// Known people's pictures recognised as the right person.
    pub dir: f64,
    /// Its interval.
    pub dir_interval: Interval,
}

/// Measures `job` with as many threads as there are `eyes`.
///
/// # Errors
/// [`IdentifyError`].
pub fn measure<E: Eyes + Send>(
    job: &Job,
    eyes: &mut [E],
    progress: &dyn Progress,
) -> Result<Report, IdentifyError> {
    let people = people(&job.images)?;
    let mut halves = [Vec::new(), Vec::new()];
    for person in people {
        halves[usize::from(second_half(&person.0))].push(person);
    }
    let halves = halves.map(|people| Half::choose(people, job));
    let [calibration, measured] = halves;
    let (calibration, measured) = (calibration?, measured?);
    let files: Vec<PathBuf> = calibration.files().chain(measured.files()).cloned().collect();
    let seen = pictures::embed_files(&files, eyes, progress)?;
    let templates: Vec<Option<Template>> =
        seen.iter().map(|s| s.map(|s| Template::quantize(&s.embedding))).collect();
    let (first, second) = templates.split_at(calibration.files().count());
    let (calibration, measured) = (calibration.search(first, job)?, measured.search(second, job)?);

    let mut strangers = calibration.strangers.clone();
    strangers.sort_unstable_by(|a, b| b.total_cmp(a));
    let point = |&asked: &f64| {
        let allowed = (asked * strangers.len() as f64).floor() as usize;
        let threshold = strangers.get(allowed).map_or(f32::NEG_INFINITY, |s| s.next_up());
        let taken = measured.strangers.iter().filter(|&&s| s >= threshold).count();
        let right = measured.known.iter().filter(|(s, right)| *right && *s >= threshold).count();
        Point {
            asked,
            threshold,
            fpir: share(taken, measured.strangers.len()),
            fpir_interval: wilson(taken, measured.strangers.len()),
            dir: share(right, measured.known.len()),
            dir_interval: wilson(right, measured.known.len()),
        }
    };
    Ok(Report {
        gallery: job.gallery,
        templates: job.templates,
        known_probes: measured.known.len(),
        stranger_probes: measured.strangers.len(),
        calibration_strangers: strangers.len(),
        faces_not_found: second.iter().filter(|t| t.is_none()).count(),
        rank_one: share(measured.known.iter().filter(|k| k.1).count(), measured.known.len()),
        points: job.fpirs.iter().map(point).collect(),
    })
}

type Person = (String, Vec<PathBuf>);

/// Sub-folders with at least one picture, by name; pictures by name.
fn people(images: &Path) -> Result<Vec<Person>, IdentifyError> {
    let unreadable = |source| IdentifyError::Folder { path: images.into(), source };
    let mut people = Vec::new();
    for entry in std::fs::read_dir(images).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            let mut files = pictures_in(&path).map_err(unreadable)?;
            files.sort();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            people.push((name, files));
        }
    }
    people.retain(|person| !person.1.is_empty());
    people.sort();
    Ok(people)
}

/// The .jpg, .jpeg, .png and .webp files directly in `folder`, in no order.
pub(crate) fn pictures_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        if matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png" | "webp")) && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn second_half(name: &str) -> bool {
    Sha256::digest(name)[0] & 1 == 1
}

fn share(part: usize, of: usize) -> f64 {
    part as f64 / of.max(1) as f64
}

/// One half: who is enrolled, and everybody else.
struct Half {
    enrolled: Vec<Person>,
    strangers: Vec<Person>,
}

/// Scores of one half.
struct Searched {
    /// Best similarity of each picture of an enrolled person, and whether it is that person's. −1 without a face.
    known: Vec<(f32, bool)>,
    /// Best similarity of each stranger's picture. −1 without a face.
    strangers: Vec<f32>,
}

impl Half {
    fn choose(mut people: Vec<Person>, job: &Job) -> Result<Self, IdentifyError> {
        let mut state = job.seed;
        for i in (1..people.len()).rev() {
            people.swap(i, below(&mut state, i + 1));
        }
        let able = |person: &Person| person.1.len() > job.templates;
        let most = people.iter().filter(|p| able(p)).count();
        if most < job.gallery {
            return Err(IdentifyError::TooFewPeople { asked: job.gallery, most, templates: job.templates });
        }
        let (mut enrolled, mut strangers) = (Vec::new(), Vec::new());
        for person in people {
            if able(&person) && enrolled.len() < job.gallery {
                enrolled.push(person);
            } else {
                strangers.push(person);
            }
        }
        if strangers.is_empty() {
            return Err(IdentifyError::NoStrangers { people: enrolled.len() });
        }
        Ok(Self { enrolled, strangers })
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.enrolled.iter().chain(&self.strangers).flat_map(|person| &person.1)
    }

    /// `templates` in the order of [`Self::files`].
    fn search(&self, templates: &[Option<Template>], job: &Job) -> Result<Searched, IdentifyError> {
        // All templates are of the one embedder at hand.
        let binding = ModelBinding([0; 16]);
        let mut gallery = Gallery::default();
        let mut searched = Searched { known: Vec::new(), strangers: Vec::new() };
        let mut probes = Vec::new();
        let mut at = 0;
        for (number, person) in self.enrolled.iter().enumerate() {
            let (own, subject) = (&templates[at..at + person.1.len()], SubjectId(number as u32));
            at += person.1.len();
            // Pictures without a face are no good for enrolment, as at the door; the person is tried with the next.
            let usable: Vec<usize> =
                (0..own.len()).filter(|&i| own[i].is_some()).take(job.templates).collect();
            for template in usable.iter().filter_map(|&i| own[i].as_ref()) {
                gallery.insert(subject, binding, template);
            }
            probes.extend((0..own.len()).filter(|i| !usable.contains(i)).map(|i| (subject, &own[i])));
        }
        let best = |probe: &Option<Template>| -> Result<(f32, Option<SubjectId>), IdentifyError> {
            let Some(probe) = probe else { return Ok((super::lfw::NOT_FOUND, None)) };
            let found = gallery.identify(probe, binding).map_err(|_| IdentifyError::EmptyGallery)?.best;
            let found = found.ok_or(IdentifyError::EmptyGallery)?;
            Ok((found.similarity.0, Some(found.subject)))
        };
        for (subject, probe) in probes {
            let (similarity, found) = best(probe)?;
            searched.known.push((similarity, found == Some(subject)));
        }
        for probe in &templates[at..] {
            searched.strangers.push(best(probe)?.0);
        }
        Ok(searched)
    }
}

/// Why nothing was measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentifyError {
    /// The folder cannot be listed.
    #[error("cannot list {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not enough people with enough pictures in one of the halves.
    #[error(
        "a gallery of {asked} with {templates} templates each needs as many people with more than {templates} pictures in each half; one half has {most}"
    )]
    TooFewPeople {
        /// People asked for.
        asked: usize,
        /// People there are.
        most: usize,
        /// Templates of each.
        templates: usize,
    },
    /// Everybody is enrolled.
    #[error("all {people} people of one half would be enrolled: there is no stranger to refuse")]
    NoStrangers {
        /// People.
        people: usize,
    },
    /// No face of an enrolled person was found.
    #[error("no face was found in any picture to enrol")]
    EmptyGallery,
    /// A picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::pictures::testing::ColourEyes;
    use crate::progress::Silent;

    /// `count` people with three pictures each, of hues that are apart within a half.
    fn folder(count: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for person in 0..count {
            let folder = dir.path().join(format!("p{person:02}"));
            std::fs::create_dir_all(&folder).unwrap();
            for picture in 0..3_u32 {
                let angle = std::f32::consts::FRAC_PI_2 * person as f32 / count as f32;
                let colour = [(angle.cos() * 240.0) as u8, (angle.sin() * 240.0) as u8, 20 + picture as u8];
                image::RgbImage::from_pixel(8, 8, image::Rgb(colour))
                    .save(folder.join(format!("{picture}.png")))
                    .unwrap();
            }
        }
        dir
    }

    fn job(dir: &Path) -> Job {
        Job { images: dir.into(), gallery: 3, templates: 2, fpirs: vec![0.1, 1.0], seed: 1 }
    }

    #[test]
    fn strangers_set_the_threshold_in_one_half_and_people_are_found_in_the_other() {
        let dir = folder(24);
        let report = measure(&job(dir.path()), &mut [ColourEyes, ColourEyes], &Silent).unwrap();
        assert_eq!((report.gallery, report.known_probes, report.rank_one), (3, 3, 1.0));
        assert_eq!(report.known_probes + 6 + report.stranger_probes + 9 + report.calibration_strangers, 72);
        let [strict, open] = report.points[..] else { panic!() };
        assert!(strict.threshold > 0.9 && open.threshold == f32::NEG_INFINITY);
        assert_eq!((open.fpir, open.dir), (1.0, 1.0));
        assert!(strict.fpir < 1.0 && strict.dir_interval.high == 1.0);
    }

    #[test]
    fn a_known_face_that_is_not_found_is_missed_and_a_strangers_is_refused() {
        let dir = folder(24);
        for person in 0..24 {
            image::RgbImage::new(8, 8).save(dir.path().join(format!("p{person:02}/2.png"))).unwrap();
        }
        let report = measure(&job(dir.path()), &mut [ColourEyes], &Silent).unwrap();
        let open = report.points[1];
        assert_eq!((report.rank_one, open.dir), (0.0, 0.0));
        // With no threshold at all even −1 passes; at any real one it does not.
        assert!(report.points[0].fpir <= 2.0 / 3.0 && report.faces_not_found > 3);
    }

    #[test]
    fn a_gallery_too_large_says_how_large_it_can_be() {
        let dir = folder(6);
        let error = measure(&Job { gallery: 60, ..job(dir.path()) }, &mut [ColourEyes], &Silent).unwrap_err();
        assert!(error.to_string().contains("a gallery of 60") && error.to_string().contains("one half has"));
    }
}
