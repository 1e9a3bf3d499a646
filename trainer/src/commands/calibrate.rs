//! `facelatch calibrate`: which similarity a false-match rate asks for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use facelatch_shared::vision::contract::{Alignment, Manifest, ModelKind};
use facelatch_shared::vision::embed::Embedder;
use facelatch_shared::vision::thresholds::ThresholdTable;

use super::evaluate::choose;
use crate::cli::{Failure, FailureKind};
use crate::evaluate::all_pairs::{AllPairs, DRAWS};
use crate::evaluate::chips;
use crate::evaluate::pairs::{Pairs, Picture};
use crate::progress::Bar;

/// Arguments of `facelatch calibrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Folder with NAME/NAME_0001.jpg
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// A pairs file in LFW's format whose pictures are the calibration split; which of them it pairs does not matter
    #[arg(long, value_name = "FILE")]
    pictures: PathBuf,
    /// The split in words, for the manifest [default: the pictures file's name]
    #[arg(long, value_name = "TEXT")]
    split: Option<String>,
    /// Model directory
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// Detector by name [default: the first in the manifest]
    #[arg(long, value_name = "NAME")]
    detector: Option<String>,
    /// Embedder by name [default: the first in the manifest]
    #[arg(long, value_name = "NAME")]
    embedder: Option<String>,
    /// False-match rates, falling
    #[arg(long, value_name = "RATES", value_delimiter = ',', default_values_t = [1e-2, 1e-3, 1e-4, 1e-5])]
    rates: Vec<f64>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Put the table into the directory's manifest.toml
    #[arg(long)]
    write: bool,
    /// Print the table as it stands in a manifest
    #[arg(long, conflicts_with = "json")]
    toml: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and writes when asked to.
///
/// # Errors
/// A [`Failure`].
pub fn run(args: &Args) -> Result<(), Failure> {
    let falls = args.rates.windows(2).all(|pair| pair[1] < pair[0]);
    if !falls || !args.rates.iter().all(|rate| (f64::MIN_POSITIVE..=0.1).contains(rate)) {
        return Err(Failure::new(FailureKind::Usage, "--rates must fall and lie between 0 and 0.1"));
    }
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| Failure::new(FailureKind::Failed, e);
    let pairs = Pairs::read(&args.pictures)?;
    let pictures: Vec<Picture> = pairs
        .pairs
        .into_iter()
        .flat_map(|pair| [pair.first, pair.second])
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut manifest = Manifest::load(&args.models).map_err(|e| failed(e.into()))?;
    let detector = choose(&manifest, &args.models, args.detector.as_deref(), ModelKind::Detector)?;
    let embedder =
        choose(&manifest, &args.models, args.embedder.as_deref(), ModelKind::Embedder)?.name.clone();
    let entry = manifest.find(&args.models, &embedder, ModelKind::Embedder).map_err(|e| failed(e.into()))?;
    if entry.contract.alignment != Some(Alignment::ARCFACE_112) {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("{embedder} is not aligned by five points: only such embedders can be calibrated so far"),
        ));
    }
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
        .clamp(1, 256);
    let cut = chips::cut(&args.images, &pictures, (&args.models, detector), threads, &Bar::new())?;
    let mut embedders = (0..threads)
        .map(|_| Embedder::load(&args.models, entry))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| failed(e.into()))?;
    let embedded = chips::embed(&cut, &mut embedders, &Bar::new()).map_err(|e| failed(e.into()))?;
    let faces: Vec<_> = pictures
        .iter()
        .zip(&embedded)
        .filter_map(|(picture, embedding)| Some((picture.person.as_str(), embedding.as_ref()?)))
        .collect();
    let missed = pictures.len() - faces.len();
    let all = AllPairs::of(&faces).ok_or_else(|| {
        Failure::new(FailureKind::Failed, "the pictures hold no two people, or no two pictures of one")
    })?;
    let name = args.pictures.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let split = args.split.clone().unwrap_or_else(|| format!("pictures of {name}"));
    let table = all.table(&split, &args.rates, 1);
    if table.points.len() < 2 {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("{} impostor pairs are too few for these rates", table.impostor_pairs),
        )
        .hint("take more pictures, or looser --rates"));
    }
    if args.write {
        if let Some(entry) = manifest.models.iter_mut().find(|e| e.name == embedder) {
            entry.thresholds = Some(table.clone());
        }
        manifest.save(&args.models).map_err(|e| failed(e.into()))?;
    }
    if args.json {
        println!(
            "{:#}",
            serde_json::json!({ "embedder": embedder, "faces_not_found": missed, "thresholds": table })
        );
    } else if args.toml {
        print!("{}", toml_text(&table).map_err(|e| failed(e.into()))?);
    } else {
        print!("{}", text(&embedder, &table, missed, &args.rates));
    }
    Ok(())
}

