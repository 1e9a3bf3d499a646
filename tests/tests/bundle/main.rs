//! Bundles end to end on real models. Here: built and signed at the workstation, pushed into a door's slots, its people carried over from
//! SFace to the compact net; then one with random weights and a valid signature, which its trial turns away.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod desk;
mod door;

use std::path::{Path, PathBuf};

use facelatch_device::people::People;
use facelatch_device::store::MemStore;
use facelatch_device::update::carry::embed_all;
use facelatch_device::update::{FileSlots, Outcome, Source, Updater, chip};
use facelatch_shared::access::Rights;
use facelatch_shared::align::CHIP_BYTES;
use facelatch_shared::bundle::{CHUNK_BYTES, SectionKind, SelfTest, Trial, Trust, split};
use facelatch_shared::embedding::Template;
use facelatch_shared::gallery::{Change, CountingEntropy, Key};
use facelatch_shared::person::{Name, SubjectId};
use facelatch_shared::quality::Gate;
use facelatch_shared::score::Threshold;
use facelatch_shared::time::UnixMs;
use facelatch_shared::vision::Eyes;
use facelatch_tests::bundles::{
    Probes, TRIAL, build, compact, id_of, key, model_folder, root, split_manifest, with_random_weights,
};
use facelatch_tests::{models, photos};
use facelatch_trainer::bundle::build::{check_file, this_release};
use facelatch_trainer::bundle::probes::largest;

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn push(updater: &mut Updater, file: &[u8]) {
    let parts = split(file).unwrap();
    let manifest = split_manifest(file);
    let mut progress = updater.header(parts.header.len() as u32, 0, parts.header, NOW).unwrap();
    while let Some((section, chunk)) = progress.next {
        let before: usize = manifest.sections[..usize::from(section)].iter().map(|s| s.length as usize).sum();
        let from = before + chunk as usize * CHUNK_BYTES;
        let length = manifest.sections[usize::from(section)].chunk_length(chunk).unwrap();
        progress = updater.chunk(section, chunk, &parts.contents[from..from + length]).unwrap();
    }
    assert!(progress.staged);
}

/// Everything that a door does before and at an activation; returns whether the trial's first test was passed.
fn activate(
    updater: &mut Updater,
    people: &mut People,
    before: (facelatch_shared::embedding::ModelBinding, f32),
) -> bool {
    let (manifest, folder) = updater.staged(NOW).unwrap();
    let folder = folder.unwrap();
    let mut eyes =
        Eyes::load(&folder, &manifest.detector, &manifest.embedder, Gate::OPEN, (320, 256)).unwrap();
    assert_eq!(eyes.binding(), manifest.binding);
    let test = SelfTest::parse(&updater.staged_section(SectionKind::SelfTest).unwrap()).unwrap();
    test.run(manifest.threshold, |chip: &[u8; CHIP_BYTES]| eyes.embed_chip(chip).ok()).unwrap();
    let chips = people.chips_to_carry(manifest.binding, SubjectId(0), 100);
    let carried = embed_all(&chips, |chip| eyes.embed_chip(chip).ok());
    people.carry(manifest.binding, &carried, NOW).unwrap();
    assert_eq!(people.plan(manifest.binding, &[]).left_behind, []);
    updater.activate(NOW).unwrap();
    let old = people.cross_check(before.0, Threshold(before.1), 0.05);
    let new = people.cross_check(manifest.binding, manifest.threshold, 0.05);
    println!("rejected of {} probes: {} before, {} after", old.probes, old.rejected, new.rejected);
    new.rejected_permille() <= old.rejected_permille() + u32::from(manifest.trial.max_rejection_rise)
}

fn probes_folder(photos: &Path, folder: &Path) -> PathBuf {
    let put = |person: &str, from: &str| {
        let to = folder.join(person);
        std::fs::create_dir_all(&to).unwrap();
        let from = photos.join(from);
        std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    };
    for name in ["obama.jpg", "obama2.jpg", "obama3.jpg"] {
        put("Barack", &format!("face_recognition/{name}"));
    }
    put("Joe", "face_recognition/biden.jpg");
    put("Tom", "insightface/Tom_Hanks_54745.png");
    folder.to_owned()
}

