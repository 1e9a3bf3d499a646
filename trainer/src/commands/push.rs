//! `facelatch push` and `facelatch update …`: new models for a door, over the link.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::told::Commands;
use facelatch_shared::protocol::update::{PushError, UpdateRequest, UpdateStage, UpdateStatus, push};
use facelatch_shared::protocol::{PAGE, PersonRow, RefusedKind, Request, Response};
use indicatif::{ProgressBar, ProgressStyle};

use super::remote::{DeviceArgs, print};
use super::rollout;
use crate::bundle::keyfile::read_root;
use crate::cli::{Failure, FailureKind};
use crate::remote::RemoteDoor;

/// Arguments of `facelatch push`.
#[derive(Debug, clap::Args)]
#[command(after_help = PUSH_EXAMPLES)]
pub struct PushArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// The bundle, as `facelatch bundle build` and `sign` make it
    bundle: PathBuf,
    /// Put it on trial as soon as it is ready and nobody stands at the door
    #[arg(long)]
    activate: bool,
    /// So many people may have to be enrolled again, at each door
    #[arg(long, value_name = "N", default_value_t = 0)]
    leave_behind: u32,
    /// To every door that this workstation is paired with: one goes first, the others follow once it has confirmed
    #[arg(long, conflicts_with_all = ["device", "activate"])]
    all: bool,
    /// The same, to the doors of a list: a name or an address a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "activate", "all"])]
    devices: Option<PathBuf>,
    /// With several doors: which goes first [default: the first]
    #[arg(long, value_name = "DOOR")]
    canary: Option<String>,
    /// With several doors: their states as JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Arguments of `facelatch update`.
#[derive(Debug, clap::Args)]
#[command(after_help = UPDATE_EXAMPLES)]
pub struct UpdateArgs {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Which models decide, and how an update stands
    Status,
    /// Have the door trust a root document: whoever it names may sign bundles for it
    Trust {
        /// The file, as `facelatch keys root` writes it
        file: PathBuf,
    },
    /// Try the bundle that is ready, as soon as nobody stands at the door
    Activate {
        /// So many people may have to be enrolled again
        #[arg(long, value_name = "N", default_value_t = 0)]
        leave_behind: u32,
    },
    /// End the trial: the models stay
    Confirm,
    /// Back to the former models, in a trial or after it
    RollBack,
    /// Forget a bundle that was received and is not in use
    Discard,
}

pub(crate) fn run_update(args: &UpdateArgs) -> Result<(), Failure> {
    let request = match &args.command {
        Command::Status => UpdateRequest::Status,
        Command::Trust { file } => {
            UpdateRequest::Trust(read_root(file).map_err(|e| Failure::new(FailureKind::Refused, e))?)
        }
        Command::Activate { leave_behind } => UpdateRequest::Activate { leave_behind: *leave_behind },
        Command::Confirm => UpdateRequest::Confirm,
        Command::RollBack => UpdateRequest::RollBack,
        Command::Discard => UpdateRequest::Discard,
    };
    let mut door = args.device.connect()?;
    let status = ask(&mut door, request)?;
    door.close();
    print(&shown(&status))?;
    Ok(())
}

