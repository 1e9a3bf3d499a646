//! `facelatch curate describe`, `rank`, `dedupe` and `dedupe-trial`.

use std::path::PathBuf;

use super::{WorkArgs, failed, print_done};
use crate::cli::Failure;
use crate::commands::evaluate::EyesArgs;
use crate::curate::dedupe::{self, DedupeError};
use crate::curate::describe::{self, DescribeError};
use crate::curate::edit::Edit;
use crate::curate::rank::{self, Descriptor, RankError, Ranking};
use crate::curate::sources::Reader;
use crate::curate::store::Stage;
use crate::curate::svm;
use crate::curate::trial;
use crate::curate::truth::{self, Labels};
use crate::progress::Bar;

/// Arguments of `facelatch curate describe`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  facelatch curate describe --models target/models --embedder sface")]
pub(super) struct DescribeArgs {
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    eyes: EyesArgs,
    /// Forget earlier descriptions and all stages after this one
    #[arg(long)]
    again: bool,
}

pub(super) fn describe(args: &DescribeArgs) -> Result<(), Failure> {
    let store = args.work.open()?;
    let mut loaded = args.eyes.load()?;
    let [detector, embedder] = &loaded.models;
    let models = format!(
        "detector {} {}, embedder {} {}",
        detector.name, detector.sha256, embedder.name, embedder.sha256
    );
    let state =
        describe::run(&store, &mut loaded.eyes, &models, args.again, &Bar::new()).map_err(|e| match e {
            DescribeError::Store(error) => error.into(),
            other => failed(other),
        })?;
    print_done(&store, Stage::Describe, &state)
}

/// Arguments of `facelatch curate rank`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A linear support vector machine per person learns from that person's first pictures against other people's. The paper's way is --folds 1 \
--rounds 1: then wrong faces among the positives vouch for themselves.

Examples:
  facelatch curate rank --keep 1000
  facelatch curate rank --sample 400 --sample-out sample.csv    draw kept pictures to label by hand
  facelatch curate rank --labels sample.csv                     purity with its interval, by place in the ranking")]
