use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::embedding::ModelBinding;
use crate::score::Threshold;
use crate::time::UnixMs;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const DAY_MS: i64 = 24 * 3600 * 1000;

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn engineer(n: u8) -> Engineer {
    Engineer { key: key(n).public(), name: heapless::String::try_from("Eve").unwrap() }
}

/// Root keys 1, 2, 3 of which two sign; engineers 11 and 12 of whom one signs.
fn root() -> Root {
    Root {
        format: FORMAT,
        version: 1,
        created: NOW,
        expires: None,
        keys: [1, 2, 3].map(|n| key(n).public()).to_vec(),
        threshold: 2,
        engineers: [11, 12].map(engineer).to_vec(),
        engineer_threshold: 1,
        revoked: Vec::new(),
    }
}

fn signed(root: &Root, by: &[u8]) -> SignedRoot {
    let mut signed = SignedRoot::unsigned(root).unwrap();
    by.iter().for_each(|&n| signed.sign(&key(n)));
    signed
}

fn trust() -> Trust {
    Trust::begin(signed(&root(), &[1, 2])).unwrap()
}

fn manifest() -> Manifest {
    let short = |text| heapless::String::try_from(text).unwrap();
    Manifest {
        format: FORMAT,
        name: short("night shift"),
        counter: 5,
        created: NOW,
        expires: Some(UnixMs(NOW.0 + DAY_MS)),
        min_firmware: Version(0, 1, 0),
        boards: [heapless::String::try_from("pi4").unwrap()].to_vec(),
        contracts: [heapless::String::try_from("similarity/arcface112/1").unwrap()].to_vec(),
        detector: heapless::String::try_from("yunet").unwrap(),
        embedder: heapless::String::try_from("compact").unwrap(),
        binding: ModelBinding([7; 16]),
        compatible: [Compatible { binding: ModelBinding([6; 16]), tar_cost: 0.01 }].to_vec(),
        threshold: Threshold(0.5),
        trial: Trial { seconds: 600, max_starts: 3, max_p95_us: 200_000, max_rejection_rise: 20 },
        sections: Vec::new(),
    }
}

fn draft_of(manifest: Manifest, network: &[u8]) -> Draft {
    let files = [
        (SectionKind::Models, "manifest.toml", &b"[[models]]"[..]),
        (SectionKind::Network, "compact.onnx", network),
        (SectionKind::SelfTest, "selftest.bin", b"probes"),
    ];
    Draft::new(manifest, &files, [signed(&root(), &[1, 2])].to_vec()).unwrap()
}

fn good(network: &[u8]) -> Vec<u8> {
    let mut draft = draft_of(manifest(), network);
    draft.sign(&key(11));
    draft.to_bytes().unwrap()
}

fn door() -> Platform<'static> {
    Platform {
        firmware: Version(0, 1, 0),
        board: "pi4",
        contracts: &["similarity/arcface112/1", "int8-symmetric/1"],
        counter_floor: 4,
        system: None,
        now: NOW,
    }
}

/// Keeps everything that it is given.
#[derive(Default)]
struct Kept {
    accepted: Option<Accepted>,
    bytes: Vec<u8>,
    largest: usize,
}

