//! `facelatch parity`: what each form of a net costs, layer by layer, on faces, and in time.

use std::collections::BTreeSet;
use std::path::PathBuf;

use facelatch_shared::vision::contract::{Manifest, ModelKind};

use super::evaluate::choose;
use crate::cli::{Failure, FailureKind};
use crate::evaluate::all_pairs::LOOSEST_FMR;
use crate::evaluate::pairs::{Pairs, Picture};
use crate::evaluate::{chips, curves};
use crate::export;
use crate::parity::{self, Compared, Job, Report, Subject};
use crate::progress::Bar;
use crate::quantize::file::{self, QUANTIZED};
use crate::quantize::net::Net;

/// Arguments of `facelatch parity`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Folder of a run, or a weights file of the compact net in its default shape
    run: PathBuf,
    /// The integer form's file, as `facelatch quantize` wrote it [default: int8.safetensors in the run's folder; without one there is
    /// no integer form]
    #[arg(long, value_name = "FILE")]
    int8: Option<PathBuf>,
    /// Folder with NAME/NAME_0001.jpg
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Pairs to measure, in LFW's format; all their pictures are also compared with all others
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// Other pairs on which each form's threshold for accuracy is chosen; without them it is cross-validated
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Model directory with the detector, and with the teacher
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// Detector by name [default: the first in the manifest]
    #[arg(long, value_name = "NAME")]
    detector: Option<String>,
    /// An embedder of the model directory to set beside the forms
    #[arg(long, value_name = "NAME")]
    teacher: Option<String>,
    /// Threads for embedding; times are always of one
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Write TAR and DET curves of all forms as SVG
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exports every form, runs all on the same chips, prints the tables.
///
/// # Errors
/// A [`Failure`]; exit code 3 when an exported float form is not the net.
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| Failure::new(FailureKind::Failed, e);
    let run = export::load(&args.run).map_err(|e| failed(e.into()))?;
    let net = Net::fold(&run.store, &run.shape).map_err(|e| failed(e.into()))?;
    let beside = args.run.join(QUANTIZED);
    let int8 = args.int8.clone().or_else(|| beside.is_file().then_some(beside));
    let quantized = match &int8 {
        Some(path) => {
            let (shape, quantized) = file::load(path).map_err(|e| failed(e.into()))?;
            if shape != run.shape {
                return Err(Failure::new(
                    FailureKind::Failed,
                    format!("{} is of another net than the run", path.display()),
                ));
            }
            Some(quantized)
        }
        None => None,
    };
    let pairs = Pairs::read(&args.pairs)?;
    let calibrate = args.calibrate.as_deref().map(Pairs::read).transpose()?;
    let pictures: Vec<Picture> = calibrate
        .iter()
        .chain([&pairs])
        .flat_map(|p| &p.pairs)
        .flat_map(|pair| [pair.first.clone(), pair.second.clone()])
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let manifest = Manifest::load(&args.models).map_err(|e| failed(e.into()))?;
    let detector = choose(&manifest, &args.models, args.detector.as_deref(), ModelKind::Detector)?;
    let teacher = match &args.teacher {
        Some(name) => Some(choose(&manifest, &args.models, Some(name), ModelKind::Embedder)?),
        None => None,
    };
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
        .clamp(1, 256);
    tch::set_num_threads(threads as i32);
    let cut = chips::cut(&args.images, &pictures, (&args.models, detector), threads, &Bar::new())?;
    let subject = Subject { run: &run, net: &net, quantized: quantized.as_ref() };
    let job = Job {
        pictures: &pictures,
        chips: &cut,
        pairs: &pairs,
        calibrate: calibrate.as_ref(),
        teacher: teacher.map(|entry| (args.models.as_path(), entry)),
        threads,
    };
    let report = parity::compare(&subject, &job, &Bar::new()).map_err(|e| failed(e.into()))?;
    if let Some(path) = &args.plot {
        let rates = curves::rates(report.least_fmr.min(LOOSEST_FMR / 10.0), 8);
        let svg = parity::curves(&report, &rates);
        std::fs::write(path, svg).map_err(|e| {
            Failure::new(FailureKind::Failed, format!("cannot write {}: {e}", path.display()))
        })?;
    }
    if args.json {
        println!("{:#}", serde_json::json!(report));
    } else {
        print!("{}", text(&report));
    }
    if report.float_is_the_net() {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Refused, "the exported float form does not answer as the net it came from"))
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "{} pairs of one person, {} of two; all {} pictures against all: {} and {}; {} without a face\n\n",
        report.pairs.0,
        report.pairs.1,
        report.pictures,
        report.all_pairs.0,
        report.all_pairs.1,
        report.faces_not_found
    );
    text += &format!(
        "{:<12} {:>9} {:>7} {:>9} {:>9} {:>8} {:>8} {:>22}\n",
        "form", "bytes", "ms", "cosine", "1st perc.", "pairs, %", "at 1e-2", "all pairs at FAR 1e-3"
    );
    for form in &report.forms {
        text += &row(form);
    }
    text += "\ncosine: to the float net in libtorch, over the faces. ms: median of one thread, forms in turn. pairs: accuracy.\n\
             at 1e-2: share of the pairs of one person that pass where 1 % of the others do. All pairs: the same at 1e-3, 95 % interval.\n";
    if !report.layers.is_empty() {
        text += &format!("\n{:<18}", "signal/noise, dB");
        for name in &report.layer_forms {
            text += &format!(" {name:>9}");
        }
        for layer in &report.layers {
            text += &format!("\n{:<18}", layer.name);
            for (form, db) in layer.signal_to_noise_db.iter().enumerate() {
                let mark = if layer.integer && report.layer_forms[form] == "int8" { "" } else { " " };
                text += &format!(" {:>9}", format!("{db:.1}{mark}"));
            }
        }
        text += "\n";
    }
    for line in &report.verdict {
        text += &format!("\n{line}");
    }
    text + "\n"
}

fn row(form: &Compared) -> String {
    let cosine = |value: Option<f64>| value.map_or_else(|| "–".into(), |v| format!("{v:.5}"));
    format!(
        "{:<12} {:>9} {:>7} {:>9} {:>9} {:>8.2} {:>8.1} {:>6.2} ({:.2} – {:.2})\n",
        form.name,
        form.bytes.map_or_else(|| "–".into(), |b| b.to_string()),
        format!("{:.2}", form.median_ms),
        cosine(form.agreement.map(|a| a.mean)),
        cosine(form.agreement.map(|a| a.first_percentile)),
        form.accuracy * 100.0,
        form.tar_at_far_1e2 * 100.0,
        form.all_pairs_1e3.value * 100.0,
        form.all_pairs_1e3.low * 100.0,
        form.all_pairs_1e3.high * 100.0
    )
}

const HELP: &str = "\
Every form is exported in memory and run by tract on the same chips, cut by the door's detector. The float net is run by libtorch. \
Layers are compared on eight of the chips.

Example:
  facelatch parity runs/compact-1 --images lfw --pairs pairsDevTest.txt --calibrate pairsDevTrain.txt \\
      --teacher sface --plot curves.svg";
