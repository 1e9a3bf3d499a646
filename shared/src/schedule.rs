//! When somebody may enter: weekly hours, holidays and days of validity, in the door's own time.
//!
//! Pure arithmetic on local days and minutes; what the local time is, and whether it can be trusted, is the caller's business.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A local calendar day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(pub i32);

/// An instant in the door's time zone, to the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalTime {
    /// The day.
    pub day: Day,
    /// Minutes since its midnight, 0 to 1439.
    pub minute: u16,
}

/// Most lines of one schedule.
pub const MAX_HOURS: usize = 16;

/// Most holidays.
pub const MAX_HOLIDAYS: usize = 64;

/// Weekly hours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    hours: heapless::Vec<Hours, MAX_HOURS>,
}

/// One line: from this minute to that one, on these kinds of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hours {
    /// Bits 0 to 6: Monday to Sunday; bit 7: holidays.
    days: u8,
    from: u16,
    /// Up to and without; above 1440 it ends on the day after.
    to: u16,
}

/// Days on which only the `holiday` lines of a schedule hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holidays {
    days: heapless::Vec<Holiday, MAX_HOLIDAYS>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holiday {
    Once(Day),
    /// Month and day of every year.
    Yearly(u8, u8),
}

impl Day {
    /// The day of a date of the Gregorian calendar; `None` for dates that do not exist and years outside 1970 to 9999.
    #[must_use]
    pub fn of_date(year: i32, month: u8, day: u8) -> Option<Self> {
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || day == 0 {
            return None;
        }
        let leap = is_leap(year);
        let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        if day > lengths[usize::from(month) - 1] {
            return None;
        }
        let before: u16 = lengths[..usize::from(month) - 1].iter().map(|&days| u16::from(days)).sum();
        let years = year - 1970;
        // Leap days between 1970 and the year before this one.
        let leaps = |y: i32| y / 4 - y / 100 + y / 400;
        let leap_days = leaps(year - 1) - leaps(1969);
        Some(Self(years * 365 + leap_days + i32::from(before) + i32::from(day) - 1))
    }

    /// The date: year, month, day.
    #[must_use]
    pub fn date(self) -> (i32, u8, u8) {
        // A year at a time is slow and plainly right; it runs when somebody reads a list.
        let mut left = self.0.max(0);
        let mut year = 1970;
        while left >= 365 + i32::from(is_leap(year)) {
            left -= 365 + i32::from(is_leap(year));
            year += 1;
        }
        let mut month = 1;
        while let Some(next) = Self::of_date(year, month + 1, 1)
            && self.0 >= next.0
        {
            month += 1;
        }
        let first = Self::of_date(year, month, 1).map_or(0, |day| day.0);
        // Within a month.
        (year, month, (self.0.max(0) - first + 1) as u8)
    }

    /// Parses `2026-12-24`.
    ///
    /// # Errors
    /// [`ScheduleError::Date`].
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let mut parts = text.splitn(3, '-');
        let mut number = |digits: usize| parts.next().and_then(|part| parse_digits(part, digits));
        match (number(4), number(2), number(2)) {
            (Some(year), Some(month), Some(day)) => {
                Self::of_date(i32::from(year), month as u8, day as u8).ok_or(ScheduleError::Date)
            }
            _ => Err(ScheduleError::Date),
        }
    }

    /// Monday is 0. 1970-01-01 was a Thursday.
    const fn weekday(self) -> u8 {
        (self.0 + 3).rem_euclid(7) as u8
    }
}

impl core::fmt::Display for Day {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (year, month, day) = self.date();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl Schedule {
    /// Parses lines such as `mon-fri 08:00-18:00`, `sat,sun 10:00-14:00`, `holiday 10:00-12:00`, `fri 22:00-02:00` (into
    /// Saturday). Outside all lines nobody enters.
    ///
    /// # Errors
    /// [`ScheduleError`], the first that is found.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, ScheduleError> {
        let mut schedule = Self::default();
        for line in lines {
            schedule.hours.push(parse_hours(line)?).map_err(|_| ScheduleError::TooMany)?;
        }
        Ok(schedule)
    }

