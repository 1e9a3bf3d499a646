//! `facelatch evaluate`; `lfw` is here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use facelatch_shared::vision::contract::ManifestEntry;
use serde_json::json;

use super::{EyesArgs, models_json, models_text, percent, rate, write};
use crate::cli::Failure;
use crate::evaluate::lfw::{self, Job, Report};
use crate::evaluate::operating_point::Applied;
use crate::evaluate::pairs::Pairs;
use crate::evaluate::plot::{self, Curve};
use crate::evaluate::roc::Score;
use crate::progress::Bar;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with NAME/NAME_0001.jpg
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Pairs to measure, in LFW's format: pairsDevTest.txt (View 1) or pairs.txt (View 2, ten folds)
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// Other pairs on which the thresholds are chosen; without them the accuracy's is cross-validated over the folds
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    eyes: EyesArgs,
    /// Write the similarity of every pair as CSV
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Draw ROC and DET curves with 95 % bands as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Draws of people behind the bands
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    draws: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let job = Job {
        images: args.images.clone(),
        pairs: Pairs::read(&args.pairs)?,
        calibrate: args.calibrate.as_deref().map(Pairs::read).transpose()?,
    };
    let mut loaded = args.eyes.load()?;
    let report = lfw::measure(&job, &mut loaded.eyes, &Bar::new())?;
    if let Some(path) = &args.scores {
        write(path, &scores_csv(&job.pairs, &report))?;
    }
    if let Some(path) = &args.plot {
        let title = format!("{} on {}", loaded.models[1].name, file_name(&args.pairs));
        write(path, &curves(&job.pairs, &report, &title, args.draws as usize))?;
    }
    if args.json {
        println!("{:#}", report_json(&report, &loaded.models, args.calibrate.as_deref()));
    } else {
        print!("{}", report_text(&report, &loaded.models, args.calibrate.as_deref()));
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn scores_csv(pairs: &Pairs, report: &Report) -> String {
    let mut text = String::from("first,second,same,similarity\n");
    for (pair, similarity) in pairs.pairs.iter().zip(&report.similarities) {
        let [first, second] = [&pair.first, &pair.second].map(|picture| picture.path());
        let same = u8::from(pair.same());
        text += &format!("{},{},{same},{similarity:.6}\n", first.display(), second.display());
    }
    text
}

fn curves(pairs: &Pairs, report: &Report, title: &str, draws: usize) -> String {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut number = |person| {
        let next = numbers.len() as u32;
        *numbers.entry(person).or_insert(next)
    };
    let people: Vec<(u32, u32)> =
        pairs.pairs.iter().map(|p| (number(&p.first.person), number(&p.second.person))).collect();
    let scores: Vec<Score> =
        report.similarities.iter().zip(&pairs.pairs).map(|(&s, pair)| (s, pair.same())).collect();
    // A report exists only where there are pairs of both sorts.
    plot::svg(&Curve { title, scores: &scores, people: &people, draws, seed: 1 }).unwrap_or_default()
}

fn report_json(report: &Report, models: &[ManifestEntry; 2], calibrate: Option<&Path>) -> serde_json::Value {
    let point = |p: &Applied| {
        json!({
            "far_asked": p.asked,
            "threshold": p.threshold,
            "calibration_impostors": p.calibration_impostors,
            "far": p.far,
            "far_95": [p.far_interval.low, p.far_interval.high],
            "tar": p.tar,
            "tar_95": [p.tar_interval.low, p.tar_interval.high],
        })
    };
    json!({
        "accuracy": report.accuracy.mean,
        "accuracy_std": report.accuracy.std,
        "accuracy_std_error": report.accuracy.std_error,
        "threshold": report.accuracy.threshold,
        "threshold_from": calibrate.map_or_else(|| "cross-validation".into(), |path| path.display().to_string()),
        "folds": report.folds,
        "pairs": { "genuine": report.genuine_pairs, "impostor": report.impostor_pairs },
        "tar_at_far_1e-2": report.at_far_1e2.tar,
        "tar_at_far_1e-3": report.at_far_1e3.tar,
        "threshold_at_far_1e-2": report.at_far_1e2.threshold,
        "threshold_at_far_1e-3": report.at_far_1e3.threshold,
        "val_at_far_1e-3": report.val_at_far_1e3.map(|val| {
            json!({ "mean": val.mean, "std_error": val.std_error, "far": val.far })
        }),
        "operating_points": report.operating_points.iter().map(point).collect::<Vec<_>>(),
        "equal_error_rate": report.equal_error_rate,
        "pictures": report.pictures.total,
        "faces_not_found": report.pictures.faces_not_found,
        "calibration_faces_not_found": report.calibration_pictures.map(|count| count.faces_not_found),
        "templates": {
            "mean_difference": report.templates.mean,
            "max_difference": report.templates.max,
            "accuracy_change": report.templates.accuracy_change,
        },
        "models": models_json(models),
    })
}

fn report_text(report: &Report, models: &[ManifestEntry; 2], calibrate: Option<&Path>) -> String {
    let chosen = calibrate.map_or_else(
        || format!("cross-validated over {} folds", report.folds),
        |path| format!("chosen on {}", path.display()),
    );
    let mut text = format!(
        "pairs             {} of one person, {} of two, {} folds\n",
        report.genuine_pairs, report.impostor_pairs, report.folds
    );
    text += &format!(
        "accuracy          {:.2} ± {} (standard error {:.2}) at similarity {:.3}, {chosen}\n",
        report.accuracy.mean * 100.0,
        percent(report.accuracy.std),
        report.accuracy.std_error * 100.0,
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
    if let Some(val) = report.val_at_far_1e3 {
        text += &format!(
            "VAL at FAR 1e-3   {:.2} ± {} (standard error), thresholds from the other folds; FAR there {}\n",
            val.mean * 100.0,
            percent(val.std_error),
            rate(val.far)
        );
    }
    for point in &report.operating_points {
        text += &format!(
            "threshold {:.3}   chosen for FAR {:.0e} on {} other impostor pairs: FAR {} [{}, {}], TAR {} [{}, {}]\n",
            point.threshold,
            point.asked,
            point.calibration_impostors,
            rate(point.far),
            rate(point.far_interval.low),
            rate(point.far_interval.high),
            percent(point.tar),
            percent(point.tar_interval.low),
            percent(point.tar_interval.high),
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
    text + &models_text(models)
}

pub(super) const HELP: &str = "\
Pictures are searched, aligned and embedded by the code that runs on the door. Of several faces the largest near the middle \
counts. A picture without a face is not dropped: its pairs score -1. Accuracy is the mean over the folds of the pairs file \
(View 1's is cut into ten) ± the standard deviation over them; papers report the standard error of View 2's ten. VAL is FaceNet's \
validation rate: the share of genuine pairs accepted in one fold by the threshold that keeps the FAR on the others. TAR at FAR is \
not interpolated: with 500 impostor pairs a rate of 1e-3 allows none. Bands in the plot, and the square brackets, hold 95 %: the \
former from people drawn with replacement, the latter Wilson's.

View 1 (pairsDevTrain.txt, pairsDevTest.txt) is for choosing models and thresholds, View 2 (pairs.txt) for reporting.

Examples:
  facelatch evaluate lfw --images lfw --pairs pairs.txt --plot roc.svg
  facelatch evaluate lfw --images lfw --pairs pairsDevTest.txt --calibrate pairsDevTrain.txt --json";

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::evaluate::interval::Interval;
    use crate::evaluate::lfw::{Count, TemplateCost};
    use crate::evaluate::roc::{FoldAccuracy, FoldRate, OperatingPoint};

    fn report() -> Report {
        let point = OperatingPoint { tar: 0.986, far: 0.0, threshold: 0.4 };
        Report {
            accuracy: FoldAccuracy { mean: 0.992, std: 0.0098, std_error: 0.0033, threshold: 0.326 },
            at_far_1e2: point,
            at_far_1e3: point,
            val_at_far_1e3: Some(FoldRate { mean: 0.97, std_error: 0.004, far: 0.002 }),
            operating_points: vec![Applied {
                asked: 0.01,
                threshold: 0.4,
                calibration_impostors: 1100,
                far: 0.012,
                far_interval: Interval { low: 0.006, high: 0.024 },
                tar: 0.98,
                tar_interval: Interval { low: 0.96, high: 0.99 },
            }],
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

    pub(crate) fn models() -> [ManifestEntry; 2] {
        ["yunet", "sface"].map(|name| {
            let preset = crate::import::preset(name).unwrap();
            ManifestEntry {
                name: preset.name,
                kind: preset.kind,
                family: preset.family,
                file: format!("{name}.onnx"),
                sha256: preset.source.sha256,
                licence: preset.licence,
                lineage: preset.lineage,
                default_threshold: preset.default_threshold,
                threshold_note: preset.threshold_note,
                source: preset.source,
                contract: preset.contract,
                thresholds: preset.thresholds,
                measured: preset.measured,
            }
        })
    }

    #[test]
    fn the_json_keys_are_fixed() {
        let value = report_json(&report(), &models(), None);
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "accuracy",
                "accuracy_std",
                "accuracy_std_error",
                "calibration_faces_not_found",
                "equal_error_rate",
                "faces_not_found",
                "folds",
                "models",
                "operating_points",
                "pairs",
                "pictures",
                "tar_at_far_1e-2",
                "tar_at_far_1e-3",
                "templates",
                "threshold",
                "threshold_at_far_1e-2",
                "threshold_at_far_1e-3",
                "threshold_from",
                "val_at_far_1e-3",
            ]
        );
        assert_eq!(value["faces_not_found"], 3);
        assert_eq!(value["models"]["embedder"]["name"], "sface");
    }

    #[test]
    fn the_text_says_what_was_measured() {
        let text = report_text(&report(), &models(), Some(Path::new("train.txt")));
        assert!(
            text.contains("99.20 ± 0.98 % (standard error 0.33) at similarity 0.326, chosen on train.txt"),
            "{text}"
        );
        assert!(text.contains("97.00 ± 0.40 % (standard error)"), "{text}");
        assert!(
            text.contains("chosen for FAR 1e-2 on 1100 other impostor pairs: FAR 1.2e-2 [6.0e-3"),
            "{text}"
        );
        assert!(text.contains("3 of 1892 pictures"), "{text}");
        assert!(text.contains("detector          yunet 49f0"), "{text}");
    }
}
