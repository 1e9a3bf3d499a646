//! `facelatch evaluate lfw`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use facelatch_shared::quality::Gate;
use facelatch_shared::vision::Eyes;
use facelatch_shared::vision::contract::{Manifest, ManifestEntry, ModelKind};
use serde_json::json;

use crate::cli::{Failure, FailureKind};
use crate::evaluate::lfw::{self, Job, LfwError, Report};
use crate::evaluate::pairs::{Pairs, PairsError};
use crate::progress::Bar;

/// Arguments of `facelatch evaluate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verification on pairs of pictures in LFW's layout
    #[command(after_help = LFW_HELP)]
    Lfw(LfwArgs),
}

#[derive(Debug, clap::Args)]
struct LfwArgs {
    /// Folder with NAME/NAME_0001.jpg
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Pairs to measure, in LFW's format
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// Other pairs on which the accuracy's threshold is chosen; without them it is cross-validated over the folds
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Model directory
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// Detector by name [default: the first in the manifest]
    #[arg(long, value_name = "NAME")]
    detector: Option<String>,
    /// Embedder by name [default: the first in the manifest]
    #[arg(long, value_name = "NAME")]
    embedder: Option<String>,
    /// Threads, each with its own copy of the models [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Write the similarity of every pair as CSV
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Lfw(args) => run_lfw(args),
    }
}

fn run_lfw(args: &LfwArgs) -> Result<(), Failure> {
    let job = Job {
        images: args.images.clone(),
        pairs: Pairs::read(&args.pairs)?,
        calibrate: args.calibrate.as_deref().map(Pairs::read).transpose()?,
    };
    let manifest = Manifest::load(&args.models).map_err(|e| Failure::new(FailureKind::Failed, e))?;
    let choose = |name: &Option<String>, kind| choose(&manifest, &args.models, name.as_deref(), kind);
    let models = [choose(&args.detector, ModelKind::Detector)?, choose(&args.embedder, ModelKind::Embedder)?];
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.map_or_else(cores, usize::from);
    // What the manifest was imported for, which is the door's default too.
    let detector_input = (models[0].contract.width_px, models[0].contract.height_px);
    let mut eyes = (0..threads)
        .map(|_| Eyes::load(&args.models, &models[0].name, &models[1].name, Gate::OPEN, detector_input))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Failure::new(FailureKind::Failed, e))?;
    let report = lfw::measure(&job, &mut eyes, &Bar::new())?;
    if let Some(path) = &args.scores {
        write_scores(path, &job.pairs, &report)?;
    }
    if args.json {
        println!("{:#}", report_json(&report, models, args.calibrate.as_deref()));
    } else {
        print!("{}", report_text(&report, models, args.calibrate.as_deref()));
    }
    Ok(())
}

fn choose<'m>(
    manifest: &'m Manifest,
    dir: &Path,
    name: Option<&str>,
    kind: ModelKind,
) -> Result<&'m ManifestEntry, Failure> {
    match name {
        Some(name) => manifest.find(dir, name, kind).map_err(|e| Failure::new(FailureKind::Failed, e)),
        None => manifest.models.iter().find(|entry| entry.kind == kind).ok_or_else(|| {
            Failure::new(FailureKind::Failed, format!("{} holds no {kind}", dir.display()))
                .hint("import one with facelatch models import")
        }),
    }
}

fn write_scores(path: &Path, pairs: &Pairs, report: &Report) -> Result<(), Failure> {
    let mut text = String::from("first,second,same,similarity\n");
    for (pair, similarity) in pairs.pairs.iter().zip(&report.similarities) {
        let [first, second] = [&pair.first, &pair.second].map(|picture| picture.path());
        let same = u8::from(pair.same());
        text += &format!("{},{},{same},{similarity:.6}\n", first.display(), second.display());
    }
    std::fs::write(path, text)
        .map_err(|e| Failure::new(FailureKind::Failed, format!("cannot write {}: {e}", path.display())))
}

fn report_json(
    report: &Report,
    [detector, embedder]: [&ManifestEntry; 2],
    calibrate: Option<&Path>,
) -> serde_json::Value {
    let model = |entry: &ManifestEntry| json!({ "name": entry.name, "sha256": entry.sha256.to_string() });
    json!({
        "accuracy": report.accuracy.mean,
        "accuracy_std": report.accuracy.std,
        "threshold": report.accuracy.threshold,
        "threshold_from": calibrate.map_or_else(|| "cross-validation".into(), |path| path.display().to_string()),
        "folds": report.folds,
        "pairs": { "genuine": report.genuine_pairs, "impostor": report.impostor_pairs },
        "tar_at_far_1e-2": report.at_far_1e2.tar,
        "tar_at_far_1e-3": report.at_far_1e3.tar,
        "threshold_at_far_1e-2": report.at_far_1e2.threshold,
        "threshold_at_far_1e-3": report.at_far_1e3.threshold,
        "equal_error_rate": report.equal_error_rate,
        "pictures": report.pictures.total,
        "faces_not_found": report.pictures.faces_not_found,
        "calibration_faces_not_found": report.calibration_pictures.map(|count| count.faces_not_found),
        "templates": {
            "mean_difference": report.templates.mean,
            "max_difference": report.templates.max,
            "accuracy_change": report.templates.accuracy_change,
        },
        "models": { "detector": model(detector), "embedder": model(embedder) },
    })
}

