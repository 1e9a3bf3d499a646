//! Cuts each picture's chip once, so that several embedders can be measured on the very same pixels.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use facelatch_shared::align::{CHIP_BYTES, warp_chip};
use facelatch_shared::embedding::Embedding;
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::VisionError;
use facelatch_shared::vision::contract::ManifestEntry;
use facelatch_shared::vision::detect::Detector;
use facelatch_shared::vision::embed::Embedder;

use super::pairs::Picture;
use super::pictures::{PictureError, subject};
use crate::progress::Progress;

/// A chip, packed RGB `[112, 112, 3]`.
pub type Chip = Box<[u8; CHIP_BYTES]>;

/// Finds the subject of each of `pictures` below `images` with the detector `entry` of `models`, and cuts its chip; `None` where no face
/// is found.
///
/// # Errors
/// [`PictureError`] naming the picture.
pub fn cut(
    images: &Path,
    pictures: &[Picture],
    (models, entry): (&Path, &ManifestEntry),
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<Option<Chip>>, PictureError> {
    let chips = Mutex::new(vec![None; pictures.len()]);
    let load = |path: &Path, source: VisionError| PictureError::Vision {
        path: path.into(),
        source: Box::new(source),
    };
    let size = (entry.contract.width_px, entry.contract.height_px);
    let mut detectors = (0..threads.max(1))
        .map(|_| Detector::load(models, entry, size).map_err(|e| load(models, e)))
        .collect::<Result<Vec<_>, _>>()?;
    progress.start("pictures", pictures.len() as u64);
    shared_out(pictures.len(), &mut detectors, |detector, index| -> Result<(), PictureError> {
        let path = images.join(pictures[index].path());
        let picture = image::open(&path)
            .map_err(|source| PictureError::Picture { path: path.clone(), source })?
            .into_rgb8();
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| PictureError::Vision {
            path: path.clone(),
            source: e,
        };
        let view = RgbView::new(picture.as_raw(), width, height).map_err(|e| failed(Box::new(e)))?;
        let faces = detector.find(&view).map_err(|e| failed(Box::new(e)))?;
        if let Some(face) = subject(&faces, width, height) {
            let mut chip = Box::new([0; CHIP_BYTES]);
            warp_chip(&view, &face.landmarks, &mut chip).map_err(|e| failed(Box::new(e)))?;
            chips.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[index] = Some(chip);
        }
        progress.step();
        Ok(())
    })?;
    progress.finish();
    Ok(chips.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// Embeds every chip; `None` stays `None`. One thread an embedder.
///
/// # Errors
/// [`VisionError`] of the first chip that fails.
pub fn embed(
    chips: &[Option<Chip>],
    embedders: &mut [Embedder],
    progress: &dyn Progress,
) -> Result<Vec<Option<Embedding>>, VisionError> {
    let done = Mutex::new(vec![None; chips.len()]);
    progress.start("faces", chips.len() as u64);
    shared_out(chips.len(), embedders, |embedder, index| -> Result<(), VisionError> {
        if let Some(chip) = &chips[index] {
            let embedding = embedder.embed(chip)?;
            done.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[index] = Some(embedding);
        }
        progress.step();
        Ok(())
    })?;
    progress.finish();
    Ok(done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// Runs `work` for 0 to `count` − 1 on as many threads as there are `workers`; stops at the first error.
fn shared_out<W: Send, E: Send>(
    count: usize,
    workers: &mut [W],
    work: impl Fn(&mut W, usize) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let run = |worker: &mut W| -> Result<(), E> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            if let Err(error) = work(worker, index) {
                next.store(count, Ordering::Relaxed);
                return Err(error);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(|| run(worker))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
