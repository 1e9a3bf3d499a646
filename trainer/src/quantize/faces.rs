//! The two halves of a run's held-out people: one to calibrate on, one to check with.

use std::path::Path;

use tch::{Kind, Tensor};

use super::QuantizeError;
use crate::dataset::augment::Augment;
use crate::dataset::{Random, Row, Stream, manifest, shards, split};

/// Chips `[n, 3, 112, 112]`, RGB 0–255, with what is known of each.
#[derive(Debug)]
pub struct Faces {
    /// Plain centre chips.
    pub chips: Tensor,
    /// Their rows.
    pub rows: Vec<Row>,
}

/// Fewest faces that ranges are taken from.
pub const LEAST: usize = 32;

/// Chips of the calibration half and of the check half, at most `most` each, of the data in `folder`; `held_out` and `seed` are the
/// run's, so that neither was learnt from.
///
/// # Errors
/// [`QuantizeError`].
pub fn load(folder: &Path, held_out: f64, seed: u64, most: usize) -> Result<[Faces; 2], QuantizeError> {
    let rows = manifest::read(folder)?;
    let out = split::by_identity(&rows, &vec![true; rows.len()], held_out, seed).held_out;
    let out: Vec<Row> = out.iter().map(|&i| rows[i as usize].clone()).collect();
    let halves = split::by_identity(&out, &vec![true; out.len()], 0.5, seed.wrapping_add(1));
    let pick = |mut half: Vec<u32>, part: &'static str| {
        Random::new(seed, Stream::Split, 2).shuffle(&mut half);
        half.truncate(most);
        let rows: Vec<Row> = half.iter().map(|&i| out[i as usize].clone()).collect();
        let canvases = shards::load(folder, &rows, 2, usize::MAX)?;
        let mut pixels = Vec::with_capacity(rows.len() * CHIP_BYTES);
        let mut kept = Vec::with_capacity(rows.len());
        for (index, row) in rows.into_iter().enumerate().filter(|(i, _)| canvases.present[*i]) {
            let mut chip = [0; CHIP_BYTES];
            let mut random = Random::new(seed, Stream::Augment, 0);
            Augment::none().chip(canvases.canvas(index), &mut chip, SIDE, &mut random);
            pixels.extend_from_slice(&chip);
            kept.push(row);
        }
        if kept.len() < LEAST {
            return Err(QuantizeError::TooFewFaces { part, faces: kept.len(), least: LEAST });
        }
        Ok(Faces { chips: chips(&pixels), rows: kept })
    };
    Ok([pick(halves.train, "the calibration half")?, pick(halves.held_out, "the check half")?])
}

/// `[n, 112, 112, 3]` bytes as `[n, 3, 112, 112]` floats.
pub fn chips(pixels: &[u8]) -> Tensor {
    let side = SIDE as i64;
    let n = (pixels.len() / CHIP_BYTES) as i64;
    Tensor::from_data_size(pixels, &[n, side, side, 3], Kind::Uint8)
        .permute([0, 3, 1, 2])
        .to_kind(Kind::Float)
        .contiguous()
}

const SIDE: usize = facelatch_shared::align::CHIP_PX;
const CHIP_BYTES: usize = facelatch_shared::align::CHIP_BYTES;
