//! The attack table at the door: each is refused for its own reason while it comes, and leaves the record and the slots as they were.

use facelatch_shared::bundle::{
    BundleError, BundleId, Draft, Engineer, FORMAT, Manifest, PREFIX_BYTES, Root, SecretKey, SectionKind,
    SignedRoot, Trial, Version, split,
};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::score::Threshold;
use facelatch_shared::time::UnixMs;

use super::intake::Intake;
use super::*;

const NOW: UnixMs = UnixMs(1_800_000_000_000);
const DAY_MS: i64 = 86_400_000;

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

/// Root key 1, engineer 11; key 12 was revoked.
fn root() -> SignedRoot {
    let engineer = |n: u8| Engineer { key: key(n).public(), name: "Eve".try_into().unwrap() };
    let root = Root {
        format: FORMAT,
        version: 1,
        created: NOW,
        expires: None,
        keys: vec![key(1).public()],
        threshold: 1,
        engineers: vec![engineer(11)],
        engineer_threshold: 1,
        revoked: vec![key(12).public()],
    };
    let mut signed = SignedRoot::unsigned(&root).unwrap();
    signed.sign(&key(1));
    signed
}

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        name: "models".try_into().unwrap(),
        counter: 8,
        created: NOW,
        expires: None,
        min_firmware: Version(0, 0, 0),
        boards: vec![],
        contracts: vec![],
        detector: "yunet".try_into().unwrap(),
        embedder: "net".try_into().unwrap(),
        binding: ModelBinding([9; 16]),
        compatible: vec![],
        threshold: Threshold(0.5),
        trial: Trial { seconds: 60, max_starts: 3, max_p95_us: 1_000_000, max_rejection_rise: 20 },
        sections: vec![],
    }
}

fn network(seed: u8) -> Vec<u8> {
    (0..40_000_u32).map(|i| ((i * 31) >> 4) as u8 ^ seed).collect()
}

fn draft(manifest: Manifest, seed: u8) -> Draft {
    let network = network(seed);
    let files: [(SectionKind, &str, &[u8]); 3] = [
        (SectionKind::Models, "manifest.toml", b"[[models]]"),
        (SectionKind::SelfTest, "selftest.postcard", b"probes"),
        (SectionKind::Network, "net.onnx", &network),
    ];
    Draft::new(manifest, &files, vec![root()]).unwrap()
}

fn signed(manifest: Manifest, signer: u8) -> Vec<u8> {
    let mut draft = draft(manifest, 0);
    draft.sign(&key(signer));
    draft.to_bytes().unwrap()
}

/// The header of one bundle before the contents of another.
fn mixed(contents_of: &[u8]) -> Vec<u8> {
    let good = signed(manifest(), 11);
    let header_end = good.len() - split(&good).unwrap().contents.len();
    [&good[..header_end], split(contents_of).unwrap().contents].concat()
}

/// A door that trusts [`root`] and has confirmed a bundle with counter 5.
fn door() -> (MemSlots, Updater) {
    let slots = MemSlots::on(&Power::default());
    (slots.clone(), door_on(Box::new(slots)))
}

fn door_on(slots: Box<dyn SlotStore>) -> Updater {
    let mut updater = Updater::open(slots, "board").unwrap().0;
    updater.set_root(root()).unwrap();
    let first = signed(Manifest { counter: 5, ..manifest() }, 11);
    take(&mut updater, &first, first.len() as u64).unwrap();
    updater.activate(NOW).unwrap();
    updater.confirm().unwrap();
    updater
}

fn take(updater: &mut Updater, file: &[u8], size: u64) -> Result<(), UpdateError> {
    let id = split(file).map_or(BundleId([0; 32]), |parts| BundleId::of(parts.header));
    let (mut intake, _) = Intake::begin(updater, id, size, NOW)?;
    while intake.offset() < size {
        let from = intake.offset() as usize;
        if from >= file.len() {
            return Err(BundleError::Truncated { missing: 0 }.into());
        }
        intake.take(updater, from as u64, &file[from..(from + 10_000).min(file.len())], NOW)?;
    }
    Ok(())
}

