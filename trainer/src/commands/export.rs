//! `facelatch export`: a run as the ONNX file that the door loads.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::cli::{Failure, FailureKind};
use crate::export::{self, ExportError, Form};
use crate::quantize::file::{self, QUANTIZED};

/// Arguments of `facelatch export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a run, or a weights file of the compact net in its default shape
    run: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value = "w8")]
    form: Written,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Written {
    /// ONNX with 32-bit floats
    F32,
    /// ONNX with int8 weights, one scale for each output channel: a quarter of the size
    W8,
    /// ONNX with integer arithmetic where `facelatch quantize` found it good, from the int8.safetensors in the run's folder, or from such
    /// a file named in the run's place
    Int8,
    /// The weights alone as half floats in safetensors, for `train --start-from`
    Weights,
}

/// Exports, compares with libtorch, prints size, parity and hash.
///
/// # Errors
/// A [`Failure`]; exit code 3 when tract's numbers are not libtorch's.
pub fn run(args: &Args) -> Result<(), Failure> {
    let refuse = |error: ExportError| {
        let refused = matches!(error, ExportError::Parity { .. });
        Failure::new(if refused { FailureKind::Refused } else { FailureKind::Failed }, error)
    };
    let exported = match args.form {
        Written::Weights => export::weights_only(&args.run, &args.out).map(|()| None),
        Written::F32 => export::export(&args.run, Form::F32, &args.out).map(Some),
        Written::W8 => export::export(&args.run, Form::W8, &args.out).map(Some),
        Written::Int8 => return int8(args),
    }
    .map_err(refuse)?;
    let bytes = std::fs::read(&args.out).map_err(|error| Failure::new(FailureKind::Failed, error))?;
    println!("{}: {} bytes, sha256 {}", args.out.display(), bytes.len(), hex::encode(Sha256::digest(&bytes)));
    if let Some(exported) = exported {
        println!(
            "tract against libtorch: largest difference {:.1e} of the length, cosine at least {:.6}",
            exported.difference, exported.cosine
        );
    }
    Ok(())
}

fn int8(args: &Args) -> Result<(), Failure> {
    let file = if args.run.is_dir() { args.run.join(QUANTIZED) } else { args.run.clone() };
    let (_, quantized) = file::load(&file).map_err(|e| {
        Failure::new(FailureKind::Failed, e).hint("facelatch quantize RUN --data DIR makes it")
    })?;
    let exported = export::integer(&quantized, &args.out).map_err(|error| {
        let refused = matches!(error, ExportError::Parity { .. });
        Failure::new(if refused { FailureKind::Refused } else { FailureKind::Failed }, error)
    })?;
    let bytes = std::fs::read(&args.out).map_err(|error| Failure::new(FailureKind::Failed, error))?;
    println!("{}: {} bytes, sha256 {}", args.out.display(), bytes.len(), hex::encode(Sha256::digest(&bytes)));
    println!(
        "{} of {} layers integer; tract against the simulation in libtorch: cosine at least {:.6}",
        quantized.plan.integers(),
        quantized.net.layers.len(),
        exported.cosine
    );
    Ok(())
}
