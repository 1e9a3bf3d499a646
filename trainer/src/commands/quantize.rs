//! `facelatch quantize`: from a float run to integer arithmetic.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::cli::{Failure, FailureKind};
use crate::dataset::{Source, manifest, shards, split};
use crate::export::{self, RunData};
use crate::quantize::file::{self, QUANTIZED};
use crate::quantize::finetune::{Gain, Tuning, finetune};
use crate::quantize::net::Net;
use crate::quantize::observer::Observer;
use crate::quantize::{QuantizeError, Quantized, Report, Settings, faces, quantize};
use crate::train::teacher;

/// Arguments of `facelatch quantize`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Folder of a run, or a weights file of the compact net in its default shape
    run: PathBuf,
    /// Folder with manifest.csv and tar shards of aligned 128×128 faces
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// File to write [default: int8.safetensors in the run's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How ranges are chosen [default: whichever does best on the calibration faces]
    #[arg(long, value_enum)]
    observer: Option<Observer>,
    /// Leave cross-layer equalization out
    #[arg(long)]
    no_equalization: bool,
    /// Leave bias correction out
    #[arg(long)]
    no_bias_correction: bool,
    /// Layers that stay float
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    float: Vec<String>,
    /// Mean cosine to the float net below which the costliest layers are made float
    #[arg(long, value_name = "COSINE", default_value_t = 0.99)]
    least_cosine: f64,
    /// Most faces of the calibration half, and of the check half
    #[arg(long, value_name = "N", default_value_t = 256)]
    faces: usize,
    /// Fine-tune with the rounding in place for this many steps
    #[arg(long, value_name = "N", default_value_t = 0, requires = "teacher")]
    finetune: u64,
    /// The teacher's vectors, for fine-tuning
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// Go on fine-tuning from the file that --out names instead of calibrating anew
    #[arg(long, requires = "teacher")]
    resume: bool,
    /// Highest learning rate of fine-tuning
    #[arg(long, value_name = "RATE", default_value_t = 1e-4)]
    rate: f64,
    /// Chips in a batch of fine-tuning
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Threads of libtorch
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: i32,
    /// Largest decoded data set
    #[arg(long, value_name = "MB", default_value_t = 6000)]
    memory_limit_mb: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Calibrates, chooses, corrects, fine-tunes when asked, writes, and prints what each step did.
///
/// # Errors
/// A [`Failure`].
pub fn run(args: &Args) -> Result<(), Failure> {
    tch::set_num_threads(args.threads.max(1));
    let failed = |e: QuantizeError| Failure::new(FailureKind::Failed, e);
    let run = export::load(&args.run).map_err(|e| failed(e.into()))?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None if args.run.is_dir() => args.run.join(QUANTIZED),
        None => {
            return Err(Failure::new(
                FailureKind::Usage,
                "a weights file has no folder to write to: add --out FILE",
            ));
        }
    };
    let [calibration, check] = faces::load(&args.data, run.held_out, run.seed, args.faces).map_err(failed)?;
    eprintln!("{} faces to calibrate on, {} to check with", calibration.rows.len(), check.rows.len());
    let (mut quantized, report) = if args.resume {
        let (shape, quantized) = file::load(&out).map_err(failed)?;
        if shape != run.shape {
            return Err(Failure::new(
                FailureKind::Failed,
                format!("{} is of another net than the run", out.display()),
            ));
        }
        (quantized, None)
    } else {
        let settings = Settings {
            observer: args.observer,
            equalize: !args.no_equalization,
            correct: !args.no_bias_correction,
            float_layers: args.float.clone(),
            least_cosine: args.least_cosine,
        };
        let net = Net::fold(&run.store, &run.shape).map_err(|e| failed(e.into()))?;
        let (quantized, report) =
            quantize(&net, &calibration.chips, &check.chips, &settings).map_err(failed)?;
        file::save(&out, &run.shape, &quantized).map_err(failed)?;
        (quantized, Some(report))
    };
    if let (Some(report), false) = (&report, args.json) {
        print!("{}", text(report));
    }
    let gain = match &args.teacher {
        Some(vectors) if args.finetune > 0 => {
            let gain = tune(args, &run, vectors, &mut quantized, &calibration).map_err(failed)?;
            file::save(&out, &run.shape, &quantized).map_err(failed)?;
            Some(gain)
        }
        _ => None,
    };
    let bytes = std::fs::read(&out).map_err(|e| Failure::new(FailureKind::Failed, e))?;
    let hash = hex::encode(Sha256::digest(&bytes));
    if args.json {
        println!(
            "{:#}",
            serde_json::json!({ "file": out, "sha256": hash, "report": report, "finetuning": gain })
        );
        return Ok(());
    }
    if let Some(gain) = gain {
        println!(
            "fine-tuned {} steps: cosine to the teacher on calibration faces {:.4} → {:.4}",
            gain.steps, gain.before, gain.after
        );
    }
    println!("{}: {} bytes, sha256 {hash}", out.display(), bytes.len());
    Ok(())
}