    /// Whether `at` lies within the hours. A line that runs past midnight belongs to the day on which it began.
    #[must_use]
    pub fn allows(&self, at: LocalTime, holidays: &Holidays) -> bool {
        let yesterday = Day(at.day.0 - 1);
        let (today_kind, yesterday_kind) = (holidays.kind_of(at.day), holidays.kind_of(yesterday));
        self.hours.iter().any(|hours| {
            let today = hours.days & today_kind != 0 && (hours.from..hours.to).contains(&at.minute);
            let over_midnight = hours.days & yesterday_kind != 0 && at.minute + DAY_MIN < hours.to;
            today || over_midnight
        })
    }
}

impl Holidays {
    /// Parses dates such as `2026-05-14`, and `12-25` for every year.
    ///
    /// # Errors
    /// [`ScheduleError::Date`] or [`ScheduleError::TooMany`].
    pub fn parse<'a>(dates: impl IntoIterator<Item = &'a str>) -> Result<Self, ScheduleError> {
        let mut holidays = Self::default();
        for text in dates {
            let holiday = match Day::parse(text) {
                Ok(day) => Holiday::Once(day),
                Err(_) => parse_yearly(text)?,
            };
            holidays.days.push(holiday).map_err(|_| ScheduleError::TooMany)?;
        }
        Ok(holidays)
    }

    /// The bit of [`Hours::days`] that holds on `day`.
    fn kind_of(&self, day: Day) -> u8 {
        let (_, month, of_month) = day.date();
        let is_holiday = self.days.iter().any(|holiday| match *holiday {
            Holiday::Once(once) => once == day,
            Holiday::Yearly(m, d) => (m, d) == (month, of_month),
        });
        if is_holiday { HOLIDAY } else { 1 << day.weekday() }
    }
}

const fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn parse_yearly(text: &str) -> Result<Holiday, ScheduleError> {
    let (month, day) = text.split_once('-').ok_or(ScheduleError::Date)?;
    let (Some(month), Some(day)) = (parse_digits(month, 2), parse_digits(day, 2)) else {
        return Err(ScheduleError::Date);
    };
    // 2028 is a leap year: 02-29 is a date, and holds in leap years.
    Day::of_date(2028, month as u8, day as u8).ok_or(ScheduleError::Date)?;
    Ok(Holiday::Yearly(month as u8, day as u8))
}

fn parse_hours(line: &str) -> Result<Hours, ScheduleError> {
    let (days, span) = line.trim().split_once(' ').ok_or(ScheduleError::Line)?;
    let (from, to) = span.trim().split_once('-').ok_or(ScheduleError::Time)?;
    let (from, mut to) = (parse_minute(from)?, parse_minute(to)?);
    if from == DAY_MIN || from == to {
        return Err(ScheduleError::Time);
    }
    if to < from {
        to += DAY_MIN;
    }
    let mut bits = 0;
    for part in days.split(',') {
        bits |= match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (weekday(first)?, weekday(last)?);
                let count = (last + 7 - first) % 7;
                (0..=count).fold(0, |bits, n| bits | 1 << ((first + n) % 7))
            }
            None if part == "holiday" => HOLIDAY,
            None => 1 << weekday(part)?,
        };
    }
    Ok(Hours { days: bits, from, to })
}

fn weekday(text: &str) -> Result<u8, ScheduleError> {
    let at = WEEKDAYS.iter().position(|name| *name == text).ok_or(ScheduleError::Weekday)?;
    Ok(at as u8)
}

fn parse_minute(text: &str) -> Result<u16, ScheduleError> {
    let (hour, minute) = text.split_once(':').ok_or(ScheduleError::Time)?;
    match (parse_digits(hour, 2), parse_digits(minute, 2)) {
        (Some(24), Some(0)) => Ok(DAY_MIN),
        (Some(hour @ 0..=23), Some(minute @ 0..=59)) => Ok(hour * 60 + minute),
        _ => Err(ScheduleError::Time),
    }
}

/// Exactly `digits` decimal digits.
fn parse_digits(text: &str, digits: usize) -> Option<u16> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const HOLIDAY: u8 = 1 << 7;
const DAY_MIN: u16 = 24 * 60;

