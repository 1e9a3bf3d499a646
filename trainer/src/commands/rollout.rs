//! `facelatch push --all` and `--devices`: one bundle for many doors.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use facelatch_shared::bundle::{BundleId, Header, Manifest, PREFIX_BYTES, header_length};
use facelatch_shared::link::Identity;
use facelatch_shared::protocol::{Request, Response};
use serde_json::json;

use super::remote::{print, table};
use crate::cli::{Failure, FailureKind};
use crate::remote::RemoteDoor;
use crate::remote::discover::discover;
use crate::remote::known::{KnownDoor, Workstation};
use crate::remote::rollout::{DoorState, Fleet, Line, Parcel, roll_out};

/// What to roll out, and how.
pub(super) struct Order<'a> {
    pub(super) bundle: &'a Path,
    /// The doors of this list; all that this workstation is paired with where there is none.
    pub(super) list: Option<&'a Path>,
    pub(super) canary: Option<&'a str>,
    pub(super) leave_behind: u32,
    pub(super) json: bool,
}

pub(super) fn run(order: &Order<'_>) -> Result<(), Failure> {
    let path = order.bundle;
    let at = |error: io::Error| Failure::new(FailureKind::Failed, format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(at)?;
    let (id, manifest) = read_header(&file)
        .map_err(|what| Failure::new(FailureKind::Refused, format!("{}: {what}", path.display())))?;
    let station = Workstation::of_user()?;
    let doors = doors(&station, order)?;
    let read_at = |offset: u64, into: &mut [u8]| file.read_exact_at(into, offset);
    let parcel = Parcel {
        id,
        counter: manifest.counter,
        size: file.metadata().map_err(at)?.len(),
        read_at: &read_at,
        leave_behind: order.leave_behind,
    };
    let mut fleet = Doors { identity: station.identity()?, doors };
    eprintln!(
        "Bundle {id} \"{}\" to {} doors; {} goes first.",
        manifest.name,
        fleet.doors.len(),
        fleet.doors.first().map_or("nobody", |door| door.name.as_str())
    );
    let count = fleet.doors.len();
    let states = roll_out(&mut fleet, count, &parcel);
    show(&fleet.doors, &states, order.json)?;
    let confirmed = states.iter().filter(|state| **state == DoorState::Confirmed).count();
    if confirmed == count {
        return Ok(());
    }
    let what = format!("{confirmed} of {count} doors have confirmed the bundle");
    Err(Failure::new(FailureKind::Failed, what)
        .hint("run the same command again: doors that have confirmed are passed over, the others go on where they are"))
}

fn show(doors: &[KnownDoor], states: &[DoorState], as_json: bool) -> Result<(), Failure> {
    if as_json {
        let row = |(door, state): (&KnownDoor, &DoorState)| json!({ "door": door.name, "address": door.address, "state": state.word(), "detail": state.detail() });
        let rows: Vec<_> = doors.iter().zip(states).map(row).collect();
        print(&format!("{:#}\n", serde_json::Value::from(rows)))?;
        return Ok(());
    }
    let row = |(door, state): (&KnownDoor, &DoorState)| {
        [door.name.clone(), door.address.clone(), state.word().to_owned(), state.detail()]
    };
    let rows: Vec<_> = doors.iter().zip(states).map(row).collect();
    print(&table(["DOOR", "ADDRESS", "STATE", "WHY"], &rows))?;
    Ok(())
}

/// The doors, the canary first, each once.
fn doors(station: &Workstation, order: &Order<'_>) -> Result<Vec<KnownDoor>, Failure> {
    let mut doors = match order.list {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::new(FailureKind::Usage, format!("{}: {error}", path.display())))?;
            named(&text).map(|name| Ok(station.find(Some(name))?)).collect::<Result<Vec<_>, Failure>>()?
        }
        None => heard(station.doors()?),
    };
    let mut at = 0;
    while at < doors.len() {
        let twice = doors[..at].iter().any(|other| other.key == doors[at].key);
        if twice { drop(doors.remove(at)) } else { at += 1 }
    }
    if let Some(canary) = order.canary {
        let key = station.find(Some(canary))?.key;
        let at = doors.iter().position(|door| door.key == key).ok_or_else(|| {
            Failure::new(FailureKind::Usage, format!("the canary {canary} is none of the doors of this push"))
        })?;
        doors[..=at].rotate_right(1);
    }
    if doors.is_empty() {
        return Err(Failure::new(FailureKind::Usage, "there is no door to push to")
            .hint("`facelatch pair` makes a door known; a list names one a line"));
    }
    Ok(doors)
}