/// As it stands in `manifest.toml` below a `[[models]]`.
fn toml_text(table: &ThresholdTable) -> Result<String, toml::ser::Error> {
    #[derive(serde::Serialize)]
    struct Models<'a> {
        models: [Entry<'a>; 1],
    }
    #[derive(serde::Serialize)]
    struct Entry<'a> {
        thresholds: &'a ThresholdTable,
    }
    let text = toml::to_string_pretty(&Models { models: [Entry { thresholds: table }] })?;
    Ok(text.replacen("[[models]]\n", "", 1).trim_start().to_owned())
}

fn text(embedder: &str, table: &ThresholdTable, missed: usize, asked: &[f64]) -> String {
    let mut text = format!(
        "{embedder} on {}: {} pictures of {} people, {} without a face; {} pairs of two, {} of one\n\n",
        table.split, table.pictures, table.identities, missed, table.impostor_pairs, table.genuine_pairs
    );
    text += &format!("{:>8}  {:>10}  {:>15}  {:>12}\n", "FMR", "threshold", "95 % interval", "one person, %");
    for point in &table.points {
        text += &format!(
            "{:>8.0e}  {:>10.3}  {:>7.3} – {:<5.3}  {:>12.1}\n",
            point.fmr,
            point.threshold,
            point.low,
            point.high,
            point.tmr * 100.0
        );
    }
    for rate in &asked[table.points.len()..] {
        text += &format!("{rate:>8.0e}  too few pairs of two people\n");
    }
    text += &format!("\nIntervals: {DRAWS} draws of people with replacement.\n");
    text
}

const HELP: &str = "\
All pictures of the split are compared with all others. A threshold is the least similarity at which no more than the rate's share of \
the pairs of two people passes. The door reads the table and picks the threshold for its configured rate and its number of people. \
Never report accuracy on the pictures that set the table.

Example:
  facelatch calibrate --images lfw --pictures pairsDevTrain.txt --embedder sface --write";

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::vision::thresholds::ThresholdPoint;

    fn table() -> ThresholdTable {
        let point = |fmr, threshold| ThresholdPoint {
            fmr,
            threshold,
            low: threshold - 0.01,
            high: threshold + 0.02,
            tmr: 0.9,
        };
        ThresholdTable {
            split: "some pictures".into(),
            identities: 10,
            pictures: 30,
            impostor_pairs: 400,
            genuine_pairs: 30,
            points: vec![point(1e-2, 0.3), point(1e-3, 0.4)],
        }
    }

    #[test]
    fn the_text_names_rates_without_enough_pairs() {
        let text = text("net", &table(), 2, &[1e-2, 1e-3, 1e-4]);
        assert!(text.contains("    1e-3       0.400    0.390 – 0.420          90.0"), "{text}");
        assert!(text.contains("1e-4  too few pairs"), "{text}");
    }

    #[test]
    fn the_toml_is_what_a_manifest_reads() {
        let text = toml_text(&table()).unwrap();
        assert!(text.starts_with("[models.thresholds]\n"), "{text}");
        assert!(text.contains("[[models.thresholds.points]]"), "{text}");
    }
}
