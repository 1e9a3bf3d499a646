//! Dense local descriptors of an aligned face and the VLAD of a picture.
//!
//! Histograms of gradient directions on a grid (SIFT's 4×4 cells of 8 directions; Lowe 2004), normalised, rooted (Arandjelović and Zisserman
//! 2012), reduced by principal components and extended by where they lie, as in Fisher vector faces (Simonyan et al. 2013). A picture is
//! the sum of each word's residuals (VLAD; Jégou et al. 2010), every word scaled to length one (intra-normalisation; Arandjelović and
//! Zisserman 2013), then the whole.

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
/// Numbers of a descriptor: components and place.
const DIM: usize = COMPONENTS + 2;
/// How much the place counts beside the components.
const PLACE_WEIGHT: f32 = 0.3;
/// Words of the vocabulary.
const WORDS: usize = 32;
/// Numbers of a VLAD.
pub const VLAD_DIM: usize = WORDS * DIM;

/// One raw descriptor and where its middle lies, −1 to 1.
type Raw = ([f32; RAW], [f32; 2]);

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
fn mirrored((raw, place): &Raw) -> Raw {
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

/// Principal components and words, learnt from a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    mean: Vec<f32>,
    /// `[COMPONENTS, RAW]`
    axes: Vec<f32>,
    /// `[WORDS, DIM]`
    words: Vec<f32>,
}

impl Vocabulary {
    /// Learns from descriptors; `None` where there are fewer than two a word.
    #[must_use]
    pub fn learn(sample: &[Raw], seed: u64) -> Option<Self> {
        if sample.len() < 2 * WORDS {
            return None;
        }
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
        let mut vocabulary = Self { mean, axes: axes(&spread, seed), words: Vec::new() };
        let points: Vec<[f32; DIM]> = sample.iter().map(|raw| vocabulary.reduce(raw)).collect();
        vocabulary.words = k_means(&points, seed);
        Some(vocabulary)
    }

    fn reduce(&self, (raw, place): &Raw) -> [f32; DIM] {
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

    /// The VLAD of a picture's descriptors and that of the mirrored picture.
    #[must_use]
    pub fn vlad(&self, raw: &[Raw]) -> Vlad {
        let plain = self.sum(raw.iter().map(|raw| self.reduce(raw)));
        let mirror = self.sum(raw.iter().map(|raw| self.reduce(&mirrored(raw))));
        Vlad { plain, mirror }
    }

    fn sum(&self, points: impl Iterator<Item = [f32; DIM]>) -> Codes {
        let mut sums = vec![0.0_f32; VLAD_DIM];
        for point in points {
            let at = nearest(&self.words, &point);
            let word = &self.words[at * DIM..(at + 1) * DIM];
            for (k, sum) in sums[at * DIM..(at + 1) * DIM].iter_mut().enumerate() {
                *sum += point[k] - word[k];
            }
        }
        for word in sums.chunks_exact_mut(DIM) {
            let length = dot(word, word).sqrt();
            if length > 1e-6 {
                word.iter_mut().for_each(|v| *v /= length);
            }
        }
        Codes::new(&sums)
    }

    /// As bytes, for the store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let all = self.mean.iter().chain(&self.axes).chain(&self.words);
        all.flat_map(|v| v.to_le_bytes()).collect()
    }

    /// From the store's bytes; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if values.len() != RAW + COMPONENTS * RAW + VLAD_DIM || bytes.len() != values.len() * 4 {
            return None;
        }
        let (mean, rest) = values.split_at(RAW);
        let (axes, words) = rest.split_at(COMPONENTS * RAW);
        Some(Self { mean: mean.to_vec(), axes: axes.to_vec(), words: words.to_vec() })
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

fn nearest(words: &[f32], point: &[f32; DIM]) -> usize {
    let (mut best, mut least) = (0, f32::INFINITY);
    for (at, word) in words.chunks_exact(DIM).enumerate() {
        let apart: f32 = word.iter().zip(point).map(|(w, p)| (w - p) * (w - p)).sum();
        if apart < least {
            (best, least) = (at, apart);
        }
    }
    best
}

