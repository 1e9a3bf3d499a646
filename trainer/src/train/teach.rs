//! Makes the teacher's vectors: every face and its mirror image through an imported embedder, by the code the door runs.

use std::path::{Path, PathBuf};

use facelatch_shared::align::{CHIP_BYTES, CHIP_PX};
use facelatch_shared::vision::VisionError;
use facelatch_shared::vision::contract::ManifestEntry;
use facelatch_shared::vision::embed::Embedder;
use tch::{Kind, Tensor};
use thiserror::Error;

use super::teacher;
use crate::dataset::{self, shards};
use crate::progress::Progress;

/// What to embed and with what.
#[derive(Debug, Clone)]
pub struct TeachJob<'a> {
    /// Folder with `manifest.csv` and shards.
    pub data: &'a Path,
    /// Model directory.
    pub models: &'a Path,
    /// The embedder in it.
    pub embedder: &'a ManifestEntry,
    /// `NAME.safetensors` to write; `NAME.paths` goes beside it. Faces that it already holds are kept.
    pub out: &'a Path,
    /// Threads, each with a copy of the embedder.
    pub threads: usize,
    /// Largest decoded data set.
    pub memory_limit_mb: usize,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taught {
    /// Faces embedded now.
    pub embedded: usize,
    /// Faces that the file held already.
    pub kept: usize,
    /// Faces without a picture.
    pub skipped: usize,
}

/// Faces between two saves.
const CHUNK: usize = 2048;
const DIM: usize = facelatch_shared::embedding::DIM;

/// Fills the file with the unit mean of the two views of each face. An interrupted run goes on where the file ends.
///
/// # Errors
/// [`TeachError`].
pub fn teach(job: &TeachJob<'_>, progress: &dyn Progress) -> Result<Taught, TeachError> {
    let rows = dataset::manifest::read(job.data)?;
    let threads = job.threads.max(1);
    let canvases = shards::load(job.data, &rows, threads, job.memory_limit_mb << 20)?;
    let mut vectors = vec![0.0_f32; rows.len() * DIM];
    let mut known = vec![false; rows.len()];
    if job.out.exists() {
        let before = teacher::read(job.out, &rows)?;
        if before.vectors.size()[1] == DIM as i64 {
            before.vectors.copy_data(&mut vectors, rows.len() * DIM);
            known = before.known;
        }
    }
    let names: String = rows.iter().map(|row| row.path() + "\n").collect();
    let unwritable = |source| TeachError::Unwritable { path: job.out.to_owned(), source };
    std::fs::write(job.out.with_extension("paths"), names).map_err(unwritable)?;
    let waiting: Vec<usize> = (0..rows.len()).filter(|&r| !known[r] && canvases.present[r]).collect();
    let mut embedders =
        (0..threads).map(|_| Embedder::load(job.models, job.embedder)).collect::<Result<Vec<_>, _>>()?;
    progress.start("faces", waiting.len() as u64);
    for chunk in waiting.chunks(CHUNK) {
        let part = chunk.len().div_ceil(threads);
        let done = std::thread::scope(|scope| {
            let canvases = &canvases;
            let jobs: Vec<_> = embedders
                .iter_mut()
                .zip(chunk.chunks(part))
                .map(|(embedder, part)| {
                    scope.spawn(move || {
                        part.iter()
                            .map(|&row| {
                                let vector = both_views(embedder, canvases.canvas(row))?;
                                progress.step();
                                Ok((row, vector))
                            })
                            .collect::<Result<Vec<_>, VisionError>>()
                    })
                })
                .collect();
            jobs.into_iter()
                .map(|job| job.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        for (row, vector) in done.into_iter().flatten() {
            vectors[row * DIM..(row + 1) * DIM].copy_from_slice(&vector);
        }
        save(job.out, &vectors)?;
    }
    progress.finish();
    let kept = known.iter().filter(|&&k| k).count();
    Ok(Taught { embedded: waiting.len(), kept, skipped: canvases.skipped.len() })
}

/// Unit mean of a face and its mirror image.
fn both_views(embedder: &mut Embedder, canvas: &[u8]) -> Result<[f32; DIM], VisionError> {
    let (plain, mirrored) = views(canvas);
    let (plain, mirrored) = (embedder.embed(&plain)?, embedder.embed(&mirrored)?);
    let mut sum: [f32; DIM] = std::array::from_fn(|i| plain.values()[i] + mirrored.values()[i]);
    let length = sum.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-6);
    sum.iter_mut().for_each(|v| *v /= length);
    Ok(sum)
}

/// The chip in the middle of a canvas, and its mirror image.
fn views(canvas: &[u8]) -> ([u8; CHIP_BYTES], [u8; CHIP_BYTES]) {
    let (mut plain, mut mirrored) = ([0; CHIP_BYTES], [0; CHIP_BYTES]);
    let edge = (shards::CANVAS_PX - CHIP_PX) / 2;
    for y in 0..CHIP_PX {
        for x in 0..CHIP_PX {
            let from = ((y + edge) * shards::CANVAS_PX + x + edge) * 3;
            let (to, opposite) = ((y * CHIP_PX + x) * 3, (y * CHIP_PX + CHIP_PX - 1 - x) * 3);
            plain[to..to + 3].copy_from_slice(&canvas[from..from + 3]);
            mirrored[opposite..opposite + 3].copy_from_slice(&canvas[from..from + 3]);
        }
    }
    (plain, mirrored)
}

fn save(path: &Path, vectors: &[f32]) -> Result<(), TeachError> {
    let mean = Tensor::from_slice(vectors).reshape([-1, DIM as i64]).to_kind(Kind::Float);
    let beside = path.with_extension("part");
    let fail = |source| TeachError::Unwritable { path: path.to_owned(), source };
    Tensor::write_safetensors(&[("mean", mean)], &beside).map_err(|e| fail(std::io::Error::other(e)))?;
    std::fs::rename(&beside, path).map_err(fail)
}

/// Why vectors could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TeachError {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] dataset::manifest::ManifestError),
    /// The shards.
    #[error(transparent)]
    Shards(#[from] shards::ShardError),
    /// The file to go on with.
    #[error(transparent)]
    Teacher(#[from] teacher::TeacherError),
    /// The embedder.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_the_middle_and_its_mirror_image() {
        let canvas: Vec<u8> = (0..shards::CANVAS_BYTES)
            .map(|i| (i / 3 % shards::CANVAS_PX + i / 3 / shards::CANVAS_PX * 2 + i % 3) as u8)
            .collect();
        let (plain, mirrored) = views(&canvas);
        assert_eq!(plain[..3], [24, 25, 26]);
        for y in [0, 50, 111] {
            for x in [0, 17, 111] {
                let (a, b) = ((y * CHIP_PX + x) * 3, (y * CHIP_PX + 111 - x) * 3);
                assert_eq!(plain[a..a + 3], mirrored[b..b + 3]);
            }
        }
    }
}