#[test]
fn every_attack_is_refused_for_its_own_reason_and_changes_nothing() {
    let good = signed(manifest(), 11);
    let other_models = {
        let mut other = draft(manifest(), 0xFF);
        other.sign(&key(11));
        other.to_bytes().unwrap()
    };
    let changed = {
        let mut file = good.clone();
        file[PREFIX_BYTES + 400] ^= 1;
        file
    };
    let with = |change: fn(&mut Manifest)| {
        let mut changed = manifest();
        change(&mut changed);
        signed(changed, 11)
    };
    let oversized = {
        let mut file = good.clone();
        file[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        file
    };
    let endless = [&good[..], &[0; 5000]].concat();
    let swapped_self_test = {
        let mut file = mixed(&good);
        let contents = file.len() - split(&file).unwrap().contents.len();
        let at = contents + b"[[models]]".len();
        file[at..at + 6].copy_from_slice(b"other!");
        file
    };
    let attacks: [(&str, Vec<u8>, &str); 16] = [
        ("unsigned", draft(manifest(), 0).to_bytes().unwrap(), "unsigned"),
        ("signed by somebody else", signed(manifest(), 99), "unknown_key"),
        ("signed by a revoked key", signed(manifest(), 12), "revoked_key"),
        ("older counter", with(|m| m.counter = 4), "old_counter"),
        ("expired", with(|m| m.expires = Some(NOW)), "expired"),
        ("from the future", with(|m| m.created = UnixMs(NOW.0 + 2 * DAY_MS)), "clock_behind"),
        ("other board", with(|m| m.boards = vec!["another".try_into().unwrap()]), "other_board"),
        ("newer firmware", with(|m| m.min_firmware = Version(99, 0, 0)), "old_firmware"),
        ("unknown contract", with(|m| m.contracts = vec!["magic/1".try_into().unwrap()]), "unknown_contract"),
        ("manifest of one, models of another", mixed(&other_models), "bad_chunk"),
        ("swapped self-test", swapped_self_test, "bad_chunk"),
        ("truncated", good[..good.len() - 1].to_vec(), "truncated"),
        ("endless", endless, "trailing_bytes"),
        ("oversized field", oversized, "header_too_long"),
        ("no bundle", b"PK\x03\x04 not what it seems to be".to_vec(), "not_a_bundle"),
        ("changed after it was signed", changed, "any"),
    ];
    for (what, file, reason) in attacks {
        let (slots, mut updater) = door();
        let before = updater.record().clone();
        let refused = take(&mut updater, &file, file.len() as u64).expect_err(what);
        let UpdateError::Bundle(error) = &refused else { panic!("{what}: {refused}") };
        assert!(reason == "any" || error.word() == reason, "{what}: {error} ({})", error.word());
        // A bundle whose header is good is being received; everything else leaves no trace at all.
        let mut after = updater.record().clone();
        assert!(!matches!(after.phase, Phase::Staged(..) | Phase::Trial(_)), "{what}");
        if matches!(after.phase, Phase::Receiving(..)) {
            assert_eq!(error.word(), "bad_chunk", "{what}");
            updater.discard().unwrap();
            after = updater.record().clone();
        }
        assert_eq!(
            (after.active(), after.active_id, after.counter_floor),
            (before.active(), before.active_id, 5)
        );
        updater.check_active().unwrap();
        // The right one is taken afterwards, after a restart as well.
        drop(updater);
        let mut again = Updater::open(Box::new(slots), "board").unwrap().0;
        take(&mut again, &good, good.len() as u64).unwrap_or_else(|error| panic!("after {what}: {error}"));
        assert!(again.progress().staged, "{what}");
    }
}

#[test]
fn a_slot_that_is_damaged_while_it_is_in_use_is_noticed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut updater = door_on(Box::new(FileSlots::open(folder.path()).unwrap()));
    updater.check_active().unwrap();
    let net = updater.active_folder().unwrap().join("net.onnx");
    let mut bytes = std::fs::read(&net).unwrap();
    bytes[35_000] ^= 1;
    std::fs::write(&net, bytes).unwrap();
    let found = updater.check_active();
    assert!(matches!(found, Err(UpdateError::Bundle(BundleError::BadChunk { .. }))), "{found:?}");
    assert_eq!(updater.give_up(Outcome::SelfTest).unwrap(), Source::Factory);
    assert_eq!(updater.record().last, Some(Outcome::SelfTest));
}
