//! Makes what the virtual board's card holds beside the program: models, and camera frames composed from the demonstration's photographs.
//! `tests/system/run` calls it.
//!
//! `board_files OUT` writes `OUT/models/`, `OUT/bundles/` and `OUT/frames/*.yuyv`, `*.mjpg`, `*.nv12`, `*.grey`, all 640×480. Exit code 3, with the reason, when the photographs were not fetched.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use facelatch_device::camera::scene::{Picture, Scene};
use facelatch_device::decode::{encode_mjpeg, encode_yuyv};
use facelatch_device::demo::photos::Photo;
use facelatch_shared::bundle::Trial;
use facelatch_shared::quality::Gate;
use facelatch_shared::vision::Eyes;
use facelatch_shared::vision::manifest::Manifest;
use facelatch_tests::bundles::{
    Probes, TRIAL, build, compact, key, model_folder, perturbed, root, with_random_weights,
};
use facelatch_tests::{models, photos};

fn main() -> ExitCode {
    let Some(out) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: board_files OUT");
        return ExitCode::from(2);
    };
    let (Some(imported), Some(photos)) = (models("board_files"), photos("board_files")) else {
        return ExitCode::from(3);
    };
    match write(&out, imported, &photos) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("board_files: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(out: &Path, imported: &Path, photos: &Path) -> Result<(), Box<dyn Error>> {
    let (models, frames) = (out.join("models"), out.join("frames"));
    std::fs::create_dir_all(&models)?;
    std::fs::create_dir_all(&frames)?;
    // The imported detector beside our own small embedder.
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let mut manifest = Manifest::load(imported)?;
    manifest.models.retain(|entry| entry.name == "yunet");
    std::fs::copy(imported.join(&manifest.models[0].file), models.join(&manifest.models[0].file))?;
    for entry in Manifest::load(&own)?.models.into_iter().filter(|entry| entry.name == "compact") {
        std::fs::copy(own.join(&entry.file), models.join(&entry.file))?;
        manifest.models.push(entry);
    }
    manifest.save(&models)?;

    let mut eyes = Eyes::load(&models, "yunet", "compact", Gate::OPEN, (320, 240))?;
    let mut load = |name: &str| Photo::load(&photos.join(name), &mut eyes);
    let (known, again, stranger) = (
        load("face_recognition/obama.jpg")?,
        load("face_recognition/obama2.jpg")?,
        load("face_recognition/biden.jpg")?,
    );
    let guest = load("insightface/Tom_Hanks_54745.png")?;
    let both = known.at_the_door(0, 0.45, 0.25);
    for (name, scene) in [
        ("nobody", Scene::blank()),
        ("known", known.at_the_door(0, 0.5, 0.5)),
        ("known-nearer", known.at_the_door(0, 0.6, 0.55)),
        ("again", again.at_the_door(0, 0.5, 0.5)),
        ("stranger", stranger.at_the_door(0, 0.5, 0.5)),
        ("guest", guest.at_the_door(0, 0.35, 0.5)),
        ("two", stranger.beside(both, 0, 0.45, 0.75)),
        ("dark", known.at_the_door(0, 0.5, 0.5).dimmed(0.15)),
    ] {
        save(&frames, name, &scene.finish())?;
    }
    write_bundles(out, imported, photos)
}

/// New models for the board: such as serve, and such as are not what their self-test says. Both are signed.
fn write_bundles(out: &Path, imported: &Path, photos: &Path) -> Result<(), Box<dyn Error>> {
    let (bundles, work) = (out.join("bundles"), out.join("bundle-work"));
    let probes = work.join("probes");
    for (person, picture) in [("Barack", "obama.jpg"), ("Barack", "obama2.jpg"), ("Joe", "biden.jpg")] {
        std::fs::create_dir_all(probes.join(person))?;
        std::fs::copy(photos.join("face_recognition").join(picture), probes.join(person).join(picture))?;
    }
    std::fs::create_dir_all(&bundles)?;
    let good = work.join("good");
    model_folder(imported, &good, &perturbed(&compact()));
    let trial = Trial { seconds: 5, ..TRIAL };
    let mut draft = build(&good, &probes, 1, trial);
    draft.sign(&key(2));
    std::fs::write(bundles.join("good.flb"), draft.to_bytes()?)?;
    let bad = with_random_weights(
        &good.join("net.onnx"),
        imported,
        &work.join("bad"),
        &probes,
        Probes::OfTheGoodNet,
        |manifest| manifest,
    );
    std::fs::write(bundles.join("bad.flb"), bad)?;
    std::fs::write(bundles.join("root.flr"), root().to_file()?)?;
    Ok(())
}

fn save(frames: &Path, name: &str, picture: &Picture) -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    encode_yuyv(&picture.view(), &mut bytes);
    std::fs::write(frames.join(format!("{name}.yuyv")), &bytes)?;
    encode_mjpeg(&picture.view(), 90, &mut bytes)?;
    std::fs::write(frames.join(format!("{name}.mjpg")), &bytes)?;
    Ok(())
}
