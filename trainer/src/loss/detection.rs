//! What the detector should say of each cell, and what it costs to say otherwise.
//!
//! A face belongs to the stride that suits its size; the cells near its centre are positive there (Tian et al. 2019, "FCOS", centre
//! sampling), their neighbours and those of the next stride are left out, everything else is background. Scores follow Li et al.
//! 2020, "Generalized focal loss": a positive cell's target grows with the overlap of its box, so that the best box of several wins the
//! suppression.

use tch::{Kind, Tensor};

use crate::dataset::street::Target;
use crate::model::detector::{CELL, STRIDES};

/// Targets of one batch, for all cells of all strides: per sample stride 8 first, row by row.
#[derive(Debug, Clone, Default)]
pub struct Cells {
    /// `[n · cells]`, 1 for a positive.
    pub positive: Vec<f32>,
    /// `[n · cells]`, 0 where neither answer is wrong.
    pub counts: Vec<f32>,
    /// Index of each positive into the two above.
    pub index: Vec<i64>,
    /// Box of each positive: x, y, w, h in pixels of the sample.
    pub boxes: Vec<f32>,
    /// Ten landmark coordinates of each positive, in pixels of the sample.
    pub landmarks: Vec<f32>,
    /// How much its landmarks count.
    pub landmark_weight: Vec<f32>,
}

/// Face sizes (square root of the area) that each stride answers for, in pixels; they overlap.
const SIZES: [[f32; 2]; 3] = [[0.0, 40.0], [28.0, 96.0], [70.0, 1e9]];
/// Reach of positive cells round the centre, in strides.
const REACH: f32 = 0.9;
/// Reach of cells that are left out.
const MARGIN: f32 = 1.7;

impl Cells {
    /// Cells of a square sample.
    #[must_use]
    pub fn count(side: usize) -> usize {
        STRIDES.iter().map(|&s| (side / s as usize).pow(2)).sum()
    }

    /// Appends the targets of one sample.
    pub fn push(&mut self, faces: &[Target], side: usize) {
        for (&stride, sizes) in STRIDES.iter().zip(SIZES) {
            let (columns, s) = (side / stride as usize, stride as f32);
            for cell in 0..columns * columns {
                // Cell (column, row) stands for the point (column, row) · stride, as the decoder has it.
                let at = [(cell % columns) as f32 * s, (cell / columns) as f32 * s];
                let (mut best, mut counts) = (None::<(f32, &Target)>, true);
                for face in faces {
                    let [x, y, w, h] = face.bbox;
                    if face.ignore {
                        counts &= !(at[0] >= x && at[0] <= x + w && at[1] >= y && at[1] <= y + h);
                        continue;
                    }
                    let size = (w * h).sqrt();
                    let (dx, dy) = ((at[0] - x - w / 2.0).abs() / s, (at[1] - y - h / 2.0).abs() / s);
                    let far = dx.max(dy);
                    let mine = (sizes[0]..sizes[1]).contains(&size);
                    if mine && far <= REACH && dx * s <= w / 2.0 && dy * s <= h / 2.0 {
                        if best.is_none_or(|(least, _)| size < least) {
                            best = Some((size, face));
                        }
                    } else if far <= MARGIN && (sizes[0] / 1.4..sizes[1] * 1.4).contains(&size) {
                        counts = false;
                    }
                }
                if let Some((_, face)) = best {
                    self.index.push(self.positive.len() as i64);
                    self.boxes.extend(face.bbox);
                    self.landmarks.extend(face.landmarks.iter().flatten());
                    self.landmark_weight.push(face.landmark_weight);
                }
                self.positive.push(f32::from(best.is_some()));
                self.counts.push(f32::from(counts || best.is_some()));
            }
        }
    }
}

/// The three parts of the loss.
#[derive(Debug)]
pub struct Parts {
    /// Scores.
    pub score: Tensor,
    /// Boxes: 1 − generalized overlap.
    pub boxes: Tensor,
    /// Landmarks, in tenths of the face's size.
    pub landmarks: Tensor,
}

