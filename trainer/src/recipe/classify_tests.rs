use super::super::deepface::DeepfaceRecipe;
use super::super::vggface::VggfaceRecipe;
use super::*;
use crate::train::config::Draft;
use crate::train::{CHECKPOINT, Recipe, SETTINGS, start};

/// Six people with four pictures of noise in one folder each; one is on an evaluation list.
fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for person in 0..6_u64 {
        let folder = dir.path().join("faces").join(format!("Person_{person}"));
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..4 {
            let mut random = Random::new(person, Stream::Sampler, i);
            let picture = image::RgbImage::from_fn(128, 128, |_, _| image::Rgb([random.below(256) as u8; 3]));
            picture.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
    std::fs::write(dir.path().join("people.txt"), "person_5\t4\n").unwrap();
    dir
}

fn draft(dir: &std::path::Path, more: &[&str]) -> Draft {
    let mut draft = Draft::default();
    let exclude = format!("data.exclude=[{:?}]", dir.join("people.txt").to_str().unwrap());
    let common =
        [&exclude, "data.least=2", "data.calibration=0", "data.test=0", "batch=4", "threads=2", "steps=4"];
    for text in common.iter().chain(more) {
        draft.set_text(text).unwrap();
    }
    draft
}

fn state(run: &std::path::Path) -> Vec<(String, Tensor)> {
    let mut tensors = checkpoint::read(&run.join(CHECKPOINT)).unwrap();
    tensors.retain(|(name, _)| name != "counters");
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// Whole and in two parts, with dropout on two threads: the same bits.
fn resumes<R: Recipe>(dir: &std::path::Path, draft: &Draft, start_from: Option<PathBuf>) {
    let job = |name: &str| Job {
        start_from: start_from.clone(),
        ..Job::new(&dir.join("faces"), &dir.join(R::NAME).join(name), Device::Cpu)
    };
    start::<R>(&job("whole"), draft).unwrap();
    start::<R>(&Job { pause_at: Some(2), ..job("parts") }, draft).unwrap();
    let again = Draft::read(&job("parts").out.join(SETTINGS)).unwrap();
    start::<R>(&Job { resume: true, start_from: None, ..job("parts") }, &again).unwrap();
    let (whole, parts) = (state(&job("whole").out), state(&job("parts").out));
    assert!(whole.len() > 10 && whole.len() == parts.len());
    for ((name, a), (other, b)) in whole.iter().zip(&parts) {
        assert!(name == other && a == b, "{name} differs");
    }
}

#[test]
fn deepface_with_dropout_resumes_bit_for_bit_and_leaves_the_evaluation_list_out() {
    let dir = data();
    let draft = draft(dir.path(), &["shape.width=0.0625", "shape.start=scaled", "normaliser_faces=4"]);
    resumes::<DeepfaceRecipe>(dir.path(), &draft, None);
    let settings = std::fs::read_to_string(dir.path().join("deepface/whole").join(SETTINGS)).unwrap();
    assert!(settings.contains("identities = 5") && settings.contains("images = 20"), "{settings}");
}

#[test]
fn vggface_grows_from_a_to_b_with_its_old_convolutions_still_and_resumes_bit_for_bit() {
    let dir = data();
    let common = ["shape.width=0.0625", "shape.side_px=32", "shape.start=scaled"];
    resumes::<VggfaceRecipe>(dir.path(), &draft(dir.path(), &common), None);
    let old = dir.path().join("vggface");
    std::fs::rename(&old, dir.path().join("a")).unwrap();
    let from = dir.path().join("a/whole").join(CHECKPOINT);
    let job = Job {
        start_from: Some(from.clone()),
        ..Job::new(&dir.path().join("faces"), &dir.path().join("x"), Device::Cpu)
    };
    let error = start::<VggfaceRecipe>(&job, &draft(dir.path(), &common)).unwrap_err().to_string();
    assert!(error.contains("grown_from"), "{error}");
    let grown = [&common[..], &["shape.configuration=B", "grown_from=A", "still=0.99"]].concat();
    resumes::<VggfaceRecipe>(dir.path(), &draft(dir.path(), &grown), Some(from));
    let of = |run: &str, name: &str| -> Tensor {
        let found = state(&dir.path().join(run)).into_iter().find(|(n, _)| n == name);
        found.unwrap().1
    };
    let kept = "weights.stage0.conv0.weight";
    assert_eq!(of("a/whole", kept), of("vggface/whole", kept));
    assert_ne!(of("a/whole", "weights.fc7.weight"), of("vggface/whole", "weights.fc7.weight"));
}
