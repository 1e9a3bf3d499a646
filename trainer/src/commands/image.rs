//! `facelatch image build|sign|verify`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use facelatch_shared::bundle::SecretKey;
use facelatch_shared::time::UnixMs;
use facelatch_shared::vision::contract::Manifest;
use serde_json::json;

use super::keys::{DAY_MS, now};
use super::models::choice;
use crate::bundle::SystemBundle;
use crate::bundle::keyfile::{read_root, read_secret, write_whole};
use crate::cli::{Failure, FailureKind};
use crate::image::{Board, ImageError, Recipe, build, disk::MIB, root::NamedModels, signature, wifi::Wifi};
use crate::progress::Bar;

/// Arguments of `facelatch image`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the image of a board's card from Debian's packages, facelatchd and models
    Build(Box<BuildArgs>),
    /// Sign an image: writes IMAGE.sig
    Sign(SignArgs),
    /// Check an image against its signature
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct BuildArgs {
    /// The board it is for
    #[arg(long, value_enum, default_value = "generic-arm64")]
    board: Board,
    /// File to write
    #[arg(short, long = "output", value_name = "FILE", default_value = "door.img")]
    output: PathBuf,
    /// The door's configuration; without one the door shows what it sees and has no lock
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// facelatchd for aarch64, as `make device` builds it
    #[arg(long, value_name = "FILE", default_value = "target/aarch64-unknown-linux-gnu/dist/facelatchd")]
    facelatchd: PathBuf,
    /// Model directory; the models that the configuration names are taken
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// The root document that the door trusts
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Sign with this key at once; repeat for each
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// The wireless network that the door joins: a file with ssid, passphrase and country. It comes onto the boot partition, in clear
    #[arg(long, value_name = "FILE")]
    wifi: Option<PathBuf>,
    /// How the firmware is called
    #[arg(long, value_name = "TEXT", default_value = env!("CARGO_PKG_VERSION"))]
    firmware_version: String,
    /// Room that each root slot has beside its content, in MiB
    #[arg(long, value_name = "N", default_value_t = 1)]
    spare_mib: u64,
    /// Added to the kernel's options
    #[arg(long, value_name = "TEXT", default_value = "")]
    kernel_options: String,
    /// Fetch the packages again, at today's versions
    #[arg(long)]
    refresh: bool,
    /// A root shell on the serial console: for development, never on a wall
    #[arg(long)]
    console: bool,
    /// Add the files of this folder to the root: for development
    #[arg(long, value_name = "DIR")]
    add: Option<PathBuf>,
    /// Write the same system as a bundle too, for boards that run already: `facelatch push` brings it into their other slot
    #[arg(long, value_name = "FILE", requires_all = ["root", "key", "counter"])]
    bundle: Option<PathBuf>,
    /// With --bundle: its rollback counter; a board takes only more than it has confirmed
    #[arg(long, value_name = "N")]
    counter: Option<u64>,
    /// With --bundle: days until it expires
    #[arg(long, value_name = "N", default_value_t = 365)]
    expires_days: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct SignArgs {
    /// The image
    image: PathBuf,
    /// An engineer's key; repeat for each
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// The board it is for
    #[arg(long, value_enum, default_value = "generic-arm64")]
    board: Board,
    /// How the firmware is called
    #[arg(long, value_name = "TEXT", default_value = env!("CARGO_PKG_VERSION"))]
    firmware_version: String,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The image
    image: PathBuf,
    /// The root document that says who may sign
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Build(args) => make(args),
        Command::Sign(args) => sign(&args.image, args.board, &args.firmware_version, &secrets(&args.key)?),
        Command::Verify(args) => {
            let document = signature::verify(&args.image, read_root(&args.root)?, now())?;
            println!(
                "{} {} for {}: as it was signed",
                args.image.display(),
                document.version,
                document.board
            );
            Ok(())
        }
    }
}

