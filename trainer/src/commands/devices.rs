//! `facelatch devices`: doors on the network, and doors that this workstation is paired with.

use std::time::Duration;

use serde_json::json;

use super::remote::{print, table};
use crate::cli::{Failure, FailureKind};
use crate::remote::discover::{Announced, discover};
use crate::remote::known::{KnownDoor, Workstation};

/// Arguments of `facelatch devices`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatch devices\n  facelatch devices --seconds 10 --json")]
pub struct Args {
    /// How long to listen
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=60))]
    seconds: u64,
    /// The result as JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let known = Workstation::of_user()?.doors()?;
    let heard = discover(Duration::from_secs(args.seconds)).map_err(|error| {
        Failure::new(FailureKind::Failed, format!("the network cannot be listened to: {error}"))
            .hint("multicast DNS needs UDP port 5353; doors answer at their address without it")
    })?;
    let rows = merge(&known, &heard);
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| json!({ "name": row.name, "address": row.address, "id": row.id, "role": row.role, "heard": row.heard }))
            .collect();
        print(&format!("{:#}\n", serde_json::Value::from(rows)))?;
        return Ok(());
    }
    if rows.is_empty() {
        eprintln!(
            "No door announces itself, and none is paired. A door does while it is paired or open for pairing: `facelatchd link pair`."
        );
        return Ok(());
    }
    let cells: Vec<[String; 5]> = rows
        .into_iter()
        .map(|row| {
            let role = row.role.map_or("not paired", |role| role).to_owned();
            [row.name, row.address, row.id, role, if row.heard { "yes" } else { "no" }.into()]
        })
        .collect();
    print(&table(["NAME", "ADDRESS", "ID", "PAIRED AS", "HEARD"], &cells))?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    address: String,
    id: String,
    role: Option<&'static str>,
    heard: bool,
}

/// Doors are the same when their keys begin alike; a paired door keeps the address that it was paired at.
fn merge(known: &[KnownDoor], heard: &[Announced]) -> Vec<Row> {
    let id_of = |door: &KnownDoor| door.key.to_string()[..8].to_owned();
    let mut rows: Vec<Row> = known
        .iter()
        .map(|door| {
            let id = id_of(door);
            let heard = heard.iter().any(|announced| announced.id == id);
            let (name, address) = (door.name.clone(), door.address.clone());
            Row { name, address, id, role: Some(door.role.word()), heard }
        })
        .collect();
    let strangers = heard.iter().filter(|announced| !known.iter().any(|door| id_of(door) == announced.id));
    rows.extend(strangers.cloned().map(|Announced { name, address, id }| Row {
        name,
        address,
        id,
        role: None,
        heard: true,
    }));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::bundle::PublicKey;
    use facelatch_shared::remote::LinkRole;

    #[test]
    fn paired_doors_and_strangers_in_one_list() {
        let known = |n: u8| KnownDoor {
            name: format!("Door {n}"),
            address: format!("10.0.0.{n}:4815"),
            key: PublicKey([n; 32]),
            role: LinkRole::Reader,
        };
        let heard = |n: u8| Announced {
            name: format!("Heard {n}"),
            address: format!("10.0.0.{n}:4815"),
            id: format!("{n:02x}").repeat(4),
        };
        let rows = merge(&[known(1), known(2)], &[heard(2), heard(3)]);
        let shown: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.role, row.heard)).collect();
        assert_eq!(
            shown,
            [("Door 1", Some("reader"), false), ("Door 2", Some("reader"), true), ("Heard 3", None, true)]
        );
    }
}