/// Lloyd's k-means (1982), begun from points of the sample drawn with probability by their squared distance (Arthur and
/// Vassilvitskii 2007).
fn k_means(points: &[[f32; DIM]], seed: u64) -> Vec<f32> {
    let mut state = seed ^ 0x5eed;
    let mut words = points[below(&mut state, points.len())].to_vec();
    let mut apart = vec![f32::INFINITY; points.len()];
    while words.len() < VLAD_DIM {
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
        let (mut sums, mut counts) = (vec![0.0_f32; VLAD_DIM], [0.0_f32; WORDS]);
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

/// A vector of length one as 8-bit codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes(Vec<i8>);

impl Codes {
    fn new(values: &[f32]) -> Self {
        let most = values.iter().fold(0.0_f32, |m, v| m.max(v.abs())).max(f32::MIN_POSITIVE);
        Self(values.iter().map(|v| (v / most * 127.0).round() as i8).collect())
    }

    /// Cosine with another; 0 where one is all zeros.
    #[must_use]
    pub fn cosine(&self, other: &Self) -> f32 {
        let product =
            |a: &[i8], b: &[i8]| -> i32 { a.iter().zip(b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum() };
        let lengths = product(&self.0, &self.0) as f32 * product(&other.0, &other.0) as f32;
        if lengths > 0.0 { product(&self.0, &other.0) as f32 / lengths.sqrt() } else { 0.0 }
    }
}

/// A picture's VLAD, and that of its mirror image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlad {
    plain: Codes,
    mirror: Codes,
}

impl Vlad {
    /// How alike two pictures are, whichever way round: −1 to 1.
    #[must_use]
    pub fn alike(&self, other: &Self) -> f32 {
        self.plain.cosine(&other.plain).max(self.plain.cosine(&other.mirror))
    }

    /// Hashes that near pictures share some of, the same for a picture and its mirror image: signs of projections onto directions drawn at random
    /// (Charikar 2002), 16 a band.
    #[must_use]
    pub fn bands(&self) -> [u64; BANDS] {
        let both: Vec<f32> =
            self.plain.0.iter().zip(&self.mirror.0).map(|(&a, &b)| f32::from(a) + f32::from(b)).collect();
        let mut state = 0xba2d;
        std::array::from_fn(|_| {
            (0..16).fold(0, |hash, _| {
                let mut sum = 0.0;
                for values in both.chunks(64) {
                    // One draw gives the signs of 64 dimensions.
                    let signs = bits(&mut state);
                    sum += values
                        .iter()
                        .enumerate()
                        .map(|(k, v)| if signs >> k & 1 == 1 { *v } else { -v })
                        .sum::<f32>();
                }
                hash << 1 | u64::from(sum > 0.0)
            })
        })
    }

    /// As bytes, for the store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.plain.0.iter().chain(&self.mirror.0).map(|&c| c.cast_unsigned()).collect()
    }

    /// From the store's bytes; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let codes = |bytes: &[u8]| Codes(bytes.iter().map(|b| b.cast_signed()).collect());
        let halves = bytes.split_at_checked(VLAD_DIM).filter(|(_, rest)| rest.len() == VLAD_DIM)?;
        Some(Self { plain: codes(halves.0), mirror: codes(halves.1) })
    }
}

/// Bands of a signature.
pub const BANDS: usize = 12;

fn bits(state: &mut u64) -> u64 {
    (below(state, 1 << 32) as u64) << 32 | below(state, 1 << 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smooth blobs, others for every seed.
    fn picture(seed: u64) -> Vec<f32> {
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

    fn mirror(picture: &[f32]) -> Vec<f32> {
        (0..SIDE * SIDE).map(|i| picture[i / SIDE * SIDE + SIDE - 1 - i % SIDE]).collect()
    }

    fn vocabulary() -> Vocabulary {
        let sample: Vec<Raw> = (0..12).flat_map(|seed| describe(&picture(seed + 100))).collect();
        Vocabulary::learn(&sample, 1).unwrap()
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
    fn the_same_picture_in_other_light_or_mirrored_is_near_and_another_is_not() {
        let vocabulary = vocabulary();
        let vlad = |picture: &[f32]| vocabulary.vlad(&describe(picture));
        let one = picture(1);
        let a = vlad(&one);
        let light: Vec<f32> = one.iter().map(|v| v * 0.7 + 40.0).collect();
        assert!((a.alike(&a) - 1.0).abs() < 1e-6);
        assert!(a.alike(&vlad(&light)) > 0.95, "{}", a.alike(&vlad(&light)));
        assert!(a.alike(&vlad(&mirror(&one))) > 0.99, "{}", a.alike(&vlad(&mirror(&one))));
        assert!(a.alike(&vlad(&picture(2))) < 0.6, "{}", a.alike(&vlad(&picture(2))));
        let shared = a.bands().iter().zip(vlad(&mirror(&one)).bands()).filter(|(a, b)| **a == *b).count();
        assert!(shared >= 6, "{shared} of {BANDS} bands");
        assert_eq!(a.bands().iter().zip(vlad(&picture(2)).bands()).filter(|(a, b)| **a == *b).count(), 0);
        assert!(describe(&vec![77.0; SIDE * SIDE]).is_empty(), "no contrast, no descriptors");
        assert_eq!(vlad(&vec![77.0; SIDE * SIDE]).alike(&a), 0.0);
    }

    #[test]
    fn the_store_gives_back_what_it_was_given() {
        let vocabulary = vocabulary();
        assert_eq!(Vocabulary::from_bytes(&vocabulary.to_bytes()).unwrap(), vocabulary);
        let vlad = vocabulary.vlad(&describe(&picture(5)));
        assert_eq!(Vlad::from_bytes(&vlad.to_bytes()).unwrap(), vlad);
        assert!(Vlad::from_bytes(&[0; 10]).is_none() && Vocabulary::from_bytes(&[0; 8]).is_none());
        assert!(Vocabulary::learn(&[], 1).is_none());
    }

    #[test]
    fn components_explain_as_much_as_any_and_stand_upright_on_each_other() {
        let sample: Vec<Raw> = (0..4).flat_map(|seed| describe(&picture(seed))).collect();
        let axes = Vocabulary::learn(&sample, 1).unwrap().axes;
        for (i, a) in axes.chunks_exact(RAW).enumerate() {
            for (j, b) in axes.chunks_exact(RAW).enumerate() {
                let expected = f32::from(u8::from(i == j));
                assert!((dot(a, b) - expected).abs() < 1e-3, "{i} {j}: {}", dot(a, b));
            }
        }
    }
}
