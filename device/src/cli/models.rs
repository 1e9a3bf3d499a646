//! `facelatchd models …`: which models decide, and new ones from a bundle's file, on the board itself.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use facelatch_shared::bundle::SignedRoot;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::told::Commands;
use facelatch_shared::protocol::update::{
    ModelsFrom, PushError, UpdateRequest, UpdateStage, UpdateStatus, push,
};
use facelatch_shared::protocol::{PAGE, PersonRow, Request, Response};
use serde::Serialize;

use super::door::{Door, unexpected};
use super::output::{print, print_json};
use super::text::counted;
use super::{Failure, FailureKind};
use crate::config::Config;
use crate::control::Client;

/// Which models decide, and new ones from a bundle.
///
/// A bundle is verified, staged and made ready while the door goes on with the models that it has; `activate` puts it on trial at a moment
/// when nobody stands there, and the door goes back by itself when the trial fails.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Which models decide, and how an update stands
    Status {
        /// The result as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Trust a root document: whoever it names may sign bundles for this door
    Trust {
        /// The file, as `facelatch keys root` writes it
        file: PathBuf,
    },
    /// Take a bundle from a file, and make it ready
    Take(TakeArgs),
    /// Try the bundle that is ready, as soon as nobody stands there
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

#[derive(Debug, clap::Args)]
struct TakeArgs {
    /// The bundle
    file: PathBuf,
    /// Try it as soon as it is ready
    #[arg(long)]
    activate: bool,
    /// With --activate: so many people may have to be enrolled again
    #[arg(long, value_name = "N", default_value_t = 0, requires = "activate")]
    leave_behind: u32,
}

pub(super) fn run(args: &Args, config: &Config) -> Result<ExitCode, Failure> {
    let mut door = Door::running(config)?;
    match &args.command {
        Command::Status { json: true } => print_json(&Models::of(&ask(&mut door, UpdateRequest::Status)?))?,
        Command::Status { json: false } => tell(&mut door, UpdateRequest::Status)?,
        Command::Trust { file } => {
            let bytes = std::fs::read(file).map_err(|error| at(file, &error))?;
            let root = SignedRoot::from_file(&bytes).map_err(|error| {
                Failure::new(FailureKind::Refused, format!("{}: {error}", file.display()))
            })?;
            tell(&mut door, UpdateRequest::Trust(root))?;
        }
        Command::Take(args) => take(args, config, &mut door)?,
        Command::Activate { leave_behind } => {
            tell(&mut door, UpdateRequest::Activate { leave_behind: *leave_behind })?;
        }
        Command::Confirm => tell(&mut door, UpdateRequest::Confirm)?,
        Command::RollBack => tell(&mut door, UpdateRequest::RollBack)?,
        Command::Discard => tell(&mut door, UpdateRequest::Discard)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn take(args: &TakeArgs, config: &Config, door: &mut Door) -> Result<(), Failure> {
    let file = File::open(&args.file).map_err(|error| at(&args.file, &error))?;
    let size = file.metadata().map_err(|error| at(&args.file, &error))?.len();
    let client = Client::connect(&config.door.state_dir)?;
    let read = |offset: u64, into: &mut [u8]| {
        file.read_exact_at(into, offset).map_err(|error| at(&args.file, &error))
    };
    let pushed = push(size, read, |request| Ok(client.ask(&request)?), |_| {});
    let mut status = pushed.map_err(|error| match error {
        PushError::Carrier(failure) => failure,
        PushError::Refused(refused) => (*refused).into(),
        PushError::Bundle(error) => {
            Failure::new(FailureKind::Refused, format!("{}: {error}", args.file.display()))
        }
        error => Failure::failed(error.to_string()),
    })?;
    while let UpdateStage::Preparing { .. } = status.stage {
        std::thread::sleep(LOOK_AGAIN);
        status = ask(door, UpdateRequest::Status)?;
    }
    match &status.stage {
        UpdateStage::Unfit { why, .. } => {
            let failure = Failure::new(FailureKind::Refused, format!("the bundle does not fit: {why}"));
            return Err(failure.hint("the door goes on with the models that it has"));
        }
        UpdateStage::Ready { left_behind, .. } if *left_behind > 0 => {
            print(&shown_left_behind(&left_behind_of(door)?))?;
        }
        _ => {}
    }
    if args.activate {
        return tell(door, UpdateRequest::Activate { leave_behind: args.leave_behind });
    }
    print(&shown_models(&status))
}

fn left_behind_of(door: &mut Door) -> Result<Vec<PersonRow>, Failure> {
    let (mut all, mut from) = (Vec::new(), SubjectId(0));
    loop {
        let Response::People(page) = door.ask(Request::Update(UpdateRequest::LeftBehind { from }))? else {
            return Err(unexpected());
        };
        let next = page.last().and_then(|row| row.id.0.checked_add(1)).filter(|_| page.len() == PAGE);
        all.extend(page);
        match next {
            Some(next) if next > from.0 => from = SubjectId(next),
            _ => return Ok(all),
        }
    }
}

fn ask(door: &mut Door, request: UpdateRequest) -> Result<UpdateStatus, Failure> {
    match door.ask(Request::Update(request))? {
        Response::Update(status) => Ok(*status),
        _ => Err(unexpected()),
    }
}

fn tell(door: &mut Door, request: UpdateRequest) -> Result<(), Failure> {
    print(&shown_models(&ask(door, request)?))
}

fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}

fn shown_left_behind(people: &[PersonRow]) -> String {
    let rows: String = people.iter().map(|row| format!("  #{} {}\n", row.id.0, row.name)).collect();
    format!(
        "{} must be enrolled again with these models, for want of kept chips:\n{rows}",
        counted(people.len() as u64, "person", "people")
    )
}

/// How models and their update stand, for people.
pub(super) fn shown_models(status: &UpdateStatus) -> String {
    status.told(&COMMANDS).to_string()
}

const COMMANDS: Commands = Commands {
    again: "facelatchd models take FILE",
    activate: "facelatchd models activate",
    trust: "facelatchd models trust FILE",
};

/// The same for programs. Fields are added, never renamed.
#[derive(Debug, Serialize)]
pub(super) struct Models {
    from: ModelsFrom,
    embedder: String,
    binding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    stage: &'static str,
    counter_floor: u64,
    root_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<&'static str>,
    can_go_back: bool,
}

impl Models {
    pub(super) fn of(status: &UpdateStatus) -> Self {
        Self {
            from: status.models.from,
            embedder: status.models.embedder.to_string(),
            binding: status.models.binding.to_string(),
            bundle: status.models.bundle.map(|id| id.to_string()),
            name: status.models.name.to_string(),
            stage: match &status.stage {
                UpdateStage::Idle => "idle",
                UpdateStage::Receiving { .. } => "receiving",
                UpdateStage::Staged { .. } => "staged",
                UpdateStage::Preparing { .. } => "preparing",
                UpdateStage::Unfit { .. } => "unfit",
                UpdateStage::Ready { .. } => "ready",
                UpdateStage::Waiting { .. } => "waiting",
                UpdateStage::Trial(_) => "trial",
                UpdateStage::Installing { .. } => "installing",
                _ => "unknown",
            },
            counter_floor: status.counter_floor,
            root_version: status.root_version,
            last: status.last.map(|outcome| outcome.word()),
            can_go_back: status.can_go_back,
        }
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Examples:
  facelatchd models status
  facelatchd models trust /media/usb/root.flr
  facelatchd models take /media/usb/spring.flb
  facelatchd models take spring.flb --activate
  facelatchd models activate --leave-behind 2
  facelatchd models roll-back";

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::bundle::BundleId;
    use facelatch_shared::embedding::ModelBinding;
    use facelatch_shared::event::TrialOutcome;
    use facelatch_shared::protocol::update::ModelsInUse;

    fn status(stage: UpdateStage) -> UpdateStatus {
        UpdateStatus {
            models: ModelsInUse {
                from: ModelsFrom::SlotB,
                bundle: Some(BundleId([7; 32])),
                name: "spring".try_into().unwrap(),
                embedder: "compact".try_into().unwrap(),
                binding: ModelBinding([9; 16]),
            },
            stage,
            counter_floor: 4,
            root_version: Some(2),
            last: Some(TrialOutcome::TooSlow),
            can_go_back: true,
            system: None,
        }
    }

    #[test]
    fn for_programs() {
        assert_eq!(
            serde_json::to_string(&Models::of(&status(UpdateStage::Idle))).unwrap(),
            r#"{"from":"slot_b","embedder":"compact","binding":"09090909090909090909090909090909","bundle":"0707070707070707","name":"spring","stage":"idle","counter_floor":4,"root_version":2,"last":"too_slow","can_go_back":true}"#
        );
    }
}
