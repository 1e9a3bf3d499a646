//! `facelatch metrics`: representations of any length, compared as the papers compare them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use facelatch_shared::align::{CHIP_PX, warp_chip};
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::contract::{Manifest, ModelKind};
use facelatch_shared::vision::detect::Detector;
use facelatch_shared::vision::runtime::{Network, values};

use crate::cli::{Failure, FailureKind};
use crate::evaluate::lfw::NOT_FOUND;
use crate::evaluate::metric::{Compared, Fitted, Metric};
use crate::evaluate::pairs::{Pairs, Picture};
use crate::evaluate::pictures::subject;
use crate::evaluate::pool::{self, ten_crops};
use crate::evaluate::roc::{Roc, fold_accuracy};
use crate::progress::{Bar, Progress as _};

/// Arguments of `facelatch metrics`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// A net as ONNX that reads chips of 112×112 (RGB 0–255) and gives one vector of any length, as `facelatch export` writes it
    net: PathBuf,
    /// Folder with NAME/NAME_0001.jpg
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Pairs to measure, in LFW's format
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// Other pairs: weights of the metrics are learnt there, and thresholds chosen
    #[arg(long, value_name = "FILE")]
    calibrate: PathBuf,
    /// Model directory with the detector
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// Average over 10 crops at these shares of the chip's side, comma-separated; `--crops 0.875,0.583,0.4375` is VGG-Face's
    #[arg(long, value_name = "SHARES", value_delimiter = ',')]
    crops: Vec<f32>,
    /// Use at most this many pairs of each file, evenly chosen
    #[arg(long, value_name = "N")]
    most: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Embeds every picture once, learns each metric on the calibration pairs and measures it on the others.
///
/// # Errors
/// A [`Failure`].
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.crops.iter().any(|s| !(0.1..=1.0).contains(s)) {
        return Err(Failure::new(FailureKind::Usage, "--crops takes shares of 0.1 to 1"));
    }
    let failed = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Failed, e.to_string());
    let [learn, measure] =
        [&args.calibrate, &args.pairs].map(|path| Pairs::read(path).map(|pairs| thinned(pairs, args.most)));
    let (learn, measure) = (learn?, measure?);
    let manifest = Manifest::load(&args.models).map_err(|e| failed(&e))?;
    let entry = manifest.models.iter().find(|entry| entry.kind == ModelKind::Detector).ok_or_else(|| {
        Failure::new(FailureKind::Failed, format!("{} holds no detector", args.models.display()))
            .hint("import one with facelatch models import")
    })?;
    let input = (entry.contract.width_px, entry.contract.height_px);
    let mut detector = Detector::load(&args.models, entry, input).map_err(|e| failed(&e))?;
    let bytes = std::fs::read(&args.net)
        .map_err(|e| Failure::new(FailureKind::Failed, format!("cannot read {}: {e}", args.net.display())))?;
    let mut net = Network::from_bytes(&args.net, &bytes, CHIP_PX, CHIP_PX).map_err(|e| failed(&e))?;

    let mut known: BTreeMap<Picture, Option<Vec<f32>>> = BTreeMap::new();
    let pictures: Vec<&Picture> =
        learn.pairs.iter().chain(&measure.pairs).flat_map(|pair| [&pair.first, &pair.second]).collect();
    let bar = Bar::new();
    bar.start("pictures", pictures.len() as u64);
    for picture in pictures {
        if !known.contains_key(picture) {
            let vector = embed(&args.images.join(picture.path()), &mut detector, &mut net, &args.crops)?;
            known.insert(picture.clone(), vector);
        }
        bar.step();
    }
    bar.finish();
    report(args, &learn, &measure, &known)
}

