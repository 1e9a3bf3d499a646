//! What a model file expects and where it came from.
//!
//! Nothing about a model is guessed from its node names: size, channel order, normalisation and alignment are written
//! down by whoever imports or exports it, and unknown keys are errors, so that a typo cannot become a default.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use super::manifest::{MANIFEST_FILE, Manifest, ManifestEntry, ManifestError};
use crate::align::{CANONICAL_112, CHIP_PX};
use crate::detection::Landmarks5;

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Picture to faces.
    Detector,
    /// Aligned chip to a vector of 128.
    Embedder,
    /// Crop of a detected face to its 68 points.
    Fiducials,
}

/// How a model's outputs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Twelve outputs `cls_8 … kps_32`, anchor-free (Wu et al. 2023, "YuNet: a tiny millisecond-level face detector").
    Yunet,
    /// One output of 128 numbers, not yet normalised.
    Embedding,
    /// One output of 68 × 4 numbers for the crop that [`super::fiducials`] cuts: x, y, logit of the visibility, ln of the spread.
    Fiducials68,
}

/// Where weights come from, so that anyone can fetch the same bytes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Package or project.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The file inside it.
    pub path: String,
    /// SHA-256 of that file as published, before any rewriting.
    pub sha256: FileHash,
}

/// What the network is fed: float32 `[1, 3, height_px, width_px]`, each value `(pixel - mean[c]) * scale[c]` with
/// `pixel` 0 to 255 and `c` counted in `channels` order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputContract {
    /// Width of the input. A detector may be loaded at another size, a multiple of `pad_multiple_px`.
    pub width_px: usize,
    /// Height of the input.
    pub height_px: usize,
    /// Order of the three planes.
    pub channels: ChannelOrder,
    /// Subtracted from each plane, in pixel units 0 to 255.
    pub mean: [f32; 3],
    /// Multiplied after the subtraction; never zero.
    pub scale: [f32; 3],
    /// How chips are cut; embedders only, and required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<Alignment>,
    /// Sides must be multiples of this; detectors only, and required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_multiple_px: Option<usize>,
}

/// Order of the planes in the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// How a chip is cut from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alignment {
    /// Which warp.
    pub method: AlignmentMethod,
    /// Where the landmarks end up.
    pub canonical: Canonical,
}

/// Which warp brings a face to the chip. Those beyond the similarity need fiducials: of a `fiducials` model where the door has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlignmentMethod {
    /// Position and size only, the head as tilted and turned as it is; for measurements.
    None,
    /// Five-point similarity, least squares: [`crate::align::similarity`].
    Similarity,
    /// DeepFace's six-point similarity, iterated: [`crate::align::warp2d`].
    Warp2d,
    /// DeepFace's frontal view by way of a 3D face: [`crate::align::frontalize`].
    Frontal3d,
}

impl AlignmentMethod {
    /// Every method, simplest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Similarity, Self::Warp2d, Self::Frontal3d];

    /// As contracts and command lines write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Similarity => "similarity",
            Self::Warp2d => "warp2d",
            Self::Frontal3d => "frontal3d",
        }
    }

    /// Whether the chip depends on fiducials, and so on the net that finds them.
    #[must_use]
    pub const fn needs_fiducials(self) -> bool {
        matches!(self, Self::Warp2d | Self::Frontal3d)
    }
}

/// Named layouts of the five landmarks on the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Canonical {
    /// [`CANONICAL_112`]: the layout of ArcFace and SFace.
    Arcface112,
}

impl ChannelOrder {
    /// Which byte of an RGB pixel goes to `plane`, 0 to 2.
    #[must_use]
    pub const fn rgb_index(self, plane: usize) -> usize {
        match self {
            Self::Rgb => plane,
            Self::Bgr => 2 - plane,
        }
    }
}

impl Alignment {
    /// The alignment of public embedders.
    pub const ARCFACE_112: Self =
        Self { method: AlignmentMethod::Similarity, canonical: Canonical::Arcface112 };

    /// What a template is bound to: changes whenever the same landmarks would give another chip.
    #[must_use]
    pub const fn identity(self) -> &'static str {
        match (self.method, self.canonical) {
            (AlignmentMethod::None, Canonical::Arcface112) => "none/arcface112/1",
            (AlignmentMethod::Similarity, Canonical::Arcface112) => "similarity/arcface112/1",
            (AlignmentMethod::Warp2d, Canonical::Arcface112) => "warp2d/arcface112/1",
            (AlignmentMethod::Frontal3d, Canonical::Arcface112) => "frontal3d/arcface112/1",
        }
    }

    /// Where the five landmarks end up.
    #[must_use]
    pub const fn landmarks(self) -> Landmarks5 {
        match self.canonical {
            Canonical::Arcface112 => CANONICAL_112,
        }
    }
}