fn tune(
    args: &Args,
    run: &RunData,
    vectors: &Path,
    quantized: &mut Quantized,
    calibration: &faces::Faces,
) -> Result<Gain, QuantizeError> {
    let rows = manifest::read(&args.data)?;
    let teacher = teacher::read(vectors, &rows)?;
    let canvases = shards::load(&args.data, &rows, args.threads.max(1) as usize, args.memory_limit_mb << 20)?;
    let usable: Vec<bool> = canvases.present.iter().zip(&teacher.known).map(|(&a, &b)| a && b).collect();
    let train = split::by_identity(&rows, &usable, run.held_out, run.seed).train;
    if train.len() < args.batch {
        return Err(QuantizeError::TooFewFaces {
            part: "the training part",
            faces: train.len(),
            least: args.batch,
        });
    }
    // The check is against the teacher, on those calibration faces that it has seen.
    let place: std::collections::HashMap<String, usize> =
        rows.iter().enumerate().map(|(i, row)| (row.path(), i)).collect();
    let known: Vec<(i64, i64)> = calibration
        .rows
        .iter()
        .zip(0..)
        .filter_map(|(row, i)| {
            place.get(&row.path()).filter(|&&at| teacher.known[at]).map(|&at| (i, at as i64))
        })
        .collect();
    if known.len() < faces::LEAST {
        return Err(QuantizeError::TooFewFaces {
            part: "the calibration half, with a teacher's vector",
            faces: known.len(),
            least: faces::LEAST,
        });
    }
    let select = |of: &tch::Tensor, rows: Vec<i64>| of.index_select(0, &tch::Tensor::from_slice(&rows));
    let chips = select(&calibration.chips, known.iter().map(|k| k.0).collect());
    let targets = select(&teacher.vectors, known.iter().map(|k| k.1).collect());
    let source = Source {
        canvases: Arc::new(canvases),
        rows: Arc::new(train),
        augment: run.augment.clone(),
        batch: args.batch,
        seed: run.seed.wrapping_add(17),
    };
    let tuning = Tuning {
        source: &source,
        teacher: &teacher.vectors,
        check: (&chips, &targets),
        steps: args.finetune,
        rate: args.rate,
        stop: args.run.is_dir().then(|| args.run.join("stop")),
    };
    Ok(finetune(quantized, &tuning, &mut |step, loss, cosine| {
        eprintln!("step {step} · loss {loss:.4} · cosine to the teacher on calibration faces {cosine:.4}");
    }))
}

fn text(report: &Report) -> String {
    let mut text = String::from("observer       cosine to the float net, all eligible layers integer\n");
    for (observer, cosine) in &report.observers {
        let mark = if *observer == report.observer { "  ← taken" } else { "" };
        text += &format!("{:<14} {cosine:.5}{mark}\n", format!("{observer:?}").to_lowercase());
    }
    if let (without, Some(with)) = report.equalization {
        let taken = if with > without { "taken" } else { "not taken" };
        text += &format!("cross-layer equalization: {with:.5} with, {without:.5} without: {taken}\n");
    }
    text += &format!("\n{:<18} {:>6}  {:>9}  form\n", "layer", "MMAC", "alone");
    for row in &report.layers {
        let cost = row.cost.map_or_else(|| "–".to_owned(), |cost| format!("{cost:.6}"));
        let form = if row.integer { "integer" } else { "float" };
        let why = row.why.map_or_else(String::new, |why| format!(": {why}"));
        text += &format!("{:<18} {:>6.1}  {cost:>9}  {form}{why}\n", row.layer, row.mmac);
    }
    text += &format!(
        "\nalone: 1 − mean cosine to the float net when only that layer is integer\n\
         {} of {} layers integer, {:.1} % of the multiply-adds\n\
         cosine to the float net: {:.5} on calibration faces (first percentile {:.5}), {:.5} on others ({:.5})\n",
        report.integer_layers,
        report.layers.len(),
        report.integer_share * 100.0,
        report.calibration.mean,
        report.calibration.first_percentile,
        report.check.mean,
        report.check.first_percentile
    );
    text
}

const HELP: &str = "\
Ranges come from one half of the people whom the run held out, the figures at the end from the other half. Layers that cost most are made \
float until --least-cosine is met. Fine-tuning trains the rounded net on the run's own training part, and keeps whatever did best on the \
calibration faces.

Examples:
  facelatch quantize runs/compact-1 --data faces
  facelatch quantize runs/compact-1 --data faces --finetune 2000 --teacher sface-vectors.safetensors
  facelatch export runs/compact-1 --form int8 --out compact-int8.onnx";
