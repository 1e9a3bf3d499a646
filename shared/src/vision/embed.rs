//! An aligned chip to a point on the unit sphere.

use std::path::{Path, PathBuf};

use super::contract::{Alignment, InputContract, ManifestEntry};
use super::error::VisionError;
use super::runtime::{Network, values};
use crate::align::{CHIP_BYTES, CHIP_PX};
use crate::embedding::{DIM, Embedding, ModelBinding};
use sha2::{Digest, Sha256};

/// A loaded embedder.
#[derive(Debug)]
pub struct Embedder {
    network: Network,
    contract: InputContract,
}

impl Embedder {
    /// Loads the embedder for chips of 112×112.
    ///
    /// # Errors
    /// [`VisionError`] naming the file; [`VisionError::Shape`] when its output is not one vector of 128.
    pub fn load(dir: &Path, entry: &ManifestEntry) -> Result<Self, VisionError> {
        let network = Network::load(dir, entry, CHIP_PX, CHIP_PX)?;
        let outputs: Vec<_> = network.outputs().collect();
        match outputs[..] {
            [(_, shape)] if shape.iter().product::<usize>() == DIM => {}
            [(name, shape)] => {
                return Err(network
                    .shape_error(format!("output \"{name}\" is {shape:?} instead of one vector of {DIM}")));
            }
            _ => {
                return Err(network.shape_error(format!("it has {} outputs instead of one", outputs.len())));
            }
        }
        Ok(Self { network, contract: entry.contract })
    }

    /// Embeds a chip, packed RGB `[112, 112, 3]`.
    ///
    /// # Errors
    /// [`VisionError::Model`] when the network fails, [`VisionError::Embedding`] when it returns zeros or numbers that are not finite.
    pub fn embed(&mut self, chip: &[u8; CHIP_BYTES]) -> Result<Embedding, VisionError> {
        fill(chip, &self.contract, self.network.input_mut()?);
        let outputs = self.network.run()?;
        Embedding::from_raw(values(&outputs[0]))
            .map_err(|source| VisionError::Embedding { path: PathBuf::from(self.network.path()), source })
    }
}

/// What templates made by `entry` are bound to: the network's bytes, how its input is normalised, how the chip is cut, and how
/// templates are quantized. If any of them changes, the same face gives other numbers.
#[must_use]
pub fn binding(entry: &ManifestEntry) -> ModelBinding {
    binding_with(entry, None)
}

/// The same when the alignment needs fiducials and the model `fiducials` finds them: other fiducials give other chips. An alignment that
/// needs none is bound as by [`binding`].
#[must_use]
pub fn binding_with(entry: &ManifestEntry, fiducials: Option<&ManifestEntry>) -> ModelBinding {
    let contract = &entry.contract;
    let mut hash = Sha256::new();
    hash.update(entry.sha256.0);
    hash.update([contract.channels.rgb_index(0) as u8]);
    for value in contract.mean.iter().chain(&contract.scale) {
        hash.update(value.to_le_bytes());
    }
    for name in [contract.alignment.map_or("none", Alignment::identity), TEMPLATE_QUANTIZATION] {
        hash.update([name.len() as u8]);
        hash.update(name);
    }
    if let Some(fiducials) = fiducials
        && contract.alignment.is_some_and(|alignment| alignment.method.needs_fiducials())
    {
        hash.update(fiducials.sha256.0);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&digest[..16]);
    ModelBinding(first)
}

/// Name and version of [`Template::quantize`](crate::embedding::Template::quantize). Raise it whenever that changes.
pub const TEMPLATE_QUANTIZATION: &str = "int8-symmetric/1";