/// SHA-256 of a file, 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileHash(pub [u8; 32]);

impl FileHash {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for FileHash {
    type Err = HashTextError;

    fn from_str(text: &str) -> Result<Self, HashTextError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| HashTextError)?;
        Ok(Self(bytes))
    }
}

impl Serialize for FileHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Text that is not a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a SHA-256 is written as 64 hexadecimal digits")]
pub struct HashTextError;

impl InputContract {
    /// What contradicts itself in this contract of a model of `kind`, if anything.
    pub(super) fn fault(&self, kind: ModelKind) -> Option<&'static str> {
        let sides = [self.width_px, self.height_px];
        if sides.iter().any(|s| !(16..=MAX_INPUT_SIDE_PX).contains(s)) {
            return Some("`width_px` and `height_px` must lie between 16 and 2048");
        }
        if !self.mean.iter().chain(&self.scale).all(|v| v.is_finite()) || self.scale.contains(&0.0) {
            return Some("`mean` and `scale` must be finite, and `scale` not zero");
        }
        match (kind, self.alignment, self.pad_multiple_px) {
            (ModelKind::Detector, Some(_), _) => Some("`alignment` belongs to embedders"),
            (ModelKind::Detector, None, None | Some(0)) => Some("a detector needs `pad_multiple_px`"),
            (ModelKind::Detector, None, Some(m)) if sides.iter().any(|s| s % m != 0) => {
                Some("`width_px` and `height_px` must be multiples of `pad_multiple_px`")
            }
            (ModelKind::Detector, None, Some(_)) => None,
            (ModelKind::Fiducials, Some(_), _) | (ModelKind::Fiducials, None, Some(_)) => {
                Some("`alignment` and `pad_multiple_px` do not belong to fiducials: their crop is fixed")
            }
            (ModelKind::Fiducials, None, None) if sides != [super::fiducials::CROP_PX; 2] => {
                Some("fiducials are read from crops of 96x96 px")
            }
            (ModelKind::Fiducials, None, None) => None,
            (ModelKind::Embedder, _, Some(_)) => Some("`pad_multiple_px` belongs to detectors"),
            (ModelKind::Embedder, None, None) => Some("an embedder needs `alignment`"),
            (ModelKind::Embedder, Some(_), None) if sides != [CHIP_PX; 2] => {
                Some("an embedder reads chips of 112x112 px")
            }
            (ModelKind::Embedder, Some(_), None) => None,
        }
    }
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detector => "detector",
            Self::Embedder => "embedder",
            Self::Fiducials => "fiducials net",
        })
    }
}

const MAX_INPUT_SIDE_PX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_written_as_they_are_read() {
        // SHA-256 of the empty string, FIPS 180-4.
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(FileHash::of(b"").to_string(), text);
        assert_eq!(text.parse(), Ok(FileHash::of(b"")));
        for wrong in ["", "e3", &text[1..], &text.replace('e', "x")] {
            assert_eq!(wrong.parse::<FileHash>(), Err(HashTextError));
        }
    }

    #[test]
    fn alignments_are_written_by_name_and_told_apart() {
        #[derive(Serialize, Deserialize)]
        struct Wrapped {
            alignment: Alignment,
        }
        for (i, method) in AlignmentMethod::ALL.into_iter().enumerate() {
            let alignment = Alignment { method, canonical: Canonical::Arcface112 };
            let text = toml::to_string(&Wrapped { alignment }).unwrap();
            assert!(text.contains(&format!("\"{}\"", method.name())), "{text}");
            assert_eq!(toml::from_str::<Wrapped>(&text).unwrap().alignment, alignment);
            assert!(alignment.identity().starts_with(method.name()));
            for other in &AlignmentMethod::ALL[..i] {
                assert_ne!(alignment.identity(), Alignment { method: *other, ..alignment }.identity());
            }
        }
    }

    #[test]
    fn planes_take_the_byte_of_their_colour() {
        assert_eq!([0, 1, 2].map(|p| ChannelOrder::Rgb.rgb_index(p)), [0, 1, 2]);
        assert_eq!([0, 1, 2].map(|p| ChannelOrder::Bgr.rgb_index(p)), [2, 1, 0]);
    }
}
