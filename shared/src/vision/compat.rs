//! What this program can compute, by name: a bundle lists what its models need, and a door that lacks one of them refuses it.

use super::contract::{Alignment, ManifestEntry, ModelKind};
use super::embed::TEMPLATE_QUANTIZATION;

/// Everything that this release computes. Names carry their version; one is added with the code that computes it.
pub const CONTRACTS: &[&str] = &[
    "network/yunet",
    "network/embedding",
    "none/arcface112/1",
    "similarity/arcface112/1",
    "warp2d/arcface112/1",
    "frontal3d/arcface112/1",
    TEMPLATE_QUANTIZATION,
];

/// What the model of `entry` needs.
#[must_use]
pub fn contracts(entry: &ManifestEntry) -> Vec<String> {
    let mut needs = vec![format!("network/{}", format!("{:?}", entry.family).to_ascii_lowercase())];
    if entry.kind == ModelKind::Embedder {
        needs.extend(entry.contract.alignment.map(Alignment::identity).map(str::to_owned));
        needs.push(TEMPLATE_QUANTIZATION.to_owned());
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn this_release_computes_what_its_models_need() {
        for entry in [testing::entry("m", b"weights"), testing::detector_entry("d", b"weights")] {
            let needs = contracts(&entry);
            assert!(
                !needs.is_empty() && needs.iter().all(|name| CONTRACTS.contains(&name.as_str())),
                "{needs:?}"
            );
        }
    }
}
