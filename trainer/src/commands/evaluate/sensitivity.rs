//! `facelatch evaluate sensitivity`.

use std::path::PathBuf;

use facelatch_shared::vision::contract::ManifestEntry;
use serde_json::json;

use super::{EyesArgs, models_json, models_text, percent};
use crate::cli::Failure;
use crate::evaluate::pairs::Pairs;
use crate::evaluate::sensitivity::{self, Job, Report, Spoil};
use crate::progress::Bar;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with NAME/NAME_0001.jpg
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Pairs to measure, in LFW's format
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// Other pairs whose pictures, as they are, choose the thresholds; without them the measured pairs do
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// JPEG qualities
    #[arg(long, value_name = "Q", value_delimiter = ',', default_value = "10,20,30,50,70,90", value_parser = clap::value_parser!(u8).range(1..=100))]
    jpeg: Vec<u8>,
    /// Sides in pixels that pictures are shrunk to
    #[arg(long, value_name = "PX", value_delimiter = ',', default_value = "40,60,80,120,160", value_parser = clap::value_parser!(u32).range(8..=4096))]
    sides: Vec<u32>,
    #[command(flatten)]
    eyes: EyesArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let jpeg = args.jpeg.iter().map(|&quality| Spoil::Jpeg(quality));
    let sides = args.sides.iter().map(|&side| Spoil::Side(side));
    let job = Job {
        images: args.images.clone(),
        pairs: Pairs::read(&args.pairs)?,
        calibrate: args.calibrate.as_deref().map(Pairs::read).transpose()?,
        spoils: std::iter::once(Spoil::Nothing).chain(jpeg).chain(sides).collect(),
    };
    let mut loaded = args.eyes.load()?;
    let report = sensitivity::measure(&job, &mut loaded.eyes, &Bar::new())?;
    if args.json {
        println!("{:#}", report_json(&report, &loaded.models));
    } else {
        print!("{}", report_text(&report, &loaded.models));
    }
    Ok(())
}

fn report_json(report: &Report, models: &[ManifestEntry; 2]) -> serde_json::Value {
    let row = |row: &sensitivity::Row| {
        let (jpeg, side) = match row.spoil {
            Spoil::Nothing => (None, None),
            Spoil::Jpeg(quality) => (Some(quality), None),
            Spoil::Side(side) => (None, Some(side)),
        };
        json!({
            "jpeg_quality": jpeg,
            "side_px": side,
            "accuracy": row.accuracy,
            "tar": row.tar,
            "far": row.far,
            "val_at_far_1e-2": row.val,
            "eye_distance_px": row.eye_distance_px,
            "faces_not_found": row.faces_not_found,
        })
    };
    json!({
        "rows": report.rows.iter().map(row).collect::<Vec<_>>(),
        "pictures": report.pictures,
        "pairs": report.pairs,
        "threshold": report.threshold,
        "threshold_at_far_1e-2": report.strict_threshold,
        "models": models_json(models),
    })
}

fn report_text(report: &Report, models: &[ManifestEntry; 2]) -> String {
    let mut text = format!(
        "{} pairs of {} pictures; thresholds {:.3} (accuracy) and {:.3} (TAR, FAR 1e-2), chosen on pictures as they are\n\n\
         {:<16}  eyes apart  accuracy       TAR       FAR  VAL@1e-2  no face\n",
        report.pairs, report.pictures, report.threshold, report.strict_threshold, "pictures"
    );
    for row in &report.rows {
        text += &format!(
            "{:<16}  {:>7.1} px  {:>8}  {:>8}  {:>8}  {:>8}  {:>7}\n",
            row.spoil,
            row.eye_distance_px,
            percent(row.accuracy),
            percent(row.tar),
            percent(row.far),
            row.val.map_or_else(|| "-".into(), percent),
            row.faces_not_found
        );
    }
    text + "\n" + &models_text(models)
}

pub(super) const HELP: &str = "\
Every picture is spoilt in one way at a time and then searched, aligned and embedded as a camera's frame is. The thresholds stay those of \
pictures as they are, which is what a door would do; VAL@1e-2 is what remains when the threshold is set anew. Compare with table 4 of the \
FaceNet paper.

Examples:
  facelatch evaluate sensitivity --images lfw --pairs pairsDevTest.txt --calibrate pairsDevTrain.txt
  facelatch evaluate sensitivity --images lfw --pairs pairsDevTest.txt --jpeg 20 --sides 60,120 --json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_keys_are_fixed_and_the_table_is_aligned() {
        let row = sensitivity::Row {
            spoil: Spoil::Jpeg(20),
            accuracy: 0.991,
            tar: 0.97,
            far: 0.01,
            val: None,
            eye_distance_px: 41.5,
            faces_not_found: 2,
        };
        let rows = vec![row, sensitivity::Row { spoil: Spoil::Side(60), ..row }];
        let report = Report { rows, pictures: 10, pairs: 8, threshold: 0.3, strict_threshold: 0.4 };
        let models = super::super::lfw::tests::models();
        let value = report_json(&report, &models);
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["models", "pairs", "pictures", "rows", "threshold", "threshold_at_far_1e-2"]);
        assert_eq!(value["rows"][0]["jpeg_quality"], 20);
        let text = report_text(&report, &models);
        let table: Vec<&str> = text.lines().skip(2).take(3).collect();
        assert!(table.iter().all(|line| line.chars().count() == table[0].chars().count()), "{text}");
    }
}
