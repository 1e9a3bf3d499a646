//! `facelatch bundle build|sign|inspect|verify`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use facelatch_shared::bundle::{
    BundleError, BundleId, Content, Draft, Header, Manifest, Root, SignedRoot, Trial, Trust, Version, split,
};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::time::UnixMs;
use serde_json::json;

use super::keys::{DAY_MS, day, now};
use crate::bundle::build::{BuildError, BuildJob, check_file, this_release};
use crate::bundle::keyfile::{read_root, read_secret, write_whole};
use crate::cli::{Failure, FailureKind};

/// Arguments of `facelatch bundle`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put models, their thresholds and a self-test into one file
    Build(Box<BuildArgs>),
    /// Sign a bundle
    Sign(SignArgs),
    /// Show what a bundle says, whoever signed it
    Inspect(InspectArgs),
    /// Read a bundle as a door does: signatures, hashes, models, self-test
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct BuildArgs {
    /// Model directory
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// The detector
    #[arg(long, value_name = "NAME", default_value = "yunet")]
    detector: String,
    /// The embedder
    #[arg(long, value_name = "NAME", default_value = "sface")]
    embedder: String,
    /// Photographs for the self-test, one sub-folder a person, at least two people and two pictures of one.
    /// They travel in the bundle: use some that may
    #[arg(long, value_name = "DIR")]
    probes: PathBuf,
    /// At most so many photographs of each person
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    per_person: u16,
    /// What people call it
    #[arg(long, value_name = "TEXT")]
    name: String,
    /// Rollback counter: a door takes only more than it has confirmed
    #[arg(long, value_name = "N")]
    counter: u64,
    /// The root document, and those before it that a door may still trust, oldest first
    #[arg(long, value_name = "FILE", required = true)]
    root: Vec<PathBuf>,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Doors take it for so many days
    #[arg(long, value_name = "N", default_value_t = 90)]
    expires_days: u32,
    /// The oldest facelatchd that may use it
    #[arg(long, value_name = "X.Y.Z", default_value = env!("CARGO_PKG_VERSION"))]
    min_firmware: Version,
    /// A board it is for, as door.toml names it; repeat for each [default: every board]
    #[arg(long = "board", value_name = "NAME")]
    boards: Vec<String>,
    /// Least similarity that counts as the same person [default: the embedder's own]
    #[arg(long, value_name = "COSINE")]
    threshold: Option<f32>,
    /// How long a door tries it
    #[arg(long, value_name = "S", default_value_t = 600)]
    trial_seconds: u32,
    /// So many starts during the trial are a crash: the door rolls back
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    max_starts: u8,
    /// The board must keep this 95th percentile of detect + align + embed
    #[arg(long, value_name = "MS", default_value_t = 500)]
    max_p95_ms: u32,
    /// How many more of 1000 probes of enrolled people may be rejected than before
    #[arg(long, value_name = "N", default_value_t = 20)]
    max_rejection_rise: u16,
    /// An older model whose templates stay valid, and the true-accept rate that is lost with them; repeat for each
    #[arg(long = "compatible", value_name = "BINDING=COST")]
    compatible: Vec<String>,
    /// Sign with this key at once; repeat for each
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct SignArgs {
    /// The bundle; the signature is added to it
    bundle: PathBuf,
    /// An engineer's key
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// Other root documents in the place of the bundle's, oldest first
    #[arg(long, value_name = "FILE")]
    root: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// The bundle
    bundle: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The bundle
    bundle: PathBuf,
    /// The root document that the door trusts
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// As a door with this board
    #[arg(long, value_name = "NAME", default_value = "")]
    board: String,
    /// As a door that has confirmed this rollback counter
    #[arg(long, value_name = "N", default_value_t = 0)]
    counter_floor: u64,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Build(args) => build(args),
        Command::Sign(args) => sign(args),
        Command::Inspect(args) => inspect(args),
        Command::Verify(args) => verify(args),
    }
}

