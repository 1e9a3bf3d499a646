//! `facelatchd link`: which workstations may talk to the door.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};
use facelatch_shared::protocol::{Request, Response};
use facelatch_shared::remote::{LinkRequest, LinkResponse, LinkRole, PeerId, PeerRow};
use serde::Serialize;

use super::Failure;
use super::door::{Door, unexpected};
use super::output::{print, print_json};
use super::text::table;
use crate::config::Config;
use crate::store::door_key;

/// Pair workstations, list and remove them.
///
/// Nothing listens on the network before a workstation is paired or the door is open for pairing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Results as JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Open the door for one pairing, show the code and wait
    ///
    /// The code stands on the panel too. It holds for two minutes and five tries, one a second.
    Pair {
        /// What the workstation may do
        #[arg(long, value_enum, default_value_t = Role::Administrator)]
        role: Role,
        /// Show the code and return at once
        #[arg(long)]
        no_wait: bool,
        /// Only where the door is new, with nobody paired and nobody enrolled: one code after the other, until somebody is paired or a quarter
        /// of an hour has passed. A card's image does so at its start
        #[arg(long, conflicts_with_all = ["role", "no_wait"])]
        first: bool,
    },
    /// The door's own key, which workstations pin and galleries are sealed for
    Key,
    /// Who is paired
    List,
    /// Let a workstation in no more, from its next request on
    Remove {
        /// Which, as `link list` shows it
        #[arg(value_parser = peer_id)]
        id: PeerId,
    },
}

/// A role as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Status and log
    Reader,
    /// The same, and new models
    Engineer,
    /// Everything
    Administrator,
}

impl From<Role> for LinkRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Reader => Self::Reader,
            Role::Engineer => Self::Engineer,
            Role::Administrator => Self::Administrator,
        }
    }
}

pub(super) fn run(args: Args, config: &Config) -> Result<ExitCode, Failure> {
    if matches!(args.command, Command::Key) {
        let key = door_key(&config.door.state_dir).map_err(Failure::failed)?.public().to_string();
        if args.json {
            print_json(&key)?
        } else {
            print(&format!("{key}\n"))?
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut door = Door::running(config)?;
    match args.command {
        Command::Pair { first: true, .. } if config.link.enabled => pair_first(&mut door, args.json)?,
        Command::Pair { first: true, .. } => {}
        Command::Pair { role, no_wait, .. } => {
            let before = peers(&mut door)?;
            let seconds = open(&mut door, role.into(), args.json)?;
            if !no_wait && !wait(&mut door, &before, seconds)? {
                return Err(Failure::failed("nobody was paired while the code held").hint(
                    "`facelatchd link pair` for another code; `facelatchd events list --last 5` says what was tried",
                ));
            }
        }
        Command::List | Command::Key => show(&peers(&mut door)?, args.json)?,
        Command::Remove { id } => {
            door.order(Request::Link(LinkRequest::RemovePeer { id }))?;
            print(&format!("{id} is paired no more.\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows codes while the door is new.
fn pair_first(door: &mut Door, json: bool) -> Result<(), Failure> {
    let end = Instant::now() + FIRST_PAIRING;
    while Instant::now() < end {
        let before = peers(door)?;
        let Response::Status(status) = door.ask(Request::Status)? else { return Err(unexpected()) };
        if !before.is_empty() || status.people > 0 {
            return Ok(());
        }
        let seconds = open(door, LinkRole::Administrator, json)?;
        if wait(door, &before, seconds)? {
            return Ok(());
        }
    }
    eprintln!(
        "Nobody was paired. `facelatchd link pair` shows another code, and so does this door's next start."
    );
    Ok(())
}

/// Opens the door for one pairing and shows the code; for so many seconds.
fn open(door: &mut Door, role: LinkRole, json: bool) -> Result<u16, Failure> {
    let asked = door.ask(Request::Link(LinkRequest::OpenPairing { role }))?;
    let Response::Link(LinkResponse::Pairing { code, seconds, port }) = asked else {
        return Err(unexpected());
    };
    if json {
        print_json(&Opened { code: code.as_str(), seconds, port, role: role.word() })?;
    } else {
        let port = port.filter(|port| *port != facelatch_shared::link::PORT);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        print(&format!(
            "Pairing code {code}, for {seconds} s, as {}.\nAt the workstation: facelatch pair --device ADDRESS-OF-THIS-DOOR{port}\n",
            role.word()
        ))?;
    }
    Ok(seconds)
}

/// Whether somebody who was not among `before` was paired in that time.
fn wait(door: &mut Door, before: &[PeerRow], seconds: u16) -> Result<bool, Failure> {
    let end = Instant::now() + Duration::from_secs(u64::from(seconds));
    while Instant::now() < end {
        std::thread::sleep(LOOK_EVERY);
        let now = peers(door)?;
        if let Some(new) = now.iter().find(|row| !before.contains(row)) {
            eprintln!("Paired: {} ({}) as {}.", new.name, new.id, new.role.word());
            return Ok(true);
        }
    }
    Ok(false)
}

fn peers(door: &mut Door) -> Result<Vec<PeerRow>, Failure> {
    match door.ask(Request::Link(LinkRequest::ListPeers))? {
        Response::Link(LinkResponse::Peers(peers)) => Ok(peers),
        _ => Err(unexpected()),
    }
}

fn show(peers: &[PeerRow], json: bool) -> Result<(), Failure> {
    if json {
        let rows: Vec<Shown> = peers.iter().map(Shown::from).collect();
        return print_json(&rows);
    }
    if peers.is_empty() {
        eprintln!("No workstation is paired, and nothing listens: `facelatchd link pair`.");
        return Ok(());
    }
    let rows: Vec<[String; 3]> =
        peers.iter().map(|row| [row.id.to_string(), row.role.word().into(), row.name.to_string()]).collect();
    print(&table(["ID", "ROLE", "NAME"], &rows))
}

fn peer_id(text: &str) -> Result<PeerId, &'static str> {
    PeerId::parse(text).ok_or("eight hexadecimal digits, as `facelatchd link list` shows them")
}

/// For programs. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Opened<'a> {
    code: &'a str,
    seconds: u16,
    port: Option<u16>,
    role: &'static str,
}

/// For programs. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    role: &'static str,
    name: String,
}

impl From<&PeerRow> for Shown {
    fn from(row: &PeerRow) -> Self {
        Self { id: row.id.to_string(), role: row.role.word(), name: row.name.to_string() }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a new door shows codes.
const FIRST_PAIRING: Duration = Duration::from_secs(15 * 60);

const EXAMPLES: &str = "\
Examples:
  facelatchd link pair                       show a code for `facelatch pair`
  facelatchd link pair --role reader         a workstation that may only look
  facelatchd link list
  facelatchd link key                        for `facelatchd people export --for` at another door
  facelatchd link remove 8f03c21a";
