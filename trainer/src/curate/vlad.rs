//! The VLAD of a picture: what near-duplicates are told by.
//!
//! The sum of each word's residuals of the dense local descriptors (Jégou et al. 2010), every word scaled to length one
//! (intra-normalisation; Arandjelović and Zisserman 2013), then the whole.

use super::local::{Components, DIM, Raw, k_means, mirrored, nearest};
use super::svm::{below, dot};

/// Words of the vocabulary.
const WORDS: usize = 32;
/// Numbers of a VLAD.
pub const VLAD_DIM: usize = WORDS * DIM;

/// Principal components and words, learnt from a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    components: Components,
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
        let components = Components::learn(sample, seed);
        let points: Vec<[f32; DIM]> = sample.iter().map(|raw| components.reduce(raw)).collect();
        Some(Self { words: k_means(&points, WORDS, seed), components })
    }

    /// The VLAD of a picture's descriptors and that of the mirrored picture.
    #[must_use]
    pub fn vlad(&self, raw: &[Raw]) -> Vlad {
        let plain = self.sum(raw.iter().map(|raw| self.components.reduce(raw)));
        let mirror = self.sum(raw.iter().map(|raw| self.components.reduce(&mirrored(raw))));
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
        let all = self.components.values().chain(self.words.iter().copied());
        all.flat_map(|v| v.to_le_bytes()).collect()
    }

    /// From the store's bytes; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if values.len() != Components::VALUES + VLAD_DIM || bytes.len() != values.len() * 4 {
            return None;
        }
        let words = values[Components::VALUES..].to_vec();
        Some(Self { components: Components::from_values(&values), words })
    }
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
    use super::super::local::tests::{mirror, picture};
    use super::super::local::{SIDE, describe};
    use super::*;

    fn vocabulary() -> Vocabulary {
        let sample: Vec<Raw> = (0..12).flat_map(|seed| describe(&picture(seed + 100))).collect();
        Vocabulary::learn(&sample, 1).unwrap()
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
}
