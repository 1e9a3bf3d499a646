//! `facelatch models import|add|list|check`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use facelatch_shared::vision::contract::{
    Alignment, ChannelOrder, Family, FileHash, InputContract, Manifest, ManifestEntry, ModelKind, Source,
};
use serde_json::json;

use crate::cli::{Failure, FailureKind};
use crate::import::{self, Imported, Job, Preset};

/// Arguments of `facelatch models`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make third-party ONNX models fit for the door
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(Box<ImportArgs>),
    /// Copy checked models from another model directory, such as the ones of our own in models/
    #[command(after_help = ADD_EXAMPLES)]
    Add(AddArgs),
    /// List the models of a directory
    List(DirArgs),
    /// Compare every model file with its hash in the manifest and run it once
    Check(DirArgs),
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// Presets to import; all of them when none is named
    #[arg(conflicts_with = "file")]
    presets: Vec<String>,
    /// Folder with the third-party .onnx files [default: $FACELATCH_ASSETS/models, or else
    /// $XDG_CACHE_HOME/facelatch/assets/models]
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    from: Option<PathBuf>,
    /// Model directory to write to; created if need be
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    out: PathBuf,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    other: FileArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "A file without a preset")]
struct FileArgs {
    /// ONNX file to import
    #[arg(long, value_name = "X.onnx", requires_all = ["kind", "name", "licence", "channels"])]
    file: Option<PathBuf>,
    /// What it is for
    #[arg(long, requires = "file")]
    kind: Option<Kind>,
    /// Name in the manifest
    #[arg(long, value_name = "N", requires = "file")]
    name: Option<String>,
    /// Licence of the weights, an SPDX expression
    #[arg(long, value_name = "L", requires = "file")]
    licence: Option<String>,
    /// Order of the input's planes
    #[arg(long, requires = "file")]
    channels: Option<Channels>,
    /// Subtracted from each plane, in pixel units 0 to 255: one number or three
    #[arg(long, value_name = "M[,M,M]", requires = "file", value_delimiter = ',', allow_negative_numbers = true, default_values_t = [0.0])]
    mean: Vec<f32>,
    /// Multiplied after the subtraction: one number or three
    #[arg(long, value_name = "S[,S,S]", requires = "file", value_delimiter = ',', default_values_t = [1.0])]
    scale: Vec<f32>,
    /// Input width in pixels [default: 320 for a detector, 112 for an embedder]
    #[arg(long, value_name = "PX", requires = "file")]
    width: Option<usize>,
    /// Input height in pixels [default: 256 for a detector, 112 for an embedder]
    #[arg(long, value_name = "PX", requires = "file")]
    height: Option<usize>,
    /// The least cosine that counts as the same person (embedders)
    #[arg(long, value_name = "COSINE", requires = "file", allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// Where the file comes from, for the record
    #[arg(long, value_name = "TEXT", requires = "file", default_value = "local file")]
    origin: String,
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// Model directory to copy from
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// Models to copy; all of them when none is named
    names: Vec<String>,
    /// Model directory to write to; created if need be
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct DirArgs {
    /// Model directory
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Detector,
    Embedder,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Channels {
    Rgb,
    Bgr,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Import(args) => import_models(args),
        Command::Add(args) => add(args),
        Command::List(args) => list(args),
        Command::Check(args) => check(args),
    }
}

fn import_models(args: &ImportArgs) -> Result<(), Failure> {
    let mut done = Vec::new();
    for job in jobs(args)? {
        if !args.json {
            eprintln!("importing {} from {}", job.preset.name, job.file.display());
        }
        done.push(import::import(&job, &args.out)?);
    }
    if args.json {
        let models: Vec<_> = done.iter().map(imported_json).collect();
        println!("{:#}", json!({ "out": args.out, "models": models }));
    } else {
        for imported in &done {
            print_imported(imported, &args.out);
        }
    }
    Ok(())
}

fn jobs(args: &ImportArgs) -> Result<Vec<Job>, Failure> {
    if let Some(file) = &args.other.file {
        return Ok(vec![Job {
            preset: described(&args.other, file)?,
            file: file.clone(),
            hash_known: false,
        }]);
    }
    let from = match &args.from {
        Some(from) => from.clone(),
        None => assets_dir()?.join("models"),
    };
    let presets = if args.presets.is_empty() {
        import::presets()?
    } else {
        args.presets.iter().map(|name| import::preset(name)).collect::<Result<_, _>>()?
    };
    Ok(presets
        .into_iter()
        .map(|preset| {
            let name = Path::new(&preset.source.path).file_name().unwrap_or_default();
            Job { file: from.join(name), preset, hash_known: true }
        })
        .collect())
}

fn described(args: &FileArgs, file: &Path) -> Result<Preset, Failure> {
    // clap demands these three together with --file.
    let (Some(kind), Some(name), Some(licence), Some(channels)) =
        (args.kind, args.name.clone(), args.licence.clone(), args.channels)
    else {
        return Err(usage("--file needs --kind, --name, --licence and --channels"));
    };
    let (kind, family, size, alignment, pad_multiple_px) = match kind {
        Kind::Detector => (ModelKind::Detector, Family::Yunet, (320, 256), None, Some(32)),
        Kind::Embedder => {
            (ModelKind::Embedder, Family::Embedding, (112, 112), Some(Alignment::ARCFACE_112), None)
        }
    };
    let contract = InputContract {
        width_px: args.width.unwrap_or(size.0),
        height_px: args.height.unwrap_or(size.1),
        channels: match channels {
            Channels::Rgb => ChannelOrder::Rgb,
            Channels::Bgr => ChannelOrder::Bgr,
        },
        mean: triple("--mean", &args.mean)?,
        scale: triple("--scale", &args.scale)?,
        alignment,
        pad_multiple_px,
    };
    let path = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Preset {
        name,
        kind,
        family,
        licence,
        lineage: None,
        default_threshold: args.threshold,
        threshold_note: args.threshold.map(|_| "given at import".into()),
        // The hash is filled in from the file.
        source: Source {
            package: args.origin.clone(),
            version: "unknown".into(),
            path,
            sha256: FileHash([0; 32]),
        },
        contract,
        thresholds: None,
        measured: None,
        golden: Vec::new(),
    })
}

