//! `facelatch evaluate ytf`.

use std::path::PathBuf;

use facelatch_shared::vision::contract::ManifestEntry;
use serde_json::json;

use super::{EyesArgs, models_json, models_text, percent, rate};
use crate::cli::{Failure, FailureKind};
use crate::evaluate::ytf::{self, Compare, Job, Report, Splits, YtfError};
use crate::progress::Bar;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with NAME/NUMBER/*.jpg, the frames of each video
    #[arg(long, value_name = "DIR")]
    frames: PathBuf,
    /// Pairs of videos: `fold, NAME/NUMBER, NAME/NUMBER, same` a line
    #[arg(long, value_name = "FILE")]
    splits: PathBuf,
    /// How two tracks become one similarity
    #[arg(long, value_enum, default_value = "pairs")]
    compare: Compare,
    /// Frames of each track: the first that show a face; with --compare pool the most certainly detected
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    most_frames: u32,
    #[command(flatten)]
    eyes: EyesArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let splits = Splits::read(&args.splits).map_err(|e| {
        Failure::new(FailureKind::Failed, e)
            .hint("a line is `1, Ann_Lee/0, Ann_Lee/3, 1`: fold, two videos, 1 for one person or 0 for two")
    })?;
    let job = Job {
        frames: args.frames.clone(),
        splits,
        compare: args.compare,
        most_frames: args.most_frames as usize,
    };
    let mut loaded = args.eyes.load()?;
    let report = ytf::measure(&job, &mut loaded.eyes, &Bar::new())?;
    if args.json {
        println!("{:#}", report_json(&report, &loaded.models));
    } else {
        print!("{}", report_text(&report, &loaded.models));
    }
    Ok(())
}

fn report_json(report: &Report, models: &[ManifestEntry; 2]) -> serde_json::Value {
    json!({
        "accuracy": report.accuracy.mean,
        "accuracy_std_error": report.accuracy.std_error,
        "threshold": report.accuracy.threshold,
        "val_at_far_1e-3": report.val_at_far_1e3.map(|val| {
            json!({ "mean": val.mean, "std_error": val.std_error, "far": val.far })
        }),
        "equal_error_rate": report.equal_error_rate,
        "folds": report.folds,
        "pairs": { "genuine": report.genuine_pairs, "impostor": report.impostor_pairs },
        "tracks": report.tracks,
        "tracks_without_a_face": report.blind_tracks,
        "frames": { "read": report.frames_read, "with_a_face": report.frames_used },
        "models": models_json(models),
    })
}

fn report_text(report: &Report, models: &[ManifestEntry; 2]) -> String {
    let mut text = format!(
        "pairs             {} of one person, {} of two, {} folds\n",
        report.genuine_pairs, report.impostor_pairs, report.folds
    );
    text += &format!(
        "accuracy          {:.2} ± {} (standard error) at similarity {:.3}, cross-validated\n",
        report.accuracy.mean * 100.0,
        percent(report.accuracy.std_error),
        report.accuracy.threshold
    );
    if let Some(val) = report.val_at_far_1e3 {
        text += &format!(
            "VAL at FAR 1e-3   {:.2} ± {} (standard error), FAR there {}\n",
            val.mean * 100.0,
            percent(val.std_error),
            rate(val.far)
        );
    }
    text += &format!("equal error rate  {}\n", percent(report.equal_error_rate));
    text += &format!(
        "tracks            {}, {} without a face; a face in {} of {} frames\n",
        report.tracks, report.blind_tracks, report.frames_used, report.frames_read
    );
    text + &models_text(models)
}

impl From<YtfError> for Failure {
    fn from(error: YtfError) -> Self {
        match error {
            YtfError::Picture(error) => error.into(),
            YtfError::Video { .. } => Self::new(FailureKind::Failed, error)
                .hint("--frames must hold NAME/NUMBER/*.jpg: YouTube Faces' frame_images_DB, or what facelatch evaluate tracks made"),
            YtfError::Degenerate => Self::new(FailureKind::Failed, error),
        }
    }
}

pub(super) const HELP: &str = "\
The splits file is YouTube Faces' (Wolf et al. 2011): 5,000 pairs of videos in ten folds; accuracy is the mean over the folds, each \
with the threshold that is best on the others. Two tracks are compared by the mean similarity of all pairs of their first 100 frames \
that show a face (--compare pairs, FaceNet), or by one vector each, the normalised mean of its K most certainly detected frames \
(--compare pool --most-frames K, VGG-Face). A track without a face scores -1.

Where no videos are at hand, facelatch evaluate tracks makes some from stills: they exercise the protocol, and their figures say nothing \
about video.

Examples:
  facelatch evaluate ytf --frames frame_images_DB --splits splits.txt
  facelatch evaluate ytf --frames tracks --splits tracks/splits.txt --compare pool --most-frames 5 --json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::roc::FoldAccuracy;

    #[test]
    fn the_json_keys_are_fixed_and_the_text_says_what_was_measured() {
        let report = Report {
            accuracy: FoldAccuracy { mean: 0.95, std: 0.01, std_error: 0.004, threshold: 0.3 },
            val_at_far_1e3: None,
            equal_error_rate: 0.05,
            tracks: 40,
            blind_tracks: 2,
            frames_read: 400,
            frames_used: 380,
            genuine_pairs: 10,
            impostor_pairs: 10,
            folds: 10,
            similarities: vec![],
        };
        let models = super::super::lfw::tests::models();
        let value = report_json(&report, &models);
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "accuracy",
                "accuracy_std_error",
                "equal_error_rate",
                "folds",
                "frames",
                "models",
                "pairs",
                "threshold",
                "tracks",
                "tracks_without_a_face",
                "val_at_far_1e-3",
            ]
        );
        let text = report_text(&report, &models);
        assert!(text.contains("95.00 ± 0.40 %") && text.contains("a face in 380 of 400 frames"), "{text}");
    }
}