pub(crate) fn run(args: &PushArgs) -> Result<(), Failure> {
    let path = &args.bundle;
    if args.all || args.devices.is_some() {
        return rollout::run(&rollout::Order {
            bundle: path,
            list: args.devices.as_deref(),
            canary: args.canary.as_deref(),
            leave_behind: args.leave_behind,
            json: args.json,
        });
    }
    if args.canary.is_some() || args.json {
        let what = "--canary and --json are for several doors: --all, or --devices FILE";
        return Err(Failure::new(FailureKind::Usage, what));
    }
    if args.leave_behind > 0 && !args.activate {
        return Err(Failure::new(
            FailureKind::Usage,
            "--leave-behind goes with --activate, or with several doors",
        ));
    }
    let file = File::open(path).map_err(|error| at(path, &error))?;
    let size = file.metadata().map_err(|error| at(path, &error))?.len();
    let mut door = args.device.connect()?;
    let bar = bar(size);
    let read =
        |offset: u64, into: &mut [u8]| file.read_exact_at(into, offset).map_err(|error| at(path, &error));
    // A refusal is the pusher's business: some of them say where to go on.
    let pushed = push(size, read, |request| Ok(door.answer(&request)?), |done| bar.set_position(done));
    bar.finish_and_clear();
    let mut status = pushed.map_err(|error| match error {
        PushError::Carrier(failure) => {
            failure.hint("run the command again: the door goes on where it was interrupted")
        }
        PushError::Refused(refused) => {
            let kind = match refused.kind {
                RefusedKind::Unverified | RefusedKind::Role => FailureKind::Refused,
                _ => FailureKind::Failed,
            };
            Failure::new(kind, refused.message.as_str())
        }
        PushError::Bundle(error) => {
            Failure::new(FailureKind::Refused, format!("{}: {error}", path.display()))
        }
        error => Failure::new(FailureKind::Failed, error.to_string()),
    })?;
    while let UpdateStage::Preparing { done, of, .. } = status.stage {
        if std::io::stderr().is_terminal() {
            eprint!("\rthe door makes it ready: {done} chips embedded, {of} of people ");
        }
        std::thread::sleep(LOOK_AGAIN);
        status = ask(&mut door, UpdateRequest::Status)?;
    }
    match &status.stage {
        UpdateStage::Unfit { why, .. } => {
            return Err(Failure::new(
                FailureKind::Refused,
                format!("the bundle does not fit this door: {why}"),
            )
            .hint("the door goes on with the models that it has"));
        }
        UpdateStage::Ready { left_behind, .. } if *left_behind > 0 => {
            let rows: String =
                left_behind_of(&mut door)?.iter().map(|row| format!("  {} {}\n", row.id, row.name)).collect();
            print(&format!(
                "To be enrolled again with these models, for want of kept chips (--leave-behind says how many may be):\n{rows}"
            ))?;
        }
        _ => {}
    }
    if args.activate {
        status = ask(&mut door, UpdateRequest::Activate { leave_behind: args.leave_behind })?;
    }
    door.close();
    print(&shown(&status))?;
    Ok(())
}

fn ask(door: &mut RemoteDoor, request: UpdateRequest) -> Result<UpdateStatus, Failure> {
    match door.ask(&Request::Update(request))? {
        Response::Update(status) => Ok(*status),
        _ => Err(door.unexpected().into()),
    }
}

fn left_behind_of(door: &mut RemoteDoor) -> Result<Vec<PersonRow>, Failure> {
    let (mut all, mut from) = (Vec::new(), SubjectId(0));
    loop {
        let Response::People(page) = door.ask(&Request::Update(UpdateRequest::LeftBehind { from }))? else {
            return Err(door.unexpected().into());
        };
        let next = page.last().and_then(|row| row.id.0.checked_add(1)).filter(|_| page.len() == PAGE);
        all.extend(page);
        match next {
            Some(next) if next > from.0 => from = SubjectId(next),
            _ => return Ok(all),
        }
    }
}

/// How models and their update stand.
fn shown(status: &UpdateStatus) -> String {
    status.told(&COMMANDS).to_string()
}

const COMMANDS: Commands = Commands {
    again: "facelatch push FILE",
    activate: "facelatch update activate",
    trust: "facelatch update trust FILE",
};

/// Hidden without a terminal.
fn bar(size: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style)
}

fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Failed, format!("{}: {error}", path.display()))
}

const LOOK_AGAIN: Duration = Duration::from_millis(500);

const PUSH_EXAMPLES: &str = "\
Examples:
  facelatch push spring.flb
  facelatch push --device door.local --activate spring.flb
  facelatch push --all --canary \"North door\" spring.flb

An interrupted push goes on where it was when the command is run again. The door decides with its former models all the time; `facelatch update
status` tells how the trial goes, which the door ends by itself.";

const UPDATE_EXAMPLES: &str = "\
Examples:
  facelatch update status
  facelatch update trust root.flr
  facelatch update activate --leave-behind 2
  facelatch update roll-back";