fn fill(chip: &[u8; CHIP_BYTES], contract: &InputContract, planes: &mut [f32]) {
    for (plane, target) in planes.chunks_exact_mut(CHIP_PX * CHIP_PX).enumerate() {
        let channel = contract.channels.rgb_index(plane);
        let (mean, scale) = (contract.mean[plane], contract.scale[plane]);
        for (value, pixel) in target.iter_mut().zip(chip.as_chunks::<3>().0) {
            *value = (f32::from(pixel[channel]) - mean) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{AlignmentMethod, ChannelOrder, FileHash};
    use super::super::testing;
    use super::*;

    fn embedder(bytes: Vec<u8>, contract: impl Fn(&mut InputContract)) -> Result<Embedder, VisionError> {
        let dir = tempfile::tempdir().unwrap();
        let mut entry = testing::entry("colours", &bytes);
        contract(&mut entry.contract);
        testing::write_models(dir.path(), &[(entry.clone(), bytes)]);
        Embedder::load(dir.path(), &entry)
    }

    fn chip(rgb: [u8; 3]) -> [u8; CHIP_BYTES] {
        core::array::from_fn(|i| rgb[i % 3])
    }

    #[test]
    fn the_contract_decides_order_mean_and_scale() {
        let mut rgb = embedder(testing::colour_embedder(128), |_| {}).unwrap();
        let mut bgr = embedder(testing::colour_embedder(128), |c| c.channels = ChannelOrder::Bgr).unwrap();
        let seen = rgb.embed(&chip([200, 30, 10])).unwrap();
        assert!(seen.similarity(&bgr.embed(&chip([10, 30, 200])).unwrap()).0 > 0.99999);
        assert!(seen.similarity(&bgr.embed(&chip([200, 30, 10])).unwrap()).0 < 0.99);

        let mut shifted = embedder(testing::colour_embedder(128), |c| {
            (c.mean, c.scale) = ([100.0, 10.0, 5.0], [2.0, 10.0, 40.0]);
        })
        .unwrap();
        // (200-100)·2, (30-10)·10, (10-5)·40 = 200 each: grey.
        let grey = rgb.embed(&chip([200; 3])).unwrap();
        assert!(grey.similarity(&shifted.embed(&chip([200, 30, 10])).unwrap()).0 > 0.99999);
    }

    #[test]
    fn a_black_chip_that_gives_zeros_is_an_error_not_an_embedding() {
        let mut embedder = embedder(testing::colour_embedder(128), |_| {}).unwrap();
        let said = embedder.embed(&chip([0; 3])).unwrap_err().to_string();
        assert!(said.contains("colours.onnx") && said.contains("zero"), "{said}");
    }

    #[test]
    fn other_dimensions_are_refused() {
        let said = embedder(testing::colour_embedder(512), |_| {}).unwrap_err().to_string();
        assert!(said.contains("[1, 512]") && said.contains("128"), "{said}");
        let detector = testing::bright_cell_detector(8, [0.0; 4], [0.0; 10]);
        assert!(embedder(detector, |_| {}).unwrap_err().to_string().contains("12 outputs"));
    }

    #[test]
    fn the_binding_follows_everything_that_changes_a_template() {
        let entry = testing::entry("m", b"weights");
        let same = ManifestEntry { name: "other".into(), licence: "BSD".into(), ..entry.clone() };
        assert_eq!(binding(&same), binding(&entry));
        let mut variants = vec![entry.clone(); 8];
        variants[1].sha256 = FileHash::of(b"other weights");
        variants[2].contract.channels = ChannelOrder::Bgr;
        variants[3].contract.mean[0] = 1.0;
        variants[4].contract.alignment = None;
        for (variant, method) in variants[5..].iter_mut().zip([
            AlignmentMethod::None,
            AlignmentMethod::Warp2d,
            AlignmentMethod::Frontal3d,
        ]) {
            variant.contract.alignment = Some(Alignment { method, ..Alignment::ARCFACE_112 });
        }
        for (i, a) in variants.iter().enumerate() {
            for b in &variants[..i] {
                assert_ne!(binding(a), binding(b));
            }
        }
    }

    #[test]
    fn the_binding_follows_the_fiducials_where_the_chip_does() {
        let (mut entry, fiducials) = (testing::entry("m", b"weights"), testing::entry("f", b"fiducials"));
        assert_eq!(binding_with(&entry, Some(&fiducials)), binding(&entry));
        entry.contract.alignment =
            Some(Alignment { method: AlignmentMethod::Frontal3d, ..Alignment::ARCFACE_112 });
        assert_ne!(binding_with(&entry, Some(&fiducials)), binding(&entry));
        let others = testing::entry("f", b"other fiducials");
        assert_ne!(binding_with(&entry, Some(&fiducials)), binding_with(&entry, Some(&others)));
    }

    #[test]
    fn the_binding_of_known_inputs_never_changes() {
        // Frozen: enrolled galleries depend on it.
        assert_eq!(binding(&testing::entry("m", b"weights")).to_string(), "764d53856f1b8b625a0cbfc0c6f08d7e");
    }
}
