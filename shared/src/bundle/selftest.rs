//! The sealed self-test: chips whose embeddings and decisions are known, so that a board shows that it computes what was measured.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::BundleError;
use crate::align::CHIP_BYTES;
use crate::embedding::{DIM, Embedding, Template};
use crate::score::{Similarity, Threshold};

/// Most chips of a self-test.
pub const MAX_PROBES: usize = 32;

/// Chips, what must come of each, and what must be decided of pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// The chips.
    pub probes: Vec<ProbeChip>,
    /// Decisions.
    pub pairs: Vec<Pair>,
    /// The least cosine between what a chip gives here and what it gave where the bundle was built.
    pub min_cosine: f32,
}

/// One chip and the template that it gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeChip {
    /// Packed RGB `[112, 112, 3]`.
    pub chip: Vec<u8>,
    /// The template's 128 codes.
    pub codes: Vec<i8>,
}

/// Two chips, and whether they show one person at the bundle's threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// One chip, by its place.
    pub a: u8,
    /// The other.
    pub b: u8,
    /// Whether they are one person.
    pub same: bool,
}

/// What a passed self-test measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelfTestReport {
    /// Chips.
    pub probes: usize,
    /// Pairs.
    pub pairs: usize,
    /// The least cosine between expected and computed.
    pub least: Similarity,
}

impl SelfTest {
    /// Reads and checks a self-test.
    ///
    /// # Errors
    /// [`BundleError::Section`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let fault = BundleError::Section { what: "self-test" };
        let (test, rest) = postcard::take_from_bytes::<Self>(bytes).map_err(|_| fault)?;
        if rest.is_empty() && test.is_consistent() { Ok(test) } else { Err(fault) }
    }

    /// Puts every chip through `embed` and compares.
    ///
    /// # Errors
    /// [`SelfTestFault`], the first that is met.
    pub fn run(
        &self,
        threshold: Threshold,
        mut embed: impl FnMut(&[u8; CHIP_BYTES]) -> Option<Embedding>,
    ) -> Result<SelfTestReport, SelfTestFault> {
        let mut made: Vec<Template> = Vec::with_capacity(self.probes.len());
        let mut least = Similarity(1.0);
        for (at, probe) in self.probes.iter().enumerate() {
            let at = at as u8; // at most MAX_PROBES
            let inconsistent = SelfTestFault::NoEmbedding { probe: at };
            let chip = <&[u8; CHIP_BYTES]>::try_from(probe.chip.as_slice()).map_err(|_| inconsistent)?;
            let expected = template(&probe.codes).ok_or(inconsistent)?;
            let got = Template::quantize(&embed(chip).ok_or(inconsistent)?);
            let cosine = got.similarity(&expected);
            if !Threshold(self.min_cosine).accepts(cosine) {
                return Err(SelfTestFault::Embedding { probe: at, cosine });
            }
            if cosine < least {
                least = cosine;
            }
            made.push(got);
        }
        for pair in &self.pairs {
            let (Some(a), Some(b)) = (made.get(usize::from(pair.a)), made.get(usize::from(pair.b))) else {
                return Err(SelfTestFault::NoEmbedding { probe: pair.a.max(pair.b) });
            };
            let similarity = a.similarity(b);
            if threshold.accepts(similarity) != pair.same {
                return Err(SelfTestFault::Decision { a: pair.a, b: pair.b, similarity });
            }
        }
        Ok(SelfTestReport { probes: self.probes.len(), pairs: self.pairs.len(), least })
    }

    fn is_consistent(&self) -> bool {
        let count = self.probes.len();
        (1..=MAX_PROBES).contains(&count)
            && self.pairs.len() <= MAX_PROBES * MAX_PROBES
            && (0.5..=1.0).contains(&self.min_cosine)
            && self.probes.iter().all(|p| p.chip.len() == CHIP_BYTES && template(&p.codes).is_some())
            && self.pairs.iter().all(|p| usize::from(p.a.max(p.b)) < count && p.a != p.b)
    }
}

fn template(codes: &[i8]) -> Option<Template> {
    Template::from_codes(<[i8; DIM]>::try_from(codes).ok()?).ok()
}

/// How a self-test failed.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SelfTestFault {
    /// A chip gave no embedding.
    #[error("chip {probe} of the self-test gave no embedding")]
    NoEmbedding {
        /// Which.
        probe: u8,
    },
    /// A chip gave another embedding than where the bundle was built.
    #[error("chip {probe} of the self-test gave another embedding: cosine {cosine}")]
    Embedding {
        /// Which.
        probe: u8,
        /// How close.
        cosine: Similarity,
    },
    /// A pair was decided wrongly.
    #[error("chips {a} and {b} of the self-test were decided wrongly at similarity {similarity}")]
    Decision {
        /// One.
        a: u8,
        /// The other.
        b: u8,
        /// How close they came.
        similarity: Similarity,
    },
}
