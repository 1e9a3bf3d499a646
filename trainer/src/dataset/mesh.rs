//! The 68 points that the face mesh teacher gives for each face, as `trainer/tools/mesh_teacher.py` writes them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Points on a face: the usual 68.
pub const POINTS: usize = 68;

/// Labels by the name of the face.
#[derive(Debug, Clone, Default)]
pub struct MeshLabels {
    rows: HashMap<String, usize>,
    points: Vec<f32>,
    score: Vec<f32>,
    spread: Vec<f32>,
}

/// One labelled face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeshLabel {
    /// x, y in pixels of the picture the face lies in.
    pub points: [[f32; 2]; POINTS],
    /// The teacher's confidence that this is a face, 0 to 1.
    pub score: f32,
    /// Mean distance between two looks over the distance of the outer eye corners.
    pub spread: f32,
}

impl MeshLabels {
    /// Reads `NAME.safetensors` and `NAME.paths`.
    ///
    /// # Errors
    /// [`MeshError`] naming the file and what does not fit.
    pub fn read(path: &Path) -> Result<Self, MeshError> {
        let fail = |reason: String| MeshError { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        let names = std::fs::read_to_string(path.with_extension("paths"))
            .map_err(|e| fail(format!("the list of faces beside it (.paths): {e}")))?;
        let rows: HashMap<String, usize> =
            names.lines().zip(0..).map(|(name, row)| (name.to_owned(), row)).collect();
        let take = |name: &str, width: usize| -> Result<Vec<f32>, MeshError> {
            let values = tensor(&bytes, name).map_err(&fail)?;
            if values.len() == rows.len() * width {
                Ok(values)
            } else {
                Err(fail(format!("'{name}' has {} numbers for {} faces", values.len(), rows.len())))
            }
        };
        let (points, score, spread) = (take("points", POINTS * 3)?, take("score", 1)?, take("spread", 1)?);
        if !points.iter().all(|v| v.is_finite()) {
            return Err(fail("it holds points that are not finite".into()));
        }
        Ok(Self { rows, points, score, spread })
    }

    /// The label of the face called `name`, if the teacher has seen it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<MeshLabel> {
        let row = *self.rows.get(name)?;
        let (score, spread) = (self.score[row], self.spread[row]);
        let values = &self.points[row * POINTS * 3..][..POINTS * 3];
        let points = std::array::from_fn(|k| [values[k * 3], values[k * 3 + 1]]);
        (score > 0.0).then_some(MeshLabel { points, score, spread })
    }

    /// Faces in the file, seen or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl MeshLabel {
    /// Distance of the outer eye corners, the unit of the normalised mean error.
    #[must_use]
    pub fn eye_span_px(&self) -> f32 {
        let ([ax, ay], [bx, by]) = (self.points[36], self.points[45]);
        (ax - bx).hypot(ay - by)
    }
}

/// The f32 tensor `name` of a safetensors file: eight bytes of length, a JSON header, the data.
fn tensor(bytes: &[u8], name: &str) -> Result<Vec<f32>, String> {
    let cut = "it is cut short";
    let length = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b) as usize).ok_or(cut)?;
    let body = bytes.get(8..).ok_or(cut)?;
    let header = body.get(..length).ok_or(cut)?;
    let header: serde_json::Value = serde_json::from_slice(header).map_err(|e| format!("its header: {e}"))?;
    let entry = header.get(name).ok_or_else(|| format!("it has no tensor '{name}'"))?;
    if entry["dtype"] != "F32" {
        return Err(format!("'{name}' is {} instead of F32", entry["dtype"]));
    }
    let offset = |i: usize| entry["data_offsets"][i].as_u64().map(|v| v as usize).ok_or(cut);
    let data = body.get(length..).and_then(|data| data.get(offset(0).ok()?..offset(1).ok()?)).ok_or(cut)?;
    Ok(data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// Labels that cannot be used.
#[derive(Debug, Error)]
#[error("mesh labels {}: {reason}", path.display())]
pub struct MeshError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// For each of the 68 points, the one it becomes in a mirror.
pub const MIRROR: [usize; POINTS] = [
    16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 27, 28,
    29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48,
    59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one labelled face and one that was not seen.
    fn written(dir: &Path) -> PathBuf {
        let path = dir.join("m.safetensors");
        let (points, scores): (Vec<f32>, [f32; 4]) =
            ((0..2 * 204).map(|i| i as f32).collect(), [0.9, 0.0, 0.01, 0.0]);
        let header = r#"{"points":{"dtype":"F32","shape":[2,68,3],"data_offsets":[0,1632]},"score":{"dtype":"F32","shape":[2],"data_offsets":[1632,1640]},"spread":{"dtype":"F32","shape":[2],"data_offsets":[1640,1648]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(points.iter().chain(&scores).flat_map(|v| v.to_le_bytes()));
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(path.with_extension("paths"), "a.tar/x\na.tar/y\n").unwrap();
        path
    }

    #[test]
    fn labels_are_found_by_name_and_unseen_faces_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let labels = MeshLabels::read(&written(dir.path())).unwrap();
        let label = labels.get("a.tar/x").unwrap();
        assert_eq!((label.points[0], label.points[67], label.score), ([0.0, 1.0], [201.0, 202.0], 0.9));
        assert!(labels.get("a.tar/y").is_none() && labels.get("a.tar/z").is_none());
        assert_eq!(labels.len(), 2);
    }

    #[test]
    fn every_truncation_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let bytes = std::fs::read(&path).unwrap();
        for length in (0..bytes.len()).step_by(97) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(MeshLabels::read(&path).unwrap_err().to_string().contains("m.safetensors"));
        }
    }

    #[test]
    fn a_mirror_of_a_mirror_is_the_same() {
        for (k, &m) in MIRROR.iter().enumerate() {
            assert_eq!(MIRROR[m], k);
        }
        assert_eq!((MIRROR[8], MIRROR[30], MIRROR[51], MIRROR[36]), (8, 30, 51, 45));
    }
}