#[test]
fn people_outlive_their_model_and_a_bad_model_does_not_stay() {
    let test = "people_outlive_their_model_and_a_bad_model_does_not_stay";
    let (Some(imported), Some(photos)) = (models(test), photos(test)) else { return };
    let work = tempfile::tempdir().unwrap();
    let probes = probes_folder(&photos, &work.path().join("probes"));
    let good_models = work.path().join("good");
    model_folder(imported, &good_models, &compact());

    // At the workstation: build, sign, and read it back as a door would.
    let mut draft = build(&good_models, &probes, 1, TRIAL);
    draft.sign(&key(2));
    let good = draft.to_bytes().unwrap();
    let path = work.path().join("good.flb");
    std::fs::write(&path, &good).unwrap();
    let trust = Trust::begin(root()).unwrap();
    let checked = check_file(&path, &trust, this_release("any", 0, NOW)).unwrap();
    let self_test = checked.self_test.unwrap();
    assert!(self_test.probes == 5 && self_test.least.0 > 0.999);

    // At the door: three people, enrolled with SFace, two views and chips of each.
    let mut sface = Eyes::load(imported, "yunet", "sface", Gate::OPEN, (320, 256)).unwrap();
    let old = (sface.binding(), 0.3);
    let store = MemStore::default();
    let mut people =
        People::open(Box::new(store), Key::from_bytes([5; 32]), Box::new(CountingEntropy(1))).unwrap().people;
    for (name, pictures) in [
        ("Barack", &["Barack/obama.jpg", "Barack/obama2.jpg"][..]),
        ("Joe", &["Joe/biden.jpg", "Joe/biden.jpg"]),
        ("Tom", &["Tom/Tom_Hanks_54745.png", "Tom/Tom_Hanks_54745.png"]),
    ] {
        let views: Vec<_> = pictures.iter().map(|p| largest(&probes.join(p), &mut sface).unwrap()).collect();
        let change = Change::Enrol {
            name: Name::new(name).unwrap(),
            templates: views.iter().map(|(_, e)| Template::quantize(e)).collect(),
            binding: old.0,
            rights: Rights::default(),
        };
        let chips: Vec<_> = views.iter().map(|(c, _)| chip::encode(c).unwrap()).collect();
        people.enrol_keeping(change, &chips, NOW).unwrap();
    }
    let slots = Box::new(FileSlots::open(&work.path().join("slots")).unwrap());
    let (mut updater, _) = Updater::open(slots, "any").unwrap();
    updater.set_root(root()).unwrap();
    push(&mut updater, &good);
    assert!(activate(&mut updater, &mut people, old), "the compact net knows everyone");
    updater.confirm().unwrap();

    // Everyone who was enrolled with the former model is recognised by the new one, on a photograph it has not seen where there is one.
    let folder = updater.active_folder().unwrap();
    let mut eyes = Eyes::load(&folder, "yunet", "compact", Gate::OPEN, (320, 256)).unwrap();
    let mut who = |picture: &str| {
        let (_, embedding) = largest(&probes.join(picture), &mut eyes).unwrap();
        let found = people.identify(&Template::quantize(&embedding), eyes.binding()).unwrap();
        found
            .best
            .filter(|best| best.similarity.0 >= 0.4 && found.rank_gap() >= 0.05)
            .map(|best| best.subject.0)
    };
    let recognised = ["Barack/obama3.jpg", "Joe/biden.jpg", "Tom/Tom_Hanks_54745.png"].map(&mut who);
    assert_eq!(recognised, [Some(1), Some(2), Some(3)]);

    // A validly signed bundle with random weights: its own self-test passes, the people of the door do not.
    let bad = with_random_weights(
        &good_models.join("net.onnx"),
        imported,
        &work.path().join("bad"),
        &probes,
        Probes::OfItsOwn,
        |manifest| manifest,
    );
    push(&mut updater, &bad);
    assert!(!activate(&mut updater, &mut people, (eyes.binding(), 0.4)), "random weights know nobody");
    updater.roll_back(Outcome::Rejections).unwrap();
    assert_eq!((updater.record().last, updater.record().counter_floor), (Some(Outcome::Rejections), 1));
    assert!(matches!(updater.record().active(), Source::Slot(_)));
    assert_eq!(updater.active_folder(), Some(folder));
    let recognised = ["Barack/obama3.jpg", "Joe/biden.jpg", "Tom/Tom_Hanks_54745.png"].map(|picture| {
        let (_, embedding) = largest(&probes.join(picture), &mut eyes).unwrap();
        people
            .identify(&Template::quantize(&embedding), eyes.binding())
            .unwrap()
            .best
            .map(|best| best.subject.0)
    });
    assert_eq!(recognised, [Some(1), Some(2), Some(3)]);
}