impl Sink for Kept {
    type Error = BundleError;
    fn header(&mut self, accepted: &Accepted) -> Result<(), BundleError> {
        self.accepted = Some(accepted.clone());
        Ok(())
    }
    fn chunk(&mut self, section: u16, chunk: u32, bytes: &[u8]) -> Result<(), BundleError> {
        let manifest = &self.accepted.as_ref().unwrap().manifest;
        manifest.check_chunk(section, chunk, bytes).unwrap();
        self.largest = self.largest.max(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

fn read(file: &[u8], piece: usize, trust: &Trust, door: Platform<'_>) -> (Kept, Result<(), BundleError>) {
    let mut kept = Kept::default();
    let mut stream = Stream::new(trust, door);
    let fed = file.chunks(piece.max(1)).try_for_each(|bytes| stream.feed(bytes, &mut kept));
    let result = fed.and_then(|()| stream.finish());
    (kept, result)
}

fn refusal(file: &[u8], door: Platform<'_>) -> BundleError {
    let (kept, result) = read(file, 1000, &trust(), door);
    assert!(kept.bytes.is_empty(), "a refused header lets nothing through");
    result.unwrap_err()
}

#[test]
fn a_good_bundle_comes_through_whole_in_pieces_of_any_length() {
    let network: Vec<u8> = (0..100_000_u32).map(|i| ((i * 7919) >> 3) as u8).collect();
    let file = good(&network);
    let contents = [&b"[[models]]"[..], &network, b"probes"].concat();
    for piece in [1, 7, 4096, CHUNK_BYTES, file.len()] {
        let (kept, result) = read(&file, piece, &trust(), door());
        result.unwrap();
        assert_eq!(kept.bytes, contents);
        assert_eq!(kept.largest, CHUNK_BYTES);
        assert_eq!(kept.accepted.unwrap().manifest.name, "night shift");
    }
}

#[test]
fn every_wrong_signature_has_its_reason() {
    let by = |keys: &[u8]| {
        let mut draft = draft_of(manifest(), b"net");
        keys.iter().for_each(|&n| draft.sign(&key(n)));
        draft.to_bytes().unwrap()
    };
    assert_eq!(refusal(&by(&[]), door()), BundleError::Unsigned);
    assert_eq!(refusal(&by(&[99]), door()), BundleError::UnknownKey);
    // Root keys sign root documents and nothing else.
    assert_eq!(refusal(&by(&[1, 2, 3]), door()), BundleError::UnknownKey);
    assert!(read(&by(&[99, 12]), 64, &trust(), door()).1.is_ok());

    let mut forged = draft_of(manifest(), b"net");
    forged.sign(&key(11));
    let mut header = forged.header().clone();
    header.signatures[0].key = key(12).public();
    assert_eq!(refusal(&file_of(&header, b""), door()), BundleError::BadSignature);

    let both = Root { engineer_threshold: 2, ..root() };
    let trust = Trust::begin(signed(&both, &[1, 2])).unwrap();
    let one = read(&by(&[11]), 64, &trust, door()).1;
    assert_eq!(one, Err(BundleError::TooFewSignatures { have: 1, need: 2 }));
    assert!(read(&by(&[11, 12]), 64, &trust, door()).1.is_ok());
}

fn file_of(header: &Header, contents: &[u8]) -> Vec<u8> {
    let bytes = postcard::to_allocvec(header).unwrap();
    [&MAGIC[..], &(bytes.len() as u32).to_le_bytes(), &bytes, contents].concat()
}

#[test]
fn a_manifest_that_does_not_fit_the_door_is_refused() {
    let file = good(b"net");
    let with = |change: fn(&mut Platform<'static>)| {
        let mut platform = door();
        change(&mut platform);
        refusal(&file, platform)
    };
    assert_eq!(with(|p| p.board = "nanopi"), BundleError::OtherBoard);
    assert_eq!(
        with(|p| p.firmware = Version(0, 0, 9)),
        BundleError::OldFirmware { needs: Version(0, 1, 0), has: Version(0, 0, 9) }
    );
    assert_eq!(with(|p| p.contracts = &[]), BundleError::UnknownContract);
    assert_eq!(with(|p| p.counter_floor = 5), BundleError::OldCounter { counter: 5, floor: 5 });
    assert_eq!(with(|p| p.now.0 += DAY_MS), BundleError::Expired { at: UnixMs(NOW.0 + DAY_MS) });
    assert_eq!(with(|p| p.now.0 -= 2 * DAY_MS), BundleError::ClockBehind { created: NOW });
}

#[test]
fn the_chain_of_root_documents_rotates_and_revokes() {
    let second = Root {
        version: 2,
        keys: [2, 3, 4].map(|n| key(n).public()).to_vec(),
        engineers: [engineer(12)].to_vec(),
        revoked: [key(11).public()].to_vec(),
        ..root()
    };
    let good_second = signed(&second, &[2, 3]);
    let follow = |chain: &[SignedRoot]| trust().follow(chain).map(|t| t.root().version);
    assert_eq!(follow(&[signed(&root(), &[1, 2]), good_second.clone()]), Ok(2));
    // Key 4 is new and says nothing of the old document; one old key is not enough.
    assert_eq!(follow(&[signed(&second, &[2, 4])]), Err(BundleError::TooFewSignatures { have: 1, need: 2 }));
    // Enough old keys, but not enough of its own.
    assert_eq!(follow(&[signed(&second, &[1, 2])]), Err(BundleError::TooFewSignatures { have: 1, need: 2 }));
    assert_eq!(follow(&[signed(&second, &[])]), Err(BundleError::Unsigned));
    let third = Root { version: 3, ..second.clone() };
    assert_eq!(follow(&[signed(&third, &[2, 3])]), Err(BundleError::RootGap { version: 3, trusted: 1 }));
    assert_eq!(follow(&[good_second.clone(), signed(&third, &[2, 4])]), Ok(3));

    // A door that knows document 2 refuses what engineer 11 signed, whatever root documents the bundle carries.
    let revoking = trust().follow(&[good_second]).unwrap();
    let (kept, result) = read(&good(b"net"), 100, &revoking, door());
    assert_eq!((result, kept.bytes.len()), (Err(BundleError::RevokedKey), 0));
    // And never goes back to document 1.
    assert_eq!(revoking.follow(&[signed(&root(), &[1, 2])]).unwrap(), revoking);
    let expired = Root { expires: Some(NOW), ..root() };
    let trust = Trust::begin(signed(&expired, &[1, 2])).unwrap();
    assert_eq!(read(&good(b"net"), 100, &trust, door()).1, Err(BundleError::RootExpired));
}

#[test]
fn root_documents_that_contradict_themselves_are_refused() {
    let bad = |change: fn(&mut Root)| {
        let mut root = root();
        change(&mut root);
        assert!(matches!(SignedRoot::unsigned(&root), Err(BundleError::BadRoot { .. })), "{root:?}");
        // Nor is it taken when someone encoded it by hand.
        let document = postcard::to_allocvec(&root).unwrap();
        let mut by_hand = SignedRoot { document, signatures: Vec::new() };
        [1, 2, 3].iter().for_each(|&n| by_hand.sign(&key(n)));
        assert!(matches!(Trust::begin(by_hand), Err(BundleError::BadRoot { .. })));
    };
    bad(|r| r.threshold = 0);
    bad(|r| r.threshold = 4);
    bad(|r| r.keys[1] = r.keys[0]);
    bad(|r| r.keys.clear());
    bad(|r| r.engineer_threshold = 0);
    bad(|r| r.engineer_threshold = 3);
    bad(|r| r.revoked = [key(1).public()].to_vec());
    bad(|r| r.version = 0);
    bad(|r| r.engineers = (0..20).map(engineer).collect());
    assert_eq!(Trust::begin(signed(&root(), &[1])), Err(BundleError::TooFewSignatures { have: 1, need: 2 }));
}

#[test]
fn sections_of_other_bundles_short_files_and_endless_ones_are_refused() {
    let mine = good(&[1; 50_000]);
    let theirs = good(&[2; 50_000]);
    let header = split(&mine).unwrap();
    // Mixed: this manifest, that model.
    let cut = mine.len() - header.contents.len();
    let mixed = [&mine[..cut], split(&theirs).unwrap().contents].concat();
    let (kept, result) = read(&mixed, 512, &trust(), door());
    assert_eq!(result, Err(BundleError::BadChunk { section: 1, chunk: 0 }));
    assert_eq!(kept.bytes, b"[[models]]", "only verified bytes come through");
    // Another self-test under the same signature.
    let mut swapped = mine.clone();
    let last = swapped.len() - 1;
    swapped[last] ^= 1;
    assert_eq!(read(&swapped, 512, &trust(), door()).1, Err(BundleError::BadChunk { section: 2, chunk: 0 }));
    for length in [0, 3, 12, 40, cut, cut + 5, mine.len() - 1] {
        let result = read(&mine[..length], 512, &trust(), door()).1;
        assert!(matches!(result, Err(BundleError::Truncated { .. })), "{length}: {result:?}");
    }
    assert_eq!(
        read(&mine[..cut], 512, &trust(), door()).1,
        Err(BundleError::Truncated { missing: (mine.len() - cut) as u64 })
    );
    // Endless: the reader stops at the first byte too many, and stays stopped.
    let trust = trust();
    let mut stream = Stream::new(&trust, door());
    let mut kept = Kept::default();
    stream.feed(&mine, &mut kept).unwrap();
    for _ in 0..3 {
        assert_eq!(stream.feed(&[0; 4096], &mut kept), Err(BundleError::TrailingBytes));
    }
    assert_eq!(stream.finish(), Err(BundleError::TrailingBytes));
}

#[test]
fn oversized_fields_are_refused_before_they_are_read() {
    let claim = |bytes: u32| [&MAGIC[..], &bytes.to_le_bytes(), &[0; 64]].concat();
    assert_eq!(refusal(&claim(u32::MAX), door()), BundleError::HeaderTooLong { bytes: u32::MAX });
    // Postcard that claims 2^35 root documents.
    let huge = [&MAGIC[..], &6_u32.to_le_bytes(), &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0]].concat();
    assert_eq!(refusal(&huge, door()), BundleError::Malformed { what: "it is no header" });
    assert_eq!(refusal(b"PK\x03\x04 something else", door()), BundleError::NotABundle);
    assert_eq!(refusal(b"FLATCHB2            ", door()), BundleError::Format { actual: 2 });
    let long = |name: &str| Section::of(SectionKind::Network, name, b"x");
    for name in ["", ".hidden", "_header", "a/b.onnx", "..", "a b", &"n".repeat(65)] {
        assert!(matches!(long(name), Err(BundleError::Malformed { .. })), "{name}");
    }
    assert!(matches!(Section::of(SectionKind::Network, "a", b""), Err(BundleError::Malformed { .. })));
}

#[test]
fn contradicting_manifests_are_refused_although_signed() {
    let sign = |change: fn(&mut Manifest)| {
        let mut header = draft_of(manifest(), b"net").header().clone();
        let mut manifest = Manifest::parse(&header.manifest).unwrap();
        change(&mut manifest);
        header.manifest = postcard::to_allocvec(&manifest).unwrap();
        header.signatures = [key(11).sign(Domain::Manifest, &header.manifest)].to_vec();
        refusal(&file_of(&header, b""), door())
    };
    assert!(matches!(sign(|m| m.threshold = Threshold(f32::NAN)), BundleError::Malformed { .. }));
    assert!(matches!(sign(|m| m.sections[0].length = 40_000), BundleError::Malformed { .. }));
    assert!(matches!(
        sign(|m| m.sections[1].name = m.sections[0].name.clone()),
        BundleError::Malformed { .. }
    ));
    assert!(matches!(sign(|m| m.sections.clear()), BundleError::Malformed { .. }));
    assert!(matches!(sign(|m| m.trial.max_starts = 0), BundleError::Malformed { .. }));
    assert!(matches!(sign(|m| m.compatible[0].binding = m.binding), BundleError::Malformed { .. }));
    assert_eq!(sign(|m| m.format = 2), BundleError::Format { actual: 2 });
}

#[test]
fn signatures_count_for_one_purpose_only() {
    let bytes = b"the same bytes";
    let signature = key(1).sign(Domain::Root, bytes);
    assert!(signature.fits(Domain::Root, bytes));
    assert!(!signature.fits(Domain::Manifest, bytes) && !signature.fits(Domain::Root, b"others"));
}

#[test]
fn bytes_of_format_1_are_frozen() {
    let frozen = include_bytes!("frozen_v1.flb");
    let made = good(b"a network");
    if std::env::var_os("FACELATCH_FREEZE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/bundle/frozen_v1.flb"), &made).unwrap();
        return;
    }
    assert!(made == frozen, "format 1 changed: raise FORMAT and freeze a new file beside this one");
    read(frozen, 100, &trust(), door()).1.unwrap();
}

