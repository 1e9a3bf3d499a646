//! What a person may do at this door beyond being recognised: role, days and hours of validity, second factor; and the consent that
//! was given.

use serde::{Deserialize, Serialize};

use crate::event::Refusal;
use crate::person::SubjectId;
use crate::remote::PeerId;
use crate::schedule::{Day, Holidays, LocalTime, Schedule};
use crate::time::UnixMs;

/// Longest name of a schedule and longest version of a consent text, in bytes.
pub const LABEL_BYTES: usize = 24;

/// The name of a schedule or the version of a consent text.
pub type Label = heapless::String<LABEL_BYTES>;

/// A salted hash of a PIN in the PHC string format; the PIN itself is never stored.
pub type PinHash = heapless::String<128>;

/// What an administrator has set for one person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// What the person may do at the door itself.
    pub role: Role,
    /// First day on which the person may enter.
    pub valid_from: Option<Day>,
    /// Last day on which the person may enter.
    pub valid_until: Option<Day>,
    /// The weekly schedule that holds for the person, by its name in the door's configuration; none: the door's own.
    pub schedule: Option<Label>,
    /// The second factor.
    pub pin: Option<PinHash>,
    /// The consent to being enrolled.
    pub consent: Option<Consent>,
}

/// What a person may do at the door beside entering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Nothing.
    #[default]
    Member,
    /// Start enrolments.
    Administrator,
}

/// That someone agreed to be enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// The version of the text that was agreed to.
    pub text: Label,
    /// When.
    pub at: UnixMs,
    /// Who took the consent.
    pub by: Authority,
}

/// On whose authority something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    /// A command of somebody who may reach the door's socket.
    CommandLine,
    /// The service button inside.
    ServiceButton,
    /// The door's administrator PIN.
    AdminPin,
    /// An administrator's face.
    Administrator(SubjectId),
    /// A paired workstation.
    Workstation(PeerId),
}

/// The hours that hold for somebody, looked up by the caller.
#[derive(Clone, Copy, Debug)]
pub enum HoursFor<'a> {
    /// No schedule: at any time.
    Always,
    /// This one.
    Plan(&'a Schedule, &'a Holidays),
    /// A schedule is named that the door does not know: never.
    Missing,
}

impl Rights {
    /// Whether the person may enter at `at`; `None` while the door does not know the time, when `unknown_time_allows` decides for those
    /// whose entry depends on it.
    ///
    /// # Errors
    /// The reason for the log and the panel.
    pub fn check(
        &self,
        hours: HoursFor<'_>,
        at: Option<LocalTime>,
        unknown_time_allows: bool,
    ) -> Result<(), Refusal> {
        let timeless =
            matches!(hours, HoursFor::Always) && self.valid_from.is_none() && self.valid_until.is_none();
        let Some(at) = at else {
            let allowed = timeless || (unknown_time_allows && !matches!(hours, HoursFor::Missing));
            return if allowed { Ok(()) } else { Err(Refusal::TimeUnknown) };
        };
        if self.valid_from.is_some_and(|first| at.day < first) {
            return Err(Refusal::NotYetValid);
        }
        if self.valid_until.is_some_and(|last| at.day > last) {
            return Err(Refusal::Expired);
        }
        match hours {
            HoursFor::Always => Ok(()),
            HoursFor::Plan(schedule, holidays) if schedule.allows(at, holidays) => Ok(()),
            HoursFor::Plan(..) | HoursFor::Missing => Err(Refusal::OutOfHours),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, hour: u16) -> Option<LocalTime> {
        Some(LocalTime { day: Day::parse(text).unwrap(), minute: hour * 60 })
    }

    #[test]
    fn days_of_validity_include_both_ends() {
        let day = |text| Some(Day::parse(text).unwrap());
        let guest =
            Rights { valid_from: day("2026-11-24"), valid_until: day("2026-11-25"), ..Rights::default() };
        let check = |date| guest.check(HoursFor::Always, at(date, 0), false);
        assert_eq!(check("2026-11-23"), Err(Refusal::NotYetValid));
        assert_eq!((check("2026-11-24"), check("2026-11-25")), (Ok(()), Ok(())));
        assert_eq!(check("2026-11-26"), Err(Refusal::Expired));
    }

    #[test]
    fn hours_hold_and_a_missing_schedule_opens_nothing() {
        let (schedule, holidays) = (Schedule::parse(["mon-fri 08:00-18:00"]).unwrap(), Holidays::default());
        let plan = HoursFor::Plan(&schedule, &holidays);
        let member = Rights::default();
        assert_eq!(member.check(plan, at("2026-11-24", 9), false), Ok(()));
        assert_eq!(member.check(plan, at("2026-11-24", 19), false), Err(Refusal::OutOfHours));
        assert_eq!(member.check(HoursFor::Missing, at("2026-11-24", 9), true), Err(Refusal::OutOfHours));
        assert_eq!(member.check(HoursFor::Always, at("2026-11-29", 3), false), Ok(()));
    }

    #[test]
    fn without_a_clock_only_those_enter_whom_it_does_not_concern() {
        let (schedule, holidays) = (Schedule::parse(["mon-fri 08:00-18:00"]).unwrap(), Holidays::default());
        let plan = HoursFor::Plan(&schedule, &holidays);
        let member = Rights::default();
        let guest = Rights { valid_until: Some(Day(1)), ..Rights::default() };
        assert_eq!(member.check(HoursFor::Always, None, false), Ok(()));
        for (rights, hours) in [(&member, plan), (&guest, HoursFor::Always)] {
            assert_eq!(rights.check(hours, None, false), Err(Refusal::TimeUnknown));
            assert_eq!(rights.check(hours, None, true), Ok(()));
        }
        assert_eq!(member.check(HoursFor::Missing, None, true), Err(Refusal::TimeUnknown));
    }
}