fn make(args: &BuildArgs) -> Result<(), Failure> {
    let keys = secrets(&args.key)?;
    if let Some(root) = &args.root {
        read_root(root)?;
    }
    let recipe = Recipe {
        board: args.board,
        program: args.facelatchd.clone(),
        models: args.models.clone(),
        config: args.config.clone(),
        trust: args.root.clone(),
        wifi: args.wifi.as_deref().map(Wifi::load).transpose()?,
        version: args.firmware_version.clone(),
        epoch: epoch()?,
        spare: args.spare_mib * MIB,
        options: args.kernel_options.clone(),
        console: args.console,
        extra: args.add.clone(),
        system: args.bundle.is_some(),
    };
    eprint!("{}", embedders(args));
    if !cached(args.refresh) {
        eprintln!("fetching Debian's packages for the board (75 MB, once)");
    }
    if let Some(notice) = args.board.notice() {
        eprintln!("note: {notice}");
    }
    let built = build(&recipe, &cache(), args.refresh, &args.output, &Bar::new())?;
    if !keys.is_empty() {
        sign(&args.output, args.board, &args.firmware_version, &keys)?;
    }
    if let (Some(path), Some(system), Some(counter)) = (&args.bundle, &built.system, args.counter) {
        let root = args.root.iter().map(|path| read_root(path)).collect::<Result<Vec<_>, _>>()?;
        let created = now();
        let order = SystemBundle {
            name: &args.firmware_version,
            board: args.board.name(),
            counter,
            created,
            expires: UnixMs(created.0 + i64::from(args.expires_days) * DAY_MS),
            roots: root,
            keys: &keys,
        };
        write_whole(path, &order.build(system)?)
            .map_err(|error| Failure::new(FailureKind::Failed, format!("{}: {error}", path.display())))?;
        eprintln!("the system as a bundle: {}", path.display());
    }
    if args.json {
        println!(
            "{:#}",
            json!({
                "image": args.output, "bytes": built.bytes, "board": args.board.name(), "kernel": built.kernel,
                "root_hash": built.root_hash, "root_bytes": built.root_bytes, "packages": built.packages, "signed": !keys.is_empty(),
                "boot": { "start": built.layout.boot.start, "bytes": built.layout.boot.bytes },
                "roots": built.layout.roots.map(|place| json!({ "start": place.start, "bytes": place.bytes })),
            })
        );
        return Ok(());
    }
    println!(
        "{}: {:.1} MB for {}, kernel {}, root {:.1} MB twice{}",
        args.output.display(),
        built.bytes as f64 / 1e6,
        args.board.name(),
        built.kernel,
        built.root_bytes as f64 / 1e6,
        if keys.is_empty() { ", not signed" } else { ", signed" }
    );
    println!("root hash {}", built.root_hash);
    Ok(())
}

/// The embedders to choose from, with the one that the configuration names; nothing where the model directory or the configuration cannot be
/// read, which the build itself tells.
fn embedders(args: &BuildArgs) -> String {
    let config = args.config.as_deref().and_then(|path| std::fs::read_to_string(path).ok());
    match (Manifest::load(&args.models), NamedModels::of(config.as_deref())) {
        (Ok(manifest), Ok(named)) => choice(&manifest, &args.models, Some(&named.embedder)),
        _ => String::new(),
    }
}

fn sign(image: &Path, board: Board, version: &str, keys: &[SecretKey]) -> Result<(), Failure> {
    signature::sign(image, board.name(), version, keys)?;
    eprintln!("signed: {}", signature::beside(image).display());
    Ok(())
}

fn secrets(paths: &[PathBuf]) -> Result<Vec<SecretKey>, Failure> {
    Ok(paths.iter().map(|path| read_secret(path)).collect::<Result<_, _>>()?)
}

/// The time of everything in the image: SOURCE_DATE_EPOCH, or one that never changes.
fn epoch() -> Result<u64, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map_err(|_| {
            Failure::new(FailureKind::Usage, format!("SOURCE_DATE_EPOCH={text} is no number of seconds"))
        }),
        Err(_) => Ok(EPOCH),
    }
}

fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| home.join(".cache"), PathBuf::from)
        .join("facelatch/image-2")
}

fn cached(refresh: bool) -> bool {
    !refresh && cache().join("complete").is_file()
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let kind = match &error {
            ImageError::Refused { .. } | ImageError::Mismatch { .. } => FailureKind::Refused,
            _ => FailureKind::Failed,
        };
        let hint = match &error {
            ImageError::Mismatch { .. } => Some("the card or its reader is bad: take another"),
            ImageError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("writing to a disk needs root, or membership of the group `disk`")
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

/// 2026-01-01 00:00 UTC.
const EPOCH: u64 = 1_767_225_600;

const EXAMPLES: &str = "\
Examples:
  facelatch image build --config door.toml --root root-1.bin --key eve.key -o door.img
  facelatch image build --board rpi-arm64 --config door.toml --root root-1.bin --key eve.key -o pi.img
  facelatch image verify door.img --root root-1.bin
  facelatch flash --list
  facelatch image build --config door.toml --root root-1.bin --key eve.key --bundle spring.flb --counter 7
  facelatch push --activate spring.flb

Two root file systems under dm-verity, of which the second is booted when the first is damaged or does not come
up, and a data partition that the board makes at its first start. generic-arm64 boots by UEFI (systemd-boot),
rpi-arm64 by the Raspberry Pi's own firmware (U-Boot), which is fetched from Debian's non-free-firmware.
Needs no root. Same inputs give the same bytes; SOURCE_DATE_EPOCH sets the time of all files.";
