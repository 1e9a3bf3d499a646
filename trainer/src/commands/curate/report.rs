//! `facelatch curate report` and `export`.

use std::path::PathBuf;

use super::stages::threads;
use super::{WorkArgs, failed};
use crate::cli::Failure;
use crate::curate::export::{self, ExportError};
use crate::curate::report;
use crate::curate::truth::{Labels, plain_filter};
use crate::progress::Bar;

/// Arguments of `facelatch curate report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  facelatch curate report --out report
  facelatch curate report --labels heap/truth.csv --plain 0.3,0.4,0.5")]
pub(super) struct Args {
    #[command(flatten)]
    work: WorkArgs,
    /// Write datasheet (Markdown, HTML), figures and contact sheets into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Title of the datasheet
    #[arg(long, value_name = "TEXT", default_value = "A set of faces")]
    title: String,
    /// Labelled pictures: say how pure each stage's result is
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Beside it, what a filter by similarity to the person's mean keeps
    #[arg(long, value_name = "SIMILARITY", value_delimiter = ',', requires = "labels")]
    plain: Vec<f32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let store = args.work.open()?;
    let labels = args.labels.as_deref().map(Labels::read).transpose().map_err(failed)?;
    let rows = report::rows(&store, labels.as_ref())?;
    let plain = match &labels {
        Some(labels) => args.plain.iter().copied().zip(plain_filter(&store, labels, &args.plain)?).collect(),
        None => Vec::new(),
    };
    if args.json {
        println!("{:#}", report::to_json(&rows, &plain));
    } else {
        print!("{}", report::table(&rows, &plain).text());
    }
    if let Some(out) = &args.out {
        report::write(&store, out, &args.title, (&rows, &plain)).map_err(failed)?;
        eprintln!("datasheet and sheets are in {}", out.display());
    }
    Ok(())
}

/// Arguments of `facelatch curate export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  facelatch curate export --out set
  facelatch train --recipe vggface --data set …")]
pub(super) struct ExportArgs {
    #[command(flatten)]
    work: WorkArgs,
    /// Folder for manifest.csv and shards
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the set
    #[arg(long, value_name = "NAME", default_value = "curated", value_parser = plain_name)]
    set: String,
    /// Faces a shard
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    per_shard: u32,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn plain_name(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if plain { Ok(text.to_owned()) } else { Err("letters, digits, - and _ only".into()) }
}

pub(super) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let store = args.work.open()?;
    let how = (args.set.as_str(), args.per_shard as usize, threads(args.threads));
    let exported = export::run(&store, &args.out, how, &Bar::new()).map_err(|error| match error {
        ExportError::Store(error) => error.into(),
        other => failed(other),
    })?;
    println!(
        "{} faces of {} people in {} shards, {}",
        exported.faces,
        exported.people,
        exported.shards,
        args.out.display()
    );
    if exported.unreadable > 0 {
        println!("{} pictures could not be read any more", exported.unreadable);
    }
    Ok(())
}
