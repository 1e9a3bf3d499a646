//! `facelatch pair`.

use std::io::{IsTerminal as _, Write as _};

use facelatch_shared::link::pair::PairingCode;
use facelatch_shared::person::Name;

use super::remote::print;
use crate::cli::{Failure, FailureKind};
use crate::remote::known::{KnownDoor, Workstation};
use crate::remote::{RemoteDoor, full_address};

/// Arguments of `facelatch pair`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The door's address
    #[arg(long, value_name = "HOST[:PORT]")]
    device: String,
    /// The code that `facelatchd link pair` and the door's panel show [default: asked for, or a line of standard input]
    #[arg(long)]
    code: Option<String>,
    /// What the door calls this workstation [default: user@host]
    #[arg(long)]
    name: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let address = full_address(&args.device)?;
    let name = match &args.name {
        Some(name) => Name::new(name)?,
        None => default_name()?,
    };
    let typed = match &args.code {
        Some(code) => code.clone(),
        None => ask_for_code()?,
    };
    let code = PairingCode::parse(&typed).ok_or_else(|| {
        Failure::new(FailureKind::Usage, "a pairing code has ten letters and digits, such as 7K2M9-QXA04")
            .hint("`facelatchd link pair` at the door shows one")
    })?;
    let station = Workstation::of_user()?;
    let paired = RemoteDoor::pair(&station.identity()?, &address, &code, name)?;
    let door = KnownDoor { name: paired.door.to_string(), address, key: paired.key, role: paired.role };
    station.remember(&door)?;
    print(&format!("Paired with {} ({}) as {}.\n", door.name, door.address, door.role.word()))?;
    Ok(())
}

fn ask_for_code() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        eprint!("Pairing code (at the door: facelatchd link pair): ");
        let _ = std::io::stderr().flush();
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| Failure::new(FailureKind::Failed, error))?;
    Ok(line)
}

fn default_name() -> Result<Name, Failure> {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".into());
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = host.trim();
    let full = if host.is_empty() { user.clone() } else { format!("{user}@{host}") };
    Name::new(&full).or_else(|_| Name::new(&user)).map_err(|_| {
        Failure::new(FailureKind::Usage, format!("`{full}` cannot be this workstation's name"))
            .hint("give one with --name")
    })
}

const EXAMPLES: &str = "\
Examples:
  facelatch pair --device door.local
  facelatch pair --device 192.168.1.20:4815 --code 7K2M9-QXA04

The door decides what the workstation may do: `facelatchd link pair --role reader` there.";
