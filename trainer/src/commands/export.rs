//! `facelatch export`: a run as the ONNX file that the door loads.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::cli::{Failure, FailureKind};
use crate::export::{self, ExportError, Form};

/// Arguments of `facelatch export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a run, or a weights file of the compact net in its default shape
    run: PathBuf,
    /// How weights are stored
    #[arg(long, value_enum, default_value = "w8")]
    form: Form,
    /// File to write
    #[arg(long, value_name = "X.onnx")]
    out: PathBuf,
}

/// Exports, compares with libtorch, prints size, parity and hash.
///
/// # Errors
/// A [`Failure`]; exit code 3 when tract's numbers are not libtorch's.
pub fn run(args: &Args) -> Result<(), Failure> {
    let exported = export::export(&args.run, args.form, &args.out).map_err(|error| {
        let refused = matches!(error, ExportError::Parity { .. });
        Failure::new(if refused { FailureKind::Refused } else { FailureKind::Failed }, error)
    })?;
    let bytes = std::fs::read(&args.out).map_err(|error| Failure::new(FailureKind::Failed, error))?;
    println!(
        "{}: {} bytes, sha256 {}",
        args.out.display(),
        exported.bytes,
        hex::encode(Sha256::digest(&bytes))
    );
    println!(
        "tract against libtorch: largest difference {:.1e} of the length, cosine at least {:.6}",
        exported.difference, exported.cosine
    );
    Ok(())
}