fn report<'k>(
    args: &Args,
    learn: &Pairs,
    measure: &Pairs,
    known: &'k BTreeMap<Picture, Option<Vec<f32>>>,
) -> Result<(), Failure> {
    let vector = |picture: &Picture| -> Option<&'k [f32]> { known.get(picture)?.as_deref() };
    let calibration: Vec<Compared<'_>> = learn
        .pairs
        .iter()
        .filter_map(|pair| {
            Some(Compared { a: vector(&pair.first)?, b: vector(&pair.second)?, same: pair.same() })
        })
        .collect();
    let folds: Vec<usize> = measure.pairs.iter().map(|pair| pair.fold).collect();
    let missing = known.values().filter(|v| v.is_none()).count();
    let dim = known.values().flatten().next().map_or(0, Vec::len);
    let mut rows = Vec::new();
    for metric in Metric::ALL {
        let fitted = Fitted::fit(metric, &calibration);
        let scores = |pairs: &Pairs| -> Vec<(f32, bool)> {
            let score = |a: &Picture, b: &Picture| match (vector(a), vector(b)) {
                (Some(a), Some(b)) => fitted.similarity(a, b),
                // Below any similarity: a blind detector cannot look good.
                _ if metric == Metric::Inner => NOT_FOUND,
                _ => f32::MIN,
            };
            pairs.pairs.iter().map(|pair| (score(&pair.first, &pair.second), pair.same())).collect()
        };
        let few = || {
            Failure::new(
                FailureKind::Failed,
                "the pairs are too few: every fold needs pairs of one person and of two",
            )
        };
        let threshold = Roc::new(&scores(learn)).ok_or_else(few)?.best_threshold();
        let measured = scores(measure);
        let accuracy = fold_accuracy(&measured, &folds, measure.folds, Some(threshold)).ok_or_else(few)?;
        let roc = Roc::new(&measured).ok_or_else(few)?;
        rows.push((metric, accuracy, roc.equal_error_rate()));
    }
    if args.json {
        let metrics: Vec<_> = rows
            .iter()
            .map(|(metric, accuracy, eer)| {
                serde_json::json!({ "metric": metric.to_string(), "accuracy": accuracy.mean, "accuracy_std": accuracy.std,
                    "equal_error_rate": eer })
            })
            .collect();
        let value = serde_json::json!({ "dimensions": dim, "pictures": known.len(), "faces_not_found": missing,
            "pairs": measure.pairs.len(), "crops": (args.crops.len() * 10).max(1), "metrics": metrics });
        println!("{value:#}");
    } else {
        println!(
            "{} pairs, vectors of {dim}; {missing} of {} pictures without a face",
            measure.pairs.len(),
            known.len()
        );
        for (metric, accuracy, eer) in &rows {
            println!(
                "{metric:<20} {:.2} ± {:.2} %   equal error rate {:.2} %",
                accuracy.mean * 100.0,
                accuracy.std * 100.0,
                eer * 100.0
            );
        }
    }
    Ok(())
}

/// At most `most` pairs, evenly chosen from the file.
fn thinned(mut pairs: Pairs, most: Option<usize>) -> Pairs {
    if let Some(most) = most.filter(|&most| most < pairs.pairs.len()) {
        let n = pairs.pairs.len();
        let mut index = 0;
        pairs.pairs.retain(|_| {
            index += 1;
            index * most / n != (index - 1) * most / n
        });
    }
    pairs
}

/// The unit vector of the subject of a picture, or `None` without a face.
fn embed(
    path: &Path,
    detector: &mut Detector,
    net: &mut Network,
    crops: &[f32],
) -> Result<Option<Vec<f32>>, Failure> {
    let failed =
        |e: &dyn std::fmt::Display| Failure::new(FailureKind::Failed, format!("{}: {e}", path.display()));
    let picture = image::open(path).map_err(|e| failed(&e))?.into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let view = RgbView::new(picture.as_raw(), width, height).map_err(|e| failed(&e))?;
    let faces = detector.find(&view).map_err(|e| failed(&e))?;
    let Some(face) = subject(&faces, width, height) else { return Ok(None) };
    let mut chip = Box::new([0; CHIP_PX * CHIP_PX * 3]);
    warp_chip(&view, &face.landmarks, &mut chip).map_err(|e| failed(&e))?;
    let mut look = |chip: &[u8]| -> Result<Option<Vec<f32>>, Failure> {
        let planes = net.input_mut().map_err(|e| failed(&e))?;
        for (plane, target) in planes.chunks_exact_mut(CHIP_PX * CHIP_PX).enumerate() {
            for (value, pixel) in target.iter_mut().zip(chip.as_chunks::<3>().0) {
                *value = f32::from(pixel[plane]);
            }
        }
        let outputs = net.run().map_err(|e| failed(&e))?;
        Ok(pool::mean([values(&outputs[0])]))
    };
    if crops.is_empty() {
        return look(chip.as_slice());
    }
    let mut looks = Vec::with_capacity(crops.len() * 10);
    let mut cut = vec![0; CHIP_PX * CHIP_PX * 3];
    for crop in ten_crops(crops) {
        crop.cut(chip.as_slice(), CHIP_PX, &mut cut, CHIP_PX);
        looks.extend(look(&cut)?);
    }
    Ok(pool::mean(looks.iter().map(Vec::as_slice)))
}

const HELP: &str = "\
Pictures are searched and aligned by the code that runs on the door, once each. Inner product, weighted chi-square (weights by a linear SVM) \
and the Siamese L1 distance (weights by logistic regression) are DeepFace's; the last two learn on the calibration pairs, and every threshold is \
chosen there.

Example:
  facelatch export runs/deepface-1 --form f32 --out deepface.onnx
  facelatch metrics deepface.onnx --images lfw --pairs pairsDevTest.txt --calibrate pairsDevTrain.txt";