/// Why a text is no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// No days and hours.
    #[error("hours are days, a blank and times, such as `mon-fri 08:00-18:00`")]
    Line,
    /// No day of the week.
    #[error("days are mon, tue, wed, thu, fri, sat, sun or holiday, joined by `-` or `,`")]
    Weekday,
    /// No span of time.
    #[error("times are HH:MM-HH:MM from 00:00 to 24:00, and the two differ")]
    Time,
    /// No date.
    #[error("a date is YYYY-MM-DD, or MM-DD for every year, and must exist")]
    Date,
    /// More than fit.
    #[error("at most {MAX_HOURS} lines of hours and {MAX_HOLIDAYS} holidays fit")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(day: Day, hour: u16, minute: u16) -> LocalTime {
        LocalTime { day, minute: hour * 60 + minute }
    }

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (text, number) in [
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("2024-02-29", 19_782),
            ("2026-11-24", 20_781),
            ("2100-03-01", 47_541),
        ] {
            assert_eq!(day(text), Day(number), "{text}");
        }
        assert_eq!(day("2026-11-24").weekday(), 1, "a Tuesday");
        for text in [
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-1-1",
            "26-01-01",
            "2026-01-01x",
            "x",
            "1969-12-31",
        ] {
            assert_eq!(Day::parse(text), Err(ScheduleError::Date), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_day_has_one_date(number in 0..100_000_i32) {
            let (year, month, of_month) = Day(number).date();
            prop_assert_eq!(Day::of_date(year, month, of_month), Some(Day(number)));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,24}") {
            let _ = (Schedule::parse([text.as_str()]), Holidays::parse([text.as_str()]), Day::parse(&text));
        }

        #[test]
        fn hours_hold_in_their_span_and_nowhere_else(from in 0..1440_u16, to in 1..=1440_u16, minute in 0..1440_u16) {
            prop_assume!(from != to);
            let line = std::format!("tue {:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60);
            let schedule = Schedule::parse([line.as_str()]).unwrap();
            let tuesday = day("2026-11-24");
            let open = |offset: i32| schedule.allows(LocalTime { day: Day(tuesday.0 + offset), minute }, &Holidays::default());
            if from < to {
                prop_assert_eq!(open(0), (from..to).contains(&minute));
                prop_assert!(!open(1));
            } else {
                prop_assert_eq!(open(0), minute >= from);
                prop_assert_eq!(open(1), minute < to);
            }
            prop_assert!(!open(-1) && !open(2));
        }
    }

    #[test]
    fn working_hours_with_holidays() {
        let schedule = Schedule::parse([
            "mon-fri 08:00-18:00",
            "sat,sun 10:00-14:00",
            "holiday 11:00-12:00",
            "fri 22:00-02:00",
        ])
        .unwrap();
        let holidays = Holidays::parse(["12-25", "2026-11-25"]).unwrap();
        let open = |text: &str, hour, minute| schedule.allows(at(day(text), hour, minute), &holidays);
        assert!(open("2026-11-24", 8, 0) && open("2026-11-24", 17, 59));
        assert!(!open("2026-11-24", 7, 59) && !open("2026-11-24", 18, 0));
        assert!(!open("2026-11-25", 9, 0) && open("2026-11-25", 11, 30), "a holiday");
        assert!(open("2026-11-29", 10, 0) && !open("2026-11-29", 9, 0), "a Sunday");
        assert!(open("2026-11-27", 23, 0) && open("2026-11-28", 1, 59) && !open("2026-11-28", 2, 0));
        assert!(!open("2026-12-25", 23, 0), "the Friday of every year's holiday has no night");
        assert!(!Schedule::default().allows(at(day("2026-11-24"), 12, 0), &holidays), "no hours, no entry");
    }

    #[test]
    fn a_week_may_wrap() {
        let schedule = Schedule::parse(["sat-mon 00:00-24:00"]).unwrap();
        let open = |text: &str| schedule.allows(at(day(text), 12, 0), &Holidays::default());
        assert!(open("2026-11-28") && open("2026-11-29") && open("2026-11-30"));
        assert!(!open("2026-11-27") && !open("2026-12-01"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, error) in [
            ("mon", ScheduleError::Line),
            ("mo 08:00-09:00", ScheduleError::Weekday),
            ("mon-holiday 08:00-09:00", ScheduleError::Weekday),
            ("mon 8:00-9:00", ScheduleError::Time),
            ("mon 08:00-08:00", ScheduleError::Time),
            ("mon 24:00-08:00", ScheduleError::Time),
            ("mon 08:60-09:00", ScheduleError::Time),
            ("mon 08:00", ScheduleError::Time),
        ] {
            assert_eq!(Schedule::parse([line]), Err(error), "{line}");
        }
        assert_eq!(Schedule::parse(["mon 01:00-02:00"; 17]), Err(ScheduleError::TooMany));
        assert_eq!(Holidays::parse(["02-30"]), Err(ScheduleError::Date));
        assert!(Holidays::parse(["02-29"]).is_ok());
    }
}
