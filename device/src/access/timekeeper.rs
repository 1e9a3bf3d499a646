//! The door's local time, and whether it can be trusted.
//!
//! A board without a battery starts in 1970; a clock that is set back would bring yesterday's hours again. So the wall clock counts only
//! while it is past the newest instant that the door has seen or logged; until then, or until an administrator says that it is right, hours and
//! validity cannot be told. Timers never use it.

use facelatch_shared::event::EventKind;
use facelatch_shared::schedule::{Day, LocalTime};
use facelatch_shared::time::UnixMs;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Watches the wall clock.
#[derive(Debug)]
pub struct Timekeeper {
    zone: TimeZone,
    /// The newest instant seen.
    newest: UnixMs,
    doubtful: bool,
}

/// What the clock says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The local time; `None` while it is in doubt.
    pub local: Option<LocalTime>,
    /// To be logged: trust was lost or came back.
    pub event: Option<EventKind>,
}

impl Timekeeper {
    /// A clock in `zone` for a door whose log ends at `newest_logged`.
    #[must_use]
    pub fn new(zone: TimeZone, newest_logged: UnixMs) -> Self {
        Self { zone, newest: newest_logged.max(PLAUSIBLE), doubtful: false }
    }

    /// Reads the clock.
    pub fn read(&mut self, unix: UnixMs) -> Reading {
        let behind_ms = self.newest.0.saturating_sub(unix.0);
        let doubtful = behind_ms > TOLERANCE_MS;
        let event = match (self.doubtful, doubtful) {
            (false, true) => {
                let behind_s = u32::try_from(behind_ms / 1000).unwrap_or(u32::MAX);
                Some(EventKind::ClockDoubtful { behind_s })
            }
            (true, false) => Some(EventKind::ClockTrusted),
            _ => None,
        };
        self.doubtful = doubtful;
        if doubtful {
            return Reading { local: None, event };
        }
        self.newest = self.newest.max(unix);
        Reading { local: self.local(unix), event }
    }

    /// An administrator says that `unix` is right.
    pub const fn accept(&mut self, unix: UnixMs) {
        self.newest = unix;
        self.doubtful = false;
    }

    fn local(&self, unix: UnixMs) -> Option<LocalTime> {
        let zoned = self.zone.to_datetime(Timestamp::from_millisecond(unix.0).ok()?);
        let number = |value: i8| u8::try_from(value).ok();
        let day = Day::of_date(i32::from(zoned.year()), number(zoned.month())?, number(zoned.day())?)?;
        let minute = u16::from(number(zoned.hour())?) * 60 + u16::from(number(zoned.minute())?);
        Some(LocalTime { day, minute })
    }
}

/// 2026-01-01: this program did not exist before.
const PLAUSIBLE: UnixMs = UnixMs(1_767_225_600_000);
/// A time server may set the clock back by so much without a word.
const TOLERANCE_MS: i64 = 120_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24 12:00:00 UTC, a Tuesday.
    const NOON: i64 = 1_795_521_600_000;

    fn keeper(zone: &str, newest: i64) -> Timekeeper {
        Timekeeper::new(TimeZone::get(zone).unwrap(), UnixMs(newest))
    }

    #[test]
    fn local_time_follows_the_zone_and_its_summer_time() {
        let mut berlin = keeper("Europe/Berlin", 0);
        let mut local = |ms| berlin.read(UnixMs(ms)).local.unwrap();
        // 2026-03-29 01:00 UTC is when Berlin's clocks jump from 02:00 to 03:00.
        let spring = 1_774_746_000_000;
        assert_eq!(local(spring - 60_000), LocalTime { day: Day::parse("2026-03-29").unwrap(), minute: 119 });
        assert_eq!(local(spring), LocalTime { day: Day::parse("2026-03-29").unwrap(), minute: 180 });
        assert_eq!(local(NOON), LocalTime { day: Day::parse("2026-11-24").unwrap(), minute: 13 * 60 });
        let mut auckland = keeper("Pacific/Auckland", 0);
        assert_eq!(auckland.read(UnixMs(NOON)).local.unwrap().day, Day::parse("2026-11-25").unwrap());
    }

    #[test]
    fn a_clock_that_is_not_set_is_in_doubt_until_it_is() {
        let mut keeper = keeper("UTC", NOON);
        let first = keeper.read(UnixMs(5_000));
        assert_eq!(first.local, None);
        assert!(matches!(first.event, Some(EventKind::ClockDoubtful { behind_s }) if behind_s > 1_000_000));
        assert_eq!(keeper.read(UnixMs(6_000)).event, None, "said once");
        let set = keeper.read(UnixMs(NOON + 60_000));
        assert!(set.local.is_some());
        assert_eq!(set.event, Some(EventKind::ClockTrusted));
        // A new door without a log knows at least when it was made.
        assert_eq!(self::keeper("UTC", 0).read(UnixMs(1_600_000_000_000)).local, None);
    }

    #[test]
    fn a_clock_set_back_stays_in_doubt_unless_an_administrator_accepts_it() {
        let mut keeper = keeper("UTC", 0);
        assert!(keeper.read(UnixMs(NOON)).local.is_some());
        assert!(keeper.read(UnixMs(NOON - 100_000)).local.is_some(), "a small correction");
        // And no series of small ones adds up.
        assert_eq!(
            keeper.read(UnixMs(NOON - 200_000)).event,
            Some(EventKind::ClockDoubtful { behind_s: 200 })
        );
        assert_eq!(keeper.read(UnixMs(NOON - 180_000)).local, None);
        keeper.accept(UnixMs(NOON - 180_000));
        let accepted = keeper.read(UnixMs(NOON - 179_000));
        assert!(accepted.local.is_some() && accepted.event.is_none());
    }
}
