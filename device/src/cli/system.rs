//! `facelatchd system …`: the system of a card's image, and how the image's own scripts change it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use facelatch_shared::bundle::SignedRoot;

use super::output::{print, print_json};
use super::{Failure, FailureKind};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::system::{self, Image, Install, InstallError, Job, Refused, Request, SystemPaths, SystemRecord};

/// The system of a card's image: which slot runs, and what became of the last update.
///
/// A new system comes in a bundle, as models do: `facelatchd models take`, or `facelatch push` from afar.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd system status")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Which slot runs, what was installed last, and what became of it
    Status {
        /// The result as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Write the bundle that the door asks for into the other slot (the image's init does this, as root)
    #[command(hide = true)]
    Install(InstallArgs),
    /// The running slot came up (the image's init says this, as root)
    #[command(hide = true)]
    Settled,
}

#[derive(Debug, clap::Args)]
struct InstallArgs {
    /// Partition of the root that is not running
    #[arg(long, value_name = "DEVICE")]
    partition: PathBuf,
    /// Where the boot partition is mounted
    #[arg(long, value_name = "DIR")]
    boot: PathBuf,
    /// The root document of the running root file system
    #[arg(long, value_name = "FILE", default_value = system::IMAGE_ROOT)]
    root: PathBuf,
}

pub(super) fn run(args: &Args, config: &Config) -> Result<ExitCode, Failure> {
    let paths = SystemPaths::default();
    let no_image = || {
        Failure::new(FailureKind::Refused, InstallError::NoImage)
            .hint("its programs are updated as they were installed; models come in bundles")
    };
    match &args.command {
        Command::Status { json } => {
            let image = Image::look(&paths).ok_or_else(no_image)?;
            if *json {
                print_json(&serde_json::json!({
                    "board": image.board, "slot": image.slot.to_string(), "counter_floor": image.record.floor,
                    "last": image.record.last,
                }))?;
            } else {
                print(&shown(&image))?;
            }
        }
        Command::Install(args) => install(args, config, &paths)?,
        Command::Settled => {
            let image = Image::look(&paths).ok_or_else(no_image)?;
            if let Some(last) = system::settle(&paths.state, image.slot).map_err(Failure::failed)? {
                print(&format!("system {} ({}): {}\n", last.name, last.counter, last.state.words()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn install(args: &InstallArgs, config: &Config, paths: &SystemPaths) -> Result<(), Failure> {
    let request = Request::load(&config.door.state_dir).ok_or_else(|| {
        Failure::new(FailureKind::Refused, "the door does not ask for a system")
            .hint("`facelatchd models take FILE --activate`")
    })?;
    let done = try_install(args, config, paths, &request).map_err(|why| {
        let refused = Refused { bundle: request.bundle.clone(), why: why.to_string() };
        match refused.store(&paths.state) {
            Ok(()) => Failure::new(FailureKind::Refused, why),
            Err(error) => Failure::failed(format!("{why}; and {}: {error}", paths.state.display())),
        }
    })?;
    print(&format!("system {} ({}) is in slot {}\n", done.name, done.counter, done.slot))
}

fn try_install(
    args: &InstallArgs,
    config: &Config,
    paths: &SystemPaths,
    request: &Request,
) -> Result<Install, InstallError> {
    let image = Image::look(paths).ok_or(InstallError::NoImage)?;
    let at = |path: &Path, source| InstallError::Io { path: path.into(), source };
    // Read for itself: a record that is damaged must not lower the floor.
    let record = SystemRecord::load(&paths.state).map_err(|error| at(&paths.state, error))?;
    let root = std::fs::read(&args.root).map_err(|error| at(&args.root, error))?;
    let trust = SignedRoot::from_file(&root)?;
    system::install(&Job {
        from: &crate::update::slots_dir(&config.door).join(request.lies_in.to_string()),
        root: &args.partition,
        boot: &args.boot,
        image: &Image { record, ..image },
        trust: &trust,
        state: &paths.state,
        now: SystemClock::new().unix(),
    })
}

fn shown(image: &Image) -> String {
    let mut text = format!("board    {}\nslot     {}\n", image.board, image.slot);
    text += &match &image.record.last {
        Some(last) => format!(
            "last     {:?}, counter {}, in slot {}: {}\n",
            last.name,
            last.counter,
            last.slot,
            last.state.words()
        ),
        None => "last     none\n".into(),
    };
    text + &format!("takes    systems above counter {}\n", image.record.floor)
}
