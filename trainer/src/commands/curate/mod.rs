//! `facelatch curate …`: from a heap of candidate pictures to a training set.

mod candidates;
mod fetch;
mod stages;
mod review;
mod report;

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::{Failure, FailureKind};
use crate::curate::store::State;
use crate::curate::{Stage, Store, StoreError};

/// Arguments of `facelatch curate`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a heap that is noisy on purpose from pictures whose people are known
    MakeNoisy(candidates::NoisyArgs),
    /// Fetch the pictures of a list of addresses, as slowly as their hosts wish
    Fetch(fetch::Args),
    /// List who is collected and which pictures there are
    Candidates(candidates::Args),
    /// Find, align and embed the face of every candidate
    Describe(stages::DescribeArgs),
    /// Decide whether a person's first pictures show that person (local web page)
    Verify(review::Args),
    /// Order each person's pictures by a classifier and keep the best
    Rank(stages::RankArgs),
    /// Keep one of each picture
    Dedupe(stages::DedupeArgs),
    /// Measure how well near-duplicates are found
    DedupeTrial(stages::TrialArgs),
    /// Mark wrong pictures in blocks (local web page)
    Review(review::Args),
    /// Say what each stage kept and dropped: table, contact sheets, datasheet
    Report(report::Args),
    /// Write what was kept as shards and manifest for the trainer
    Export(report::ExportArgs),
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::MakeNoisy(args) => candidates::make_noisy(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Candidates(args) => candidates::run(args),
        Command::Describe(args) => stages::describe(args),
        Command::Verify(args) => review::run(args, Stage::Verify),
        Command::Rank(args) => stages::rank(args),
        Command::Dedupe(args) => stages::dedupe(args),
        Command::DedupeTrial(args) => stages::trial(args),
        Command::Review(args) => review::run(args, Stage::Review),
        Command::Report(args) => report::run(args),
        Command::Export(args) => report::export(args),
    }
}

/// Which curation.
#[derive(Debug, clap::Args)]
struct WorkArgs {
    /// Folder of the curation's store
    #[arg(long, value_name = "DIR", default_value = "curation")]
    work: PathBuf,
}

impl WorkArgs {
    fn open(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.work)?)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let failed = |error| Failure::new(FailureKind::Failed, error);
        match &error {
            StoreError::Open { .. } => {
                failed(error).hint("is another `facelatch curate` working in this folder?")
            }
            StoreError::Database(_) => with_room(failed(error)),
            _ => failed(error),
        }
    }
}

/// A failure for which the message says enough, but for a full disk.
fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    with_room(Failure::new(FailureKind::Failed, error))
}

/// What to do where a disk is full.
fn with_room(failure: Failure) -> Failure {
    if failure.to_string().contains("No space left on device") {
        return failure.hint("make room on that disk and give the same command again: what is stored stays");
    }
    failure
}

/// The line that every stage ends with.
fn print_done(store: &Store, stage: Stage, state: &State) -> Result<(), Failure> {
    let (mut kept, mut people, mut dropped) = (0, 0, std::collections::BTreeMap::<&str, usize>::new());
    for (person, _) in store.people()? {
        let drops = store.drops(person, stage)?;
        let left = store.alive_keys(person, stage)?.len() - drops.len();
        kept += left;
        people += usize::from(left > 0);
        for (_, why) in drops {
            *dropped.entry(why.word()).or_default() += 1;
        }
    }
    let rate = state.seen as f64 / state.seconds.max(1e-9);
    println!("{:<12} {kept} pictures of {people} people kept", stage.name());
    for (word, count) in dropped {
        println!("{:<12} {count} {word}", "");
    }
    for (name, value) in &state.notes {
        println!("{:<12} {name}: {value}", "");
    }
    println!("{:<12} {} pictures in {:.1} s, {rate:.0} a second", "", state.seen, state.seconds);
    Ok(())
}

const HELP: &str = "\
Stages, each resumable, on one store (--work): candidates, describe, verify (optional), rank, dedupe, review (optional), report, export. \
Pictures stay where they are. \
Nothing is fetched from the web but by `fetch`, which asks for what a list of yours names and for nothing else.

Examples:
  facelatch curate candidates --source heap --people people.csv --exclude pairs.txt
  facelatch curate describe && facelatch curate rank && facelatch curate dedupe
  facelatch curate review --overlap 0.1        then open the address it prints
  facelatch curate review --finish
  facelatch curate report --out report
  facelatch curate export --out set            a folder for `facelatch train --data`";
