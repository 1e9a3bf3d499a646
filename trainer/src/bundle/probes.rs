//! The self-test's chips: cut from photographs by the very models of the bundle.

use std::path::{Path, PathBuf};

use facelatch_shared::align::CHIP_BYTES;
use facelatch_shared::bundle::{MAX_PROBES, Pair, ProbeChip, SelfTest};
use facelatch_shared::embedding::{Embedding, Template};
use facelatch_shared::frame::RgbView;
use facelatch_shared::score::Threshold;
use facelatch_shared::vision::Eyes;

use super::BuildError;

/// A chip and whose it is.
#[derive(Clone)]
pub struct Face {
    /// The person's folder.
    pub person: String,
    /// Packed RGB `[112, 112, 3]`.
    pub chip: Box<[u8; CHIP_BYTES]>,
    /// What the embedder makes of it.
    pub embedding: Embedding,
}

/// What became of the pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCount {
    /// Pairs of one person above the threshold: in the test.
    pub same: usize,
    /// Pairs of two people below it: in the test.
    pub different: usize,
    /// Pairs of one person below the threshold: left out, since one photograph alone opens no door.
    pub left_out: usize,
}

/// The largest face of every picture in `folder/PERSON/`, at most `per_person` each and [`MAX_PROBES`] in all.
///
/// # Errors
/// [`BuildError`] when a picture cannot be read or holds no face.
pub fn faces(folder: &Path, per_person: usize, eyes: &mut Eyes) -> Result<Vec<Face>, BuildError> {
    let mut found = Vec::new();
    for person in sorted(folder)?.into_iter().filter(|path| path.is_dir()) {
        let pictures = sorted(&person)?.into_iter().filter(|path| is_picture(path));
        for picture in pictures.take(per_person) {
            let (chip, embedding) = largest(&picture, eyes)?;
            let person = person.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Face { person, chip, embedding });
        }
    }
    found.truncate(MAX_PROBES);
    Ok(found)
}

/// The self-test of these faces at `threshold`.
///
/// # Errors
/// [`BuildError::Probes`] when two people pass for one, or when there is nothing to decide.
pub fn self_test(faces: &[Face], threshold: Threshold) -> Result<(SelfTest, PairCount), BuildError> {
    let templates: Vec<Template> = faces.iter().map(|face| Template::quantize(&face.embedding)).collect();
    let (mut pairs, mut count) = (Vec::new(), PairCount::default());
    for b in 0..faces.len() {
        for a in 0..b {
            let same = faces[a].person == faces[b].person;
            let similarity = templates[a].similarity(&templates[b]);
            match (same, threshold.accepts(similarity)) {
                (true, true) => count.same += 1,
                (false, false) => count.different += 1,
                (true, false) => {
                    count.left_out += 1;
                    continue;
                }
                (false, true) => {
                    return Err(BuildError::Probes {
                        what: format!(
                            "{} and {} are one person to this model: similarity {similarity}, threshold {threshold}",
                            faces[a].person, faces[b].person
                        ),
                    });
                }
            }
            // Faces are at most MAX_PROBES.
            pairs.push(Pair { a: a as u8, b: b as u8, same });
        }
    }
    if count.same == 0 || count.different == 0 {
        let what = "the self-test needs a pair of one person that is recognised, and two people".into();
        return Err(BuildError::Probes { what });
    }
    let probes = faces
        .iter()
        .zip(&templates)
        .map(|(face, template)| ProbeChip { chip: face.chip.to_vec(), codes: template.codes().to_vec() })
        .collect();
    Ok((SelfTest { probes, pairs, min_cosine: MIN_COSINE }, count))
}

/// The largest face of one picture.
///
/// # Errors
/// [`BuildError::Picture`], [`BuildError::NoFace`], [`BuildError::Vision`].
pub fn largest(path: &Path, eyes: &mut Eyes) -> Result<(Box<[u8; CHIP_BYTES]>, Embedding), BuildError> {
    let unreadable = |what: String| BuildError::Picture { path: path.into(), what };
    let picture = image::open(path).map_err(|e| unreadable(e.to_string()))?.into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let view = RgbView::new(picture.as_raw(), width, height).map_err(|e| unreadable(e.to_string()))?;
    let faces = eyes.find(&view)?;
    let largest = faces
        .iter()
        .max_by(|a, b| a.landmarks.eye_distance_px().total_cmp(&b.landmarks.eye_distance_px()))
        .ok_or_else(|| BuildError::NoFace { path: path.into() })?;
    let embedding = eyes.embed_at(&view, &largest.landmarks)?;
    Ok((Box::new(*eyes.last_chip()), embedding))
}

/// Whether the file's name says that it is a picture.
#[must_use]
pub fn is_picture(path: &Path) -> bool {
    let kind = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    matches!(kind.as_deref(), Some("jpg" | "jpeg" | "png" | "webp"))
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let failed = |source| BuildError::Read { path: folder.into(), source };
    let mut paths = std::fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// Between processors, float32 sums differ in the last bits; a template's rounding makes that 0.001 at most.
const MIN_COSINE: f32 = 0.99;
