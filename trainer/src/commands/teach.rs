//! `facelatch teach`: a teacher's vectors for every face, made once and kept in a file.

use std::path::PathBuf;

use facelatch_shared::vision::contract::{Manifest, ModelKind};

use crate::cli::{Failure, FailureKind};
use crate::progress::Bar;
use crate::train::teach::{self, TeachJob};

/// Arguments of `facelatch teach`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder with manifest.csv and tar shards of aligned 128×128 faces
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Model directory
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// The teacher: an embedder of the model directory
    #[arg(long, value_name = "NAME", default_value = "sface")]
    embedder: String,
    /// File to write, or to go on with
    #[arg(long, value_name = "NAME.safetensors")]
    out: PathBuf,
    /// Threads, each with its own copy of the embedder [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Largest decoded data set
    #[arg(long, value_name = "MB", default_value_t = 6000)]
    memory_limit_mb: usize,
}

/// Embeds what the file does not hold yet.
///
/// # Errors
/// A [`Failure`].
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| Failure::new(FailureKind::Failed, error);
    let manifest = Manifest::load(&args.models).map_err(|e| failed(e.into()))?;
    let embedder = manifest
        .find(&args.models, &args.embedder, ModelKind::Embedder)
        .map_err(|e| failed(e.into()).hint("facelatch models import sface"))?;
    let job = TeachJob {
        data: &args.data,
        models: &args.models,
        embedder,
        out: &args.out,
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        memory_limit_mb: args.memory_limit_mb,
    };
    let taught = teach::teach(&job, &Bar::new()).map_err(|e| failed(e.into()))?;
    println!(
        "{} faces embedded, {} kept, {} without a picture",
        taught.embedded, taught.kept, taught.skipped
    );
    Ok(())
}

const EXAMPLES: &str = "\
Each face and its mirror image go through the embedder; the unit mean of the two is kept. An interrupted run goes on where its file ends.

Example:
  facelatch teach --data faces --out sface-vectors.safetensors
  facelatch train --data faces --teacher sface-vectors.safetensors --out runs/compact-1 --minutes 100";
