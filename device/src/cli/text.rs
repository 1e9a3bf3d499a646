//! Tables and times as text.

use std::fmt::Write as _;

use facelatch_shared::time::UnixMs;

/// Lays `rows` out under `head`, columns two blanks apart, without blanks at line ends.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(width);
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let mut out = String::new();
    let mut line = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, widest) in cells.iter().zip(widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', widest - width(cell) + 2));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(head);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
    out
}

/// RFC 3339 in UTC to the second: `2026-02-28T09:30:00Z`.
pub(super) fn seconds(at: UnixMs) -> String {
    civil(at).map_or_else(|| format!("{} ms", at.0), |(text, _)| text + "Z")
}

/// RFC 3339 in UTC to the millisecond: `2026-02-28T09:30:00.125Z`.
pub(super) fn millis(at: UnixMs) -> String {
    civil(at).map_or_else(|| format!("{} ms", at.0), |(text, ms)| format!("{text}.{ms:03}Z"))
}

/// `3 d 4 h`, `4 h 5 min`, `5 min 6 s`, `6 s`.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// `1 person`, `2 people`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Cells on a terminal: one a character, two for those of East Asian scripts and for pictures.
fn width(text: &str) -> usize {
    text.chars().map(|c| if WIDE.iter().any(|range| range.contains(&u32::from(c))) { 2 } else { 1 }).sum()
}

const WIDE: [std::ops::RangeInclusive<u32>; 6] =
    [0x1100..=0x115F, 0x2E80..=0xA4CF, 0xAC00..=0xD7A3, 0xF900..=0xFAFF, 0xFF00..=0xFF60, 0x1F300..=0x3FFFD];

/// The date and time without its zone, and the milliseconds; `None` outside the years 0 to 9999, which RFC 3339 cannot write.
///
/// Days to dates after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(at: UnixMs) -> Option<(String, i64)> {
    let (days, ms_of_day) = (at.0.div_euclid(86_400_000), at.0.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March, so that the leap day is the year's last.
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let mut text = String::with_capacity(19);
    let (hour, minute, second) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60, ms_of_day / 1_000 % 60);
    // Writing to a string cannot fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    Some((text, ms_of_day % 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (253_402_300_800_000, "253402300800000 ms"),
        ] {
            assert_eq!(millis(UnixMs(ms)), text);
        }
        assert_eq!(seconds(UnixMs(1_709_210_096_789)), "2024-02-29T12:34:56Z");
    }

    proptest! {
        #[test]
        fn any_time_has_a_text_and_later_is_larger(ms in any::<i64>(), step in 1..40_000_000_000_i64) {
            let _ = (millis(UnixMs(ms)), seconds(UnixMs(ms)));
            let within = ms.rem_euclid(253_000_000_000_000);
            prop_assert!(millis(UnixMs(within)) < millis(UnixMs(within + step)));
        }
    }

    #[test]
    fn columns_are_aligned_for_wide_names_too() {
        let rows = [["#1".into(), "Ada".into(), "x".into()], ["#10".into(), "李小龙".into(), String::new()]];
        assert_eq!(
            table(["ID", "NAME", "STATE"], &rows),
            "ID   NAME    STATE\n#1   Ada     x\n#10  李小龙\n"
        );
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!(
            [5, 65, 3_725, 266_645].map(span),
            ["5 s", "1 min 5 s", "1 h 2 min", "3 d 2 h"].map(String::from)
        );
    }
}
