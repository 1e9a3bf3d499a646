//! `facelatchd people list`.

use facelatch_shared::person::PersonState;
use facelatch_shared::protocol::PersonRow;
use serde::Serialize;

use super::super::door::Door;
use super::super::output::{print, print_json};
use super::super::text::{counted, millis, seconds, table};
use super::Failure;
use crate::config::Config;

pub(super) fn run(config: &Config, json: bool) -> Result<(), Failure> {
    let people = Door::open(config)?.people()?;
    if json {
        return print_json(&people.iter().map(Row::from).collect::<Vec<_>>());
    }
    if people.is_empty() {
        return print(
            "Nobody is enrolled. `facelatchd people enrol NAME` enrols whoever stands at the door.\n",
        );
    }
    print(&shown(&people))
}

fn shown(people: &[PersonRow]) -> String {
    let rows: Vec<_> = people
        .iter()
        .map(|row| {
            [
                row.id.to_string(),
                row.name.to_string(),
                state(row.state).to_owned(),
                row.templates.to_string(),
                seconds(row.enrolled_at),
            ]
        })
        .collect();
    let suspended = people.iter().filter(|row| row.state == PersonState::Suspended).count();
    let mut text = table(["ID", "NAME", "STATE", "VIEWS", "ENROLLED"], &rows);
    text.push_str(&counted(people.len() as u64, "person", "people"));
    if suspended > 0 {
        text.push_str(&format!(", {suspended} suspended"));
    }
    text.push('\n');
    text
}

fn state(state: PersonState) -> &'static str {
    match state {
        PersonState::Active => "active",
        PersonState::Suspended => "suspended",
    }
}

/// One person for programs. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Row {
    id: u32,
    name: String,
    state: &'static str,
    templates: u8,
    enrolled_at: String,
}

impl From<&PersonRow> for Row {
    fn from(row: &PersonRow) -> Self {
        Self {
            id: row.id.0,
            name: row.name.to_string(),
            state: state(row.state),
            templates: row.templates,
            enrolled_at: millis(row.enrolled_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::person::{Name, SubjectId};
    use facelatch_shared::time::UnixMs;

    fn people() -> Vec<PersonRow> {
        [(3, "Ada Lovelace", PersonState::Active), (12, "Bo", PersonState::Suspended)]
            .map(|(id, name, state)| PersonRow {
                id: SubjectId(id),
                name: Name::new(name).unwrap(),
                state,
                enrolled_at: UnixMs(1_709_210_096_789),
                templates: 5,
            })
            .to_vec()
    }

    #[test]
    fn the_table() {
        assert_eq!(
            shown(&people()),
            "\
ID   NAME          STATE      VIEWS  ENROLLED
#3   Ada Lovelace  active     5      2024-02-29T12:34:56Z
#12  Bo            suspended  5      2024-02-29T12:34:56Z
2 people, 1 suspended
"
        );
    }

    #[test]
    fn the_json() {
        let rows: Vec<Row> = people().iter().map(Row::from).collect();
        assert_eq!(
            serde_json::to_string(&rows[1]).unwrap(),
            r#"{"id":12,"name":"Bo","state":"suspended","templates":5,"enrolled_at":"2024-02-29T12:34:56.789Z"}"#
        );
    }
}