fn build(args: &BuildArgs) -> Result<(), Failure> {
    let compatible = args.compatible.iter().map(|text| compatible(text)).collect::<Result<Vec<_>, _>>()?;
    let created = now();
    let job = BuildJob {
        models: &args.models,
        detector: &args.detector,
        embedder: &args.embedder,
        probes: &args.probes,
        per_person: usize::from(args.per_person),
        name: &args.name,
        counter: args.counter,
        created,
        expires: Some(UnixMs(created.0 + i64::from(args.expires_days) * DAY_MS)),
        min_firmware: args.min_firmware,
        boards: &args.boards,
        threshold: args.threshold,
        trial: Trial {
            seconds: args.trial_seconds,
            max_starts: args.max_starts,
            max_p95_us: args.max_p95_ms.saturating_mul(1000),
            max_rejection_rise: args.max_rejection_rise,
        },
        compatible: &compatible,
        roots: roots(&args.root)?,
    };
    let built = job.build()?;
    let mut draft = built.draft;
    for key in &args.key {
        draft.sign(&read_secret(key)?);
    }
    store(&args.out, &draft)?;
    println!(
        "{}: {} with {}, counter {}, {} bytes",
        args.out.display(),
        args.name,
        args.embedder,
        args.counter,
        built.manifest.content_bytes()
    );
    println!(
        "self-test: {} chips, {} pairs of one person, {} of two{}",
        built.probes,
        built.pairs.same,
        built.pairs.different,
        match built.pairs.left_out {
            0 => String::new(),
            n => format!("; {n} pairs of one person are below the threshold and left out"),
        }
    );
    if args.key.is_empty() {
        println!("not signed yet: facelatch bundle sign {} --key FILE", args.out.display());
    }
    Ok(())
}

fn sign(args: &SignArgs) -> Result<(), Failure> {
    let mut draft = Draft::open(&read(&args.bundle)?)?;
    if !args.root.is_empty() {
        draft.set_roots(roots(&args.root)?);
    }
    for key in &args.key {
        draft.sign(&read_secret(key)?);
    }
    store(&args.bundle, &draft)?;
    for signature in &draft.header().signatures {
        println!("signed by {}", signature.key);
    }
    if let Some(last) = draft.header().roots.last() {
        let trust = Trust::begin(last.clone())?;
        let (bytes, signatures) = (&draft.header().manifest, &draft.header().signatures);
        match trust.check(facelatch_shared::bundle::Domain::Manifest, bytes, signatures, now()) {
            Ok(()) => println!("enough for root document {}", trust.root().version),
            Err(error) => println!("not enough yet: {error}"),
        }
    }
    Ok(())
}

fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let file = read(&args.bundle)?;
    let parts = split(&file).map_err(|error| {
        Failure::new(FailureKind::Refused, format!("{}: {error}", args.bundle.display()))
            .hint("it is cut short or another kind of file; `facelatch bundle build` makes bundles")
    })?;
    let header = Header::parse(parts.header)?;
    let manifest = Manifest::parse(&header.manifest)?;
    let roots = header.roots.iter().map(SignedRoot::root).collect::<Result<Vec<_>, _>>()?;
    let complete = parts.contents.len() as u64 == manifest.content_bytes();
    if args.json {
        println!("{:#}", manifest_json(&header, parts.header, &manifest, &roots, complete));
        return Ok(());
    }
    println!("{} ({})", manifest.name, BundleId::of(parts.header));
    println!("  counter    {}", manifest.counter);
    println!(
        "  made       {}, expires {}",
        day(manifest.created),
        manifest.expires.map_or("never".into(), day)
    );
    let models = manifest.content() == Content::Models;
    if models {
        println!(
            "  models     {} and {}, binding {}",
            manifest.detector, manifest.embedder, manifest.binding
        );
        println!("  threshold  {}", manifest.threshold);
    }
    let boards: Vec<&str> = manifest.boards.iter().map(|b| b.as_str()).collect();
    println!("  boards     {}", if boards.is_empty() { "every".into() } else { boards.join(", ") });
    let trial = &manifest.trial;
    if models {
        println!("  needs      facelatchd {} and {}", manifest.min_firmware, manifest.contracts.join(", "));
        println!(
            "  trial      {} s, fewer than {} starts, p95 up to {} ms, at most {} of 1000 more rejections",
            trial.seconds,
            trial.max_starts,
            trial.max_p95_us / 1000,
            trial.max_rejection_rise
        );
    } else {
        println!("  trial      three starts, counted by the boot loader");
    }
    for older in &manifest.compatible {
        println!(
            "  compatible {} at a cost of {:.2} % of true accepts",
            older.binding,
            older.tar_cost * 100.0
        );
    }
    for section in &manifest.sections {
        println!(
            "  {:<10} {} ({} bytes)",
            format!("{:?}", section.kind).to_lowercase(),
            section.name,
            section.length
        );
    }
    for root in &roots {
        println!("  root       document {}", root.version);
    }
    for signature in &header.signatures {
        let name = roots.iter().flat_map(|r| &r.engineers).find(|e| e.key == signature.key);
        println!("  signed by  {}{}", signature.key, name.map_or(String::new(), |e| format!("  {}", e.name)));
    }
    if header.signatures.is_empty() {
        println!("  not signed");
    }
    if !complete {
        println!(
            "  the file has {} bytes of content, not {}",
            parts.contents.len(),
            manifest.content_bytes()
        );
    }
    println!("Nothing was verified: `facelatch bundle verify` does that.");
    Ok(())
}

