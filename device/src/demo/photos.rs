//! Photographs for the demonstration: loaded, with the faces that the door's own detector finds in them.

use std::path::{Path, PathBuf};

use facelatch_shared::detection::{Detection, Faces};
use facelatch_shared::frame::{FrameError, RgbView};
use facelatch_shared::vision::{Eyes, VisionError};
use thiserror::Error;

use super::turned::turned;
use crate::camera::scene::{Picture, Scene};

/// A photograph and its faces, largest first.
#[derive(Debug)]
pub struct Photo {
    picture: Picture,
    faces: Vec<Detection>,
    path: PathBuf,
}

impl Photo {
    /// Loads `path` without looking for faces.
    ///
    /// # Errors
    /// [`PhotoError`] when it cannot be read or is no picture.
    pub fn open(path: &Path) -> Result<Self, PhotoError> {
        let shown = || path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| PhotoError::Read { path: shown(), source })?;
        let rgb = image::load_from_memory(&bytes)
            .map_err(|error| PhotoError::Decode { path: shown(), what: error.to_string() })?
            .to_rgb8();
        let (width_px, height_px) = (rgb.width() as usize, rgb.height() as usize);
        let picture = Picture::new(rgb.into_raw(), width_px, height_px)
            .map_err(|source| PhotoError::Size { path: shown(), source })?;
        Ok(Self { picture, faces: Vec::new(), path: path.to_owned() })
    }

    /// Loads `path` and looks for faces in it.
    ///
    /// # Errors
    /// [`PhotoError`] when it cannot be read, is no picture, or shows no face.
    pub fn load(path: &Path, eyes: &mut Eyes) -> Result<Self, PhotoError> {
        let mut photo = Self::open(path)?;
        let shown = || path.display().to_string();
        let found: Faces = eyes
            .find(&photo.picture.view())
            .map_err(|source| PhotoError::Vision { path: shown(), source: Box::new(source) })?;
        photo.faces = found.into_iter().collect();
        photo.faces.sort_by(|a, b| b.bbox.area_px2().total_cmp(&a.bbox.area_px2()));
        if photo.faces.is_empty() {
            return Err(PhotoError::NoFace { path: shown() });
        }
        Ok(photo)
    }

    /// The same with the largest face's head turned by `yaw_deg` to the viewer's right and `pitch_deg` upwards.
    ///
    /// # Errors
    /// [`PhotoError::NoFace`] when its landmarks make no face.
    pub fn turned(&self, yaw_deg: f32, pitch_deg: f32) -> Result<Self, PhotoError> {
        let picture = self
            .faces
            .first()
            .and_then(|face| turned(&self.picture.view(), &face.landmarks, yaw_deg, pitch_deg))
            .ok_or_else(|| PhotoError::NoFace { path: self.path.display().to_string() })?;
        Ok(Self { picture, faces: self.faces.clone(), path: self.path.clone() })
    }

    /// Its pixels.
    #[must_use]
    pub fn view(&self) -> RgbView<'_> {
        self.picture.view()
    }

    /// Where it came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The person of face number `face` (0 is the largest) before the door: the face `height` of the picture's height, centred at `across` of
    /// its width. What else the photograph shows comes along.
    #[must_use]
    pub fn at_the_door(&self, face: usize, height: f32, across: f32) -> Scene {
        self.beside(Scene::blank(), face, height, across)
    }

    /// The same, added to `scene`.
    #[must_use]
    pub fn beside(&self, scene: Scene, face: usize, height: f32, across: f32) -> Scene {
        match self.faces.get(face) {
            Some(found) => scene.face(&self.picture.view(), &found.bbox, height, across),
            None => scene,
        }
    }
}

/// Every picture in `folder`, by name.
///
/// # Errors
/// [`PhotoError::Read`] when the folder cannot be read.
pub fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>, PhotoError> {
    let failed = |source| PhotoError::Read { path: folder.display().to_string(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let kind = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        if matches!(kind.as_deref(), Some("jpg" | "jpeg" | "png")) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Why a photograph cannot play.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PhotoError {
    /// Not there, or not readable.
    #[error(
        "{path}: {source}; `make demo` fetches the demonstration's photographs, `--photos` names another folder"
    )]
    Read {
        /// The file or folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a picture.
    #[error("{path}: not a JPEG or PNG picture ({what})")]
    Decode {
        /// The file.
        path: String,
        /// What the decoder said.
        what: String,
    },
    /// Too large.
    #[error("{path}: {source}")]
    Size {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: FrameError,
    },
    /// The detector failed.
    #[error("{path}: {source}")]
    Vision {
        /// The file.
        path: String,
        /// What it said.
        source: Box<VisionError>,
    },
    /// Nobody on it.
    #[error("{path}: no face found; use a picture in which a face is at least a tenth of the height")]
    NoFace {
        /// The file.
        path: String,
    },
}
