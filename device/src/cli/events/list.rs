//! `facelatchd events list`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::daemon::stop_on_signal;
use super::super::door::Door;
use super::super::output::{print, print_json, print_or_ended};
use super::super::text::table;
use super::Failure;
use super::row::Row;
use crate::config::Config;

/// What happened, oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// All entries from this number on
    #[arg(long, value_name = "N", conflicts_with = "last")]
    from: Option<u64>,
    /// Only the last N entries
    #[arg(long, value_name = "N", default_value_t = 50)]
    last: u64,
    /// Go on with what happens, until Ctrl-C; with --json one object a line
    #[arg(long)]
    follow: bool,
}

pub(super) fn run(args: &Args, config: &Config, json: bool) -> Result<(), Failure> {
    // A stopped door has no more to tell, and holding its files open would keep it from starting.
    let mut door = if args.follow { Door::running(config)? } else { Door::open(config)? };
    let rows: Vec<Row> = match args.from {
        Some(from) => all(&mut door, from)?,
        None => newest(&mut door, args.last)?,
    };
    if args.follow {
        return follow(&mut door, &rows, args.from.unwrap_or(1), json);
    }
    if json {
        return print_json(&rows);
    }
    if rows.is_empty() {
        return print("Nothing is logged here.\n");
    }
    print(&shown(&rows))
}

/// Prints `rows` and then every event that comes.
fn follow(door: &mut Door, rows: &[Row], from: u64, json: bool) -> Result<(), Failure> {
    let stop = stop_on_signal()?;
    let mut next = rows.last().map_or(from, |row| row.seq + 1);
    let mut fresh = rows.to_vec();
    while !stop.load(Ordering::SeqCst) {
        if !fresh.is_empty() {
            let text = if json { json_lines(&fresh)? } else { shown_below(&fresh) };
            // A reader that has seen enough ends it.
            if !print_or_ended(&text)? {
                break;
            }
        }
        std::thread::sleep(EVERY);
        fresh = all(door, next)?;
        next = fresh.last().map_or(next, |row| row.seq + 1);
    }
    Ok(())
}

fn json_lines(rows: &[Row]) -> Result<String, Failure> {
    rows.iter().map(|row| Ok(serde_json::to_string(row).map_err(Failure::failed)? + "\n")).collect()
}

/// Lines that come one by one cannot be aligned with each other: a blank table of fixed widths.
fn shown_below(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let mut line = format!("{:>6}  {}  {}", row.seq, row.at, row.event.replace('_', " "));
        if let Some(subject) = row.subject {
            line.push_str(&format!("  #{subject}"));
        }
        if let Some(reason) = row.reason {
            line.push_str(&format!("  {}", reason.replace('_', " ")));
        }
        if let (Some(similarity), Some(threshold)) = (row.similarity, row.threshold) {
            line.push_str(&format!("  {similarity:.3} of {threshold:.3}"));
        }
        let detail = row.detail();
        if detail.is_empty() { line + "\n" } else { format!("{line}  {detail}\n") }
    };
    rows.iter().map(line).collect()
}

fn all(door: &mut Door, from: u64) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    door.events(from, |page| {
        rows.extend(page.iter().map(Row::from));
        Ok(true)
    })?;
    Ok(rows)
}

fn newest(door: &mut Door, count: u64) -> Result<Vec<Row>, Failure> {
    let page = door.last_events(u16::try_from(count).unwrap_or(u16::MAX))?;
    // Numbers run on without gaps, so that the page's last one says where a longer list begins.
    match page.last() {
        Some(last) if count > page.len() as u64 && page.first().is_some_and(|first| first.seq > 1) => {
            all(door, last.seq.saturating_sub(count - 1))
        }
        _ => Ok(page.iter().map(Row::from).collect()),
    }
}

fn shown(rows: &[Row]) -> String {
    let or_blank = |value: Option<String>| value.unwrap_or_default();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let similarity = row.similarity.map(|s| format!("{s:.3}"));
            let threshold = row.threshold.map(|t| format!("{t:.3}"));
            let mut detail = vec![or_blank(row.reason.map(|reason| reason.replace('_', " "))), row.detail()];
            detail.retain(|text| !text.is_empty());
            [
                row.seq.to_string(),
                row.at.clone(),
                row.event.replace('_', " "),
                or_blank(row.subject.map(|subject| format!("#{subject}"))),
                or_blank(similarity),
                or_blank(threshold),
                detail.join(" "),
            ]
        })
        .collect();
    table(["NO", "TIME (UTC)", "EVENT", "WHO", "SIMILARITY", "THRESHOLD", "DETAIL"], &rows)
}

const EVERY: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  facelatchd events list --follow
  facelatchd events list --last 200
  facelatchd events list --from 1 --json";

#[cfg(test)]
mod tests {
    use super::super::row::tests::some_events;
    use super::*;

    #[test]
    fn lines_that_follow() {
        let rows: Vec<Row> = some_events().iter().skip(1).take(3).map(Row::from).collect();
        assert_eq!(
            shown_below(&rows),
            "     2  2024-02-29T12:34:56.002Z  granted  #3  0.612 of 0.363
     3  2024-02-29T12:34:56.003Z  refused  not recognised
     4  2024-02-29T12:34:56.004Z  locked out  seconds=5
"
        );
        let lines = json_lines(&rows).unwrap();
        assert_eq!(lines.lines().count(), 3);
        assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn the_table() {
        let rows: Vec<Row> = some_events().iter().skip(1).map(Row::from).collect();
        assert_eq!(
            shown(&rows),
            "\
NO  TIME (UTC)                EVENT         WHO  SIMILARITY  THRESHOLD  DETAIL
2   2024-02-29T12:34:56.002Z  granted       #3   0.612       0.363
3   2024-02-29T12:34:56.003Z  refused                        0.363      not recognised
4   2024-02-29T12:34:56.004Z  locked out                                seconds=5
5   2024-02-29T12:34:56.005Z  enrol failed  #3                          already enrolled
6   2024-02-29T12:34:56.006Z  door forced
"
        );
    }
}
