//! `facelatchd people permit` and `people show`: what a person may do, until when, and at which hours.

use facelatch_shared::access::{Authority, Label, Role};
use facelatch_shared::protocol::{Request, Response, RightsChange, RightsRow};
use facelatch_shared::schedule::Day;
use serde::Serialize;

use super::super::door::{Door, unexpected};
use super::super::output::{print, print_json, read_pin};
use super::super::text::seconds;
use super::super::{Failure, FailureKind};
use super::{Changed, Id, name_of};
use crate::config::Config;

/// Set what a person may do, and when.
///
/// What is not named stays as it is. Days are the door's own; both ends are included.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PermitArgs {
    /// Whom, as `people list` shows it: 3 or #3
    id: Id,
    /// Is an administrator, whose face begins enrolments at the door
    #[arg(long, conflicts_with = "member")]
    administrator: bool,
    /// May enter, and nothing else
    #[arg(long)]
    member: bool,
    /// First day on which the person may enter, YYYY-MM-DD, or `any`
    #[arg(long, value_name = "DAY", value_parser = day)]
    from: Option<Limit<Day>>,
    /// Last day on which the person may enter, YYYY-MM-DD, or `any`
    #[arg(long, value_name = "DAY", value_parser = day)]
    until: Option<Limit<Day>>,
    /// A schedule's name in the door's configuration, or `door` for the door's own
    #[arg(long, value_name = "NAME", value_parser = schedule)]
    schedule: Option<Limit<Label>>,
    /// Read the person's PIN from standard input: 4 to 12 digits
    #[arg(long, conflicts_with = "no_pin")]
    pin: bool,
    /// Take the PIN away
    #[arg(long)]
    no_pin: bool,
}

/// Show what a person may do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd people show 3\n  facelatchd people show 3 --json")]
pub(super) struct ShowArgs {
    /// Whom, as `people list` shows it: 3 or #3
    id: Id,
}

/// A limit or none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit<T>(Option<T>);

fn day(text: &str) -> Result<Limit<Day>, String> {
    if text == "any" {
        return Ok(Limit(None));
    }
    Day::parse(text).map(|day| Limit(Some(day))).map_err(|error| error.to_string())
}

fn schedule(text: &str) -> Result<Limit<Label>, String> {
    match text {
        "" => Err("a schedule has a name".into()),
        "door" => Ok(Limit(None)),
        _ => Label::try_from(text)
            .map(|label| Limit(Some(label)))
            .map_err(|_| "a schedule's name has at most 24 bytes".into()),
    }
}

pub(super) fn permit(args: PermitArgs, config: &Config, json: bool) -> Result<(), Failure> {
    let Id(id) = args.id;
    let role = match (args.administrator, args.member) {
        (true, _) => Some(Role::Administrator),
        (_, true) => Some(Role::Member),
        _ => None,
    };
    let pin = if args.pin { Some(Some(read_pin()?)) } else { args.no_pin.then_some(None) };
    let change = RightsChange {
        role,
        valid_from: args.from.map(|limit| limit.0),
        valid_until: args.until.map(|limit| limit.0),
        schedule: args.schedule.map(|limit| limit.0),
        pin,
    };
    if change == RightsChange::default() {
        return Err(Failure::new(FailureKind::Usage, "nothing to set").hint(
            "name at least one of --administrator, --member, --from, --until, --schedule, --pin, --no-pin",
        ));
    }
    // A stopped door does not know its schedules; the configuration does.
    if let Some(Some(name)) = &change.schedule
        && name != "always"
        && !config.access.schedules.contains_key(name.as_str())
    {
        return Err(Failure::new(FailureKind::Usage, format!("the configuration has no schedule `{name}`"))
            .hint("add it to [access.schedules] and restart the door"));
    }
    let mut door = Door::open(config)?;
    let name = name_of(&mut door, id)?;
    door.order(Request::SetRights { id, change })?;
    Changed { id: id.0, name, change: "changed" }.print(json)
}