pub(super) struct RankArgs {
    #[command(flatten)]
    work: WorkArgs,
    /// What the classifiers look at
    #[arg(long, value_enum, default_value_t = DescriptorArg::Embedder)]
    descriptor: DescriptorArg,
    /// Threads that make Fisher vectors [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Pictures kept a person at most
    #[arg(long, value_name = "K", default_value_t = 1000)]
    keep: usize,
    /// Share of a person's pictures kept at most
    #[arg(long, value_name = "SHARE", default_value_t = Ranking::default().share)]
    share: f32,
    /// Pictures scored lower are dropped
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    least: Option<f32>,
    /// Pictures of a person to learn from
    #[arg(long, value_name = "N", default_value_t = 50)]
    positives: usize,
    /// Pictures of others to learn from
    #[arg(long, value_name = "N", default_value_t = 4000)]
    negatives: usize,
    /// Parts that positives are held out in
    #[arg(long, value_name = "N", default_value_t = 5)]
    folds: usize,
    /// Times a classifier is learnt, from the second on from what it put first
    #[arg(long, value_name = "N", default_value_t = 2)]
    rounds: usize,
    /// Cost of a violated margin
    #[arg(long, value_name = "C", default_value_t = svm::Options::default().c)]
    cost: f32,
    /// Draw so many kept pictures for labelling
    #[arg(long, value_name = "N", requires = "sample_out")]
    sample: Option<usize>,
    /// Where the drawn pictures are listed: fill in the column `right` with 1 or 0
    #[arg(long, value_name = "FILE", requires = "sample")]
    sample_out: Option<PathBuf>,
    /// Labelled pictures: say how pure the ranking is
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Forget an earlier ranking and all stages after it
    #[arg(long)]
    again: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DescriptorArg {
    /// The embedder's vectors, as `describe` stored them
    Embedder,
    /// Fisher vectors of dense local descriptors, which need no trained net: the paper's, slower
    Fisher,
}

pub(super) fn rank(args: &RankArgs) -> Result<(), Failure> {
    let store = args.work.open()?;
    let ranking = Ranking {
        descriptor: match args.descriptor {
            DescriptorArg::Embedder => Descriptor::Embedder,
            DescriptorArg::Fisher => Descriptor::Fisher,
        },
        threads: threads(args.threads),
        positives: args.positives,
        negatives: args.negatives,
        keep: args.keep,
        share: args.share.clamp(0.0, 1.0),
        least: args.least,
        folds: args.folds,
        rounds: args.rounds,
        svm: svm::Options { c: args.cost, ..svm::Options::default() },
    };
    let state = rank::run(&store, &ranking, args.again, &Bar::new()).map_err(|e| match e {
        RankError::Store(error) => error.into(),
        other => failed(other),
    })?;
    print_done(&store, Stage::Rank, &state)?;
    if let (Some(count), Some(out)) = (args.sample, &args.sample_out) {
        let sources = store.sources()?;
        let mut list = "path,right\n".to_owned();
        for key in rank::sample(&store, Stage::Dedupe, count, 1)? {
            if let Some(candidate) = store.candidate(key)? {
                list += &format!("\"{}\",\n", truth::name_of(&candidate, &sources).replace('"', "\"\""));
            }
        }
        std::fs::write(out, list).map_err(|e| failed(format!("cannot write {}: {e}", out.display())))?;
    }
    if let Some(path) = &args.labels {
        let labels = Labels::read(path).map_err(failed)?;
        println!("\nplace in the ranking   pictures   labelled   right, 95 % interval");
        for (band, purity) in truth::by_rank(&store, &labels)?.into_iter().enumerate() {
            let place = format!("{}–{} %", band * 10, band * 10 + 10);
            println!("{place:<22} {:>8}   {:>8}   {}", purity.pictures, purity.labelled, share(&purity));
        }
        for (stage, purity) in truth::stages(&store, &labels)?.into_iter().filter(|(s, _)| *s <= Stage::Rank)
        {
            let name = format!("kept by {stage}");
            println!("{name:<22} {:>8}   {:>8}   {}", purity.pictures, purity.labelled, share(&purity));
        }
    }
    Ok(())
}

/// `93.1 % (91.0–94.8)`, or a dash where nothing is labelled.
pub(super) fn share(purity: &truth::Purity) -> String {
    let (share, interval) = purity.share();
    match purity.labelled {
        0 => "–".into(),
        _ => format!("{:.1} % ({:.1}–{:.1})", share * 100.0, interval.low * 100.0, interval.high * 100.0),
    }
}

/// Arguments of `facelatch curate dedupe`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Same bytes, then VLAD of dense local descriptors on aligned faces, either way round. The picture with most pixels between the eyes stays.

Examples:
  facelatch curate dedupe --threshold 0.6
  facelatch curate dedupe-trial        recall and precision of each threshold on edited pictures")]
pub(super) struct DedupeArgs {
    #[command(flatten)]
    work: WorkArgs,
    /// Cosine from which two pictures of a person are near-duplicates
    #[arg(long, value_name = "COSINE", default_value_t = THRESHOLD)]
    threshold: f32,
    /// The same for pictures under two names
    #[arg(long, value_name = "COSINE", default_value_t = ACROSS)]
    across: f32,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Forget an earlier result and all stages after it
    #[arg(long)]
    again: bool,
}

const THRESHOLD: f32 = 0.6;
const ACROSS: f32 = 0.75;

pub(super) fn threads(asked: Option<usize>) -> usize {
    asked
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
        .clamp(1, 256)
}

pub(super) fn dedupe(args: &DedupeArgs) -> Result<(), Failure> {
    let store = args.work.open()?;
    let options =
        dedupe::Options { threshold: args.threshold, across: args.across, threads: threads(args.threads) };
    let state = dedupe::run(&store, &options, args.again, &Bar::new()).map_err(|e| match e {
        DedupeError::Store(error) => error.into(),
        other => failed(other),
    })?;
    print_done(&store, Stage::Dedupe, &state)
}

/// Arguments of `facelatch curate dedupe-trial`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Pictures that dedupe kept are edited in six ways, their faces found anew and compared with all kept pictures of the same person. Precision \
counts every other picture that is found as wrong.

Examples:
  facelatch curate dedupe-trial --pictures 300")]
pub(super) struct TrialArgs {
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    eyes: EyesArgs,
    /// Pictures edited
    #[arg(long, value_name = "N", default_value_t = 200)]
    pictures: usize,
    /// Thresholds
    #[arg(long, value_name = "COSINE", value_delimiter = ',', default_value = "0.5,0.6,0.7,0.8,0.9")]
    thresholds: Vec<f32>,
}

pub(super) fn trial(args: &TrialArgs) -> Result<(), Failure> {
    let store = args.work.open()?;
    let mut loaded = args.eyes.load()?;
    let reader = Reader::open(&store.sources()?).map_err(failed)?;
    let lines =
        trial::run(&store, &reader, &mut loaded.eyes, (args.pictures, &args.thresholds), &Bar::new())?;
    print!("{:<10}{:>7}{:>9}{:>9}{:>9}", "edit", "tried", "lowest", "5 %", "median");
    for threshold in &args.thresholds {
        print!("{:>18}", format!("≥ {threshold}"));
    }
    println!();
    let mut all = vec![(0, 0); args.thresholds.len()];
    let mut tried = 0;
    for line in &lines {
        print!("{:<10}{:>7}", line.edit.name(), line.tried);
        line.low.iter().for_each(|low| print!("{low:>9.3}"));
        for ((right, wrong), all) in line.found.iter().zip(&mut all) {
            *all = (all.0 + right, all.1 + wrong);
            print!("{:>18}", recall(*right, *wrong, line.tried));
        }
        tried += line.tried;
        println!();
    }
    print!("{:<10}{tried:>7}{:>27}", "all", "");
    all.iter().for_each(|(right, wrong)| print!("{:>18}", recall(*right, *wrong, tried)));
    println!("\nrecall / precision in per cent; {} pictures, {} edits", args.pictures, Edit::ALL.len());
    Ok(())
}

fn recall(right: usize, wrong: usize, tried: usize) -> String {
    let percent = |a: usize, b: usize| {
        if b == 0 { "–".into() } else { format!("{:.1}", a as f64 / b as f64 * 100.0) }
    };
    format!("{} / {}", percent(right, tried), percent(right, right + wrong))
}