/// Loss of raw outputs `[batch, 15, rows, columns]` for each stride, from square samples of `side` px.
#[must_use]
pub fn loss(outputs: &[Tensor; 3], cells: &Cells, side: usize) -> Parts {
    let device = outputs[0].device();
    let float = |values: &[f32]| Tensor::from_slice(values).to_device(device);
    let batch = outputs[0].size()[0];
    let rows: Vec<Tensor> =
        outputs.iter().map(|o| o.permute([0, 2, 3, 1]).reshape([batch, -1, CELL])).collect();
    let raw = Tensor::cat(&rows, 1).reshape([-1, CELL]);
    let index = Tensor::from_slice(&cells.index).to_device(device);
    let found = raw.index_select(0, &index);
    let (origin, stride) = grid(side, batch);
    let (origin, stride) =
        (origin.to_device(device).index_select(0, &index), stride.to_device(device).index_select(0, &index));
    let wanted = float(&cells.boxes).reshape([-1, 4]);
    let decoded = decode_boxes(&found, &origin, &stride);
    let (overlap, generalized) = overlaps(&decoded, &wanted);
    let positives = (cells.index.len() as f64).max(1.0);

    let worth: Tensor = overlap.detach().clamp(0.0, 1.0) * 0.6 + 0.4;
    let target = float(&cells.positive).index_put(&[Some(&index)], &worth, false);
    let logit = raw.select(1, 0);
    let p = logit.sigmoid().detach();
    let focus = (&target - &p).square();
    let cross = logit.binary_cross_entropy_with_logits::<Tensor>(&target, None, None, tch::Reduction::None);
    let score = (cross * focus * float(&cells.counts)).sum(Kind::Float) / positives;

    let boxes = (-generalized + 1.0).sum(Kind::Float) / positives;
    let size = (wanted.select(1, 2) * wanted.select(1, 3)).clamp_min(1.0).sqrt().unsqueeze(1);
    let points = found.narrow(1, 5, 10) * &stride + origin.repeat([1, 5]);
    let off = (points - float(&cells.landmarks).reshape([-1, 10])) / size * 10.0;
    let weight = float(&cells.landmark_weight).unsqueeze(1);
    let landmarks = (off.smooth_l1_loss(&off.zeros_like(), tch::Reduction::None, 0.5) * weight)
        .mean_dim(&[1_i64][..], false, Kind::Float)
        .sum(Kind::Float)
        / positives;
    Parts { score, boxes, landmarks }
}

/// Where each cell of a batch stands `[batch · cells, 2]`, and its stride `[batch · cells, 1]`.
fn grid(side: usize, batch: i64) -> (Tensor, Tensor) {
    let (mut origin, mut strides) = (Vec::new(), Vec::new());
    for stride in STRIDES {
        let columns = side / stride as usize;
        for cell in 0..columns * columns {
            origin.extend([(cell % columns) as f32 * stride as f32, (cell / columns) as f32 * stride as f32]);
            strides.push(stride as f32);
        }
    }
    let rows = |values: &[f32], width| Tensor::from_slice(values).reshape([-1, width]).repeat([batch, 1]);
    (rows(&origin, 2), rows(&strides, 1))
}

/// Boxes x, y, w, h of cells `[n, 15]`: centre (column + dx, row + dy)·stride, sides exp(dw)·stride.
fn decode_boxes(found: &Tensor, origin: &Tensor, stride: &Tensor) -> Tensor {
    let centre = found.narrow(1, 1, 2) * stride + origin;
    let sides = found.narrow(1, 3, 2).clamp(-4.0, 6.0).exp() * stride;
    Tensor::cat(&[centre - &sides * 0.5, sides], 1)
}

