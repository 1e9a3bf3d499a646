//! Random numbers that are a pure function of (seed, stream, position), so that a resumed run draws what the uninterrupted
//! one would have drawn: the only state a checkpoint needs is the step.

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, one multiply-xor chain a draw.
#[derive(Debug, Clone)]
pub struct Random(u64);

/// What a stream of numbers is for; two uses never share a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Order of the samples in one epoch.
    Order = 1,
    /// Augmentation of one sample.
    Augment = 2,
    /// Assignment to splits.
    Split = 3,
    /// Choice of identities and faces in a batch.
    Sampler = 4,
    /// Seeds of libtorch's own generator, one a step (dropout).
    Dropout = 5,
}

impl Random {
    /// The generator for position `at` of `stream` under `seed`.
    #[must_use]
    pub const fn new(seed: u64, stream: Stream, at: u64) -> Self {
        Self(mix(mix(seed ^ mix(stream as u64)).wrapping_add(mix(at ^ 0x5851_f42d_4c95_7f2d))))
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Uniform in 0..n, for n ≥ 1; the bias is below n / 2⁶⁴.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_gives_the_same_numbers_again_and_its_neighbour_others() {
        let draw = |at| {
            let mut random = Random::new(7, Stream::Augment, at);
            [random.bits(), random.bits()]
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
        assert_ne!(Random::new(7, Stream::Order, 5).bits(), Random::new(7, Stream::Augment, 5).bits());
    }

    #[test]
    fn shuffling_permutes_and_units_cover_the_interval() {
        let mut random = Random::new(1, Stream::Order, 0);
        let mut items: Vec<usize> = (0..1000).collect();
        random.shuffle(&mut items);
        assert_ne!(items[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        items.sort_unstable();
        assert!(items.iter().enumerate().all(|(i, &v)| i == v));
        let mean = (0..10_000).map(|_| random.unit()).sum::<f32>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02, "mean {mean}");
    }
}