fn triple(option: &str, values: &[f32]) -> Result<[f32; 3], Failure> {
    match values {
        [one] => Ok([*one; 3]),
        [a, b, c] => Ok([*a, *b, *c]),
        _ => Err(usage(format!("{option} takes one number or three, {} were given", values.len()))),
    }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Usage, message.into()).hint("see facelatch models import --help")
}

/// Where fetched third-party files are kept: `$FACELATCH_ASSETS`, or else `facelatch/assets` in the user's cache folder.
fn assets_dir() -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("FACELATCH_ASSETS")
        .or_else(|| {
            let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
            Some(cache.join("facelatch").join("assets"))
        })
        .ok_or_else(|| usage("neither FACELATCH_ASSETS nor HOME is set: name the folder with --from DIR"))
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let manifest = load(&args.from)?;
    let known = |name: &String| manifest.models.iter().any(|entry| entry.name == *name);
    if let Some(name) = args.names.iter().find(|name| !known(name)) {
        let names: Vec<&str> = manifest.models.iter().map(|entry| entry.name.as_str()).collect();
        let what = format!("{} holds no \"{name}\"; there are: {}", args.from.display(), names.join(", "));
        return Err(Failure::new(FailureKind::Usage, what));
    }
    for entry in &manifest.models {
        if args.names.is_empty() || args.names.contains(&entry.name) {
            import::add(entry, &args.from, &args.out)?;
            println!("{} → {}", entry.name, args.out.join(&entry.file).display());
            println!("  {} · {} · SHA-256 {}", entry.kind, entry.licence, entry.sha256);
        }
    }
    Ok(())
}

fn imported_json(imported: &Imported) -> serde_json::Value {
    let changes = &imported.changes;
    let mut value = entry_json(&imported.entry);
    value["bytes"] = json!(imported.bytes);
    value["weights_compared"] = json!(imported.weights_compared);
    value["golden_difference"] = json!(imported.golden_difference);
    value["changes"] = json!({
        "folded_dequantize": changes.folded_dequantize,
        "folded_reshape": changes.folded_reshape,
        "inputs_removed": changes.inputs_removed,
        "nodes_pruned": changes.nodes_pruned,
        "initializers_pruned": changes.initializers_pruned,
        "opset": [changes.opset.0, changes.opset.1],
    });
    value
}

fn print_imported(imported: &Imported, out: &Path) {
    let Imported { entry, changes, .. } = imported;
    println!("{} → {}", entry.name, out.join(&entry.file).display());
    println!("  {} · {} · {} bytes · SHA-256 {}", entry.kind, entry.licence, imported.bytes, entry.sha256);
    println!(
        "  rewritten: {} dequantizations and {} reshapes folded, {} inputs and {} constants dropped, opset {} → {}",
        changes.folded_dequantize,
        changes.folded_reshape,
        changes.inputs_removed,
        changes.initializers_pruned,
        changes.opset.0,
        changes.opset.1
    );
    println!("  checked: {} weights bit by bit, {}", imported.weights_compared, golden_text(imported));
}

fn golden_text(imported: &Imported) -> String {
    match imported.golden_difference {
        Some(difference) => format!("answers within {difference:.1e} of onnxruntime's on the original"),
        None => "answers finite and repeatable (no golden figures for this file)".into(),
    }
}

