//! Dense local descriptors of an aligned face: what VLAD and Fisher vectors are made of.
//!
//! Histograms of gradient directions on a grid (SIFT's 4×4 cells of 8 directions; Lowe 2004), normalised, rooted (Arandjelović and Zisserman
//! 2012), reduced by principal components and extended by where they lie, as in Fisher vector faces (Simonyan et al. 2013, section 2).

use super::svm::{below, dot};

/// Side of the picture that descriptors are taken from: the 112 chip with 8 px round it.
pub const SIDE: usize = 128;
/// Pixels of a cell.
const CELL: usize = 6;
/// Cells in a row; a pixel is left at each side, so that a mirrored picture has the mirrored cells.
const CELLS: usize = (SIDE - 2) / CELL;
/// Places of descriptors in a row: every cell but the last three begins one.
const PLACES: usize = CELLS - 3;
const DIRECTIONS: usize = 8;
const RAW: usize = 16 * DIRECTIONS;
/// Components kept.
const COMPONENTS: usize = 24;
/// Numbers of a reduced descriptor: components and place.
pub(super) const DIM: usize = COMPONENTS + 2;
/// How much the place counts beside the components.
const PLACE_WEIGHT: f32 = 0.3;

/// A descriptor of 128 numbers and where its middle lies, −1 to 1.
pub type Raw = ([f32; RAW], [f32; 2]);

/// The descriptors of a grey picture, `[128, 128]`, 0 to 255. Patches without contrast give none.
#[must_use]
pub fn describe(grey: &[f32]) -> Vec<Raw> {
    let mut cells = vec![[0.0_f32; DIRECTIONS]; CELLS * CELLS];
    for y in 1..SIDE - 1 {
        for x in 1..SIDE - 1 {
            let gx = grey[y * SIDE + x + 1] - grey[y * SIDE + x - 1];
            let gy = grey[(y + 1) * SIDE + x] - grey[(y - 1) * SIDE + x];
            let length = gx.hypot(gy);
            if length < 1e-6 {
                continue;
            }
            // Shared between the two nearest directions.
            let turn = gy.atan2(gx) / std::f32::consts::TAU * DIRECTIONS as f32;
            let turn = turn.rem_euclid(DIRECTIONS as f32);
            let (first, part) = (turn as usize % DIRECTIONS, turn.fract());
            let cell = &mut cells[((y - 1) / CELL) * CELLS + (x - 1) / CELL];
            cell[first] += length * (1.0 - part);
            cell[(first + 1) % DIRECTIONS] += length * part;
        }
    }
    let mut all = Vec::with_capacity(PLACES * PLACES);
    for py in 0..PLACES {
        for px in 0..PLACES {
            let mut raw = [0.0; RAW];
            for (i, out) in raw.chunks_exact_mut(DIRECTIONS).enumerate() {
                out.copy_from_slice(&cells[(py + i / 4) * CELLS + px + i % 4]);
            }
            let sum: f32 = raw.iter().sum();
            if sum < LEAST_CONTRAST {
                continue;
            }
            raw.iter_mut().for_each(|v| *v = (*v / sum).sqrt());
            let place = |p: usize| (p as f32 - (PLACES - 1) as f32 / 2.0) / ((PLACES - 1) as f32 / 2.0);
            all.push((raw, [place(px), place(py)]));
        }
    }
    all
}

/// Sum of a patch's gradients below which it says nothing: 24×24 pixels differing by less than a grey level or so.
const LEAST_CONTRAST: f32 = 576.0 * 1.5;

/// The descriptor of the same patch in the mirrored picture.
pub(super) fn mirrored((raw, place): &Raw) -> Raw {
    let mut out = [0.0; RAW];
    for cell in 0..16 {
        let other = cell / 4 * 4 + 3 - cell % 4;
        for d in 0..DIRECTIONS {
            out[other * DIRECTIONS + (DIRECTIONS + DIRECTIONS / 2 - d) % DIRECTIONS] =
                raw[cell * DIRECTIONS + d];
        }
    }
    (out, [-place[0], place[1]])
}

