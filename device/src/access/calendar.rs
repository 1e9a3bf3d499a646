//! `[access]` in `door.toml`: schedules by name, holidays, time zone.

use std::collections::BTreeMap;

use facelatch_shared::access::{HoursFor, LABEL_BYTES, Rights};
use facelatch_shared::event::Refusal;
use facelatch_shared::schedule::{Holidays, LocalTime, Schedule};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Who may enter when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// The door's time zone by its name in the IANA data base, such as `Europe/Berlin`.
    pub time_zone: String,
    /// While the clock is not set or has gone back: whether those enter for whom hours or days hold.
    pub while_time_unknown: TimeUnknown,
    /// The schedule of everyone who has none of their own; `always` is built in.
    pub schedule: String,
    /// Days on which only `holiday` lines hold: `2026-05-14`, or `12-25` for every year.
    pub holidays: Vec<String>,
    /// Schedules by name, each a list of lines such as `mon-fri 08:00-18:00`.
    pub schedules: BTreeMap<String, Vec<String>>,
}

/// What happens while the door does not know the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnknown {
    /// Those for whom hours or days hold stay out.
    #[default]
    Deny,
    /// They enter.
    Allow,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            time_zone: "UTC".into(),
            while_time_unknown: TimeUnknown::Deny,
            schedule: ALWAYS.into(),
            holidays: Vec::new(),
            schedules: BTreeMap::new(),
        }
    }
}

/// `[access]`, checked and ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Calendar {
    plans: BTreeMap<String, Schedule>,
    holidays: Holidays,
    of_door: String,
    unknown_time_allows: bool,
}

impl AccessConfig {
    /// The calendar.
    ///
    /// # Errors
    /// What is wrong, with the key and what is allowed.
    pub fn calendar(&self) -> Result<Calendar, String> {
        self.zone()?;
        let mut plans = BTreeMap::new();
        for (name, lines) in &self.schedules {
            if name == ALWAYS || name.is_empty() || name.len() > LABEL_BYTES {
                return Err(format!(
                    "access.schedules.{name}: a name has 1 to {LABEL_BYTES} bytes and is not `{ALWAYS}`, which is built in"
                ));
            }
            let plan = Schedule::parse(lines.iter().map(String::as_str))
                .map_err(|error| format!("access.schedules.{name} = {lines:?}: {error}"))?;
            plans.insert(name.clone(), plan);
        }
        if self.schedule != ALWAYS && !plans.contains_key(&self.schedule) {
            return Err(format!(
                "access.schedule is `{}`: `{ALWAYS}`, or a name that stands in [access.schedules]",
                self.schedule
            ));
        }
        let holidays = Holidays::parse(self.holidays.iter().map(String::as_str))
            .map_err(|error| format!("access.holidays = {:?}: {error}", self.holidays))?;
        let unknown_time_allows = self.while_time_unknown == TimeUnknown::Allow;
        Ok(Calendar { plans, holidays, of_door: self.schedule.clone(), unknown_time_allows })
    }

    /// The time zone.
    ///
    /// # Errors
    /// A zone that neither the system nor the built-in data base knows.
    pub fn zone(&self) -> Result<TimeZone, String> {
        TimeZone::get(&self.time_zone).map_err(|_| {
            format!(
                "access.time_zone is `{}`: a name of the IANA data base, such as `Europe/Berlin` or `UTC`",
                self.time_zone
            )
        })
    }
}

impl Calendar {
    /// Whether a person with `rights` may enter at `local`; `None` while the time is not known.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, rights: &Rights, local: Option<LocalTime>) -> Result<(), Refusal> {
        rights.check(self.hours_for(rights), local, self.unknown_time_allows)
    }

    /// Whether `name` is a schedule of this door.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        name == ALWAYS || self.plans.contains_key(name)
    }

    fn hours_for(&self, rights: &Rights) -> HoursFor<'_> {
        let name = rights.schedule.as_ref().map_or(self.of_door.as_str(), heapless::String::as_str);
        match self.plans.get(name) {
            Some(plan) => HoursFor::Plan(plan, &self.holidays),
            None if name == ALWAYS || name.is_empty() => HoursFor::Always,
            None => HoursFor::Missing,
        }
    }
}

const ALWAYS: &str = "always";

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::schedule::Day;

    #[test]
    fn ones_own_schedule_goes_before_the_doors() {
        let config: AccessConfig = toml::from_str(
            "schedule = \"office\"\nholidays = [\"12-25\"]\n[schedules]\noffice = [\"mon-fri 08:00-18:00\"]\nnight = [\"mon-sun 20:00-06:00\"]",
        )
        .unwrap();
        let calendar = config.calendar().unwrap();
        let own = |name: &str| Rights { schedule: Some(name.try_into().unwrap()), ..Rights::default() };
        let at = |hour: u16| Some(LocalTime { day: Day::parse("2026-11-24").unwrap(), minute: hour * 60 });
        assert_eq!(calendar.check(&Rights::default(), at(9)), Ok(()));
        assert_eq!(calendar.check(&Rights::default(), at(21)), Err(Refusal::OutOfHours));
        assert_eq!(calendar.check(&own("night"), at(21)), Ok(()));
        assert_eq!(calendar.check(&own("always"), at(3)), Ok(()));
        assert_eq!(calendar.check(&own("gone"), at(9)), Err(Refusal::OutOfHours));
        assert!(calendar.knows("night") && calendar.knows("always") && !calendar.knows("gone"));
    }
}