fn list(args: &DirArgs) -> Result<(), Failure> {
    let manifest = load(&args.models)?;
    if args.json {
        let models: Vec<_> = manifest.models.iter().map(entry_json).collect();
        println!("{:#}", json!({ "models": models }));
        return Ok(());
    }
    println!("{:<16} {:<13} {:>7} {:<25} {:<13} SOURCE", "NAME", "KIND", "INPUT", "LICENCE", "DATA ALLOW");
    for entry in &manifest.models {
        let input = format!("{}x{}", entry.contract.width_px, entry.contract.height_px);
        let source = format!("{} {}", entry.source.package, entry.source.version);
        println!(
            "{:<16} {:<13} {:>7} {:<25} {:<13} {source}",
            entry.name,
            entry.kind.to_string(),
            input,
            entry.licence,
            entry.lineage.as_ref().map_or_else(|| "not stated".into(), |l| l.allows.to_string()),
        );
    }
    print!("{}", choice(&manifest, &args.models, None));
    for entry in &manifest.models {
        let Some(lineage) = &entry.lineage else { continue };
        println!("\n{} ({}) learnt from", entry.name, lineage.allows);
        for set in &lineage.data {
            println!("  {set}");
        }
        if let Some(teacher) = &lineage.teacher {
            println!("  taught by {teacher}");
        }
    }
    Ok(())
}

/// The embedders that were measured side by side, the `chosen` one marked; nothing where there is none.
pub(super) fn choice(manifest: &Manifest, dir: &Path, chosen: Option<&str>) -> String {
    let measured: Vec<_> =
        manifest.models.iter().filter_map(|entry| Some((entry, entry.measured.as_ref()?))).collect();
    if measured.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n  {:<16} {:>11} {:>20} {:>14} {:>8}  {:<25} DATA ALLOW\n",
        "EMBEDDER", "VIEW 1, %", "TAR AT FAR 1E-3, %", "TIME, OF SFACE", "FILE, MB", "LICENCE"
    );
    for (entry, m) in measured {
        let [low, high] = m.tar_interval;
        let bytes = std::fs::metadata(dir.join(&entry.file)).map_or(0, |file| file.len());
        let mark = if chosen == Some(entry.name.as_str()) { '*' } else { ' ' };
        let allows = entry.lineage.as_ref().map_or_else(|| "not stated".into(), |l| l.allows.to_string());
        text += &format!(
            "{mark} {:<16} {:>11} {:>20} {:>14} {:>8}  {:<25} {allows}\n",
            entry.name,
            format!("{:.1} ± {:.1}", m.view1_accuracy, m.view1_std),
            format!("{:.1} ({low:.1} - {high:.1})", m.tar_at_far_1e3),
            format!("{:.0} %", 100.0 * m.time_to_sface),
            format!("{:.1}", bytes as f64 / 1e6),
            entry.licence,
        );
    }
    text
}

fn check(args: &DirArgs) -> Result<(), Failure> {
    let manifest = load(&args.models)?;
    let mut faults = Vec::new();
    let mut models = Vec::new();
    for entry in &manifest.models {
        let fault = import::check(entry, &args.models).err();
        if !args.json {
            match &fault {
                None => println!("{}: sound", entry.name),
                Some(error) => println!("{}: {error}", entry.name),
            }
        }
        models.push(
            json!({ "name": entry.name, "sound": fault.is_none(), "fault": fault.as_ref().map(ToString::to_string) }),
        );
        faults.extend(fault.is_some().then_some(entry.name.as_str()));
    }
    if args.json {
        println!("{:#}", json!({ "sound": faults.is_empty(), "models": models }));
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Refused,
        format!("damaged in {}: {}", args.models.display(), faults.join(", ")),
    )
    .hint("import them again with facelatch models import"))
}

fn load(dir: &Path) -> Result<Manifest, Failure> {
    Manifest::load(dir).map_err(|e| Failure::new(FailureKind::Failed, e))
}

fn entry_json(entry: &ManifestEntry) -> serde_json::Value {
    json!({
        "name": entry.name,
        "kind": entry.kind.to_string(),
        "file": entry.file,
        "sha256": entry.sha256.to_string(),
        "licence": entry.licence,
        "lineage": entry.lineage,
        "default_threshold": entry.default_threshold,
        "threshold_note": entry.threshold_note,
        "source": {
            "package": entry.source.package,
            "version": entry.source.version,
            "path": entry.source.path,
            "sha256": entry.source.sha256.to_string(),
        },
        "contract": entry.contract,
        "thresholds": entry.thresholds,
        "measured": entry.measured,
    })
}

const ADD_EXAMPLES: &str = "\
Each file is compared with its hash and run once before it is copied; an entry of the same name is replaced.

Examples:
  facelatch models add models detector fiducials
  facelatch models add models compact --out /srv/models";

const IMPORT_EXAMPLES: &str = "\
Presets are third-party models whose source, licence, hash and input are known (models/imports.toml). The files are not \
downloaded here: .ci/fetch puts them where --from looks by default.

Examples:
  facelatch models import
  facelatch models import sface --from ~/Downloads --out /srv/models
  facelatch models import --file mine.onnx --kind embedder --name mine --licence MIT \\
      --channels rgb --mean 127.5 --scale 0.0078125";