/// Intersection over union, and its generalization (Rezatofighi et al. 2019), of boxes `[n, 4]` pairwise.
fn overlaps(a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
    let corner = |t: &Tensor| (t.narrow(1, 0, 2), t.narrow(1, 0, 2) + t.narrow(1, 2, 2));
    let ((a_low, a_high), (b_low, b_high)) = (corner(a), corner(b));
    let area = |sides: &Tensor| sides.clamp_min(0.0).prod_dim_int(1, false, Kind::Float);
    let shared = area(&(a_high.minimum(&b_high) - a_low.maximum(&b_low)));
    let union = area(&a.narrow(1, 2, 2)) + area(&b.narrow(1, 2, 2)) - &shared + 1e-6;
    let hull = area(&(a_high.maximum(&b_high) - a_low.minimum(&b_low))) + 1e-6;
    let overlap = shared / &union;
    let generalized = &overlap - (&hull - union) / hull;
    (overlap, generalized)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn face(x: f32, y: f32, size: f32) -> Target {
        let landmarks = [[x + size * 0.3, y + size * 0.4]; 5];
        Target { bbox: [x, y, size, size], landmarks, landmark_weight: 1.0, ignore: false }
    }

    #[test]
    fn each_size_has_its_stride_and_borders_have_two() {
        let strides = |size: f32| -> Vec<i64> {
            let mut cells = Cells::default();
            cells.push(&[face(130.0 - size / 2.0, 126.0 - size / 2.0, size)], 256);
            assert_eq!(cells.positive.len(), Cells::count(256));
            let of = |&i: &i64| {
                if i < 1024 {
                    8
                } else if i < 1024 + 256 {
                    16
                } else {
                    32
                }
            };
            let mut found: Vec<i64> = cells.index.iter().map(of).collect();
            found.dedup();
            found
        };
        assert_eq!(strides(12.0), [8]);
        assert_eq!(strides(34.0), [8, 16]);
        assert_eq!(strides(60.0), [16]);
        assert_eq!(strides(200.0), [32]);
    }

    #[test]
    fn what_is_ignored_counts_for_nothing_and_the_rest_is_background() {
        let mut cells = Cells::default();
        cells.push(&[Target { ignore: true, ..face(64.0, 64.0, 64.0) }], 256);
        assert!(cells.index.is_empty());
        let left_out = cells.counts.iter().filter(|&&c| c == 0.0).count();
        assert_eq!(left_out, 81 + 25 + 9);
    }

    #[test]
    fn the_right_answer_costs_next_to_nothing() {
        let faces = [face(20.0, 30.0, 24.0), face(100.0, 90.0, 120.0)];
        let mut cells = Cells::default();
        cells.push(&faces, 256);
        // Write the answer into the cells.
        let (origin, stride) = grid(256, 1);
        let (origin, stride): (Vec<f32>, Vec<f32>) =
            (Vec::try_from(origin.flatten(0, -1)).unwrap(), Vec::try_from(stride.flatten(0, -1)).unwrap());
        let mut raw = vec![0.0_f32; Cells::count(256) * CELL as usize];
        for cell in raw.chunks_mut(CELL as usize) {
            cell[0] = -20.0;
        }
        for (k, &i) in cells.index.iter().enumerate() {
            let (i, cell) = (i as usize, &mut raw[i as usize * CELL as usize..][..CELL as usize]);
            let (s, o) = (stride[i], &origin[2 * i..2 * i + 2]);
            let b = &cells.boxes[4 * k..4 * k + 4];
            cell[0] = 20.0;
            cell[1] = (b[0] + b[2] / 2.0 - o[0]) / s;
            cell[2] = (b[1] + b[3] / 2.0 - o[1]) / s;
            (cell[3], cell[4]) = ((b[2] / s).ln(), (b[3] / s).ln());
            for j in 0..10 {
                cell[5 + j] = (cells.landmarks[10 * k + j] - o[j % 2]) / s;
            }
        }
        let raw = Tensor::from_slice(&raw).reshape([1, -1, CELL]);
        let mut from = 0;
        let outputs = STRIDES.map(|s| {
            let side = 256 / s;
            let part = raw.narrow(1, from, side * side).reshape([1, side, side, CELL]).permute([0, 3, 1, 2]);
            from += side * side;
            part
        });
        let parts = loss(&outputs, &cells, 256);
        for part in [&parts.score, &parts.boxes, &parts.landmarks] {
            assert!(part.double_value(&[]).abs() < 1e-3, "{parts:?}");
        }
        let flat = outputs.map(|o| o.zeros_like());
        assert!(loss(&flat, &cells, 256).boxes.double_value(&[]) > 0.3);
    }

    #[test]
    fn a_batch_without_a_face_is_finite() {
        let mut cells = Cells::default();
        cells.push(&[], 64);
        let outputs = STRIDES.map(|s| Tensor::zeros([1, CELL, 64 / s, 64 / s], (Kind::Float, Device::Cpu)));
        let parts = loss(&outputs, &cells, 64);
        for part in [parts.score, parts.boxes, parts.landmarks] {
            assert!(part.double_value(&[]).is_finite());
        }
    }
}
