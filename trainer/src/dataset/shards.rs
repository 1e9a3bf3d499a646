//! Tar shards of compressed crops, decoded once into one block of memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use thiserror::Error;

use super::manifest::Row;

/// Side of a stored canvas: the 112 chip with 8 px round it.
pub const CANVAS_PX: usize = 128;
/// Bytes of one canvas, RGB, row by row.
pub const CANVAS_BYTES: usize = CANVAS_PX * CANVAS_PX * 3;

/// Decoded canvases, `[n, 128, 128, 3]` RGB 0–255 in one block; those that could not be decoded are counted, not hidden.
#[derive(Debug)]
pub struct Canvases {
    pixels: Vec<u8>,
    /// For each row of the manifest: decoded or not.
    pub present: Vec<bool>,
    /// Members that were missing or corrupt, with the reason.
    pub skipped: Vec<(String, String)>,
}

impl Canvases {
    /// The canvas of manifest row `row`, `[128, 128, 3]`; black when it was skipped.
    #[must_use]
    pub fn canvas(&self, row: usize) -> &[u8] {
        &self.pixels[row * CANVAS_BYTES..(row + 1) * CANVAS_BYTES]
    }

    /// A block made from pictures at hand, for tests and for callers that cut their own chips.
    #[must_use]
    pub fn from_pixels(pixels: Vec<u8>) -> Self {
        let n = pixels.len() / CANVAS_BYTES;
        Self { pixels, present: vec![true; n], skipped: Vec::new() }
    }
}

/// Decodes every row's picture with `threads` threads. Canvases of another size are resized bilinearly to 128.
///
/// # Errors
/// [`ShardError`] when a shard cannot be read, or when the block would be larger than `limit_bytes`.
pub fn load(folder: &Path, rows: &[Row], threads: usize, limit_bytes: usize) -> Result<Canvases, ShardError> {
    let needed = rows.len() * CANVAS_BYTES;
    if needed > limit_bytes {
        return Err(ShardError::TooLarge { needed, limit: limit_bytes });
    }
    let mut files: HashMap<&str, HashMap<String, Vec<u8>>> = HashMap::new();
    for row in rows {
        if !files.contains_key(row.shard.as_str()) {
            files.insert(&row.shard, read_shard(&folder.join(&row.shard))?);
        }
    }
    let mut pixels = vec![0_u8; needed];
    let per_thread = rows.len().div_ceil(threads.max(1)).max(1);
    let failures: Vec<(usize, String)> = std::thread::scope(|scope| {
        let jobs: Vec<_> = pixels
            .chunks_mut(per_thread * CANVAS_BYTES)
            .zip(rows.chunks(per_thread))
            .enumerate()
            .map(|(part, (block, rows))| {
                let files = &files;
                scope.spawn(move || {
                    let mut failures = Vec::new();
                    for (i, (canvas, row)) in block.chunks_mut(CANVAS_BYTES).zip(rows).enumerate() {
                        let bytes = files.get(row.shard.as_str()).and_then(|m| m.get(&row.member));
                        let outcome =
                            bytes.ok_or("not in the shard".to_owned()).and_then(|b| decode(b, canvas));
                        if let Err(reason) = outcome {
                            failures.push((part * per_thread + i, reason));
                        }
                    }
                    failures
                })
            })
            .collect();
        jobs.into_iter().flat_map(|job| job.join().unwrap_or_default()).collect()
    });
    let mut present = vec![true; rows.len()];
    let mut skipped = Vec::new();
    for (row, reason) in failures {
        present[row] = false;
        skipped.push((rows[row].path(), reason));
    }
    Ok(Canvases { pixels, present, skipped })
}

fn read_shard(path: &Path) -> Result<HashMap<String, Vec<u8>>, ShardError> {
    let fail = |source| ShardError::Unreadable { path: path.to_owned(), source };
    let mut archive = tar::Archive::new(File::open(path).map_err(fail)?);
    let mut members = HashMap::new();
    for entry in archive.entries().map_err(fail)? {
        let mut entry = entry.map_err(fail)?;
        let name = entry.path().map_err(fail)?.to_string_lossy().trim_start_matches("./").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(fail)?;
        members.insert(name, bytes);
    }
    Ok(members)
}

/// Decodes into a canvas of [`CANVAS_BYTES`]; pictures of another size are resized bilinearly.
pub(super) fn decode(bytes: &[u8], canvas: &mut [u8]) -> Result<(), String> {
    let picture = image::load_from_memory(bytes).map_err(|e| e.to_string())?.into_rgb8();
    let side = CANVAS_PX as u32;
    let picture = if picture.dimensions() == (side, side) {
        picture
    } else {
        imageops::resize(&picture, side, side, FilterType::Triangle)
    };
    canvas.copy_from_slice(picture.as_raw());
    Ok(())
}

/// Why a folder of shards could not be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShardError {
    /// A shard cannot be opened or is no tar file.
    #[error("cannot read shard {}: {source}; the manifest names it, so the folder is incomplete", path.display())]
    Unreadable {
        /// The shard.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The decoded block would not fit the limit.
    #[error(
        "the faces need {needed} bytes decoded, the limit is {limit}: raise memory_limit_mb or leave sets out"
    )]
    TooLarge {
        /// Bytes needed.
        needed: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;

    fn png(side: u32, value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        RgbImage::from_pixel(side, side, image::Rgb([value, 0, 255]))
            .write_to(&mut bytes, image::ImageFormat::Png)
            .unwrap();
        bytes.into_inner()
    }

    fn folder() -> (tempfile::TempDir, Vec<Row>) {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(File::create(dir.path().join("s.tar")).unwrap());
        let members =
            [("a/1.png", png(128, 10)), ("a/2.png", png(96, 20)), ("a/3.png", b"no picture".to_vec())];
        for (name, bytes) in &members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        builder.into_inner().unwrap();
        let row = |member: &str| Row {
            shard: "s.tar".into(),
            member: member.into(),
            set: String::new(),
            identity: None,
            masked: false,
        };
        (dir, ["a/1.png", "a/2.png", "a/3.png", "a/4.png"].map(row).to_vec())
    }

    #[test]
    fn decodes_resizes_and_counts_what_it_could_not() {
        let (dir, rows) = folder();
        let canvases = load(dir.path(), &rows, 2, usize::MAX).unwrap();
        assert_eq!(canvases.present, [true, true, false, false]);
        assert_eq!(canvases.skipped.len(), 2);
        assert!(canvases.canvas(0).chunks(3).all(|p| p == [10, 0, 255]));
        assert!(canvases.canvas(1).chunks(3).all(|p| p == [20, 0, 255]));
    }

    #[test]
    fn refuses_more_than_the_limit_and_a_missing_shard() {
        let (dir, mut rows) = folder();
        assert!(matches!(load(dir.path(), &rows, 1, 1000), Err(ShardError::TooLarge { .. })));
        rows[0].shard = "gone.tar".into();
        assert!(matches!(load(dir.path(), &rows, 1, usize::MAX), Err(ShardError::Unreadable { .. })));
    }
}