mod self_test {
    use super::*;
    use crate::align::CHIP_BYTES;
    use crate::embedding::{DIM, Embedding, Template};

    /// Sees the mean of the chip's rows: enough to tell the chips below apart.
    fn embed(chip: &[u8; CHIP_BYTES]) -> Option<Embedding> {
        let raw: Vec<f32> = (0..DIM).map(|i| f32::from(chip[i * 200]) - 100.0).collect();
        Embedding::from_raw(&raw).ok()
    }

    fn chip(seed: usize, noise: usize) -> Vec<u8> {
        (0..CHIP_BYTES)
            .map(|i| ((i * (seed * 2 + 1)) % 201) as u8 / 2 + ((i * noise) % 5) as u8 + 50)
            .collect()
    }

    fn test() -> SelfTest {
        let probe = |chip: Vec<u8>| {
            let pixels: &[u8; CHIP_BYTES] = chip.as_slice().try_into().unwrap();
            let codes = Template::quantize(&embed(pixels).unwrap()).codes().to_vec();
            ProbeChip { chip, codes }
        };
        SelfTest {
            probes: [chip(3, 0), chip(3, 7), chip(40, 0)].map(probe).to_vec(),
            pairs: [Pair { a: 0, b: 1, same: true }, Pair { a: 0, b: 2, same: false }].to_vec(),
            min_cosine: 0.99,
        }
    }

