//! `facelatch evaluate identify`.

use std::path::PathBuf;

use facelatch_shared::vision::contract::ManifestEntry;
use serde_json::json;

use super::{EyesArgs, models_json, models_text, percent};
use crate::cli::{Failure, FailureKind};
use crate::evaluate::identify::{self, IdentifyError, Job, Report};
use crate::progress::Bar;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with one sub-folder of pictures a person
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// People enrolled, in each half of the people
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    gallery: u32,
    /// Pictures each is enrolled with
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    templates: u32,
    /// False-positive identification rates to choose thresholds for
    #[arg(long, value_name = "RATE", value_delimiter = ',', default_value = "0.1,0.01", value_parser = rate)]
    fpir: Vec<f64>,
    /// Seed of who is enrolled
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    eyes: EyesArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or_else(|| "a rate lies between 0 and 1".into())
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let job = Job {
        images: args.images.clone(),
        gallery: args.gallery as usize,
        templates: args.templates as usize,
        fpirs: args.fpir.clone(),
        seed: args.seed,
    };
    let mut loaded = args.eyes.load()?;
    let report = identify::measure(&job, &mut loaded.eyes, &Bar::new())?;
    if args.json {
        println!("{:#}", report_json(&report, &loaded.models));
    } else {
        print!("{}", report_text(&report, &loaded.models));
    }
    Ok(())
}

fn report_json(report: &Report, models: &[ManifestEntry; 2]) -> serde_json::Value {
    let point = |p: &identify::Point| {
        json!({
            "fpir_asked": p.asked,
            "threshold": Some(p.threshold).filter(|t| t.is_finite()),
            "fpir": p.fpir,
            "fpir_95": [p.fpir_interval.low, p.fpir_interval.high],
            "dir": p.dir,
            "dir_95": [p.dir_interval.low, p.dir_interval.high],
        })
    };
    json!({
        "gallery": report.gallery,
        "templates": report.templates,
        "known_probes": report.known_probes,
        "stranger_probes": report.stranger_probes,
        "calibration_strangers": report.calibration_strangers,
        "faces_not_found": report.faces_not_found,
        "rank_one": report.rank_one,
        "points": report.points.iter().map(point).collect::<Vec<_>>(),
        "models": models_json(models),
    })
}

fn report_text(report: &Report, models: &[ManifestEntry; 2]) -> String {
    let mut text = format!(
        "gallery           {} people, {} templates each\n\
         probes            {} of enrolled people, {} of strangers; {} without a face\n\
         rank one          {} of the enrolled people's, at no threshold\n",
        report.gallery,
        report.templates,
        report.known_probes,
        report.stranger_probes,
        report.faces_not_found,
        percent(report.rank_one),
    );
    for p in &report.points {
        text += &format!(
            "threshold {:.3}   chosen for FPIR {} on {} strangers of the other half: FPIR {} [{}, {}], DIR {} [{}, {}]\n",
            p.threshold,
            p.asked,
            report.calibration_strangers,
            percent(p.fpir),
            percent(p.fpir_interval.low),
            percent(p.fpir_interval.high),
            percent(p.dir),
            percent(p.dir_interval.low),
            percent(p.dir_interval.high),
        );
    }
    text + &models_text(models)
}

impl From<IdentifyError> for Failure {
    fn from(error: IdentifyError) -> Self {
        let hint = match &error {
            IdentifyError::Folder { .. } => "--images must hold one sub-folder a person",
            IdentifyError::TooFewPeople { .. } => "lower --gallery or --templates, or add pictures",
            IdentifyError::NoStrangers { .. } => "lower --gallery",
            IdentifyError::Picture(_) | IdentifyError::EmptyGallery => {
                return match error {
                    IdentifyError::Picture(error) => error.into(),
                    other => Self::new(FailureKind::Failed, other),
                };
            }
        };
        Self::new(FailureKind::Failed, error).hint(hint)
    }
}

pub(super) const HELP: &str = "\
People are halved by their names. In each half some are enrolled in a gallery like the door's, int8 templates and all; their other pictures \
must be recognised, everybody else's refused. The threshold for a false-positive identification rate (FPIR) is chosen on one half's strangers; \
the other half, which had no say, is what is reported: FPIR, and DIR, the share of known pictures recognised as the right person. A door \
compares with everybody enrolled, so FPIR grows with the gallery: always state N.

Examples:
  facelatch evaluate identify --images faces --gallery 100
  facelatch evaluate identify --images lfw --gallery 200 --templates 2 --fpir 0.01,0.001 --json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::interval::Interval;

    #[test]
    fn the_json_keys_are_fixed_and_no_threshold_is_null() {
        let interval = Interval { low: 0.0, high: 1.0 };
        let point = identify::Point {
            asked: 1.0,
            threshold: f32::NEG_INFINITY,
            fpir: 1.0,
            fpir_interval: interval,
            dir: 0.9,
            dir_interval: interval,
        };
        let report = Report {
            gallery: 50,
            templates: 1,
            known_probes: 100,
            stranger_probes: 900,
            calibration_strangers: 800,
            faces_not_found: 3,
            rank_one: 0.9,
            points: vec![point],
        };
        let models = super::super::lfw::tests::models();
        let value = report_json(&report, &models);
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "calibration_strangers",
                "faces_not_found",
                "gallery",
                "known_probes",
                "models",
                "points",
                "rank_one",
                "stranger_probes",
                "templates",
            ]
        );
        assert!(value["points"][0]["threshold"].is_null());
        assert!(report_text(&report, &models).contains("50 people, 1 templates each"));
        assert!(rate("1.5").is_err() && rate("x").is_err() && rate("0.01") == Ok(0.01));
    }
}
