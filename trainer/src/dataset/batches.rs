//! Batches of varied chips.
//!
//! Batch `step` is a pure function of the seed and the step: its rows come from the step's place in the epoch's shuffled order,
//! its augmentation from the sample's global position. A resumed run needs no other state.

use std::sync::Arc;

use super::augment::Augment;
use super::random::{Random, Stream};
use super::shards::Canvases;

/// One batch of chips.
#[derive(Debug)]
pub struct Batch {
    /// The step it was asked for.
    pub step: u64,
    /// Side of its chips.
    pub side_px: usize,
    /// `[batch, side, side, 3]`, RGB 0–255.
    pub pixels: Vec<u8>,
    /// Manifest row of each chip.
    pub rows: Vec<u32>,
    /// Whether each chip is a mirror image.
    pub mirrored: Vec<bool>,
}

/// What a worker needs to make batches.
#[derive(Debug, Clone)]
pub struct Source {
    /// The decoded pictures.
    pub canvases: Arc<Canvases>,
    /// Rows to draw from, each once an epoch.
    pub rows: Arc<Vec<u32>>,
    /// How chips are varied.
    pub augment: Augment,
    /// Chips in a batch.
    pub batch: usize,
    /// Seed of order and augmentation.
    pub seed: u64,
}

impl Source {
    /// Makes the batch of `step` with chips of `side` px.
    #[must_use]
    pub fn batch(&self, order: &mut Order, step: u64, side: usize) -> Batch {
        let bytes = side * side * 3;
        let mut batch = Batch {
            step,
            side_px: side,
            pixels: vec![0; self.batch * bytes],
            rows: Vec::with_capacity(self.batch),
            mirrored: Vec::with_capacity(self.batch),
        };
        for (i, chip) in batch.pixels.chunks_exact_mut(bytes).enumerate() {
            let position = step * self.batch as u64 + i as u64;
            let row = self.rows[order.at(position, self.rows.len(), self.seed)];
            let mut random = Random::new(self.seed, Stream::Augment, position);
            batch.mirrored.push(self.augment.chip(
                self.canvases.canvas(row as usize),
                chip,
                side,
                &mut random,
            ));
            batch.rows.push(row);
        }
        batch
    }
}

/// The shuffled order of the epoch at hand.
#[derive(Debug, Default)]
pub struct Order {
    epoch: Option<u64>,
    order: Vec<u32>,
}

impl Order {
    /// Index of the sample at `position` of an endless run of epochs over `rows` samples.
    pub fn at(&mut self, position: u64, rows: usize, seed: u64) -> usize {
        let epoch = position / rows as u64;
        if self.epoch != Some(epoch) {
            self.order = (0..rows as u32).collect();
            Random::new(seed, Stream::Order, epoch).shuffle(&mut self.order);
            self.epoch = Some(epoch);
        }
        self.order[(position % rows as u64) as usize] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::shards::CANVAS_BYTES;

    fn source(n: usize) -> Source {
        let pixels = (0..n * CANVAS_BYTES).map(|i| (i / CANVAS_BYTES) as u8).collect();
        Source {
            canvases: Arc::new(Canvases::from_pixels(pixels)),
            rows: Arc::new((0..n as u32).collect()),
            augment: Augment::default(),
            batch: 4,
            seed: 11,
        }
    }

    #[test]
    fn each_epoch_shows_each_row_once_in_another_order() {
        let source = source(12);
        let mut order = Order::default();
        let epoch = |from: u64, order: &mut Order| -> Vec<u32> {
            (from..from + 3).flat_map(|step| source.batch(order, step, 32).rows).collect()
        };
        let (first, second) = (epoch(0, &mut order), epoch(3, &mut order));
        assert_ne!(first, second);
        for mut rows in [first, second] {
            rows.sort_unstable();
            assert_eq!(rows, (0..12).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_does_not_depend_on_what_came_before() {
        let source = source(10);
        let mut order = Order::default();
        for step in 0..6 {
            let _ = source.batch(&mut order, step, 32);
        }
        let (last, alone) = (source.batch(&mut order, 6, 32), source.batch(&mut Order::default(), 6, 32));
        assert_eq!((last.step, &last.rows, &last.pixels), (6, &alone.rows, &alone.pixels));
    }
}