/// Principal components of descriptors.
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    mean: Vec<f32>,
    /// `[COMPONENTS, RAW]`
    axes: Vec<f32>,
}

impl Components {
    /// Numbers that [`Components::values`] gives.
    pub(super) const VALUES: usize = RAW + COMPONENTS * RAW;

    /// Learns from descriptors, of which there must be some.
    #[must_use]
    pub fn learn(sample: &[Raw], seed: u64) -> Self {
        let mut mean = vec![0.0_f32; RAW];
        for (raw, _) in sample {
            mean.iter_mut().zip(raw).for_each(|(m, v)| *m += v / sample.len() as f32);
        }
        let mut spread = vec![0.0_f32; RAW * RAW];
        for (raw, _) in sample {
            let off: Vec<f32> = raw.iter().zip(&mean).map(|(v, m)| v - m).collect();
            for (row, &a) in spread.chunks_exact_mut(RAW).zip(&off) {
                row.iter_mut().zip(&off).for_each(|(s, &b)| *s += a * b);
            }
        }
        Self { axes: axes(&spread, seed), mean }
    }

    /// A descriptor's components, and its place scaled to count beside them.
    #[must_use]
    pub fn reduce(&self, (raw, place): &Raw) -> [f32; DIM] {
        let mut off = [0.0; RAW];
        off.iter_mut().zip(raw).zip(&self.mean).for_each(|((o, v), m)| *o = v - m);
        let mut point = [0.0; DIM];
        for (out, axis) in point.iter_mut().zip(self.axes.chunks_exact(RAW)) {
            *out = dot(axis, &off);
        }
        point[COMPONENTS] = place[0] * PLACE_WEIGHT;
        point[COMPONENTS + 1] = place[1] * PLACE_WEIGHT;
        point
    }

    /// All numbers, for the store.
    pub(super) fn values(&self) -> impl Iterator<Item = f32> {
        self.mean.iter().chain(&self.axes).copied()
    }

    /// From [`Components::values`]: at least as many as there are.
    pub(super) fn from_values(values: &[f32]) -> Self {
        let (mean, rest) = values.split_at(RAW);
        Self { mean: mean.to_vec(), axes: rest[..COMPONENTS * RAW].to_vec() }
    }
}

/// The largest principal components by orthogonal iteration.
fn axes(spread: &[f32], seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut axes: Vec<f32> =
        (0..COMPONENTS * RAW).map(|_| below(&mut state, 2001) as f32 / 1000.0 - 1.0).collect();
    for _ in 0..40 {
        let mut next = vec![0.0; axes.len()];
        for (out, axis) in next.chunks_exact_mut(RAW).zip(axes.chunks_exact(RAW)) {
            out.iter_mut().zip(spread.chunks_exact(RAW)).for_each(|(o, row)| *o = dot(row, axis));
        }
        for i in 0..COMPONENTS {
            let (before, rest) = next.split_at_mut(i * RAW);
            let axis = &mut rest[..RAW];
            for other in before.chunks_exact(RAW) {
                let along = dot(axis, other);
                axis.iter_mut().zip(other).for_each(|(a, o)| *a -= along * o);
            }
            let length = dot(axis, axis).sqrt().max(f32::MIN_POSITIVE);
            axis.iter_mut().for_each(|a| *a /= length);
        }
        axes = next;
    }
    axes
}

pub(super) fn nearest(words: &[f32], point: &[f32; DIM]) -> usize {
    let (mut best, mut least) = (0, f32::INFINITY);
    for (at, word) in words.chunks_exact(DIM).enumerate() {
        let apart: f32 = word.iter().zip(point).map(|(w, p)| (w - p) * (w - p)).sum();
        if apart < least {
            (best, least) = (at, apart);
        }
    }
    best
}