fn manifest_json(
    header: &Header,
    bytes: &[u8],
    manifest: &Manifest,
    roots: &[Root],
    complete: bool,
) -> serde_json::Value {
    json!({
        "id": BundleId::of(bytes).to_string(),
        "name": manifest.name,
        "counter": manifest.counter,
        "created_ms": manifest.created.0,
        "expires_ms": manifest.expires.map(|at| at.0),
        "detector": manifest.detector,
        "embedder": manifest.embedder,
        "binding": manifest.binding.to_string(),
        "threshold": manifest.threshold.0,
        "boards": manifest.boards,
        "min_firmware": manifest.min_firmware.to_string(),
        "contracts": manifest.contracts,
        "compatible": manifest.compatible.iter().map(|c| json!({"binding": c.binding.to_string(), "tar_cost": c.tar_cost})).collect::<Vec<_>>(),
        "sections": manifest.sections.iter().map(|s| json!({"name": s.name, "bytes": s.length})).collect::<Vec<_>>(),
        "roots": roots.iter().map(|root| root.version).collect::<Vec<_>>(),
        "signed_by": header.signatures.iter().map(|s| s.key.to_string()).collect::<Vec<_>>(),
        "complete": complete,
    })
}

fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let trust = Trust::begin(read_root(&args.root)?)?;
    let checked = check_file(&args.bundle, &trust, this_release(&args.board, args.counter_floor, now()))?;
    let manifest = &checked.accepted.manifest;
    let Some(self_test) = &checked.self_test else {
        println!("{} ({}): signatures and hashes of the system are good", manifest.name, checked.accepted.id);
        return Ok(());
    };
    println!("{} ({}): signatures, hashes and models are good", manifest.name, checked.accepted.id);
    println!(
        "self-test: {} chips and {} decisions as expected, least cosine {:.4}; {:.1} ms a face here",
        self_test.probes,
        self_test.pairs,
        self_test.least.0,
        f64::from(checked.embed_us) / 1000.0
    );
    Ok(())
}

fn roots(paths: &[PathBuf]) -> Result<Vec<SignedRoot>, Failure> {
    Ok(paths.iter().map(|path| read_root(path)).collect::<Result<Vec<_>, _>>()?)
}

fn compatible(text: &str) -> Result<(ModelBinding, f32), Failure> {
    let parse = || {
        let (binding, cost) = text.split_once('=')?;
        let mut bytes = [0; 16];
        hex::decode_to_slice(binding, &mut bytes).ok()?;
        Some((ModelBinding(bytes), cost.parse().ok().filter(|cost| (0.0..=1.0).contains(cost))?))
    };
    parse().ok_or_else(|| {
        let what = format!("--compatible {text}: give the binding's 32 digits, `=`, and a rate from 0 to 1");
        Failure::new(FailureKind::Usage, what)
            .hint("`facelatch bundle inspect` shows an older bundle's binding")
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::new(FailureKind::Failed, format!("{}: {error}", path.display())))
}

fn store(path: &Path, draft: &Draft) -> Result<(), Failure> {
    write_whole(path, &draft.to_bytes()?)
        .map_err(|error| Failure::new(FailureKind::Failed, format!("{}: {error}", path.display())))
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let kind = if error.is_refusal() { FailureKind::Refused } else { FailureKind::Failed };
        let hint = match &error {
            BuildError::Probes { .. } => {
                Some("--probes wants one sub-folder a person, two people, two pictures of one")
            }
            BuildError::Bundle(BundleError::Unsigned | BundleError::TooFewSignatures { .. }) => {
                Some("facelatch bundle sign FILE --key KEY")
            }
            _ => None,
        };
        let failure = Self::new(kind, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  facelatch bundle build --embedder compact --probes faces --name \"night shift\" --counter 2 \\
      --root root-1.bin --key eve.key --out night.flb
  facelatch bundle sign night.flb --key fay.key
  facelatch bundle inspect night.flb
  facelatch bundle verify night.flb --root root-1.bin --board pi4";
