//! Embeddings on the unit sphere and the 132-byte templates made of them.
//!
//! FaceNet (Schroff et al. 2015, section 3.1) constrains f(x) to ‖f(x)‖ = 1 and finds (section 5.3) that 128 bytes a face
//! lose nothing; a template here is 128 signed bytes and one scale.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::score::Similarity;

/// Numbers in an embedding.
pub const DIM: usize = 128;

/// A face as a point on the unit sphere, shape `[128]`.
#[derive(Clone, Copy, PartialEq)]
pub struct Embedding([f32; DIM]);

impl Embedding {
    /// Normalises `raw`, the network's output of shape `[128]`, to length one.
    ///
    /// # Errors
    /// [`EmbeddingError::Length`] for another length, [`EmbeddingError::Degenerate`] when the length is zero or not finite.
    pub fn from_raw(raw: &[f32]) -> Result<Self, EmbeddingError> {
        let mut values: [f32; DIM] =
            raw.try_into().map_err(|_| EmbeddingError::Length { actual: raw.len() })?;
        let norm = libm::sqrt(values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>());
        if !norm.is_finite() || norm < 1e-12 {
            return Err(EmbeddingError::Degenerate);
        }
        for v in &mut values {
            *v = (f64::from(*v) / norm) as f32;
        }
        Ok(Self(values))
    }

    /// The unit vector.
    #[must_use]
    pub const fn values(&self) -> &[f32; DIM] {
        &self.0
    }

    /// Cosine with `other`.
    #[must_use]
    pub fn similarity(&self, other: &Self) -> Similarity {
        Similarity(self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum())
    }
}

impl core::fmt::Debug for Embedding {
    // Biometric data never reaches a log.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Embedding([128])")
    }
}

/// What the gallery stores: 128 signed bytes and the scale that brings them back to length one.
#[derive(Clone, Copy, PartialEq)]
pub struct Template {
    codes: [i8; DIM],
    scale: f32,
}

impl Template {
    /// Quantizes symmetrically: the largest magnitude becomes ±127, the scale is one over the codes' length, so that a
    /// template's similarity to itself is exactly one up to rounding.
    #[must_use]
    pub fn quantize(embedding: &Embedding) -> Self {
        let peak = embedding.0.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let mut codes = [0_i8; DIM];
        for (code, value) in codes.iter_mut().zip(&embedding.0) {
            *code = libm::rintf(value / peak * 127.0) as i8;
        }
        Self { codes, scale: scale_of(&codes) }
    }

    /// Rebuilds a template from stored codes; the scale follows from them.
    ///
    /// # Errors
    /// [`EmbeddingError::Degenerate`] when all codes are zero, or one is −128, which quantization never makes.
    pub fn from_codes(codes: [i8; DIM]) -> Result<Self, EmbeddingError> {
        if codes.iter().all(|&c| c == 0) || codes.contains(&i8::MIN) {
            return Err(EmbeddingError::Degenerate);
        }
        Ok(Self { codes, scale: scale_of(&codes) })
    }

    /// The signed bytes, −127 to 127.
    #[must_use]
    pub const fn codes(&self) -> &[i8; DIM] {
        &self.codes
    }

    /// One over the codes' Euclidean length.
    #[must_use]
    pub const fn scale(&self) -> f32 {
        self.scale
    }

    /// Cosine with `other`, by integer products.
    #[must_use]
    pub fn similarity(&self, other: &Self) -> Similarity {
        Similarity(dot(&self.codes, &other.codes) as f32 * self.scale * other.scale)
    }
}

impl core::fmt::Debug for Template {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Template([128])")
    }
}

/// Inner product of two code vectors; written so that the compiler vectorizes it on every target.
#[inline]
#[must_use]
pub fn dot(a: &[i8; DIM], b: &[i8; DIM]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from(i16::from(x) * i16::from(y))).sum()
}

fn scale_of(codes: &[i8; DIM]) -> f32 {
    (1.0 / libm::sqrt(f64::from(dot(codes, codes)))) as f32
}

/// What a template is bound to: the first 16 bytes of SHA-256 over (embedder's file hash, alignment and its version, template
/// quantization and its version). Templates of different bindings are never compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelBinding(pub [u8; 16]);

impl core::fmt::Debug for ModelBinding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl core::fmt::Display for ModelBinding {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why numbers are not an embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EmbeddingError {
    /// Not 128 numbers.
    #[error("an embedding has {DIM} numbers, the model gave {actual}: import a 128-dimensional embedder")]
    Length {
        /// Numbers given.
        actual: usize,
    },
    /// Zero length, NaN, infinite, or codes that quantization never makes.
    #[error("the embedding is zero or not finite")]
    Degenerate,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn int8_keeps_the_cosine(a in prop::collection::vec(-1.0_f32..1.0, DIM), b in prop::collection::vec(-1.0_f32..1.0, DIM)) {
            let (a, b) = (Embedding::from_raw(&a), Embedding::from_raw(&b));
            prop_assume!(a.is_ok() && b.is_ok());
            let (a, b) = (a.unwrap(), b.unwrap());
            let (ta, tb) = (Template::quantize(&a), Template::quantize(&b));
            // Rounding is at most half a step of peak/127 a coordinate; uniform vectors peak near 1.7/sqrt(128).
            prop_assert!((ta.similarity(&tb).0 - a.similarity(&b).0).abs() < 0.01);
            prop_assert!((ta.similarity(&ta).0 - 1.0).abs() < 1e-5);
            prop_assert_eq!(Template::from_codes(*ta.codes()).unwrap(), ta);
        }
    }

    #[test]
    fn degenerate_vectors_are_refused() {
        assert_eq!(Embedding::from_raw(&[0.0; DIM]).unwrap_err(), EmbeddingError::Degenerate);
        assert_eq!(Embedding::from_raw(&[f32::NAN; DIM]).unwrap_err(), EmbeddingError::Degenerate);
        assert_eq!(Embedding::from_raw(&[1.0; 3]).unwrap_err(), EmbeddingError::Length { actual: 3 });
        assert_eq!(Template::from_codes([0; DIM]).unwrap_err(), EmbeddingError::Degenerate);
    }
}