pub(super) fn show(args: &ShowArgs, config: &Config, json: bool) -> Result<(), Failure> {
    let Id(id) = args.id;
    let mut door = Door::open(config)?;
    let Response::Rights(rows) = door.ask(Request::ListRights { from: id })? else {
        return Err(unexpected());
    };
    let Some(row) = rows.into_iter().next().filter(|row| row.id == id) else {
        return Err(Failure::failed(format!("nobody has the number {id}"))
            .hint("`facelatchd people list` shows who is enrolled"));
    };
    let name = name_of(&mut door, id)?;
    if json {
        print_json(&Shown::of(&row, &name))
    } else {
        print(&text(&row, &name, &config.access.schedule))
    }
}

fn text(row: &RightsRow, name: &str, of_door: &str) -> String {
    let day = |day: Option<Day>| day.map_or_else(|| "any day".to_owned(), |day| day.to_string());
    let schedule = match &row.schedule {
        Some(name) => name.to_string(),
        None => format!("{of_door} (the door's)"),
    };
    let consent = match &row.consent {
        Some(consent) => {
            format!("text {}, {}, taken {}", consent.text, seconds(consent.at), by(consent.by))
        }
        None => "not recorded".into(),
    };
    format!(
        "person    {} {name}\nrole      {}\nfrom      {}\nuntil     {}\nschedule  {schedule}\nPIN       {}\nconsent   {consent}\n",
        row.id,
        role(row.role),
        day(row.valid_from),
        day(row.valid_until),
        if row.has_pin { "set" } else { "none" },
    )
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Administrator => "administrator",
    }
}

fn by(authority: Authority) -> String {
    match authority {
        Authority::CommandLine => "on the command line".into(),
        Authority::ServiceButton => "at the door, by the service button".into(),
        Authority::AdminPin => "at the door, by the administrator's PIN".into(),
        Authority::Administrator(id) => format!("at the door, by {id}"),
        Authority::Workstation(id) => format!("at the workstation {id}"),
    }
}

/// One person's rights for programs. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: u32,
    name: &'a str,
    role: &'static str,
    valid_from: Option<String>,
    valid_until: Option<String>,
    schedule: Option<&'a str>,
    pin: bool,
    consent_text: Option<&'a str>,
    consent_at: Option<String>,
    consent_by: Option<String>,
}

impl<'a> Shown<'a> {
    fn of(row: &'a RightsRow, name: &'a str) -> Self {
        Self {
            id: row.id.0,
            name,
            role: role(row.role),
            valid_from: row.valid_from.map(|day| day.to_string()),
            valid_until: row.valid_until.map(|day| day.to_string()),
            schedule: row.schedule.as_deref(),
            pin: row.has_pin,
            consent_text: row.consent.as_ref().map(|consent| consent.text.as_str()),
            consent_at: row.consent.as_ref().map(|consent| seconds(consent.at)),
            consent_by: row.consent.as_ref().map(|consent| by(consent.by)),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  facelatchd people permit 3 --administrator          is an administrator (recorded; nothing asks for it yet)
  facelatchd people permit 3 --until 2026-12-31       a guest
  facelatchd people permit 3 --schedule office        hours of the configuration
  facelatchd people permit 3 --pin                    then type the PIN";

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::access::Consent;
    use facelatch_shared::person::SubjectId;
    use facelatch_shared::time::UnixMs;

    #[test]
    fn a_person_in_words() {
        let row = RightsRow {
            id: SubjectId(3),
            role: Role::Administrator,
            valid_from: None,
            valid_until: Some(Day::parse("2026-12-31").unwrap()),
            schedule: None,
            has_pin: true,
            consent: Some(Consent {
                text: "2026-01".try_into().unwrap(),
                at: UnixMs(1_709_210_096_789),
                by: Authority::Administrator(SubjectId(1)),
            }),
        };
        assert_eq!(
            text(&row, "Ada", "office"),
            "\
person    #3 Ada
role      administrator
from      any day
until     2026-12-31
schedule  office (the door's)
PIN       set
consent   text 2026-01, 2024-02-29T12:34:56Z, taken at the door, by #1
"
        );
    }

    #[test]
    fn limits_are_parsed() {
        assert_eq!(day("any"), Ok(Limit(None)));
        assert!(day("2026-02-30").unwrap_err().contains("must exist"));
        assert_eq!(schedule("door"), Ok(Limit(None)));
        assert!(schedule("").is_err() && schedule(&"n".repeat(25)).is_err());
    }
}
