//! Batches of chips with the number of the person on each, decoded from [`Pictures`] while the net works.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::augment::Augment;
use super::batches::Order;
use super::pictures::Pictures;
use super::random::{Random, Stream};

/// Chips and who is on them.
#[derive(Debug)]
pub struct Labelled {
    /// Side of the chips.
    pub side_px: usize,
    /// `[batch, side, side, 3]`, RGB 0–255.
    pub pixels: Vec<u8>,
    /// Class of each chip, 0 to identities − 1.
    pub labels: Vec<i64>,
    /// Row of each chip.
    pub rows: Vec<u32>,
}

/// What a worker needs to make batches of people with several pictures.
#[derive(Debug, Clone)]
pub struct LabelledSource {
    /// The pictures.
    pub pictures: Arc<Pictures>,
    /// (row, class), each once an epoch.
    pub samples: Arc<Vec<(u32, i64)>>,
    /// How chips are varied.
    pub augment: Augment,
    /// Chips in a batch.
    pub batch: usize,
    /// Side of the chips.
    pub side_px: usize,
    /// Seed of order and augmentation.
    pub seed: u64,
}

/// Numbers the people of `rows` who have at least `least` pictures there, by name. Returns (row, class) and the names.
#[must_use]
pub fn classes(pictures: &Pictures, rows: &[u32], least: usize) -> (Vec<(u32, i64)>, Vec<String>) {
    let name = |row: u32| pictures.rows()[row as usize].identity.as_deref();
    let mut counts = BTreeMap::<&str, usize>::new();
    for name in rows.iter().filter_map(|&row| name(row)) {
        *counts.entry(name).or_default() += 1;
    }
    counts.retain(|_, count| *count >= least.max(1));
    let class: HashMap<&str, i64> = counts.keys().copied().zip(0..).collect();
    let samples = rows.iter().filter_map(|&row| Some((row, *class.get(name(row)?)?))).collect();
    (samples, counts.into_keys().map(str::to_owned).collect())
}

impl LabelledSource {
    /// Makes the batch of `step`. A picture that cannot be decoded is replaced by another one, drawn by its place, so that the
    /// batch stays a function of the step.
    ///
    /// # Panics
    /// When none of 1,000 pictures drawn in a row can be decoded.
    #[must_use]
    pub fn batch(&self, order: &mut Order, step: u64) -> Labelled {
        let bytes = self.side_px * self.side_px * 3;
        let mut batch = Labelled {
            side_px: self.side_px,
            pixels: vec![0; self.batch * bytes],
            labels: Vec::with_capacity(self.batch),
            rows: Vec::with_capacity(self.batch),
        };
        for (i, chip) in batch.pixels.chunks_exact_mut(bytes).enumerate() {
            let position = step * self.batch as u64 + i as u64;
            let mut sample = self.samples[order.at(position, self.samples.len(), self.seed)];
            let mut others = Random::new(self.seed, Stream::Sampler, position);
            let mut tries = 0;
            let canvas = loop {
                if let Some(canvas) = self.pictures.canvas(sample.0) {
                    break canvas;
                }
                tries += 1;
                assert!(
                    tries < 1000,
                    "1,000 pictures in a row cannot be decoded; the last: {}",
                    self.name(sample.0)
                );
                sample = self.samples[others.below(self.samples.len())];
            };
            self.augment.chip(
                &canvas,
                chip,
                self.side_px,
                &mut Random::new(self.seed, Stream::Augment, position),
            );
            batch.labels.push(sample.1);
            batch.rows.push(sample.0);
        }
        batch
    }

    fn name(&self, row: u32) -> String {
        self.pictures.rows()[row as usize].path()
    }
}

/// Plain centre chips of `rows`, `[n, side, side, 3]`, and the rows that could be decoded.
#[must_use]
pub fn plain_chips(pictures: &Pictures, rows: &[u32], side_px: usize) -> (Vec<u8>, Vec<u32>) {
    let bytes = side_px * side_px * 3;
    let (mut pixels, mut kept) = (Vec::with_capacity(rows.len() * bytes), Vec::with_capacity(rows.len()));
    let mut chip = vec![0; bytes];
    for &row in rows {
        if let Some(canvas) = pictures.canvas(row) {
            Augment::none().chip(&canvas, &mut chip, side_px, &mut Random::new(0, Stream::Augment, 0));
            pixels.extend_from_slice(&chip);
            kept.push(row);
        }
    }
    (pixels, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Folders `a` (3 pictures, one of them broken), `b` (2) and `c` (1).
    fn source(dir: &std::path::Path) -> LabelledSource {
        for (name, count) in [("a", 3), ("b", 2), ("c", 1)] {
            std::fs::create_dir(dir.join(name)).unwrap();
            for i in 0..count {
                let picture = image::RgbImage::from_pixel(128, 128, image::Rgb([name.as_bytes()[0]; 3]));
                picture.save(dir.join(name).join(format!("{i}.png"))).unwrap();
            }
        }
        std::fs::write(dir.join("a/1.png"), b"broken").unwrap();
        let pictures = Pictures::open(dir).unwrap();
        let rows: Vec<u32> = (0..6).collect();
        let (samples, names) = classes(&pictures, &rows, 2);
        assert_eq!(names, ["a", "b"]);
        LabelledSource {
            pictures: Arc::new(pictures),
            samples: Arc::new(samples),
            augment: Augment::none(),
            batch: 5,
            side_px: 16,
            seed: 3,
        }
    }

    #[test]
    fn labels_name_the_person_and_a_broken_picture_is_replaced_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path());
        for step in 0..4 {
            let batch = source.batch(&mut Order::default(), step);
            for (label, chip) in batch.labels.iter().zip(batch.pixels.chunks(16 * 16 * 3)) {
                assert!(chip.iter().all(|&v| v == b"ab"[*label as usize]));
            }
        }
        let skipped = source.pictures.skipped();
        assert_eq!(skipped.len(), 1);
        assert_eq!(skipped[0].0, "a/1.png");
        let (a, b) = (source.batch(&mut Order::default(), 2), source.batch(&mut Order::default(), 2));
        assert_eq!((a.rows, a.pixels), (b.rows, b.pixels));
        let (pixels, kept) = plain_chips(&source.pictures, &[0, 1, 2], 16);
        assert_eq!((pixels.len(), kept), (2 * 16 * 16 * 3, vec![0, 2]));
    }
}
