//! Many picture files through the door's eyes, on as many threads as there are eyes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use facelatch_shared::detection::{Detection, Faces, Landmarks5};
use facelatch_shared::embedding::Embedding;
use facelatch_shared::frame::RgbView;
use image::RgbImage;
use thiserror::Error;

use crate::progress::Progress;

/// What is measured: finds faces and embeds them. The door's eyes in earnest, a fake in tests.
pub trait Eyes {
    /// Why it failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Every face of `picture`, best score first.
    ///
    /// # Errors
    /// When the network fails; a picture without a face is no error.
    fn find(&mut self, picture: &RgbView<'_>) -> Result<Faces, Self::Error>;

    /// Aligns and embeds the face with these landmarks.
    ///
    /// # Errors
    /// When the network fails or the landmarks form no face.
    fn embed_at(&mut self, picture: &RgbView<'_>, landmarks: &Landmarks5) -> Result<Embedding, Self::Error>;
}

/// The face a picture is about.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its embedding.
    pub embedding: Embedding,
    /// Where it was found.
    pub detection: Detection,
}

/// Finds and embeds the subject of each file, in the order given; `None` where no face is found.
///
/// # Errors
/// [`PictureError`], naming the file.
pub fn embed_files<E: Eyes + Send>(
    files: &[PathBuf],
    eyes: &mut [E],
    progress: &dyn Progress,
) -> Result<Vec<Option<Seen>>, PictureError> {
    each(files, eyes, progress, |eyes, picture| look(eyes, &picture))
}

/// Decodes each file and does `work` with it. Results come in the order of `files`; the first error ends all threads at their next picture.
///
/// # Errors
/// [`PictureError`], naming the file.
pub fn each<E: Eyes + Send, T: Send>(
    files: &[PathBuf],
    eyes: &mut [E],
    progress: &dyn Progress,
    work: impl Fn(&mut E, RgbImage) -> Result<T, Box<dyn std::error::Error + Send + Sync>> + Sync,
) -> Result<Vec<T>, PictureError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(files.len()));
    progress.start("pictures", files.len() as u64);
    let one = |path: &Path, eyes: &mut E| {
        let picture = image::open(path)
            .map_err(|source| PictureError::Picture { path: path.into(), source })?
            .into_rgb8();
        work(eyes, picture).map_err(|source| PictureError::Vision { path: path.into(), source })
    };
    let thread = |eyes: &mut E| -> Result<(), PictureError> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = files.get(at) else { return Ok(()) };
            let result = one(path, eyes).inspect_err(|_| next.store(files.len(), Ordering::Relaxed))?;
            // A thread that panicked ends the run anyway, at its join.
            done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((at, result));
            progress.step();
        }
    };
    let result = std::thread::scope(|scope| {
        let threads: Vec<_> = eyes.iter_mut().map(|eyes| scope.spawn(|| thread(eyes))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    });
    progress.finish();
    result?;
    let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Finds the subject of one picture and embeds it.
///
/// # Errors
/// What the eyes say.
pub fn look<E: Eyes>(
    eyes: &mut E,
    picture: &RgbImage,
) -> Result<Option<Seen>, Box<dyn std::error::Error + Send + Sync>> {
    let (width_px, height_px) = (picture.width() as usize, picture.height() as usize);
    let view = RgbView::new(picture.as_raw(), width_px, height_px)?;
    let faces = eyes.find(&view)?;
    let Some(&detection) = subject(&faces, width_px, height_px) else { return Ok(None) };
    let embedding = eyes.embed_at(&view, &detection.landmarks)?;
    Ok(Some(Seen { embedding, detection }))
}

/// The face that a picture is about: largest side × closeness to the middle, where closeness falls from one in the middle to
/// zero in the corners.
#[must_use]
pub fn subject(faces: &Faces, width_px: usize, height_px: usize) -> Option<&Detection> {
    let (middle_x, middle_y) = (width_px as f32 / 2.0, height_px as f32 / 2.0);
    let weight = |face: &Detection| {
        let centre = face.bbox.centre();
        let away = (centre.x - middle_x).hypot(centre.y - middle_y) / middle_x.hypot(middle_y);
        face.bbox.area_px2().sqrt() * (1.0 - away.min(1.0))
    };
    faces.iter().max_by(|a, b| weight(a).total_cmp(&weight(b)))
}

/// Why a picture could not be measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PictureError {
    /// It cannot be decoded.
    #[error("cannot decode {}", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
        /// What the decoder says.
        source: image::ImageError,
    },
    /// The detector or the embedder failed.
    #[error("cannot measure {}", path.display())]
    Vision {
        /// The picture.
        path: PathBuf,
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use facelatch_shared::detection::{BoxPx, Point};

    /// Sees a face wherever a picture is not black in the middle, and embeds its colour there.
    pub(crate) struct ColourEyes;

    impl Eyes for ColourEyes {
        type Error = std::io::Error;

        fn find(&mut self, picture: &RgbView<'_>) -> Result<Faces, std::io::Error> {
            let (x, y) = middle(picture);
            let mut faces = Faces::new();
            if picture.pixel_clamped(x, y).iter().any(|&v| v > 8) {
                faces.push(face(0.0, 0.0, picture.width_px() as f32)).unwrap();
            }
            Ok(faces)
        }

        fn embed_at(
            &mut self,
            picture: &RgbView<'_>,
            _landmarks: &Landmarks5,
        ) -> Result<Embedding, std::io::Error> {
            let (x, y) = middle(picture);
            let mut raw = [0.0; 128];
            raw[..3].copy_from_slice(&picture.pixel_clamped(x, y).map(f32::from));
            Embedding::from_raw(&raw).map_err(std::io::Error::other)
        }
    }

    fn middle(picture: &RgbView<'_>) -> (isize, isize) {
        (picture.width_px() as isize / 2, picture.height_px() as isize / 2)
    }

    pub(crate) fn face(x: f32, y: f32, side: f32) -> Detection {
        let landmarks = Landmarks5([Point::new(x, y); 5]);
        Detection { bbox: BoxPx { x, y, w: side, h: side }, landmarks, score: 0.9 }
    }

    #[test]
    fn the_subject_is_large_and_in_the_middle() {
        let mut faces = Faces::new();
        faces.push(face(0.0, 0.0, 40.0)).unwrap();
        faces.push(face(80.0, 80.0, 90.0)).unwrap();
        faces.push(face(120.0, 120.0, 10.0)).unwrap();
        assert_eq!(subject(&faces, 250, 250).unwrap().bbox.x, 80.0);
        assert!(subject(&Faces::new(), 250, 250).is_none());
    }

    #[test]
    fn results_keep_the_order_of_the_files_on_any_number_of_threads() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..9_u8)
            .map(|i| {
                let path = dir.path().join(format!("{i}.png"));
                RgbImage::from_pixel(8, 8, image::Rgb([i * 20 + 20, 90, 0])).save(&path).unwrap();
                path
            })
            .collect();
        let first = |seen: &Option<Seen>| seen.unwrap().embedding.values()[0];
        let one = embed_files(&files, &mut [ColourEyes], &crate::progress::Silent).unwrap();
        let three = embed_files(&files, &mut [ColourEyes, ColourEyes, ColourEyes], &crate::progress::Silent);
        let ordered: Vec<f32> = one.iter().map(first).collect();
        assert!(ordered.is_sorted());
        assert_eq!(ordered, three.unwrap().iter().map(first).collect::<Vec<_>>());
    }
}
