//! Bundles for tests: a root document, a bundle with our own small embedder, others with a changed or a random network, all validly signed.
//!
//! For tests only: they panic where something is missing.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::path::Path;

use facelatch_shared::bundle::{
    BundleId, Draft, Engineer, FORMAT, Header, Manifest, Root, SecretKey, SectionKind, SelfTest, SignedRoot,
    Trial, Version, split,
};
use facelatch_shared::embedding::Template;
use facelatch_shared::quality::Gate;
use facelatch_shared::time::UnixMs;
use facelatch_shared::vision::Eyes;
use facelatch_shared::vision::contract::{FileHash, Manifest as ModelList};
use facelatch_trainer::bundle::build::BuildJob;
use facelatch_trainer::bundle::probes::largest;
use prost::Message as _;

/// 2026-01-01: when they were made.
const CREATED: UnixMs = UnixMs(1_767_225_600_000);

/// One of a few keys: 1 is the root's, 2 the engineer's.
#[must_use]
pub fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

/// Trusts the engineer.
#[must_use]
pub fn root() -> SignedRoot {
    let root = Root {
        format: FORMAT,
        version: 1,
        created: CREATED,
        expires: None,
        keys: vec![key(1).public()],
        threshold: 1,
        engineers: vec![Engineer { key: key(2).public(), name: "Eve".try_into().unwrap() }],
        engineer_threshold: 1,
        revoked: vec![],
    };
    let mut signed = SignedRoot::unsigned(&root).unwrap();
    signed.sign(&key(1));
    signed
}

/// The imported detector and an embedder `net` with these bytes, in a folder of their own.
pub fn model_folder(imported: &Path, folder: &Path, net: &[u8]) {
    let own = ModelList::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")).unwrap();
    let mut compact = own.models.into_iter().find(|entry| entry.name == "compact").unwrap();
    (compact.file, compact.sha256) = ("net.onnx".into(), FileHash::of(net));
    // The bundle's threshold is to hold, not the table that was measured for the door.
    compact.thresholds = None;
    let list = ModelList::load(imported).unwrap();
    let yunet = list.models.into_iter().find(|entry| entry.name == "yunet").unwrap();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(imported.join(&yunet.file), folder.join(&yunet.file)).unwrap();
    std::fs::write(folder.join("net.onnx"), net).unwrap();
    ModelList { models: vec![yunet, compact] }.save(folder).unwrap();
}

/// The bundle of such a folder, not signed yet.
#[must_use]
pub fn build(models: &Path, probes: &Path, counter: u64, trial: Trial) -> Draft {
    let job = BuildJob {
        models,
        detector: "yunet",
        embedder: "compact",
        probes,
        per_person: 3,
        name: "compact for all",
        counter,
        created: CREATED,
        expires: None,
        min_firmware: Version(0, 1, 0),
        boards: &[],
        // Single photographs of people who aged between them: looser than at the door.
        threshold: Some(0.4),
        trial,
        compatible: &[],
        roots: vec![root()],
    };
    job.build().unwrap().draft
}

/// The network with every int8 weight replaced by a random one.
fn randomized(net: &[u8]) -> Vec<u8> {
    with_weights(net, |at, _| ((at as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
}

/// The network with every hundredth int8 weight changed by one: other embeddings, which serve as well.
#[must_use]
pub fn perturbed(net: &[u8]) -> Vec<u8> {
    with_weights(net, |at, weight| if at % 100 == 0 { weight ^ 1 } else { weight })
}

fn with_weights(net: &[u8], change: impl Fn(usize, u8) -> u8) -> Vec<u8> {
    let mut model = tract_onnx::pb::ModelProto::decode(net).unwrap();
    let mut replaced = 0;
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        if tensor.data_type == INT8 {
            for (at, byte) in tensor.raw_data.iter_mut().enumerate() {
                *byte = change(at, *byte);
            }
            replaced += tensor.raw_data.len();
        }
    }
    assert!(replaced > net.len() / 2, "{replaced} weights of a file of {} bytes", net.len());
    model.encode_to_vec()
}

/// ONNX's number of the type.
const INT8: i32 = 3;

/// The bundle of the network `good` with random weights instead, signed, number 2. Its self-test says what the random network gives, so that
/// everything about it is valid, or what the good one gave (`Probes::OfTheGoodNet`).
#[must_use]
pub fn with_random_weights(
    good: &Path,
    imported: &Path,
    folder: &Path,
    probes: &Path,
    tested_by: Probes,
    change: impl FnOnce(Manifest) -> Manifest,
) -> Vec<u8> {
    let net = randomized(&std::fs::read(good).unwrap());
    model_folder(imported, folder, &net);
    let size = (320, 256);
    let mut eyes = Eyes::load(folder, "yunet", "compact", Gate::OPEN, size).unwrap();
    let one = probes.join("Barack/obama.jpg");
    let (chip, embedding) = largest(&one, &mut eyes).unwrap();
    let codes = Template::quantize(&embedding).codes().to_vec();
    let probe = facelatch_shared::bundle::ProbeChip { chip: chip.to_vec(), codes };
    let test = SelfTest { probes: vec![probe], pairs: vec![], min_cosine: 0.99 };
    let good_file = build(good.parent().unwrap(), probes, 1, TRIAL).to_bytes().unwrap();
    let good_header = split_manifest(&good_file);
    let test = match tested_by {
        Probes::OfItsOwn => postcard::to_stdvec(&test).unwrap(),
        Probes::OfTheGoodNet => {
            let at = good_header.sections.iter().position(|s| s.kind == SectionKind::SelfTest).unwrap();
            let before: usize = good_header.sections[..at].iter().map(|s| s.length as usize).sum();
            let length = good_header.sections[at].length as usize;
            split(&good_file).unwrap().contents[before..before + length].to_vec()
        }
    };
    let list = std::fs::read(folder.join("manifest.toml")).unwrap();
    let yunet_file = ModelList::load(folder).unwrap().models[0].file.clone();
    let yunet = std::fs::read(folder.join(&yunet_file)).unwrap();
    let manifest = change(Manifest { counter: 2, binding: eyes.binding(), ..good_header });
    let files: [(SectionKind, &str, &[u8]); 4] = [
        (SectionKind::Models, "manifest.toml", &list),
        (SectionKind::SelfTest, "selftest.postcard", &test),
        (SectionKind::Network, &yunet_file, &yunet),
        (SectionKind::Network, "net.onnx", &net),
    ];
    let mut draft = Draft::new(manifest, &files, vec![root()]).unwrap();
    draft.sign(&key(2));
    draft.to_bytes().unwrap()
}

/// Our own small embedder.
#[must_use]
pub fn compact() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/compact.onnx")).unwrap()
}

/// What a bundle is called.
#[must_use]
pub fn id_of(file: &[u8]) -> BundleId {
    BundleId::of(split(file).unwrap().header)
}

/// What it says.
#[must_use]
pub fn split_manifest(file: &[u8]) -> Manifest {
    Manifest::parse(&Header::parse(split(file).unwrap().header).unwrap().manifest).unwrap()
}

/// Whose answers a self-test holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probes {
    /// Those of the network beside it.
    OfItsOwn,
    /// Those of the network that it was made from.
    OfTheGoodNet,
}

/// A trial that only people who are rejected end.
pub const TRIAL: Trial = Trial { seconds: 60, max_starts: 3, max_p95_us: u32::MAX, max_rejection_rise: 50 };