/// A door a line; `#` begins a remark.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty())
}

/// A paired door that announces itself at another address than it was paired at is asked there; its pinned key proves that it is the same.
fn heard(mut doors: Vec<KnownDoor>) -> Vec<KnownDoor> {
    for announced in discover(LISTEN).unwrap_or_default() {
        let same = doors.iter_mut().find(|door| door.key.to_string().starts_with(&announced.id));
        // Anybody may announce anything: eight digits are what doors announce.
        if let Some(door) = same.filter(|_| announced.id.len() == 8) {
            door.address = announced.address;
        }
    }
    doors
}

fn read_header(file: &File) -> Result<(BundleId, Manifest), String> {
    let mut prefix = [0; PREFIX_BYTES];
    file.read_exact_at(&mut prefix, 0).map_err(|error| error.to_string())?;
    let mut header = vec![0; header_length(&prefix).map_err(|error| error.to_string())?];
    file.read_exact_at(&mut header, PREFIX_BYTES as u64).map_err(|error| error.to_string())?;
    let parsed = Header::parse(&header).and_then(|parsed| Manifest::parse(&parsed.manifest));
    Ok((BundleId::of(&header), parsed.map_err(|error| error.to_string())?))
}

struct Doors {
    identity: Identity,
    doors: Vec<KnownDoor>,
}

impl Fleet for Doors {
    fn connect(&mut self, door: usize) -> Result<Box<dyn Line>, String> {
        match RemoteDoor::connect(&self.identity, &self.doors[door]) {
            Ok(door) => Ok(Box::new(door)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn changed(&mut self, door: usize, state: &DoorState) {
        let detail = state.detail();
        let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
        eprintln!("{}: {}{detail}", self.doors[door].name, state.word());
    }

    fn pause(&mut self) {
        std::thread::sleep(ASK_EVERY);
    }
}

impl Line for RemoteDoor {
    fn ask(&mut self, request: Request) -> Result<Response, String> {
        self.answer(&request).map_err(|error| error.to_string())
    }
}

const LISTEN: Duration = Duration::from_secs(2);
const ASK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::bundle::PublicKey;
    use facelatch_shared::remote::LinkRole;

    #[test]
    fn lists_name_each_door_once_and_the_canary_leads() {
        let folder = tempfile::tempdir().unwrap();
        let station = Workstation::in_folder(folder.path());
        for (n, name) in [(1, "North"), (2, "South"), (3, "East")] {
            let door = KnownDoor {
                name: name.into(),
                address: format!("10.0.0.{n}:4815"),
                key: PublicKey([n; 32]),
                role: LinkRole::Engineer,
            };
            station.remember(&door).unwrap();
        }
        let list = folder.path().join("list.txt");
        std::fs::write(&list, "# ground floor\nNorth\n10.0.0.2 # by its address\n\nEast\nSouth\n").unwrap();
        let names = |canary: Option<&str>| {
            let bundle = Path::new("x");
            let order = Order { bundle, list: Some(&list), canary, leave_behind: 0, json: false };
            doors(&station, &order)
                .map(|doors| doors.into_iter().map(|door| door.name).collect::<Vec<_>>())
                .map_err(|failure| failure.to_string())
        };
        assert_eq!(names(None).unwrap(), ["North", "South", "East"]);
        assert_eq!(names(Some("East")).unwrap(), ["East", "North", "South"]);
        assert!(names(Some("West")).unwrap_err().contains("West"));
        std::fs::write(&list, "North\nWest\n").unwrap();
        assert!(names(None).unwrap_err().contains("not paired with West"));
        std::fs::write(&list, "# nobody\n").unwrap();
        assert!(names(None).unwrap_err().contains("no door"));
    }
}
