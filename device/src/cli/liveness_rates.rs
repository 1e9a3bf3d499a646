//! `facelatchd liveness-rates`: how often the head-turn check is right, by kind of what moves before the camera.

use std::process::ExitCode;

use facelatch_shared::liveness::synthetic::{Kind, Rates, rates};
use serde::Serialize;

use super::Failure;
use super::output::{print, print_json};
use super::text::table;

/// Play heads and prints against the head-turn check and print how often each passes.
///
/// Heads are the generic 3D face deformed as faces differ; prints are flat pictures of such heads, moved, tipped and bent. Both wander
/// and tremble, and every point of every frame is off by noise. No camera and no net take part: the figures are the arithmetic's own, at that noise.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  facelatchd liveness-rates\n  facelatchd liveness-rates --noise 0.03 --json"
)]
pub(super) struct Args {
    /// Standard deviation of each coordinate of each point from frame to frame, in eye distances
    #[arg(long, value_name = "X", default_value_t = 0.015, value_parser = noise)]
    noise: f32,
    /// Sequences of each kind
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sequences: u32,
    /// The result as JSON, for programs
    #[arg(long)]
    json: bool,
}

fn noise(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("a number of eye distances, 0 to 1, usually 0.01 to 0.03".into()),
    }
}

/// One kind in a table. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Row {
    kind: &'static str,
    live: bool,
    passed_pct: f32,
    wrong_way_pct: f32,
    not_a_head_pct: f32,
    not_turned_pct: f32,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let rows: Vec<Row> = KINDS
        .iter()
        .map(|(name, kind)| {
            let found: Rates = rates(*kind, args.noise, args.sequences);
            let percent = |count: u32| 100.0 * count as f32 / found.tried.max(1) as f32;
            Row {
                kind: name,
                live: matches!(kind, Kind::Head { .. }),
                passed_pct: percent(found.turned),
                wrong_way_pct: percent(found.wrong_way),
                not_a_head_pct: percent(found.not_a_head),
                not_turned_pct: percent(found.undecided()),
            }
        })
        .collect();
    if args.json {
        print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let percent = |value: f32| format!("{value:.1} %");
            [
                row.kind.to_owned(),
                percent(row.passed_pct),
                percent(row.wrong_way_pct),
                percent(row.not_a_head_pct),
                percent(row.not_turned_pct),
            ]
        })
        .collect();
    print(&format!(
        "{} sequences of each kind, noise {} of the eye distance\n\n{}",
        args.sequences,
        args.noise,
        table(["ASKED TO TURN LEFT", "PASSED", "WRONG WAY", "NOT A HEAD", "NOT TURNED"], &cells)
    ))?;
    Ok(ExitCode::SUCCESS)
}

const KINDS: [(&str, Kind); 13] = [
    ("head, 15° left", Kind::Head { turn_deg: 15.0 }),
    ("head, 20° left", Kind::Head { turn_deg: 20.0 }),
    ("head, 25° left", Kind::Head { turn_deg: 25.0 }),
    ("head, still", Kind::Head { turn_deg: 0.0 }),
    ("head, 20° right", Kind::Head { turn_deg: -20.0 }),
    ("print, moved", Kind::Print { turn_deg: 0.0, tip_deg: 0.0 }),
    ("print, turned 20°", Kind::Print { turn_deg: 20.0, tip_deg: 0.0 }),
    ("print, turned 40°, tipped 10°", Kind::Print { turn_deg: 40.0, tip_deg: 10.0 }),
    ("print, tipped 35°", Kind::Print { turn_deg: 0.0, tip_deg: 35.0 }),
    ("bent print, radius 1.7 eye distances, 20°", Kind::Bent { radius: 1.7, turn_deg: 20.0 }),
    ("bent print, radius 1.7 eye distances, 35°", Kind::Bent { radius: 1.7, turn_deg: 35.0 }),
    ("print bent while turned 20°, radius 1.2", Kind::Flexed { radius: 1.2, turn_deg: 20.0 }),
    ("print bent while turned 35°, radius 1.7", Kind::Flexed { radius: 1.7, turn_deg: 35.0 }),
];
