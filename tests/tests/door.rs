//! The door end to end on real photographs: import the models, enrol at the door, open for known faces, stay shut for strangers,
//! remember everything over a restart.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use facelatch_device::demo::{self, DemoArgs};
use facelatch_device::soak::{self, SoakArgs};
use facelatch_tests::{models, photos};

fn args(models: &std::path::Path, photos: PathBuf, out: PathBuf) -> DemoArgs {
    DemoArgs {
        faces: None,
        camera: None,
        seconds: None,
        models: models.to_owned(),
        photos,
        out,
        detector: "yunet".into(),
        embedder: "sface".into(),
        fiducials: "fiducials".into(),
    }
}

#[test]
fn the_demonstration_goes_as_its_story_says() {
    let test = "the_demonstration_goes_as_its_story_says";
    let (Some(models), Some(photos)) = (models(test), photos(test)) else { return };
    let out = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    let well = demo::run(&args(models, photos, out.path().into()), &mut told, Default::default()).unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(well, "{told}");
    for words in [
        "enrolled Barack O. (#1) with 5 templates",
        "recognised Barack O. (#1)",
        "locked out for 5 s",
        "the head was not turned in time",
    ] {
        assert!(told.contains(words), "{words} is missing in\n{told}");
    }
    // The panel's screens are PNG files of the panel's size.
    let screens: Vec<_> = ["panel", "panel/turning"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(out.path().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    assert!(screens.len() > 20, "{screens:?}");
    for screen in &screens {
        let picture = image::open(screen).unwrap();
        assert_eq!((picture.width(), picture.height()), (480, 320), "{screen:?}");
    }
    // Nothing of the person lies in the clear.
    let gallery = std::fs::read(out.path().join("state/gallery.journal")).unwrap();
    assert!(!gallery.windows(6).any(|w| w == b"Barack"));
}

#[test]
fn ones_own_photographs_are_played_one_folder_a_person() {
    let test = "ones_own_photographs_are_played_one_folder_a_person";
    let (Some(models), Some(photos)) = (models(test), photos(test)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let put = |person: &str, name: &str| {
        let to = folder.path().join(person);
        std::fs::create_dir_all(&to).unwrap();
        std::fs::copy(photos.join("face_recognition").join(name), to.join(name)).unwrap();
    };
    put("Barack", "obama.jpg");
    put("Barack", "obama2.jpg");
    put("Barack", "obama3.jpg");
    put("Joe", "biden.jpg");
    let out = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    let args =
        DemoArgs { faces: Some(folder.path().into()), ..args(models, photos.clone(), out.path().into()) };
    let well = demo::run(&args, &mut told, Default::default()).unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(well, "{told}");
    assert!(told.contains("Barack comes: obama3.jpg.") && told.contains("Joe is enrolled"), "{told}");

    let empty = tempfile::tempdir().unwrap();
    let args = DemoArgs { faces: Some(empty.path().into()), ..args };
    let error = demo::run(&args, &mut Vec::new(), Default::default()).unwrap_err().to_string();
    assert!(error.contains("sub-folder"), "{error}");
}

#[test]
fn a_short_soak_loses_nothing() {
    let test = "a_short_soak_loses_nothing";
    let (Some(models), Some(photos)) = (models(test), photos(test)) else { return };
    let out = tempfile::tempdir().unwrap();
    let photo = |name: &str| photos.join("face_recognition").join(name);
    let args = SoakArgs {
        frames: 700,
        models: models.to_owned(),
        embedder: "sface".into(),
        known: photo("obama.jpg"),
        stranger: photo("biden.jpg"),
        detector_width_px: 160,
        out: out.path().join("soak"),
        json: false,
    };
    let report = soak::run(&args, Default::default()).unwrap();
    assert_eq!((report.frames, report.frames_lost, report.events_lost), (700, 0, 0));
    assert_eq!((report.granted, report.refused), ([5, 5], [1, 1]));
    assert!(report.events[0] == report.events[1] && report.chain_intact, "{report:?}");
    // Memory is judged over a longer run (`make soak`): the first hundreds of frames are warm-up.
    assert!(report.resident_end > 0);
}

#[test]
fn what_is_missing_is_named_with_the_remedy() {
    let nowhere = tempfile::tempdir().unwrap();
    let there = nowhere.path().join("no-such-folder");
    let args = args(&there, there.clone(), nowhere.path().join("out"));
    let error = demo::run(&args, &mut Vec::new(), Default::default()).unwrap_err().to_string();
    assert!(error.contains("no-such-folder") && error.contains("facelatch models import"), "{error}");
}