    #[test]
    fn the_same_arithmetic_passes_and_any_other_fails() {
        let test = test();
        let bytes = postcard::to_allocvec(&test).unwrap();
        assert_eq!(SelfTest::parse(&bytes).unwrap(), test);
        let report = test.run(Threshold(0.9), embed).unwrap();
        assert_eq!((report.probes, report.pairs), (3, 2));
        assert!(report.least.0 > 0.999);
        let mirrored = |chip: &[u8; CHIP_BYTES]| {
            let mut turned = *chip;
            turned.reverse();
            embed(&turned)
        };
        assert!(matches!(test.run(Threshold(0.9), mirrored), Err(SelfTestFault::Embedding { probe: 0, .. })));
        assert_eq!(test.run(Threshold(0.9), |_| None), Err(SelfTestFault::NoEmbedding { probe: 0 }));
        let strict = test.run(Threshold(1.5), embed);
        assert!(matches!(strict, Err(SelfTestFault::Decision { a: 0, b: 1, .. })), "{strict:?}");
        let lax = test.run(Threshold(-1.0), embed);
        assert!(matches!(lax, Err(SelfTestFault::Decision { a: 0, b: 2, .. })), "{lax:?}");
    }

    #[test]
    fn one_that_says_nothing_is_refused() {
        let refused = |change: fn(&mut SelfTest)| {
            let mut test = test();
            change(&mut test);
            let bytes = postcard::to_allocvec(&test).unwrap();
            assert_eq!(SelfTest::parse(&bytes), Err(BundleError::Section { what: "self-test" }));
        };
        refused(|t| t.probes.clear());
        refused(|t| t.pairs[0].b = 3);
        refused(|t| t.pairs[0].b = 0);
        refused(|t| t.min_cosine = 0.0);
        refused(|t| t.probes[0].codes.truncate(5));
        refused(|t| t.probes[1].chip.push(0));
        assert!(SelfTest::parse(&[0xFF; 9]).is_err());
    }
}

proptest! {
    #[test]
    fn one_changed_bit_anywhere_is_noticed(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut file = good(&[3; 300]);
        let at = place.index(file.len());
        file[at] ^= 1 << bit;
        let (kept, result) = read(&file, 64, &trust(), door());
        // Two kinds of bytes may change without harm: the root document that is trusted already, and its signatures.
        if result.is_ok() {
            prop_assert!(kept.accepted.unwrap().trust == trust());
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), headed in any::<bool>()) {
        let file = if headed { [&MAGIC[..], &(bytes.len() as u32).to_le_bytes(), &bytes].concat() } else { bytes };
        prop_assert!(read(&file, 33, &trust(), door()).1.is_err());
    }
}