/// `count` words of a sample, `[count, DIM]`: Lloyd's k-means (1982), begun from points of the sample drawn with probability by their squared distance (Arthur and
/// Vassilvitskii 2007).
pub(super) fn k_means(points: &[[f32; DIM]], count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed ^ 0x5eed;
    let mut words = points[below(&mut state, points.len())].to_vec();
    let mut apart = vec![f32::INFINITY; points.len()];
    while words.len() < count * DIM {
        let last = &words[words.len() - DIM..];
        for (apart, point) in apart.iter_mut().zip(points) {
            *apart = apart.min(last.iter().zip(point).map(|(w, p)| (w - p) * (w - p)).sum());
        }
        let total: f64 = apart.iter().map(|&a| f64::from(a)).sum();
        let mut left = total * below(&mut state, 1 << 24) as f64 / f64::from(1 << 24);
        let chosen = apart.iter().position(|&a| {
            left -= f64::from(a);
            left < 0.0
        });
        words.extend(points[chosen.unwrap_or(points.len() - 1)]);
    }
    for _ in 0..15 {
        let (mut sums, mut counts) = (vec![0.0_f32; count * DIM], vec![0.0_f32; count]);
        for point in points {
            let at = nearest(&words, point);
            counts[at] += 1.0;
            sums[at * DIM..(at + 1) * DIM].iter_mut().zip(point).for_each(|(s, p)| *s += p);
        }
        for (at, count) in counts.into_iter().enumerate().filter(|&(_, count)| count > 0.0) {
            for k in at * DIM..(at + 1) * DIM {
                words[k] = sums[k] / count;
            }
        }
    }
    words
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Smooth blobs, others for every seed.
    pub(in super::super) fn picture(seed: u64) -> Vec<f32> {
        let mut state = seed;
        let blobs: Vec<[f32; 4]> = (0..25)
            .map(|_| std::array::from_fn(|k| below(&mut state, 1000) as f32 / if k < 2 { 8.0 } else { 10.0 }))
            .collect();
        let value = |x: f32, y: f32| -> f32 {
            let one = |b: &[f32; 4]| {
                let apart = (x - b[0]).powi(2) + (y - b[1]).powi(2);
                (b[2] - 50.0) * 2.0 * (-apart / (40.0 + b[3] * 3.0)).exp()
            };
            128.0 + blobs.iter().map(one).sum::<f32>()
        };
        (0..SIDE * SIDE).map(|i| value((i % SIDE) as f32, (i / SIDE) as f32)).collect()
    }

    pub(in super::super) fn mirror(picture: &[f32]) -> Vec<f32> {
        (0..SIDE * SIDE).map(|i| picture[i / SIDE * SIDE + SIDE - 1 - i % SIDE]).collect()
    }

    #[test]
    fn a_mirrored_picture_has_the_mirrored_descriptors() {
        let (plain, turned) = (describe(&picture(1)), describe(&mirror(&picture(1))));
        assert!(plain.len() > 200 && plain.len() == turned.len());
        for raw in &plain {
            let expected = mirrored(raw);
            let found =
                turned.iter().find(|(_, at)| (at[0] - expected.1[0]).abs() < 1e-4 && at[1] == expected.1[1]);
            let apart: f32 = found.unwrap().0.iter().zip(&expected.0).map(|(a, b)| (a - b).abs()).sum();
            assert!(apart < 1e-2, "{apart}");
        }
    }

    #[test]
    fn components_explain_as_much_as_any_and_stand_upright_on_each_other() {
        let sample: Vec<Raw> = (0..4).flat_map(|seed| describe(&picture(seed))).collect();
        let axes = Components::learn(&sample, 1).axes;
        for (i, a) in axes.chunks_exact(RAW).enumerate() {
            for (j, b) in axes.chunks_exact(RAW).enumerate() {
                let expected = f32::from(u8::from(i == j));
                assert!((dot(a, b) - expected).abs() < 1e-3, "{i} {j}: {}", dot(a, b));
            }
        }
    }
}