fn report_text(report: &Report, models: [&ManifestEntry; 2], calibrate: Option<&Path>) -> String {
    let percent = |share: f64| format!("{:.2} %", share * 100.0);
    let chosen = calibrate.map_or_else(
        || format!("cross-validated over {} folds", report.folds),
        |path| format!("chosen on {}", path.display()),
    );
    let mut text = format!(
        "pairs             {} of one person, {} of two, {} folds\n",
        report.genuine_pairs, report.impostor_pairs, report.folds
    );
    text += &format!(
        "accuracy          {:.2} ± {} at similarity {:.3}, {chosen}\n",
        report.accuracy.mean * 100.0,
        percent(report.accuracy.std),
        report.accuracy.threshold
    );
    for (rate, point) in [("1e-2", report.at_far_1e2), ("1e-3", report.at_far_1e3)] {
        text += &format!(
            "TAR at FAR {rate}   {} at similarity {:.3}, {} impostor pairs accepted\n",
            percent(point.tar),
            point.threshold,
            (point.far * report.impostor_pairs as f64).round()
        );
    }
    text += &format!("equal error rate  {}\n", percent(report.equal_error_rate));
    text += &format!(
        "faces not found   {} of {} pictures (their pairs score {})\n",
        report.pictures.faces_not_found,
        report.pictures.total,
        lfw::NOT_FOUND
    );
    text += &format!(
        "int8 templates    similarity off by {:.5} on average, {:.5} at most; accuracy {:+.2} points\n",
        report.templates.mean,
        report.templates.max,
        report.templates.accuracy_change * 100.0
    );
    for entry in models {
        text += &format!("{:<17} {} {}\n", entry.kind.to_string(), entry.name, entry.sha256);
    }
    text
}

impl From<PairsError> for Failure {
    fn from(error: PairsError) -> Self {
        Self::new(FailureKind::Failed, error)
            .hint("the format is LFW's: http://vis-www.cs.umass.edu/lfw/README.txt")
    }
}

impl From<LfwError> for Failure {
    fn from(error: LfwError) -> Self {
        let hint = match &error {
            LfwError::Missing { .. } => Some(
                "--images must be the folder that holds one sub-folder a person, of the same edition as the pairs",
            ),
            LfwError::Picture { .. } => Some("the file may be cut short: fetch it again"),
            LfwError::Vision { .. } | LfwError::Degenerate => None,
        };
        let failure = Self::new(FailureKind::Failed, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

const LFW_HELP: &str = "\
Pictures are searched, aligned and embedded by the code that runs on the door. Of several faces the largest near the middle \
counts. A picture without a face is not dropped: its pairs score -1. Accuracy is the mean over the folds of the pairs file \
(a development file is cut into ten) ± the standard deviation over them. TAR at FAR is not interpolated: with 500 impostor \
pairs a rate of 1e-3 allows none.

Examples:
  facelatch evaluate lfw --images lfw --pairs pairs.txt
  facelatch evaluate lfw --images lfw --pairs pairsDevTest.txt --calibrate pairsDevTrain.txt --json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::lfw::{Count, TemplateCost};
    use crate::evaluate::roc::{FoldAccuracy, OperatingPoint};

    fn report() -> Report {
        let point = OperatingPoint { tar: 0.986, far: 0.0, threshold: 0.4 };
        Report {
            accuracy: FoldAccuracy { mean: 0.992, std: 0.0098, threshold: 0.326 },
            at_far_1e2: point,
            at_far_1e3: point,
            equal_error_rate: 0.008,
            templates: TemplateCost { mean: 0.001, max: 0.004, accuracy_change: 0.0 },
            pictures: Count { total: 1892, faces_not_found: 3 },
            calibration_pictures: None,
            genuine_pairs: 500,
            impostor_pairs: 500,
            folds: 10,
            similarities: vec![],
        }
    }

    fn models() -> [ManifestEntry; 2] {
        ["yunet", "sface"].map(|name| {
            let preset = crate::import::preset(name).unwrap();
            ManifestEntry {
                name: preset.name,
                kind: preset.kind,
                family: preset.family,
                file: format!("{name}.onnx"),
                sha256: preset.source.sha256,
                licence: preset.licence,
                default_threshold: preset.default_threshold,
                threshold_note: preset.threshold_note,
                source: preset.source,
                contract: preset.contract,
            }
        })
    }

    #[test]
    fn the_json_keys_are_fixed() {
        let [detector, embedder] = models();
        let value = report_json(&report(), [&detector, &embedder], None);
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "accuracy",
                "accuracy_std",
                "calibration_faces_not_found",
                "equal_error_rate",
                "faces_not_found",
                "folds",
                "models",
                "pairs",
                "pictures",
                "tar_at_far_1e-2",
                "tar_at_far_1e-3",
                "templates",
                "threshold",
                "threshold_at_far_1e-2",
                "threshold_at_far_1e-3",
                "threshold_from",
            ]
        );
        assert_eq!(value["faces_not_found"], 3);
        assert_eq!(value["models"]["embedder"]["name"], "sface");
    }

    #[test]
    fn the_text_says_what_was_measured() {
        let [detector, embedder] = models();
        let text = report_text(&report(), [&detector, &embedder], Some(Path::new("train.txt")));
        assert!(text.contains("99.20 ± 0.98 % at similarity 0.326, chosen on train.txt"), "{text}");
        assert!(text.contains("3 of 1892 pictures"), "{text}");
        assert!(text.contains("detector          yunet 49f0"), "{text}");
    }
}
